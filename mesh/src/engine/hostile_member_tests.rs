//! A member with a key of its own that means harm, and what strangers repeat of it.

use super::*;
use crate::filter::Rules;
use crate::probe::{Message, ProbeKey};
use holdfast_core::access::Access;
use std::time::Duration;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

struct Bad {
    key: MeshPrivateKey,
    probes: ProbeKey,
}

impl Bad {
    fn new(of: &Engine) -> Self {
        let key = MeshPrivateKey::generate().unwrap();
        let probes = ProbeKey::new(&key.secret(), key.public(), of.key());
        Self { key, probes }
    }

    fn as_peer(&self, n: u8) -> PeerConfig {
        PeerConfig {
            public_key: self.key.public(),
            allowed_ips: vec![IpAddr::from([100, 64, 0, n]).into()],
            endpoint: None,
            keepalive: None,
            always_on: false,
            plain: false,
            relay: false,
        }
    }

    fn invite(&self, candidates: &[&str]) -> Vec<u8> {
        let candidates = candidates.iter().map(|c| at(c)).collect();
        let answer = false;
        self.probes
            .seal(&Message::Invite { candidates, answer })
            .unwrap()
    }
}

fn give(to: &Engine, from: SocketAddr, bytes: &[u8], now: Instant) -> Outbox {
    let (mut out, mut sink) = (Outbox::default(), Sink::default());
    to.inbound_at(from, bytes, 0, &mut sink, &mut out, now);
    assert!(sink.0.is_empty());
    out
}

fn bytes_to(out: &Outbox, ip: [u8; 4]) -> usize {
    let sends = out.sends().filter(|(s, _)| s.to.ip() == IpAddr::from(ip));
    sends.map(|(_, bytes)| bytes.len()).sum()
}

const VICTIM: [u8; 4] = [203, 0, 113, 9];

#[test]
fn invitations_turn_a_member_on_nobody() {
    let (now, victim) = (Instant::now(), engine());
    let bad = Bad::new(&victim);
    victim
        .set_peers(&[bad.as_peer(2)], &mut Outbox::default(), now)
        .unwrap();
    let ports: Vec<String> = (1..=16).map(|n| format!("203.0.113.9:{n}")).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let (mut sent, mut hit) = (0, 0);
    for ms in (0..10_000).step_by(10) {
        let now = now + Duration::from_millis(ms);
        let invite = bad.invite(&ports);
        sent += invite.len();
        hit += bytes_to(&give(&victim, at("192.0.2.2:2"), &invite, now), VICTIM);
        let mut out = Outbox::default();
        victim.tick(&mut out, now);
        hit += bytes_to(&out, VICTIM);
    }
    assert!(hit > 0 && hit < sent / 10, "{sent} in, {hit} at the victim");
    assert!(hit < 20_000, "{hit}");
}

#[test]
fn a_question_repeated_from_many_places_is_asked_back_at_few() {
    let (now, victim) = (Instant::now(), engine());
    let bad = Bad::new(&victim);
    victim
        .set_peers(&[bad.as_peer(2)], &mut Outbox::default(), now)
        .unwrap();
    let ping = bad.probes.seal(&Message::Ping(1)).unwrap();
    let mut hit = 0;
    for port in 1..=1000u16 {
        let from = SocketAddr::from((VICTIM, port));
        hit += bytes_to(&give(&victim, from, &ping, now), VICTIM);
    }
    // The answer is as long as the question; what is asked back is bounded.
    assert!(hit < 1300 * ping.len(), "{hit}");
}

#[test]
fn a_relay_sends_only_where_a_member_answered() {
    let (now, lighthouse) = (Instant::now(), engine());
    let (a, b) = (Bad::new(&lighthouse), Bad::new(&lighthouse));
    lighthouse
        .set_peers(&[a.as_peer(2), b.as_peer(3)], &mut Outbox::default(), now)
        .unwrap();
    let stream = at("[100::1]:1");
    assert!(lighthouse.stream_begun(a.key.public(), stream, &mut Outbox::default(), now));
    give(&lighthouse, stream, &a.invite(&["203.0.113.9:8125"]), now);
    lighthouse.stream_ended(stream, now);
    let ping = b.probes.seal(&Message::Ping(1)).unwrap();
    give(&lighthouse, at("192.0.2.3:3"), &ping, now);
    let channel = lighthouse
        .open_channel(a.key.public(), b.key.public(), now)
        .unwrap();
    let via = at("192.0.2.1:1");
    let mut frame = Way::Relayed { via, channel }.header().unwrap().to_vec();
    frame.extend([7; 1400]);
    let out = give(&lighthouse, at("192.0.2.3:3"), &frame, now);
    assert_eq!(bytes_to(&out, VICTIM), 0);
}

