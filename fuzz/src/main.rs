//! All fuzz targets in one program, which is linked once: `HOLDFAST_FUZZ` names the one that runs.
#![no_main]

use holdfast_core::cluster::{AddressPlan, ClusterId, MeshIndex};
use holdfast_core::control::{Reply, Request};
use holdfast_core::documents::{DocumentSet, Operators, Policy};
use holdfast_core::grant::{Member, verify};
use holdfast_core::ipc::{InitReply, InitRequest};
use holdfast_core::seed::{Seed, compact};
use holdfast_core::state::StateDoc;
use holdfast_core::{manifest, state};
use holdfast_mesh::fuzz;
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use std::cell::RefCell;
use std::sync::LazyLock;

// By themselves: all of the agent would be compiled with the instruments otherwise.
#[path = "../../agent/src/names/answer.rs"]
mod answer;
mod disk;
#[path = "../../init/src/log/journal.rs"]
mod journal;
mod table;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 15] = [
    ("receive", receive),
    ("merge", fuzz::merge),
    ("split", fuzz::split),
    ("filter", fuzz::filter),
    ("names", resolver),
    ("documents", documents),
    ("seed", seed),
    ("probe", fuzz::probe),
    ("frames", fuzz::frames),
    ("control", control),
    ("state", node_state),
    ("bundle", bundle),
    ("record", disk::record),
    ("table", disk::table),
    ("journal", log_lines),
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

/// Written again, what was read says the same.
fn settles<T: Serialize + DeserializeOwned>(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let once = serde_json::to_vec(&value).expect("what was read can be written");
        let read: T = serde_json::from_slice(&once).expect("and read again");
        let twice = serde_json::to_vec(&read).expect("and written");
        assert_eq!(once, twice);
    }
}

/// What operators and members send to a node, a node's answers, and what passes between agent and init.
fn control(data: &[u8]) {
    settles::<Request>(data);
    settles::<Reply>(data);
    settles::<InitRequest>(data);
    settles::<InitReply>(data);
}

/// A node's state behind a checksum that holds: an older or later version wrote it.
fn node_state(data: &[u8]) {
    let _ = state::peek(data);
    let _ = state::decode(data);
    let Ok(doc) = serde_json::from_slice::<StateDoc>(data) else {
        return;
    };
    let copy = state::encode(&doc, 7).expect("what was read can be written");
    let (_, seq) = state::decode(&copy).expect("and read again");
    assert_eq!(seq, 7);
}

/// The front of a bundle, which anybody may serve.
fn bundle(data: &[u8]) {
    if let Ok((signed, start)) = manifest::read(data) {
        assert!(start % 4096 == 0 && signed.open(|_| false).is_err());
        let _ = signed.open_self();
    }
}

/// What any program on a node, or in a container with the socket, sends to the log.
fn log_lines(data: &[u8]) {
    for entry in [
        journal::native(data),
        journal::kernel(data).map(|(_, entry)| entry),
    ]
    .into_iter()
    .flatten()
    {
        // One character may become three, and what an event's fields say is joined to it.
        assert!(entry.message.len() <= 4 * journal::MESSAGE_MAX && entry.priority < 8);
        assert!(!entry.message.contains('\u{1b}') && !entry.unit.contains('\n'));
    }
}
