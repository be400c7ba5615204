//! A node's data plane and wireguard-go, configured by hand, understand each other.
//!
//! Needs root; installs what it needs otherwise. Everything is removed at the end.

use holdfast_mesh::{Mesh, MeshPrivateKey, MeshSocket, PeerConfig, Tun};
use holdfast_testnet::*;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

const PORT: u16 = 51_820;
const ECHO: u16 = 7000;

/// Sends back what comes, connections and datagrams, until the process ends.
fn echo(place: &str) {
    let sockets = there(place, || {
        let listener = TcpListener::bind(("::", ECHO)).unwrap();
        (listener, UdpSocket::bind(("::", ECHO)).unwrap())
    });
    let (listener, datagrams) = sockets.join().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(&buffer[..len], from);
        }
    });
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                std::io::copy(&mut stream, &mut back)
            });
        }
    });
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n / 251 + n) as u8).collect()
}

/// What is sent over a connection comes back the same.
fn stream_returns(place: &str, to: IpAddr, count: usize) {
    let stream = there(place, move || {
        TcpStream::connect_timeout(&(to, ECHO).into(), PATIENCE)
    });
    let mut stream = stream.join().unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent = bytes(count);
    let (copy, mut writer) = (sent.clone(), stream.try_clone().unwrap());
    let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    let mut back = vec![0; count];
    stream.read_exact(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == sent, "other bytes came back from {to}");
}

/// Datagrams of all sizes come back the same.
fn datagrams_return(place: &str, to: IpAddr) {
    let socket = there(place, move || {
        let socket = UdpSocket::bind(("::", 0)).unwrap();
        socket.connect((to, ECHO)).unwrap();
        socket
    });
    let socket = socket.join().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut back = vec![0; 65_536];
    for len in (0..1400).step_by(101).chain([1332, 1352, 4000, 9001]) {
        let sent = bytes(len);
        socket.send(&sent).unwrap();
        let got = socket.recv(&mut back).unwrap();
        assert!(back[..got] == sent, "{len} bytes came back as {got} others");
    }
}

#[test]
fn a_node_and_wireguard_go_exchange_traffic() {
    if !possible(&[Needs::Tun]) {
        return;
    }
    let wire = Wire::new("i", 2);
    wire.tun(1, &["100.64.0.1/24", "fd00::1/64"]);
    let (ours, theirs) = (
        MeshPrivateKey::generate().unwrap(),
        MeshPrivateKey::generate().unwrap(),
    );
    let (our_key, their_key) = (ours.public(), theirs.public());
    let go = WireguardGo::start(&wire, 2);
    let configuration = |port: u16| {
        format!(
            "[Interface]\nPrivateKey={}\nListenPort={port}\n\
             [Peer]\nPublicKey={our_key}\nAllowedIPs=100.64.0.1/32,fd00::1/128\n\
             Endpoint=10.98.0.1:{PORT}\n",
            &*theirs.to_text()
        )
    };
    go.configure(&configuration(PORT));
    wire.address(2, &go.device, &["100.64.0.2/24", "fd00::2/64"]);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let node = runtime_there(wire.at(1), move || async move {
        let mesh = Mesh::start(
            Tun::open("hf0").unwrap(),
            MeshSocket::bind(PORT).unwrap(),
            &ours,
        );
        let peer = PeerConfig {
            public_key: their_key,
            allowed_ips: vec![
                "100.64.0.2/32".parse().unwrap(),
                "fd00::2/128".parse().unwrap(),
            ],
            endpoint: Some(SocketAddr::from(([10, 98, 0, 2], PORT))),
            keepalive: None,
            always_on: false,
            plain: true,
            relay: false,
        };
        mesh.set_peers(&[peer]).unwrap();
        tell.send(mesh.clone()).unwrap();
        let _ = stopped.await;
        mesh.shutdown().await;
    });
    let mesh = told.recv_timeout(PATIENCE).unwrap();
    echo(wire.at(1));
    echo(wire.at(2));
    // Each begins once: the node's first packet makes the first handshake.
    for (from, to) in [(1, 2u8), (2, 1)] {
        let v4 = IpAddr::from([100, 64, 0, to]);
        let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(to)]);
        for to in [v4, v6] {
            stream_returns(wire.at(from), to, 20_000_000);
            datagrams_return(wire.at(from), to);
        }
    }
    let peers = go.show("latest-handshakes");
    assert!(peers.starts_with(&our_key.to_string()), "{peers}");

    // It moves, as a phone does: what it sends next tells where it is, and a new session comes.
    go.configure(&configuration(PORT + 1));
    stream_returns(wire.at(2), [100, 64, 0, 1].into(), 100_000);
    stream_returns(wire.at(1), [100, 64, 0, 2].into(), 100_000);
    let there = SocketAddr::from(([10, 98, 0, 2], PORT + 1));
    let status = mesh.status();
    assert_eq!(status[0].way.map(|w| w.next_hop()), Some(there));
    assert!(status[0].rx_bytes > 80_000_000, "{status:?}");

    let _ = stop.send(());
    node.join().unwrap();
}
