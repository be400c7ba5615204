//! Engines of members and a lighthouse, joined by a net made of vectors: a datagram arrives from
//! where its sender's NAT says, if the receiver's lets it in.

use crate::batch::Batch;
use crate::config::PeerConfig;
use crate::engine::Engine;
use crate::keys::{MeshKey, MeshPrivateKey};
use crate::outbox::Outbox;
use crate::way::Way;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

#[path = "paths_hostile_tests.rs"]
mod hostile;
#[path = "paths_slow_tests.rs"]
mod slow;

use crate::engine::Kept as Sink;

/// Which datagrams a member's NAT lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nat {
    None,
    /// One outer address; in comes only what comes from an address written to before.
    Cone,
    /// Another outer port for each address written to.
    Symmetric,
}

struct Host {
    engine: Engine,
    number: u8,
    nat: Nat,
    wrote_to: BTreeSet<SocketAddr>,
    got: Sink,
    /// Added to the outer address once it moved.
    moved: u8,
}

impl Host {
    fn inner(&self) -> IpAddr {
        [100, 64, 0, self.number].into()
    }

    /// As others see what it sends to `to`.
    fn outer(&self, to: SocketAddr) -> SocketAddr {
        let port = match self.nat {
            Nat::Symmetric => 2000 + u16::from(self.number) * 100 + to.port() % 97,
            _ => u16::from(self.number),
        };
        ([192, 0, 2, self.number + self.moved], port).into()
    }

    fn lets_in(&self, from: SocketAddr, to: SocketAddr) -> bool {
        match self.nat {
            Nat::None => true,
            Nat::Cone => self.wrote_to.contains(&from),
            Nat::Symmetric => self.wrote_to.contains(&from) && self.outer(from) == to,
        }
    }

    fn as_peer(&self, endpoint: bool, relay: bool) -> PeerConfig {
        PeerConfig {
            public_key: self.engine.key(),
            allowed_ips: vec![self.inner().into()],
            endpoint: endpoint.then(|| self.outer(place(0))),
            keepalive: relay.then_some(25),
            always_on: relay,
            plain: false,
            relay,
        }
    }
}

fn place(n: u8) -> SocketAddr {
    ([192, 0, 2, n], u16::from(n)).into()
}

/// Host 0 is the lighthouse.
struct Net {
    hosts: Vec<Host>,
    now: Instant,
    /// Pairs of numbers between which nothing passes.
    cut: BTreeSet<(u8, u8)>,
    relayed: usize,
    /// So many datagrams that are to be relayed get lost next.
    lost: usize,
    one_way: Duration,
    due: BTreeMap<(Instant, usize), Flight>,
    /// Channels that a member asked for: it has the answer then.
    wishes: BTreeMap<(Instant, usize), (usize, MeshKey)>,
    count: usize,
    /// What the lighthouse does to what it relays; random numbers, for the same run each time.
    hostile: Option<hostile::Random>,
    /// Of all datagrams 5 % get lost.
    lossy: Option<hostile::Random>,
}

/// A datagram on its way.
#[derive(Clone)]
struct Flight {
    bytes: Vec<u8>,
    from: usize,
    outer: SocketAddr,
    to: SocketAddr,
}

impl Net {
    fn new(nats: &[Nat]) -> Self {
        Self::far(nats, Duration::from_millis(10))
    }

