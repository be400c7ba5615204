//! A plain client, the lighthouse that passes its datagrams on, its node, and another node.

use super::*;
use crate::batch::Batch;
use std::collections::VecDeque;
use std::net::IpAddr;

use crate::engine::Kept as Sink;

const CLIENT: usize = 0;
const LIGHTHOUSE: usize = 1;
const NODE: usize = 2;
const OTHER: usize = 3;

/// Member `n` owns 100.64.0.n and lives at 192.0.2.n.
struct World {
    engines: Vec<Engine>,
    places: Vec<SocketAddr>,
    arrived: Vec<Sink>,
    /// Datagrams carried: sender, receiver, bytes.
    carried: Vec<(SocketAddr, SocketAddr, usize)>,
}

fn inner(n: usize) -> IpAddr {
    [100, 64, 0, n as u8].into()
}

fn place(n: usize) -> SocketAddr {
    ([192, 0, 2, n as u8 + 1], 51_820).into()
}

fn packet(from: usize, to: usize) -> Vec<u8> {
    let mut packet = vec![0u8; 100];
    packet[0] = 0x45;
    packet[3] = 100;
    packet[12..16].copy_from_slice(&[100, 64, 0, from as u8]);
    packet[16..20].copy_from_slice(&[100, 64, 0, to as u8]);
    packet
}

impl World {
    fn new() -> Self {
        let engines: Vec<_> = (0..4)
            .map(|_| Engine::new(&MeshPrivateKey::generate().unwrap()))
            .collect();
        let mut world = Self {
            engines,
            places: (0..4).map(place).collect(),
            arrived: (0..4).map(|_| Sink::default()).collect(),
            carried: vec![],
        };
        let peer =
            |world: &Self, n: usize, endpoint: Option<usize>, plain, relay: bool| PeerConfig {
                public_key: world.engines[n].key(),
                allowed_ips: vec![inner(n).into()],
                endpoint: endpoint.map(place),
                keepalive: relay.then_some(25),
                always_on: relay,
                plain,
                relay,
            };
        let lighthouse = peer(&world, LIGHTHOUSE, Some(LIGHTHOUSE), false, true);
        let node = peer(&world, NODE, Some(NODE), false, false);
        let other = peer(&world, OTHER, Some(OTHER), false, false);
        let client = peer(&world, CLIENT, None, true, false);
        let mut through_node = node.clone();
        through_node.allowed_ips.push(inner(CLIENT).into());
        let mut for_client = peer(&world, NODE, Some(LIGHTHOUSE), true, false);
        for_client.allowed_ips.push(inner(OTHER).into());
        world.set(LIGHTHOUSE, &[node, other.clone()]);
        world.set(NODE, &[lighthouse, client, other]);
        world.set(OTHER, &[through_node]);
        world.engines[LIGHTHOUSE].set_nodes_with_clients(&[world.engines[NODE].key()]);
        world.set(CLIENT, &[for_client]);
        world
    }

    fn set(&mut self, n: usize, peers: &[PeerConfig]) {
        let mut out = Outbox::default();
        self.engines[n]
            .set_peers(peers, &mut out, Instant::now())
            .unwrap();
        self.carry(n, out);
    }

    /// Everything that follows from `out`, until nobody says anything any more.
    fn carry(&mut self, from: usize, out: Outbox) {
        let mut all = VecDeque::from([(self.places[from], out)]);
        while let Some((from, out)) = all.pop_front() {
            for (send, bytes) in out.sends() {
                self.carried.push((from, send.to, bytes.len()));
                let Some(at) = self.places.iter().position(|p| *p == send.to) else {
                    continue;
                };
                let mut answers = Outbox::default();
                self.engines[at].inbound(
                    from,
                    bytes,
                    send.segment,
                    &mut self.arrived[at],
                    &mut answers,
                    Instant::now(),
                );
                all.push_back((send.to, answers));
            }
        }
    }

    fn write(&mut self, from: usize, to: usize) {
        let (mut batch, mut out) = (Batch::new(), Outbox::default());
        assert!(batch.push(&packet(from, to)));
        self.engines[from].outbound(&mut batch, &mut out, Instant::now());
        self.carry(from, out);
    }

    fn arrives(&mut self, from: usize, to: usize) -> bool {
        self.arrived.iter_mut().for_each(|s| s.0.clear());
        self.write(from, to);
        let at: Vec<usize> = (0..4).filter(|n| !self.arrived[*n].0.is_empty()).collect();
        assert!(at.is_empty() || at == [to], "{from} to {to}: at {at:?}");
        self.arrived[to].0 == [packet(from, to)]
    }
}

#[test]
fn a_client_reaches_its_node_and_through_it_another() {
    let mut world = World::new();
    for (from, to) in [
        (CLIENT, NODE),
        (NODE, CLIENT),
        (CLIENT, OTHER),
        (OTHER, CLIENT),
    ] {
        assert!(world.arrives(from, to), "{from} to {to}");
    }
    // Never past the lighthouse, in either direction.
    let direct = |c: &(SocketAddr, SocketAddr, usize)| {
        c.0 == place(CLIENT) && c.1 != place(LIGHTHOUSE)
            || c.1 == place(CLIENT) && c.0 != place(LIGHTHOUSE)
    };
    assert_eq!(world.carried.iter().find(|c| direct(c)), None);
    let node = world.engines[NODE].peer(world.engines[CLIENT].key());
    let way = node.unwrap().lock().paths.current().unwrap();
    assert!(way.is_relayed() && way.next_hop() == place(LIGHTHOUSE));
}

#[test]
fn a_client_that_moved_is_found_again_by_its_next_handshake() {
    let mut world = World::new();
    assert!(world.arrives(CLIENT, NODE));
    world.places[CLIENT] = ([198, 51, 100, 9], 4000).into();
    // Data from elsewhere is nobody's: no flow is turned on a third party.
    assert!(!world.arrives(CLIENT, NODE));
    let moved = world.places[CLIENT];
    assert_eq!(world.carried.iter().filter(|c| c.1 == moved).count(), 0);
    let mut out = Outbox::default();
    world.engines[CLIENT].knock(&mut out, Instant::now());
    let node = world.engines[CLIENT]
        .peer(world.engines[NODE].key())
        .unwrap();
    node.lock().ask(true, &mut out, Instant::now());
    world.carry(CLIENT, out);
    assert!(world.arrives(CLIENT, NODE) && world.arrives(NODE, CLIENT));
}

#[test]
fn what_no_node_answers_is_not_answered() {
    let mut world = World::new();
    // The node does not know this client (any more).
    let lighthouse = PeerConfig {
        public_key: world.engines[LIGHTHOUSE].key(),
        allowed_ips: vec![inner(LIGHTHOUSE).into()],
        endpoint: Some(place(LIGHTHOUSE)),
        keepalive: Some(25),
        always_on: true,
        plain: false,
        relay: true,
    };
    world.set(NODE, &[lighthouse]);
    world.carried.clear();
    for _ in 0..50 {
        let mut out = Outbox::default();
        let node = world.engines[CLIENT]
            .peer(world.engines[NODE].key())
            .unwrap();
        node.lock().ask(true, &mut out, Instant::now());
        world.carry(CLIENT, out);
    }
    let to = |n: usize| world.carried.iter().filter(|c| c.1 == place(n)).count();
    assert_eq!((to(CLIENT), to(LIGHTHOUSE)), (0, 50));
    assert!((1..=8).contains(&to(NODE)), "{}", to(NODE));
}
