//! All fuzz targets in one program, which is linked once: `HOLDFAST_FUZZ` names the one that runs.
#![no_main]

use holdfast_core::cluster::{AddressPlan, ClusterId, MeshIndex};
use holdfast_core::documents::{DocumentSet, Operators, Policy};
use holdfast_core::grant::{Member, verify};
use holdfast_core::seed::{Seed, compact};
use holdfast_mesh::fuzz;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::sync::LazyLock;

// By themselves: all of the agent would be compiled with the instruments otherwise.
#[path = "../../agent/src/names/answer.rs"]
mod answer;
mod table;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 7] = [
    ("receive", receive),
    ("merge", fuzz::merge),
    ("split", fuzz::split),
    ("filter", fuzz::filter),
    ("names", resolver),
    ("documents", documents),
    ("seed", seed),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("HOLDFAST_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    found
        .unwrap_or_else(|| panic!("HOLDFAST_FUZZ={wanted:?}: one of {names:?}"))
        .1
});

fuzz_target!(|data: &[u8]| TARGET(data));

fn receive(data: &[u8]) {
    thread_local!(static MEMBER: RefCell<fuzz::Member> = RefCell::default());
    MEMBER.with_borrow_mut(|member| member.receive(data));
}

/// Queries as any pod or member may send them to the resolver.
fn resolver(data: &[u8]) {
    static TABLE: LazyLock<table::Table> = LazyLock::new(|| {
        let plan = AddressPlan::new(ClusterId([9; 16]), true);
        let at = |index| table::Addresses {
            v4: plan.address4(index),
            v6: plan.address6(index),
        };
        table::Table {
            zone: "demo.internal".into(),
            names: [
                ("n1".into(), at(MeshIndex::FIRST_NODE)),
                ("lighthouse".into(), at(MeshIndex::LIGHTHOUSE)),
            ]
            .into(),
        }
    });
    if let Some(reply) = answer::answer(data, &TABLE) {
        assert!(reply.len() <= answer::MAX_ANSWER);
        // An answer is no question: two resolvers do not feed each other.
        assert!(reply[2] & 0x80 != 0);
        assert!(answer::answer(&reply, &TABLE).is_none());
        assert_eq!(reply[..2], data[..2]);
    }
}

/// Records, grants and documents as a hostile lighthouse may send them. None can be signed here.
fn documents(data: &[u8]) {
    let cluster = ClusterId([9; 16]);
    if let Ok(member) = serde_json::from_slice::<Member>(data) {
        let operators = Operators {
            cluster,
            generation: 1,
            operators: vec![],
            former: vec![],
        };
        let policy = Policy {
            cluster,
            generation: 1,
            rules: vec![],
            evicted: vec![],
            revoked: vec![],
        };
        assert!(verify(&member, cluster, &operators, &policy).is_err());
    }
    if let Ok(set) = serde_json::from_slice::<DocumentSet>(data) {
        assert!(set.policy.open(|_| false).is_err());
        let _ = set.operators.open_self();
        let _ = set.lighthouses.open_self();
    }
}

/// A seed is what anybody writes onto a card.
fn seed(data: &[u8]) {
    if let Ok(seed) = Seed::from_bytes(data) {
        let text = seed.to_toml().expect("what was read can be written");
        Seed::from_bytes(text.as_bytes()).expect("and read again");
    }
    if let Ok(line) = std::str::from_utf8(data) {
        let _ = compact::unpack(line);
    }
}