    fn far(nats: &[Nat], one_way: Duration) -> Self {
        let hosts: Vec<Host> = [Nat::None]
            .iter()
            .chain(nats)
            .zip(1u8..)
            .map(|(nat, number)| Host {
                engine: Engine::new(&MeshPrivateKey::generate().unwrap()),
                number,
                nat: *nat,
                wrote_to: BTreeSet::new(),
                got: Sink::default(),
                moved: 0,
            })
            .collect();
        let mut net = Self {
            hosts,
            now: Instant::now(),
            cut: BTreeSet::new(),
            relayed: 0,
            lost: 0,
            one_way,
            due: BTreeMap::new(),
            wishes: BTreeMap::new(),
            count: 0,
            hostile: None,
            lossy: None,
        };
        for at in 0..net.hosts.len() {
            let peers: Vec<_> = net
                .hosts
                .iter()
                .enumerate()
                .filter(|(n, _)| *n != at)
                .map(|(n, h)| h.as_peer(n == 0, n == 0))
                .collect();
            let mut out = Outbox::default();
            net.hosts[at]
                .engine
                .set_peers(&peers, &mut out, net.now)
                .unwrap();
            net.send(at, &out);
        }
        net.go(1000);
        net
    }

    fn send(&mut self, from: usize, out: &Outbox) {
        for (send, bytes) in out.sends() {
            for datagram in bytes.chunks(send.segment) {
                self.hosts[from].wrote_to.insert(send.to);
                if self.lossy.as_mut().is_some_and(|r| r.below(20) == 0) {
                    continue;
                }
                let outer = self.hosts[from].outer(send.to);
                self.count += 1;
                let flight = Flight {
                    bytes: datagram.to_vec(),
                    from,
                    outer,
                    to: send.to,
                };
                match &mut self.hostile {
                    Some(random) if from == 0 && flight.bytes.starts_with(b"hfr") => {
                        for (flight, late) in random.meddle(flight) {
                            self.count += 1;
                            let at = self.now + self.one_way + late;
                            self.due.insert((at, self.count), flight);
                        }
                    }
                    _ => {
                        let at = self.now + self.one_way;
                        self.due.insert((at, self.count), flight);
                    }
                }
            }
        }
    }

    fn arrive(&mut self, flight: &Flight) {
        let Flight {
            bytes,
            from,
            outer,
            to,
        } = flight;
        let (from, outer, to) = (*from, *outer, *to);
        let IpAddr::V4(ip) = to.ip() else { return };
        let number = ip.octets()[3];
        let at_home = |h: &Host| h.number + h.moved == number;
        let Some(n) = self.hosts.iter().position(at_home) else {
            return;
        };
        let pair = (self.hosts[from].number, self.hosts[n].number);
        let cut = self.cut.contains(&pair) || self.cut.contains(&(pair.1, pair.0));
        if cut || !self.hosts[n].lets_in(outer, to) {
            return;
        }
        let direct = self.hosts[n].nat == Nat::Symmetric || self.hosts[n].outer(outer) == to;
        if !direct {
            return;
        }
        if n == 0 && bytes.starts_with(b"hfr") {
            self.relayed += 1;
            if self.lost > 0 {
                self.lost -= 1;
                return;
            }
        }
        let mut out = Outbox::default();
        let host = &mut self.hosts[n];
        host.engine
            .inbound(outer, bytes, 0, &mut host.got, &mut out, self.now);
        self.send(n, &out);
    }

    /// `ms` pass.
    fn go(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end {
            self.now += Duration::from_millis(5);
            while let Some(entry) = self.due.first_entry()
                && entry.key().0 <= self.now
            {
                let flight = entry.remove();
                self.arrive(&flight);
            }
            let since = end.saturating_duration_since(self.now);
            if since.as_millis() % 250 < 5 {
                for n in 0..self.hosts.len() {
                    let mut out = Outbox::default();
                    self.hosts[n].engine.tick(&mut out, self.now);
                    self.send(n, &out);
                }
            }
            self.answer_wishes();
        }
    }

    /// What the agent does: asks the lighthouse for channels, over its own connection, which stands.
    fn answer_wishes(&mut self) {
        for n in 1..self.hosts.len() {
            let Some(mut wanted) = self.hosts[n].engine.here.relay_wanted() else {
                continue;
            };
            while let Ok(peer) = wanted.try_recv() {
                self.count += 1;
                let at = self.now + self.one_way * 2;
                self.wishes.insert((at, self.count), (n, peer));
            }
            self.hosts[n].engine.here.give_back(wanted);
        }
        while let Some(entry) = self.wishes.first_entry()
            && entry.key().0 <= self.now
        {
            let (n, peer) = entry.remove();
            self.open_channel(n, peer);
        }
    }

