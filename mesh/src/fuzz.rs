//! Ways in for the fuzz targets (`fuzz/`), with feature `fuzz` only: what strangers and the kernel
//! hand over, and nothing else.

use crate::batch::Batch;
use crate::config::PeerConfig;
use crate::engine::{Engine, Kept};
use crate::filter::{Filter, Rules};
use crate::keys::MeshPrivateKey;
use crate::merge::Merger;
use crate::outbox::Outbox;
use crate::split;
use crate::way::{Channel, Way};
use holdfast_core::access::Access;
use holdfast_core::documents::{PortRange, Ports, Protocol, Rule};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

fn place(n: u8) -> SocketAddr {
    ([192, 0, 2, n], 51_820).into()
}

fn peer(engine: &Engine, n: u8, plain: bool, relay: bool) -> PeerConfig {
    PeerConfig {
        public_key: engine.key(),
        allowed_ips: vec![IpAddr::from([100, 64, 0, n]).into()],
        endpoint: Some(place(n)),
        keepalive: None,
        always_on: relay,
        plain,
        relay,
    }
}

fn pass(out: &Outbox, to: &Engine, from: u8) -> Outbox {
    let mut answers = Outbox::default();
    for (send, bytes) in out.sends() {
        let now = Instant::now();
        to.inbound(
            place(from),
            bytes,
            send.segment,
            &mut Kept::default(),
            &mut answers,
            now,
        );
    }
    answers
}

/// A member with a session, which is also a lighthouse to others.
pub struct Member {
    engine: Engine,
    other: Engine,
}

impl Default for Member {
    fn default() -> Self {
        let engine = |n| Engine::new(&MeshPrivateKey::from_bytes([n; 32]));
        let [engine, other, third] = [engine(1), engine(2), engine(3)];
        let (mut out, now) = (Outbox::default(), Instant::now());
        let ours = [peer(&other, 2, false, false), peer(&third, 3, true, true)];
        let _ = engine.set_peers(&ours, &mut Outbox::default(), now);
        engine.set_nodes_with_clients(&[other.key()]);
        engine.open_channel(other.key(), third.key(), now);
        let _ = other.set_peers(&[peer(&engine, 1, false, false)], &mut out, now);
        let answer = pass(&out, &engine, 2);
        pass(&pass(&answer, &other, 1), &engine, 2);
        Self { engine, other }
    }
}

impl Member {
    /// Datagrams as they come from the network: the first two bytes choose source and stride, the
    /// third whether noise, altered data of a peer, or its altered handshake.
    pub fn receive(&mut self, input: &[u8]) {
        let [source, stride, what, rest @ ..] = input else {
            return;
        };
        let (mut out, now) = (Outbox::default(), Instant::now());
        match what % 4 {
            0 => {}
            1 => {
                let mut batch = Batch::new();
                let mut packet = [0; 60];
                (packet[0], packet[3]) = (0x45, 60);
                packet[12..20].copy_from_slice(&[100, 64, 0, 2, 100, 64, 0, 1]);
                batch.push(&packet);
                self.other.outbound(&mut batch, &mut out, now);
            }
            2 => self.other.knock(&mut out, now),
            _ => {
                let way = Way::Relayed {
                    via: place(1),
                    channel: Channel(u64::from(*source)),
                };
                out.push(way, rest);
            }
        }
        let mut real: Vec<u8> = out.sends().flat_map(|(_, b)| b.to_vec()).collect();
        if real.is_empty() {
            real = rest.to_vec();
        } else if what % 4 != 3 {
            real.iter_mut()
                .zip(rest)
                .for_each(|(byte, flip)| *byte ^= flip);
        }
        let (mut answers, stride) = (Outbox::default(), usize::from(*stride) * 8);
        self.engine.inbound(
            place(source % 5),
            &real,
            stride,
            &mut Kept::default(),
            &mut answers,
            now,
        );
        let sent: usize = answers.sends().map(|(_, bytes)| bytes.len()).sum();
        // Nobody is answered with more than came, but a peer whose session came to life.
        assert!(sent <= real.len() + 4096, "{sent} for {}", real.len());
    }
}

