//! Two engines joined by a wire made of vectors; no socket, no waiting.

use super::*;
use crate::batch::Batch;
use crate::packet::{DATA_OVERHEAD, MAX_DATAGRAM};
use crate::way::Way;
use boringtun::noise::{Tunn, TunnResult};
use proptest::prelude::*;
use std::net::IpAddr;

use crate::engine::Kept as Sink;

#[path = "hostile_member_tests.rs"]
mod hostile_member;

fn engine() -> Engine {
    Engine::new(&MeshPrivateKey::generate().unwrap())
}

/// Engine `n` lives at 192.0.2.n:n and owns 100.64.0.n.
fn place(n: u8) -> SocketAddr {
    ([192, 0, 2, n], u16::from(n)).into()
}

fn peer(of: &Engine, n: u8) -> PeerConfig {
    PeerConfig {
        public_key: of.key(),
        allowed_ips: vec![IpAddr::from([100, 64, 0, n]).into()],
        endpoint: Some(place(n)),
        keepalive: None,
        always_on: false,
        plain: true,
        relay: false,
    }
}

fn packet(from: u8, to: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0u8; len.max(20)];
    packet[0] = 0x45;
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[12..16].copy_from_slice(&[100, 64, 0, from]);
    packet[16..20].copy_from_slice(&[100, 64, 0, to]);
    packet
}

/// Everything in `out` arrives at `at` from `from`, batched as it was sent.
fn deliver(out: &Outbox, at: &Engine, from: u8, sink: &mut Sink) -> Outbox {
    let mut answers = Outbox::default();
    for (send, bytes) in out.sends() {
        at.inbound(
            place(from),
            bytes,
            send.segment,
            sink,
            &mut answers,
            Instant::now(),
        );
    }
    answers
}

/// 1 and 2 know each other and have a session, which 1 began.
fn pair() -> (Engine, Engine) {
    let (one, two, now) = (engine(), engine(), Instant::now());
    let (mut out, mut sink) = (Outbox::default(), Sink::default());
    two.set_peers(&[peer(&one, 1)], &mut Outbox::default(), now)
        .unwrap();
    one.set_peers(&[peer(&two, 2)], &mut out, now).unwrap();
    let response = deliver(&out, &two, 1, &mut sink);
    let confirmation = deliver(&response, &one, 2, &mut sink);
    deliver(&confirmation, &two, 1, &mut sink);
    assert!(one.peer(two.key()).unwrap().lock().live && two.peer(one.key()).unwrap().lock().live);
    (one, two)
}

fn sent(engine: &Engine, packets: &[Vec<u8>]) -> Outbox {
    let mut out = Outbox::default();
    let mut batch = Batch::new();
    for packet in packets {
        assert!(batch.push(packet));
        if batch.full() {
            engine.outbound(&mut batch, &mut out, Instant::now());
            batch.clear();
        }
    }
    engine.outbound(&mut batch, &mut out, Instant::now());
    out
}

/// The session works: a packet gets across.
fn assert_works(one: &Engine, two: &Engine) {
    let (mut sink, packets) = (Sink::default(), vec![packet(1, 2, 1380)]);
    deliver(&sent(one, &packets), two, 1, &mut sink);
    assert_eq!(sink.0, packets);
}

#[test]
fn a_first_handshake_that_was_lost_is_repeated_when_the_network_comes() {
    let (one, two, now) = (engine(), engine(), Instant::now());
    two.set_peers(&[peer(&one, 1)], &mut Outbox::default(), now)
        .unwrap();
    let kept = PeerConfig {
        keepalive: Some(25),
        ..peer(&two, 2)
    };
    // No network yet: what is sent goes nowhere.
    one.set_peers(&[kept], &mut Outbox::default(), now).unwrap();
    let (mut out, mut sink) = (Outbox::default(), Sink::default());
    one.knock(&mut out, now);
    let response = deliver(&out, &two, 1, &mut sink);
    deliver(&deliver(&response, &one, 2, &mut sink), &two, 1, &mut sink);
    assert_works(&one, &two);
    // Peers that nobody keeps in touch are left alone.
    let mut out = Outbox::default();
    two.knock(&mut out, now);
    assert_eq!(out.sends().count(), 0);
}

#[test]
fn batches_cross_and_come_out_in_order() {
    let (one, two) = pair();
    let packets: Vec<Vec<u8>> = (0..100).map(|n| packet(1, 2, 1380 - n)).collect();
    let mut sink = Sink::default();
    deliver(&sent(&one, &packets), &two, 1, &mut sink);
    assert_eq!(sink.0, packets);
}

