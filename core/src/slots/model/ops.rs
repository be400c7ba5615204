//! The steps of a node's life, and which of them are tried.

use super::super::Slot;
use proptest::prelude::*;

/// One step. `torn` is the set of the record's sectors that reached the disk before the power
/// failed; `None`: it did not fail.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// Power on (or reboot). `unreadable`: targets that fail to load this time (bits a, b, rescue).
    Boot {
        torn: Option<u8>,
        unreadable: u8,
    },
    Quiet {
        torn: Option<u8>,
    },
    Stopped {
        torn: Option<u8>,
    },
    Settled {
        torn: Option<u8>,
    },
    Reached {
        stage: u8,
        torn: Option<u8>,
    },
    GiveUp {
        torn: Option<u8>,
    },
    Commit {
        torn: Option<u8>,
    },
    FailTrial {
        torn: Option<u8>,
    },
    /// An update of a slot that stops after `steps` of its steps.
    Update {
        slot: Slot,
        tries: u8,
        steps: u8,
        torn: Option<u8>,
    },
    TrySlot {
        slot: Slot,
        tries: u8,
        torn: Option<u8>,
    },
    Rollback {
        torn: Option<u8>,
    },
    MarkBad {
        slot: Slot,
        torn: Option<u8>,
    },
    RequestRescue,
    LeaveRescue {
        torn: Option<u8>,
    },
    PowerCut,
    /// One block of the record rots.
    Rot {
        copy: usize,
        sector: usize,
    },
    /// Both blocks rot.
    RotBoth,
}

fn torn() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![3 => Just(None), 1 => any::<u8>().prop_map(Some)]
}

fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(Slot::A), Just(Slot::B)]
}

pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (torn(), prop_oneof![3 => Just(0u8), 1 => 0u8..8])
            .prop_map(|(torn, unreadable)| Op::Boot { torn, unreadable }),
        2 => torn().prop_map(|torn| Op::Quiet { torn }),
        1 => torn().prop_map(|torn| Op::Stopped { torn }),
        1 => torn().prop_map(|torn| Op::Settled { torn }),
        1 => (1u8..9, torn()).prop_map(|(stage, torn)| Op::Reached { stage, torn }),
        1 => torn().prop_map(|torn| Op::GiveUp { torn }),
        3 => torn().prop_map(|torn| Op::Commit { torn }),
        1 => torn().prop_map(|torn| Op::FailTrial { torn }),
        4 => (slot(), 1u8..4, 0u8..5, torn())
            .prop_map(|(slot, tries, steps, torn)| Op::Update { slot, tries, steps, torn }),
        1 => (slot(), 1u8..4, torn()).prop_map(|(slot, tries, torn)| Op::TrySlot { slot, tries, torn }),
        1 => torn().prop_map(|torn| Op::Rollback { torn }),
        1 => (slot(), torn()).prop_map(|(slot, torn)| Op::MarkBad { slot, torn }),
        1 => Just(Op::RequestRescue),
        1 => torn().prop_map(|torn| Op::LeaveRescue { torn }),
        1 => Just(Op::PowerCut),
        1 => (0usize..2, 0usize..8).prop_map(|(copy, sector)| Op::Rot { copy, sector }),
        1 => Just(Op::RotBoth),
    ]
}

/// The steps that matter, few enough to try all sequences of them.
pub fn alphabet() -> Vec<Op> {
    let cut = Some(0x0f);
    let none = None;
    let update = |slot, steps, torn| Op::Update {
        slot,
        tries: 2,
        steps,
        torn,
    };
    vec![
        Op::Boot {
            torn: none,
            unreadable: 0,
        },
        Op::Boot {
            torn: none,
            unreadable: 3,
        },
        Op::Boot {
            torn: cut,
            unreadable: 0,
        },
        Op::Quiet { torn: none },
        Op::Settled { torn: none },
        Op::GiveUp { torn: none },
        Op::Commit { torn: none },
        Op::Commit { torn: cut },
        Op::FailTrial { torn: none },
        update(Slot::A, 4, none),
        update(Slot::B, 4, none),
        update(Slot::B, 0, cut),
        update(Slot::A, 2, none),
        update(Slot::B, 2, none),
        Op::Rollback { torn: none },
        Op::MarkBad {
            slot: Slot::A,
            torn: none,
        },
        Op::LeaveRescue { torn: none },
        Op::Rot { copy: 0, sector: 0 },
        Op::Rot { copy: 1, sector: 1 },
    ]
}
