//! Flows of plain clients: what passes, and what never does.

use super::*;
use crate::keys::MeshPrivateKey;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::StaticSecret;

fn place(n: u16) -> SocketAddr {
    ([192, 0, 2, 1], n).into()
}

/// A handshake initiation to the node with `key`.
fn initiation(key: MeshKey) -> Vec<u8> {
    let own = StaticSecret::from([7; 32]);
    let mut tunn = Tunn::new(own, PublicKey::from(key.0), None, None, 1, None);
    let mut room = [0; 256];
    match tunn.format_handshake_initiation(&mut room, true) {
        TunnResult::WriteToNetwork(message) => message.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn key() -> MeshKey {
    MeshPrivateKey::generate().unwrap().public()
}

const DATA: Kind = Kind::Data(1);

#[test]
fn only_an_initiation_for_a_node_with_clients_begins_a_flow() {
    let (node, other, now) = (key(), key(), Instant::now());
    let mut clients = Clients::default();
    clients.set_nodes(&[node]);
    let mut sent = |what: &[u8], kind| clients.inward(place(1), what, kind, now);
    assert_eq!(sent(&[4; 64], DATA), None);
    assert_eq!(sent(&initiation(other), Kind::Initiation), None);
    let mut altered = initiation(node);
    altered[20] ^= 1;
    assert_eq!(sent(&altered, Kind::Initiation), None);
    let (to, channel) = sent(&initiation(node), Kind::Initiation).unwrap();
    assert_eq!(to, node);
    // What follows goes the same way; from elsewhere it goes nowhere.
    assert_eq!(sent(&[4; 64], DATA), Some((node, channel)));
    assert_eq!(clients.inward(place(2), &[4; 64], DATA, now), None);
    assert_eq!(clients.node(channel), Some(node));
    assert_eq!(clients.node(Channel(channel.0 ^ 1)), None);
    clients.set_nodes(&[other]);
    assert_eq!(clients.node(channel), None);
    assert_eq!(clients.inward(place(1), &[4; 64], DATA, now), None);
}

#[test]
fn a_known_client_goes_on_while_others_knock_for_nothing() {
    let (node, now) = (key(), Instant::now());
    let mut clients = Clients::default();
    clients.set_nodes(&[node]);
    let own = initiation(node);
    assert!(
        clients
            .inward(place(1), &own, Kind::Initiation, now)
            .is_some()
    );
    let junk = initiation(key());
    for n in 0..30_000 {
        let to = clients.inward(place(100 + n), &junk, Kind::Initiation, now);
        assert_eq!(to, None);
    }
    assert!(
        clients
            .inward(place(1), &own, Kind::Initiation, now)
            .is_some()
    );
}

#[test]
fn no_more_goes_back_than_came_until_the_answer_was_used() {
    let (node, now) = (key(), Instant::now());
    let mut clients = Clients::default();
    clients.set_nodes(&[node]);
    let message = initiation(node);
    let (_, channel) = clients
        .inward(place(1), &message, Kind::Initiation, now)
        .unwrap();
    // A forged source that sends data before any answer proves nothing.
    clients.inward(place(1), &[4; 32], DATA, now).unwrap();
    let mut back = |len| clients.outward(channel, len, now).is_some();
    assert!(!back(181));
    assert!(back(92));
    assert!(back(88));
    assert!(!back(1));
    clients.inward(place(1), &[4; 32], DATA, now).unwrap();
    assert_eq!(clients.outward(channel, 60_000, now), Some(place(1)));
}

#[test]
fn initiations_to_a_node_are_few_whatever_their_sources() {
    let (node, now) = (key(), Instant::now());
    let mut clients = Clients::default();
    clients.set_nodes(&[node]);
    let message = initiation(node);
    let mut passed = 0;
    for n in 1..2000 {
        let at = now + Duration::from_millis(u64::from(n));
        let went = clients.inward(place(n), &message, Kind::Initiation, at);
        passed += usize::from(went.is_some());
    }
    assert!((14..=17).contains(&passed), "{passed} in two seconds");
}

#[test]
fn flows_are_bounded_and_end() {
    let (node, mut now) = (key(), Instant::now());
    let mut clients = Clients::default();
    clients.set_nodes(&[node]);
    clients.nodes[0].initiations = Bucket::new(f64::INFINITY, 0.0);
    clients.searches = Bucket::new(f64::INFINITY, 0.0);
    let message = initiation(node);
    let begin = |clients: &mut Clients, n, now| {
        let went = clients.inward(place(n), &message, Kind::Initiation, now);
        went.map(|(_, channel)| channel)
    };
    let first = begin(&mut clients, 1, now).unwrap();
    clients.outward(first, 92, now).unwrap();
    let most = MAX_UNANSWERED as u16;
    assert!((2..=most + 1).all(|n| begin(&mut clients, n, now).is_some()));
    assert_eq!(begin(&mut clients, most + 2, now), None);
    now += UNANSWERED;
    clients.sweep(now);
    assert_eq!((clients.by_source.len(), clients.by_channel.len()), (1, 1));
    assert!(begin(&mut clients, most + 2, now).is_some());
    assert_eq!(clients.node(first), Some(node));
    clients.sweep(now + IDLE);
    assert_eq!((clients.by_source.len(), clients.by_channel.len()), (0, 0));
}

#[test]
fn a_flow_is_bounded_in_rate() {
    let (node, begin) = (key(), Instant::now());
    let mut clients = Clients::default();
    clients.limit(1_000_000.0);
    clients.set_nodes(&[node]);
    let message = initiation(node);
    clients
        .inward(place(1), &message, Kind::Initiation, begin)
        .unwrap();
    let mut passed = 0;
    for ms in 0..4000 {
        let now = begin + Duration::from_millis(ms);
        for _ in 0..4 {
            let went = clients.inward(place(1), &[4; 1400], DATA, now);
            passed += went.map_or(0, |_| 1400);
        }
    }
    assert!((3_900_000..4_300_000).contains(&passed), "{passed}");
}