#[test]
fn an_oversize_datagram_is_dropped_alone_and_in_a_batch() {
    let (one, two) = pair();
    // Data for a session that exists: what boringtun panics on, before it authenticates.
    let good = sent(&one, &[packet(1, 2, 1380)]);
    let (send, bytes) = good.sends().next().unwrap();
    let oversize = |len: usize| {
        let mut datagram = bytes.to_vec();
        datagram.resize(len, 0);
        datagram
    };
    let take = |buffer: &[u8], stride: usize| {
        let (mut out, mut sink) = (Outbox::default(), Sink::default());
        two.inbound(
            place(1),
            buffer,
            stride,
            &mut sink,
            &mut out,
            Instant::now(),
        );
        assert!(out.is_empty());
        sink.0.len()
    };
    for len in [3000, 65_507, MAX_DATAGRAM, MAX_DATAGRAM + 1, 200_000] {
        assert_eq!(take(&oversize(len), len), 0);
        assert_eq!(take(&oversize(len), 0), 0);
        assert_eq!(take(&[oversize(len), oversize(len)].concat(), len), 0);
    }
    // Between two oversize ones a good one still passes.
    let batch = [oversize(3000), oversize(3000), bytes.to_vec()].concat();
    assert_eq!(take(&batch, 3000), 1);
    assert_eq!(send.segment, 1380 + DATA_OVERHEAD);
    assert_works(&one, &two);
}

#[test]
fn what_waits_for_sessions_is_bounded_over_all_peers() {
    let (one, now) = (engine(), Instant::now());
    let others: Vec<Engine> = (0..50).map(|_| engine()).collect();
    let peers: Vec<PeerConfig> = others
        .iter()
        .enumerate()
        .map(|(n, e)| peer(e, n as u8 + 10))
        .collect();
    one.set_peers(&peers, &mut Outbox::default(), now).unwrap();
    for _ in 0..200 {
        let packets: Vec<Vec<u8>> = (0..50).map(|n| packet(1, n + 10, 1380)).collect();
        // Nothing leaves but handshakes, and those rarely.
        assert!(sent(&one, &packets).is_empty());
    }
    assert!(one.waiting() > 700, "{}", one.waiting());
    assert!(one.waiting() * 1380 <= 1 << 20, "{}", one.waiting());
    one.set_peers(&[], &mut Outbox::default(), now).unwrap();
    assert_eq!(one.waiting(), 0);
}

#[test]
fn packets_that_waited_leave_with_the_session() {
    let (one, two, now) = (engine(), engine(), Instant::now());
    let (mut out, mut sink) = (Outbox::default(), Sink::default());
    two.set_peers(&[peer(&one, 1)], &mut Outbox::default(), now)
        .unwrap();
    one.set_peers(&[peer(&two, 2)], &mut out, now).unwrap();
    let packets: Vec<Vec<u8>> = (0..9).map(|n| packet(1, 2, 100 + n)).collect();
    assert!(sent(&one, &packets).is_empty());
    let response = deliver(&out, &two, 1, &mut sink);
    let rest = deliver(&response, &one, 2, &mut sink);
    deliver(&rest, &two, 1, &mut sink);
    assert_eq!(sink.0, packets);
    assert_eq!(one.waiting(), 0);
}

