//! A relay that drops, repeats, delays and alters; an address that changes.

use super::*;

/// xorshift64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// What becomes of a relayed datagram, and how much later.
    pub(super) fn meddle(&mut self, flight: Flight) -> Vec<(Flight, Duration)> {
        let late = Duration::from_millis(20 + self.below(600));
        let mut altered = flight.clone();
        let at = self.below(altered.bytes.len() as u64) as usize;
        altered.bytes[at] ^= 1 << self.below(8);
        match self.below(5) {
            0 => vec![],
            1 => vec![(flight.clone(), Duration::ZERO), (flight, late)],
            2 => vec![(flight, late)],
            3 => vec![(altered, Duration::ZERO), (flight, Duration::ZERO)],
            _ => vec![(altered, Duration::ZERO)],
        }
    }
}

/// Each packet in `got` was written, and came once.
fn sound(net: &Net, n: usize) {
    let mut seen = BTreeSet::new();
    for packet in &net.hosts[n].got.0 {
        assert!(packet.len() == 100 && packet[0] == 0x45, "{packet:?}");
        let zeros = packet[1..3]
            .iter()
            .chain(&packet[4..12])
            .chain(&packet[28..]);
        assert!(zeros.copied().all(|b| b == 0), "{packet:?}");
        assert!(seen.insert(packet.clone()), "twice: {packet:?}");
    }
}

#[test]
fn a_hostile_relay_delays_and_loses_but_neither_forges_nor_repeats() {
    let mut net = Net::new(&[Nat::Symmetric, Nat::Symmetric]);
    net.hostile = Some(Random(88_172_645_463_325_252));
    let mut arrived = 0;
    for _ in 0..300 {
        arrived += usize::from(net.write(1, 2, 100));
        arrived += usize::from(net.write(2, 1, 100));
        net.go(20);
    }
    net.go(1000);
    sound(&net, 1);
    sound(&net, 2);
    // Two in five come in time, once there is a session.
    assert!(arrived > 150, "{arrived}");
    // What it did moved nobody to a place of its choice.
    for (from, to) in [(1, 2), (2, 1)] {
        assert!(!net.direct(from, to), "{:?}", net.way(from, to));
        let hop = net.way(from, to).map(Way::next_hop);
        assert_eq!(hop, Some(place(1)));
    }
}

#[test]
fn a_hostile_relay_does_not_keep_two_cones_apart() {
    let mut sessions = 0;
    for seed in 1..=8 {
        let mut net = Net::new(&[Nat::Cone, Nat::Cone]);
        net.hostile = Some(Random(seed * 2_463_534_242));
        let begun = net.now;
        while !(net.direct(1, 2) && net.direct(2, 1)) {
            net.write(1, 2, 100);
            net.write(2, 1, 100);
            let took = net.now.saturating_duration_since(begun);
            assert!(took < Duration::from_secs(5), "{:?}", net.way(1, 2));
        }
        // A handshake that the relay took is repeated by boringtun's clock, which stands still here.
        if net.write(1, 2, 60) && net.write(2, 1, 60) {
            sessions += 1;
            for _ in 0..20 {
                assert!(net.write(1, 2, 60) && net.write(2, 1, 60));
            }
        }
        sound(&net, 1);
        sound(&net, 2);
    }
    assert!(sessions > 4, "{sessions}");
}

#[test]
fn a_member_that_moves_is_direct_again_within_seconds() {
    let mut net = Net::new(&[Nat::Cone, Nat::Cone]);
    assert!(net.write(1, 2, 200));
    net.go(1000);
    assert!(net.direct(1, 2) && net.direct(2, 1));
    net.hosts[1].moved = 100;
    net.hosts[1].wrote_to.clear();
    let mut out = Outbox::default();
    net.hosts[1].engine.knock(&mut out, net.now);
    net.send(1, &out);
    let begun = net.now;
    let took = |net: &Net| net.now.saturating_duration_since(begun);
    while !net.write(2, 1, 100) {
        assert!(took(&net) < Duration::from_secs(5), "{:?}", net.way(2, 1));
    }
    let here = net.hosts[1].outer(place(3));
    while net.way(2, 1).and_then(Way::direct) != Some(here) || !net.direct(1, 2) {
        net.write(1, 2, 100);
        assert!(took(&net) < Duration::from_secs(10), "{:?}", net.way(2, 1));
    }
    assert!(net.write(1, 2, 60) && net.write(2, 1, 60));
}