/// Packets of the mesh's peers, each behind its length, merged for the kernel; and cut again.
pub fn merge(input: &[u8]) {
    let (mut merger, mut rest, mut count) = (Merger::default(), input, 0);
    while let [len, tail @ ..] = rest {
        let (packet, after) = tail.split_at(usize::from(*len).min(tail.len()));
        // One that is refused after it was written, as an inner packet of a foreign source is.
        merger.room(80).fill(0xee);
        merger.room(packet.len() + 16)[..packet.len()].copy_from_slice(packet);
        merger.take(packet.len());
        count += usize::from(!packet.is_empty());
        rest = after;
    }
    let mut cut = 0;
    for frame in merger.finish() {
        let mut frame = frame.to_vec();
        if let Some(mut segments) = split::segments(&mut frame) {
            while segments.next().is_some() {
                cut += 1;
            }
        }
    }
    assert!(cut <= count, "{cut} packets from {count}");
}

/// A frame as the kernel hands it over.
pub fn split(input: &[u8]) {
    let mut frame = input.to_vec();
    if let Some(mut segments) = split::segments(&mut frame) {
        let mut count = 0;
        while let Some(packet) = segments.next() {
            assert!(packet.len() <= input.len());
            count += 1;
        }
        assert!(count <= input.len().max(1));
    }
}

/// They may open TCP 80 here, we may open UDP 123 there.
fn narrow() -> Access {
    let group = |name: &str| name.parse().expect("a group's name");
    let rule = |from, to, protocol, port| Rule {
        protocol: Some(protocol),
        ports: vec![Ports::Known(PortRange::one(port))],
        ..Rule::new(group(from), group(to))
    };
    let rules = [
        rule("them", "us", Protocol::Tcp, 80),
        rule("us", "them", Protocol::Udp, 123),
    ];
    Access::between(&rules, &[group("us")], &[group("them")])
}

/// Packets of a peer that may open one port, each behind its direction and length.
pub fn filter(input: &[u8]) {
    let peer = IpAddr::from([100, 64, 0, 2]);
    let filter = Filter::alone(Rules {
        own: [(peer, narrow())].into(),
        ..Rules::default()
    });
    let (now, mut rest, mut sent) = (Instant::now(), input, false);
    while let [way, len, tail @ ..] = rest {
        let (packet, after) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = after;
        if way % 2 == 0 {
            filter.sent(packet, now);
            sent = true;
            continue;
        }
        assert!(!filter.admits(None, packet, now));
        let admitted = filter.admits(filter.of(peer), packet, now);
        // Looked at once more, by hand, where it is simple: whole, IPv4, without options.
        let [0x45, _, _, _, _, _, 0, 0, _, protocol, ..] = packet else {
            continue;
        };
        let Some(head) = packet.get(20..40) else {
            continue;
        };
        let port = u16::from_be_bytes([head[2], head[3]]);
        let opens = head[13] & 0x12 == 2;
        match protocol {
            6 if opens => assert_eq!(admitted, port == 80),
            17 => assert!(!admitted || sent),
            _ => {}
        }
    }
}

/// What a peer that holds the keys may put into a probe.
pub fn probe(input: &[u8]) {
    if let Some(message) = crate::probe::decode(input) {
        let again = crate::probe::encode(&message);
        assert_eq!(crate::probe::decode(&again), Some(message));
    }
}

/// What comes out of a TLS stream, in pieces: the first byte says how long they are.
pub fn frames(input: &[u8]) {
    let [piece, rest @ ..] = input else { return };
    let whole = crate::stream::frames(rest);
    let (mut held, mut found) = (vec![], 0);
    for piece in rest.chunks(usize::from(*piece).max(1)) {
        held.extend_from_slice(piece);
        let (datagrams, used) = crate::stream::frames(&held);
        found += datagrams.len();
        held.drain(..used);
    }
    assert_eq!((found, rest.len() - held.len()), (whole.0.len(), whole.1));
}