    fn open_channel(&mut self, n: usize, peer: MeshKey) {
        let (own, lighthouse) = (self.hosts[n].engine.key(), self.hosts[0].engine.key());
        let channel = self.hosts[0].engine.open_channel(own, peer, self.now);
        if let Some(channel) = channel {
            let mut out = Outbox::default();
            let engine = &self.hosts[n].engine;
            engine.set_channel(peer, lighthouse, channel, &mut out, self.now);
            self.send(n, &out);
        }
    }

    /// `from` writes to `to`.
    fn post(&mut self, from: usize, to: usize) -> Vec<u8> {
        let mut packet = vec![0u8; 100];
        packet[0] = 0x45;
        packet[3] = 100;
        let (source, target) = (self.hosts[from].number, self.hosts[to].number);
        packet[12..16].copy_from_slice(&[100, 64, 0, source]);
        packet[16..20].copy_from_slice(&[100, 64, 0, target]);
        self.count += 1;
        packet[20..28].copy_from_slice(&self.count.to_le_bytes());
        let mut out = Outbox::default();
        let engine = &self.hosts[from].engine;
        let mut batch = Batch::new();
        assert!(batch.push(&packet));
        engine.outbound(&mut batch, &mut out, self.now);
        self.send(from, &out);
        packet
    }

    /// `from` writes to `to`; whether it arrives within `ms`.
    fn write(&mut self, from: usize, to: usize, ms: u64) -> bool {
        let packet = self.post(from, to);
        for _ in 0..ms / 10 {
            self.go(10);
            if self.hosts[to].got.0.contains(&packet) {
                return true;
            }
        }
        false
    }

    fn way(&self, from: usize, to: usize) -> Option<Way> {
        let peer = self.hosts[from].engine.peer(self.hosts[to].engine.key());
        peer.and_then(|p| p.lock().paths.current())
    }

    fn direct(&self, from: usize, to: usize) -> bool {
        self.way(from, to).is_some_and(|w| !w.is_relayed())
    }
}

#[test]
fn relayed_at_once_and_direct_within_a_second_behind_two_cones() {
    let mut net = Net::new(&[Nat::Cone, Nat::Cone]);
    assert!(net.write(1, 2, 200));
    assert!(net.relayed > 0);
    net.go(800);
    assert!(net.direct(1, 2), "{:?}", net.way(1, 2));
    let peer = net.hosts[1].engine.peer(net.hosts[2].engine.key()).unwrap();
    assert!(peer.lock().paths.answers() > 0);
    assert!(net.write(1, 2, 50) && net.write(2, 1, 50));
    let before = net.relayed;
    assert!(net.write(1, 2, 50) && net.write(2, 1, 50));
    assert!(net.direct(2, 1));
    assert_eq!(net.relayed, before);
}

#[test]
fn two_symmetric_nats_stay_relayed_and_nothing_is_lost() {
    let mut net = Net::new(&[Nat::Symmetric, Nat::Symmetric]);
    for _ in 0..100 {
        assert!(net.write(1, 2, 200));
        assert!(net.write(2, 1, 100));
        net.go(250);
    }
    assert!(!net.direct(1, 2));
}

#[test]
fn no_packet_is_lost_on_the_way_from_relay_to_direct() {
    let mut net = Net::new(&[Nat::Cone, Nat::Cone]);
    assert!(net.write(1, 2, 200));
    for _ in 0..40 {
        assert!(net.write(1, 2, 60));
        assert!(net.write(2, 1, 60));
    }
    assert!(net.direct(1, 2) && net.direct(2, 1));
}