#[test]
fn a_link_that_comes_up_anew_in_the_same_place_costs_no_packet() {
    let mut net = Net::new(&[Nat::Cone, Nat::Cone]);
    assert!(net.write(1, 2, 200));
    net.go(1000);
    assert!(net.direct(1, 2) && net.direct(2, 1));
    let relayed = net.relayed;
    for _ in 0..20 {
        let mut out = Outbox::default();
        net.hosts[1].engine.knock(&mut out, net.now);
        net.send(1, &out);
        for _ in 0..10 {
            assert!(net.write(1, 2, 60) && net.write(2, 1, 60));
            assert!(net.direct(1, 2), "{:?}", net.way(1, 2));
        }
    }
    // Questions and invitations at most.
    assert!(net.relayed - relayed < 20 * 10, "{}", net.relayed - relayed);
}

#[test]
fn a_handshake_that_the_relay_lost_is_begun_anew_before_tcp_gives_up() {
    // The invitation, the first question and the handshake.
    for lost in 1..=3 {
        let mut net = Net::new(&[Nat::Symmetric, Nat::Symmetric]);
        net.lost = lost;
        assert!(net.write(1, 2, 1200), "{lost} lost");
        assert_eq!(net.lost, 0);
    }
}

#[test]
fn the_relay_knows_only_its_members_places() {
    let mut net = Net::new(&[Nat::Symmetric, Nat::Symmetric]);
    assert!(net.write(1, 2, 200));
    let Some(Way::Relayed { channel, .. }) = net.way(1, 2) else {
        panic!("{:?}", net.way(1, 2));
    };
    let frame = |c| {
        let way = Way::Relayed {
            via: place(1),
            channel: c,
        };
        let mut frame = way.header().unwrap().to_vec();
        frame.extend([4; 60]);
        frame
    };
    let lighthouse = &net.hosts[0].engine;
    let ask = |from: SocketAddr, bytes: &[u8]| {
        let mut out = Outbox::default();
        let mut sink = Sink::default();
        lighthouse.inbound(from, bytes, 0, &mut sink, &mut out, net.now);
        assert!(sink.0.is_empty());
        out.sends().map(|(s, _)| s.to).collect::<Vec<_>>()
    };
    let [one, two] = [1, 2].map(|n| net.hosts[n].outer(place(1)));
    assert_eq!(ask(one, &frame(channel)), [two]);
    assert_eq!(ask(two, &frame(channel)), [one]);
    // From elsewhere, or on another channel: not a word.
    assert_eq!(ask(place(9), &frame(channel)), []);
    let other = crate::way::Channel(channel.0 ^ 1);
    assert_eq!(ask(one, &frame(other)), []);
}

#[test]
fn a_member_takes_relayed_datagrams_from_its_lighthouses_only() {
    let mut net = Net::new(&[Nat::None, Nat::None]);
    assert!(net.write(1, 2, 200));
    let way = Way::Relayed {
        via: place(1),
        channel: crate::way::Channel(1),
    };
    let mut frame = way.header().unwrap().to_vec();
    frame.extend([1u8, 0, 0, 0]);
    frame.resize(12 + 148, 7);
    let member = &net.hosts[1].engine;
    let (mut out, mut sink) = (Outbox::default(), Sink::default());
    for from in [place(3), place(9)] {
        member.inbound(from, &frame, 0, &mut sink, &mut out, net.now);
    }
    assert!(out.is_empty());
}
