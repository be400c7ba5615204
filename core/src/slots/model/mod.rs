//! A disk that loses power, a loader and a system on it, and what must hold after every step:
//! all sequences of a few steps, and random ones of many.

mod ops;
mod world;

use super::Slot;
use ops::{Op, alphabet, op};
use proptest::prelude::*;
use world::World;

fn all_sequences(world: &World, ops: &[Op], depth: usize) {
    for op in ops {
        let mut next = world.clone();
        next.step(*op);
        next.check();
        if depth > 1 {
            all_sequences(&next, ops, depth - 1);
        }
    }
}

/// Slot A runs and is good, slot B was just written: the place from which most can go wrong.
fn updated() -> World {
    let mut world = World::new();
    world.step(Op::Boot {
        torn: None,
        unreadable: 0,
    });
    world.step(Op::Update {
        slot: Slot::B,
        tries: 2,
        steps: 4,
        torn: None,
    });
    world
}

#[test]
fn every_sequence_of_four_steps_keeps_the_rules() {
    let ops = alphabet();
    all_sequences(&World::new(), &ops, 4);
    all_sequences(&updated(), &ops, 4);
}

#[test]
fn a_write_torn_at_any_sectors_leaves_the_old_or_the_new() {
    for mask in 0..=255u8 {
        let mut world = updated();
        let before = world.record();
        world.step(Op::Boot {
            torn: Some(mask),
            unreadable: 0,
        });
        let after = world.record();
        assert!(
            after == before || after.seq() == before.seq() + 1,
            "{mask:08b}"
        );
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn long_random_lives_keep_the_rules(ops in proptest::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
            world.check();
        }
        world.check_liveness();
    }
}