/// A valid initiation from one who knows the receiver's key, as anybody on the net may.
fn initiation(to: &Engine, from: &MeshPrivateKey) -> Vec<u8> {
    let mut tunn = Tunn::new(
        from.secret(),
        PublicKey::from(to.key().0),
        None,
        None,
        1,
        None,
    );
    let mut buffer = [0; 148];
    match tunn.format_handshake_initiation(&mut buffer, false) {
        TunnResult::WriteToNetwork(message) => message.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flood_from_one_source_does_not_touch_others() {
    let (one, two) = (engine(), engine());
    let now = Instant::now();
    two.set_peers(&[peer(&one, 1)], &mut Outbox::default(), now)
        .unwrap();
    let message = initiation(&two, &MeshPrivateKey::generate().unwrap());
    let (mut out, mut sink) = (Outbox::default(), Sink::default());
    let flood = SocketAddr::from(([198, 51, 100, 1], 9));
    for _ in 0..10_000 {
        two.inbound(flood, &message, 148, &mut sink, &mut out, now);
    }
    assert!(
        out.is_empty(),
        "a stranger gets no answer, not even a cookie: no load yet"
    );
    // The peer's handshake is answered with a response (92 bytes), not with a cookie (64).
    one.set_peers(&[peer(&two, 2)], &mut out, now).unwrap();
    let answer = deliver(&out, &two, 1, &mut sink);
    assert_eq!(
        answer.sends().map(|(_, b)| b.len()).collect::<Vec<_>>(),
        [92]
    );
}

#[test]
fn under_load_from_many_sources_cookies_are_asked_for() {
    let two = engine();
    let message = initiation(&two, &MeshPrivateKey::generate().unwrap());
    let (mut out, mut sink) = (Outbox::default(), Sink::default());
    for n in 0..1000u32 {
        let from = SocketAddr::from((std::net::Ipv4Addr::from(0xc633_0000 + n), 9));
        two.inbound(from, &message, 148, &mut sink, &mut out, Instant::now());
    }
    let answers: Vec<usize> = out.sends().map(|(_, b)| b.len()).collect();
    assert!(answers.len() >= 1000 - LOAD_LIMIT as usize);
    assert!(answers.iter().all(|len| *len == 64));
}

#[test]
fn a_forged_source_gets_no_answer() {
    let (one, two, now) = (engine(), engine(), Instant::now());
    let (mut out, mut sink) = (Outbox::default(), Sink::default());
    two.set_peers(&[peer(&one, 1)], &mut Outbox::default(), now)
        .unwrap();
    one.set_peers(&[peer(&two, 2)], &mut out, now).unwrap();
    let mut answers = Outbox::default();
    for (send, bytes) in out.sends() {
        let from = ([192, 0, 2, 1], 0).into();
        two.inbound(from, bytes, send.segment, &mut sink, &mut answers, now);
    }
    assert!(answers.is_empty());
}

#[test]
fn only_authentic_datagrams_move_a_plain_peer() {
    let (one, two) = pair();
    let endpoint = || {
        let way = two.peer(one.key()).unwrap().lock().paths.current();
        way.and_then(Way::direct)
    };
    let out = sent(&one, &[packet(1, 2, 100)]);
    let (_, bytes) = out.sends().next().unwrap();
    let mut forged = bytes.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let now = Instant::now();
    let (mut sink, mut answers) = (Sink::default(), Outbox::default());
    let mut from = |at: u8, bytes: &[u8]| {
        two.inbound(place(at), bytes, 0, &mut sink, &mut answers, now);
    };
    from(7, &forged);
    assert_eq!(endpoint(), Some(place(1)));
    from(7, bytes);
    assert_eq!(endpoint(), Some(place(7)));
    // The same bytes again are a replay.
    from(8, bytes);
    assert_eq!(endpoint(), Some(place(7)));
}

#[test]
fn an_update_keeps_sessions_and_a_new_endpoint_is_tried_at_once() {
    let (one, two) = pair();
    let now = Instant::now();
    let mut out = Outbox::default();
    let mut changed = peer(&two, 2);
    changed.keepalive = Some(25);
    one.set_peers(std::slice::from_ref(&changed), &mut out, now)
        .unwrap();
    assert!(out.is_empty());
    assert_works(&one, &two);
    changed.endpoint = Some(place(3));
    one.set_peers(&[changed], &mut out, now).unwrap();
    assert_eq!(
        out.sends()
            .map(|(s, b)| (s.to, b.len()))
            .collect::<Vec<_>>(),
        [(place(3), 148)]
    );
}

/// Mutations of real datagrams: each reaches deeper than random bytes do.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Cut(usize),
    Grow(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0usize..2000, any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (0usize..200).prop_map(Change::Cut),
        (0usize..70_000).prop_map(Change::Grow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_datagram_panics(
        noise in proptest::collection::vec(
            (0u8..6, proptest::collection::vec(any::<u8>(), 0..300), 0usize..400), 0..20),
        changes in proptest::collection::vec(change(), 1..6),
        stride in 0usize..3000,
    ) {
        let (one, two) = pair();
        let mut real = sent(&one, &[packet(1, 2, 1000)]);
        real.push(Way::Direct(place(2)), &initiation(&two, &MeshPrivateKey::generate().unwrap()));
        let now = Instant::now();
        let (mut sink, mut out) = (Sink::default(), Outbox::default());
        for (_, bytes) in real.sends() {
            let mut bytes = bytes.to_vec();
            for change in &changes {
                match change {
                    Change::Flip(at, bits) => {
                        if let Some(byte) = bytes.get_mut(*at) { *byte ^= bits }
                    }
                    Change::Cut(n) => bytes.truncate(bytes.len().saturating_sub(*n)),
                    Change::Grow(n) => bytes.resize(bytes.len() + n, 0),
                }
            }
            two.inbound(place(1), &bytes, stride, &mut sink, &mut out, now);
        }
        for (kind, mut bytes, len) in noise {
            bytes.resize(len.max(4), 0);
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            two.inbound(place(1), &bytes, stride, &mut sink, &mut out, now);
        }
        two.tick(&mut out, now);
        assert_works(&one, &two);
    }

    #[test]
    fn no_packet_of_the_device_panics(
        packets in proptest::collection::vec(
            (prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
             proptest::collection::vec(any::<u8>(), 0..100)), 0..20)
    ) {
        let (one, two) = pair();
        let packets: Vec<Vec<u8>> = packets.into_iter().map(|(first, mut bytes)| {
            if let Some(byte) = bytes.first_mut() { *byte = first }
            if bytes.len() >= 20 { bytes[16..20].copy_from_slice(&[100, 64, 0, 2]); }
            bytes
        }).collect();
        deliver(&sent(&one, &packets), &two, 1, &mut Sink::default());
        assert_works(&one, &two);
    }
}

#[path = "hostile_tests.rs"]
mod hostile;
