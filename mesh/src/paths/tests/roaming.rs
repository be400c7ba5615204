//! After the member's own address or link changed.

use super::*;

/// A peer that is reached directly, and by a relay; this member's link changes.
fn roamed(open: &[(Way, u64)]) -> World {
    let mut world = World::new(Some(place(9)), &[(direct(1), 40), (relay(), 80)]);
    world.relay = Some(relay());
    let (mut asks, now) = (vec![], world.now);
    world.paths.heard(direct(1), now, &mut asks);
    world.take(asks, &mut vec![]);
    world.go(1000);
    assert_eq!(world.current(), Some(direct(1)));
    world.open = open.to_vec();
    let (mut asks, now) = (vec![], world.now);
    world.paths.roamed(now, &mut asks);
    world.take(asks, &mut vec![]);
    world
}

#[test]
fn a_change_of_link_that_changes_nothing_moves_nothing() {
    for open in [&[(direct(1), 40), (relay(), 80)][..], &[(direct(1), 40)]] {
        let mut world = roamed(open);
        for _ in 0..400 {
            assert_eq!(world.current(), Some(direct(1)));
            world.go(5);
        }
        assert!(world.paths.confirmed() && world.paths.rtt().is_some());
    }
    // Nor while the answer takes a while.
    let mut world = roamed(&[(direct(1), 900)]);
    for _ in 0..400 {
        assert_eq!(world.current(), Some(direct(1)));
        world.go(5);
    }
}

#[test]
fn a_round_trip_of_before_decides_nothing_after_a_change_of_link() {
    let mut world = roamed(&[(direct(1), 2000)]);
    let mut answered = false;
    for _ in 0..2000 {
        world.go(5);
        let path = world.paths.path(direct(1)).unwrap();
        assert!(!path.dead(world.now));
        if !answered && !path.shaken {
            answered = true;
            assert_eq!(path.usual(), Some(Duration::from_millis(2000)));
        }
    }
    assert!(answered && world.paths.confirmed());
}

#[test]
fn after_a_change_of_link_the_relay_is_used_as_soon_as_it_is_the_first_to_answer() {
    let mut world = roamed(&[(relay(), 80)]);
    assert_eq!(world.current(), Some(direct(1)));
    world.go(100);
    assert_eq!(world.current(), Some(relay()));
    // And the direct path again, once that answers.
    world.open.push((direct(1), 40));
    world.go(1000);
    assert_eq!(world.current(), Some(direct(1)));
    // Where nothing answers there is no worse guess than before.
    let mut world = roamed(&[]);
    world.go(1000);
    assert_eq!(world.current(), Some(direct(1)));
}