#[test]
fn a_lighthouse_seeks_nobody_where_a_member_says() {
    let (now, lighthouse) = (Instant::now(), engine());
    lighthouse.here.seek_nobody();
    let a = Bad::new(&lighthouse);
    lighthouse
        .set_peers(&[a.as_peer(2)], &mut Outbox::default(), now)
        .unwrap();
    let invite = a.invite(&["127.0.0.1:53", "203.0.113.9:1"]);
    let out = give(&lighthouse, at("192.0.2.2:2"), &invite, now);
    assert_eq!(bytes_to(&out, VICTIM) + bytes_to(&out, [127, 0, 0, 1]), 0);
}

#[test]
fn no_way_leads_through_the_tunnel_itself() {
    let (mut now, victim) = (Instant::now(), engine());
    let bad = Bad::new(&victim);
    victim
        .here
        .set(vec![], vec!["100.64.0.0/18".parse().unwrap()]);
    let listed = PeerConfig {
        endpoint: Some(at("100.64.0.2:9")),
        ..bad.as_peer(2)
    };
    victim
        .set_peers(&[listed], &mut Outbox::default(), now)
        .unwrap();
    let way = || {
        victim
            .peer(bad.key.public())
            .unwrap()
            .lock()
            .paths
            .current()
    };
    assert_eq!(way(), None);
    for from in [at("192.0.2.2:2"), at("100.64.0.2:51820")] {
        now += Duration::from_millis(300);
        let ping = bad.probes.seal(&Message::Ping(7)).unwrap();
        let out = give(&victim, from, &ping, now);
        for (_, bytes) in out.sends() {
            if let Some(Message::Ping(n)) = bad.probes.open(bytes) {
                let pong = bad.probes.seal(&Message::Pong(n, from)).unwrap();
                give(&victim, from, &pong, now);
            }
        }
        assert_eq!(way(), Some(Way::Direct(at("192.0.2.2:2"))));
    }
}

#[test]
fn what_is_for_another_address_does_not_reach_the_system() {
    let (victim, bad, now) = (engine(), engine(), Instant::now());
    let mut first = Outbox::default();
    victim
        .set_peers(&[peer(&bad, 2)], &mut Outbox::default(), now)
        .unwrap();
    let everything = PeerConfig {
        allowed_ips: vec!["0.0.0.0/0".parse().unwrap()],
        ..peer(&victim, 1)
    };
    bad.set_peers(&[everything], &mut first, now).unwrap();
    let own = [(IpAddr::from([100, 64, 0, 2]), Access::open())];
    victim.set_access(Rules {
        here: vec![IpAddr::from([100, 64, 0, 1])],
        own: own.into_iter().collect(),
        ..Rules::default()
    });
    let mut sink = Sink::default();
    let answer = deliver(&first, &victim, 2, &mut sink);
    let data = deliver(&answer, &bad, 1, &mut sink);
    deliver(&data, &victim, 2, &mut sink);
    let reached = |to: [u8; 4]| {
        let mut packet = packet(2, 1, 60);
        packet[16..20].copy_from_slice(&to);
        let mut sink = Sink::default();
        deliver(&sent(&bad, &[packet]), &victim, 2, &mut sink);
        sink.0.len()
    };
    assert_eq!(reached([100, 64, 0, 1]), 1);
    for other in [
        [10, 65, 0, 1],
        [192, 168, 1, 1],
        [127, 0, 0, 1],
        [100, 64, 0, 9],
    ] {
        assert_eq!(reached(other), 0, "{other:?}");
    }
}
