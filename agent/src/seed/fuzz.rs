//! What the random tests of seed sources share.

use holdfast_core::seed::Seed;
use proptest::test_runner::Config;

/// `HOLDFAST_FUZZ_CASES` cases a test, else 256.
pub fn cases() -> Config {
    let cases = std::env::var("HOLDFAST_FUZZ_CASES").ok();
    Config::with_cases(cases.and_then(|n| n.parse().ok()).unwrap_or(256))
}

/// A good seed.
pub fn seed() -> Seed {
    Seed::parse(include_str!("../../../core/src/seed/example.toml")).unwrap()
}
