//! What the random tests of seed sources share.

use holdfast_core::keys::PrivateKey;
use holdfast_core::seed::{Seed, SeedLighthouse};
use proptest::test_runner::Config;

/// `HOLDFAST_FUZZ_CASES` cases a test, else 256.
pub fn cases() -> Config {
    let cases = std::env::var("HOLDFAST_FUZZ_CASES").ok();
    Config::with_cases(cases.and_then(|n| n.parse().ok()).unwrap_or(256))
}

/// A good seed.
pub fn seed() -> Seed {
    let key = PrivateKey::from_bytes([1; 32]);
    Seed {
        version: 1,
        cluster: "demo".parse().unwrap(),
        cluster_id: holdfast_core::cluster::ClusterId([1; 16]),
        dual_stack: false,
        name: None,
        role: holdfast_core::names::Role::Bare,
        issued: 1,
        grant: "g2".parse().unwrap(),
        token: key.clone(),
        roots: vec![key.public()],
        lighthouses: vec![SeedLighthouse {
            https: vec!["l:1".into()],
            key: key.public(),
        }],
        network: Default::default(),
        k3s: Default::default(),
        rejoin: false,
        board: None,
        wifi: None,
        install: None,
    }
}
