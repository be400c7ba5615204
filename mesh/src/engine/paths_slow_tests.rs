//! Slow and lossy ways, and dead ones.

use super::*;

/// What 1 and 2 see of the way to each other: which, and whether it was confirmed.
fn ways(net: &Net) -> [(Option<Way>, bool); 2] {
    [(1, 2), (2, 1)].map(|(from, to)| {
        let peer = net.hosts[from].engine.peer(net.hosts[to].engine.key());
        let peer = peer.unwrap();
        let state = peer.lock();
        (state.paths.current(), state.paths.confirmed())
    })
}

/// Members who are known to the lighthouse, so far away; from now on 5 % get lost.
fn far_and_lossy(nats: &[Nat], one_way: u64) -> Net {
    let mut net = Net::far(nats, Duration::from_millis(one_way));
    net.go(10_000);
    net.lossy = Some(hostile::Random(88_172_645_463_325_252));
    net
}

/// Two minutes of traffic in both directions: no way changes or is in question; how much of a hundred
/// packets arrives.
fn holds(net: &mut Net) -> usize {
    let begun = ways(net);
    assert!(begun.iter().all(|(_, confirmed)| *confirmed), "{begun:?}");
    for n in 1..=2 {
        net.hosts[n].got.0.clear();
    }
    let mut sent = 0;
    for step in 0..600 {
        net.post(1, 2);
        net.post(2, 1);
        sent += 2;
        net.go(200);
        assert_eq!(ways(net), begun, "after {step} steps");
    }
    net.lossy = None;
    net.go(5000);
    (net.hosts[1].got.0.len() + net.hosts[2].got.0.len()) * 100 / sent
}

#[test]
fn a_slow_and_lossy_direct_path_is_found_and_kept() {
    for one_way in [600, 1000] {
        let mut net = far_and_lossy(&[Nat::Cone, Nat::Cone], one_way);
        let begun = net.now;
        while !(net.direct(1, 2) && net.direct(2, 1)) {
            net.post(1, 2);
            net.post(2, 1);
            net.go(500);
            let took = net.now.saturating_duration_since(begun);
            assert!(took < Duration::from_secs(30), "{:?}", ways(&net));
        }
        // The session may be younger than the path.
        while !net.write(1, 2, 3000) || !net.write(2, 1, 3000) {
            let took = net.now.saturating_duration_since(begun);
            assert!(took < Duration::from_secs(60), "no session");
        }
        let arrived = holds(&mut net);
        assert!(arrived >= 90, "{arrived} % at {one_way} ms");
    }
}

#[test]
fn a_slow_and_lossy_relayed_way_is_kept() {
    // Each way has two legs: 1.2 and 2 s there and back.
    for one_way in [300, 500] {
        let mut net = far_and_lossy(&[Nat::Symmetric, Nat::Symmetric], one_way);
        let begun = net.now;
        while !net.write(1, 2, 3000) || !net.write(2, 1, 3000) {
            let took = net.now.saturating_duration_since(begun);
            assert!(took < Duration::from_secs(60), "no session");
        }
        let arrived = holds(&mut net);
        assert!(!net.direct(1, 2));
        assert!(arrived >= 80, "{arrived} % at {one_way} ms");
    }
}

#[test]
fn a_dead_direct_path_is_left_within_three_seconds_and_taken_again() {
    let mut net = Net::new(&[Nat::Cone, Nat::Cone]);
    assert!(net.write(1, 2, 200));
    net.go(1000);
    assert!(net.direct(1, 2));
    net.cut.insert((2, 3));
    let begun = net.now;
    while !net.write(1, 2, 100) {
        let lost = net.now.saturating_duration_since(begun);
        assert!(lost < Duration::from_secs(3), "{:?}", net.way(1, 2));
    }
    net.cut.clear();
    for _ in 0..300 {
        assert!(net.write(1, 2, 100));
        net.go(100);
    }
    assert!(net.direct(1, 2));
}

/// How long the first packet from 1 to 2 takes, in ways between a member and the lighthouse.
fn first_packet(net: &mut Net) -> f64 {
    let begun = net.now;
    let packet = net.post(1, 2);
    while !net.hosts[2].got.0.contains(&packet) {
        net.go(5);
        assert!(net.now.saturating_duration_since(begun) < Duration::from_secs(10));
    }
    net.now.saturating_duration_since(begun).as_secs_f64() / net.one_way.as_secs_f64()
}

#[test]
fn the_first_packet_arrives_after_two_relayed_round_trips() {
    // From member to member it is two ways through the lighthouse, there and back four. Two to ask for
    // a channel, four to shake hands, two for the packet.
    for one_way in [50, 200, 600].map(Duration::from_millis) {
        let far = || {
            let mut net = Net::far(&[Nat::Symmetric, Nat::Symmetric], one_way);
            net.go(5000);
            net
        };
        let ways = first_packet(&mut far());
        assert!(ways < 8.5, "{ways} at {one_way:?}");
        // A place where the peer once was costs no time.
        let mut net = far();
        let peer = net.hosts[1].engine.peer(net.hosts[2].engine.key()).unwrap();
        peer.lock().paths.suggest(place(99), net.now);
        let ways = first_packet(&mut net);
        assert!(ways < 8.5, "{ways} at {one_way:?}, with a guess");
        // Nor does a channel that is there.
        let mut net = far();
        let two = net.hosts[2].engine.key();
        net.open_channel(1, two);
        let ways = first_packet(&mut net);
        assert!(ways < 6.5, "{ways} at {one_way:?}, with a channel");
    }
}
