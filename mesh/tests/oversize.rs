//! A stranger who has seen one datagram of a session sends oversize ones, singly and in a batch
//! that the kernel hands over whole (GRO). boringtun alone panics on them.
#![allow(missing_docs, reason = "a test")]

mod common;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::PublicKey;
use common::{Member, soon, v4};
use holdfast_mesh::{MeshPrivateKey, PeerConfig};
use nix::sys::socket::{setsockopt, sockopt};
use std::time::Duration;
use tokio::net::UdpSocket;

/// A peer that is nothing but boringtun and a socket.
struct Raw {
    tunn: Tunn,
    socket: UdpSocket,
}

impl Raw {
    async fn new(own: &MeshPrivateKey, member: &Member) -> Self {
        let secret = boringtun::x25519::StaticSecret::from(*own.as_bytes());
        let other = PublicKey::from(member.mesh.public_key().0);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(member.endpoint()).await.unwrap();
        Self {
            tunn: Tunn::new(secret, other, None, None, 1, None),
            socket,
        }
    }

    /// Shakes hands and gives the member's index of the session.
    async fn handshake(&mut self) -> [u8; 4] {
        let mut buffer = [0; 256];
        match self.tunn.format_handshake_initiation(&mut buffer, false) {
            TunnResult::WriteToNetwork(message) => self.socket.send(message).await.unwrap(),
            other => panic!("{other:?}"),
        };
        let mut response = [0; 256];
        let len = soon("a response", self.socket.recv(&mut response))
            .await
            .unwrap();
        assert_eq!(len, 92);
        match self.tunn.decapsulate(None, &response[..len], &mut buffer) {
            TunnResult::WriteToNetwork(keepalive) => self.socket.send(keepalive).await.unwrap(),
            other => panic!("{other:?}"),
        };
        response[4..8].try_into().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversize_datagrams_do_no_harm() {
    let member = Member::start(1);
    let own = MeshPrivateKey::generate().unwrap();
    let peer = PeerConfig {
        public_key: own.public(),
        allowed_ips: vec![ipnet::IpNet::from(std::net::IpAddr::from(v4(2)))],
        endpoint: None,
        keepalive: None,
        always_on: false,
        plain: false,
        relay: false,
    };
    member.mesh.set_peers(&[peer]).unwrap();
    let mut raw = Raw::new(&own, &member).await;
    let index = raw.handshake().await;
    member.handshake(own.public()).await;

    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let datagram = |len: usize| {
        let mut bytes = vec![0u8; len];
        bytes[0] = 4;
        bytes[4..8].copy_from_slice(&index);
        bytes
    };
    for len in [2100, 3000, 9000, 65_507] {
        stranger
            .send_to(&datagram(len), member.endpoint())
            .await
            .unwrap();
    }
    // One call, one batch on the other side: loopback keeps it whole.
    setsockopt(&stranger, sockopt::UdpGsoSegment, &3000).unwrap();
    let batch: Vec<u8> = (0..20).flat_map(|_| datagram(3000)).collect();
    stranger.send_to(&batch, member.endpoint()).await.unwrap();

    // Whatever came before is done with once an answer to this is here.
    let before = member.mesh.status()[0].rx_bytes;
    let mut buffer = [0; 256];
    if let TunnResult::WriteToNetwork(keepalive) = raw.tunn.encapsulate(&[], &mut buffer) {
        raw.socket.send(keepalive).await.unwrap();
    }
    soon("the member still takes what is valid", async {
        while member.mesh.status()[0].rx_bytes == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let ended = tokio::time::timeout(Duration::from_millis(50), member.mesh.stopped()).await;
    assert!(ended.is_err(), "the engine ended: {ended:?}");
}

/// What is guarded against, seen in boringtun itself.
#[test]
fn boringtun_alone_panics() {
    let secret = |n: u8| boringtun::x25519::StaticSecret::from([n; 32]);
    let public = |n: u8| PublicKey::from(&secret(n));
    let mut one = Tunn::new(secret(1), public(2), None, None, 1, None);
    let mut two = Tunn::new(secret(2), public(1), None, None, 2, None);
    let (mut a, mut b) = ([0; 2048], [0; 2048]);
    let TunnResult::WriteToNetwork(init) = one.format_handshake_initiation(&mut a, false) else {
        panic!("no initiation")
    };
    let TunnResult::WriteToNetwork(response) = two.decapsulate(None, init, &mut b) else {
        panic!("no response")
    };
    let mut oversize = vec![0u8; 3000];
    oversize[0] = 4;
    oversize[4..8].copy_from_slice(&response[4..8]);
    let panicked = std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        let _ = two.decapsulate(None, &oversize, &mut buffer);
    })
    .join()
    .is_err();
    assert!(
        panicked,
        "boringtun does not panic any more: is the guard still needed?"
    );
}
