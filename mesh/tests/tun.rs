//! Two nodes with TUN devices, each in its own network namespace, as on real machines: made by
//! one process, used by another that may die. Needs root; everything is removed at the end.
#![allow(missing_docs, reason = "a test")]

#[path = "tun/namespaces.rs"]
mod namespaces;

use holdfast_mesh::{Mesh, MeshPrivateKey, MeshSocket, PeerConfig, Tun};
use namespaces::{Namespaces, inside};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 51_820;
const TCP_PORT: u16 = 7777;
const ROUGH: u16 = 6001;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["node", own, peer, allowed, endpoint] => node(own, peer, allowed, endpoint, false),
        ["restless", own, peer, allowed, endpoint] => node(own, peer, allowed, endpoint, true),
        ["echo"] => echo(),
        ["rough"] => rough(),
        ["far"] => far(),
        _ if args.iter().any(|a| a == "--list") => {}
        _ if !holdfast_testnet::possible(&[holdfast_testnet::Needs::Tun]) => {}
        _ => {
            data_crosses_and_a_connection_outlives_the_engine();
            println!("test data_crosses_and_a_connection_outlives_the_engine ... ok");
            everything_arrives_as_it_was_sent();
            println!("test everything_arrives_as_it_was_sent ... ok");
            a_far_and_lossy_way_is_still_a_way();
            println!("test a_far_and_lossy_way_is_still_a_way ... ok");
        }
    }
}

/// A node's data plane, until killed. A restless one begins a new session five times a second.
fn node(own: &str, peer: &str, allowed: &str, endpoint: &str, restless: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let key = MeshPrivateKey::from_text(own).expect("own key");
        let peer = PeerConfig {
            public_key: peer.parse().expect("peer key"),
            allowed_ips: allowed
                .split(',')
                .map(|net| net.parse().expect("a network"))
                .collect(),
            endpoint: Some(endpoint.parse().expect("an endpoint")),
            keepalive: None,
            always_on: true,
            // No other way is sought than the one given.
            plain: restless,
            relay: false,
        };
        let tun = Tun::open("hf0").expect("hf0 can be opened");
        let mesh = Mesh::start(tun, MeshSocket::bind(PORT).expect("the port is free"), &key);
        mesh.set_peers(std::slice::from_ref(&peer))
            .expect("the peer is accepted");
        mesh.wait_handshake(peer.public_key, PATIENCE)
            .await
            .expect("a handshake");
        println!("ready");
        let mut knocks = tokio::time::interval(Duration::from_millis(200));
        let restless = async {
            loop {
                knocks.tick().await;
                if restless {
                    mesh.knock();
                }
            }
        };
        tokio::select! {
            () = restless => {}
            why = mesh.stopped() => panic!("the mesh ended: {why}"),
        }
    });
}

/// Sends back what connections and datagrams bring, until killed.
fn echo() {
    let listener = TcpListener::bind(("::", TCP_PORT)).expect("the port is free");
    let datagrams = UdpSocket::bind(("::", TCP_PORT)).expect("the port is free");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = datagrams.recv_from(&mut buffer) {
            datagrams
                .send_to(&buffer[..len], from)
                .expect("sending back");
        }
    });
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        std::thread::spawn(move || {
            let mut back = stream.try_clone().expect("a second handle");
            std::io::copy(&mut stream, &mut back)
        });
    }
}

/// The first node's way to the second, until killed: one datagram in 50 is lost, one in 20 comes
/// later than those after it, and one in 100 comes twice.
fn rough() {
    let bind =
        |port| UdpSocket::bind(SocketAddr::from(([10, 99, 0, 1], port))).expect("the port is free");
    let ends = [(bind(ROUGH), 1u8), (bind(ROUGH + 1), 2u8)];
    let mut ways = vec![];
    for (n, (_, node)) in ends.iter().enumerate() {
        let from = ends[n].0.try_clone().expect("a second handle");
        let through = ends[1 - n].0.try_clone().expect("a second handle");
        let to = SocketAddr::from(([10, 99, 0, 3 - node], PORT));
        ways.push(std::thread::spawn(move || {
            from.set_read_timeout(Some(Duration::from_millis(5)))
                .expect("a timeout");
            let (mut buffer, mut late, mut count) = (vec![0; 65_536], vec![], 0u64);
            loop {
                if let Ok(len) = from.recv(&mut buffer) {
                    count += 1;
                    let datagram = &buffer[..len];
                    if count.is_multiple_of(20) {
                        late.push(datagram.to_vec());
                    } else if !count.is_multiple_of(50) {
                        let _ = through.send_to(datagram, to);
                    }
                    if count.is_multiple_of(99) {
                        let _ = through.send_to(datagram, to);
                    }
                    if late.len() < 2 && count % 20 != 7 {
                        continue;
                    }
                }
                for datagram in late.drain(..) {
                    let _ = through.send_to(&datagram, to);
                }
            }
        }));
    }
    println!("ready");
    ways.into_iter()
        .for_each(|way| way.join().expect("the thread ends well"));
}

/// Of a far way, in each direction.
const DELAY: Duration = Duration::from_millis(100);

/// As [`rough`], but 100 ms long each way, losing one datagram in 20, in order.
fn far() {
    let bind =
        |port| UdpSocket::bind(SocketAddr::from(([10, 99, 0, 1], port))).expect("the port is free");
    let ends = [(bind(ROUGH), 1u8), (bind(ROUGH + 1), 2u8)];
    for (n, (_, node)) in ends.iter().enumerate() {
        let from = ends[n].0.try_clone().expect("a second handle");
        let through = ends[1 - n].0.try_clone().expect("a second handle");
        let to = SocketAddr::from(([10, 99, 0, 3 - node], PORT));
        let (put, take) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
        std::thread::spawn(move || {
            let (mut buffer, mut dice) = (vec![0; 65_536], 12_345u32);
            while let Ok(len) = from.recv(&mut buffer) {
                // Not each twentieth: TCP's own rhythm would meet it again and again.
                dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if (dice >> 16) % 20 != 0 {
                    let sent = put.send((Instant::now() + DELAY, buffer[..len].to_vec()));
                    sent.expect("somebody takes it");
                }
            }
        });
        std::thread::spawn(move || {
            for (due, datagram) in take {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let _ = through.send_to(&datagram, to);
            }
        });
    }
    println!("ready");
    loop {
        std::thread::park();
    }
}

/// Connects from inside the first namespace.
fn connect(namespace: &str, to: SocketAddr) -> TcpStream {
    inside(namespace, move || {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("connecting");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    })
}

/// Datagrams of all kinds of sizes come back as they were sent, one by one and cut by the kernel.
fn datagrams_return(namespace: &str, to: SocketAddr) {
    let socket = inside(namespace, move || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).expect("a port");
        socket.connect(to).expect("a way there");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    });
    let mut back = vec![0; 65_536];
    // Up to several fragments of the mesh's MTU.
    for len in (0..64)
        .chain((64..1500).step_by(13))
        .chain([1352, 1353, 4000, 9001])
    {
        let sent: Vec<u8> = (0..len).map(|n| (n * 7 + len) as u8).collect();
        socket.send(&sent).expect("sending");
        let got = socket.recv(&mut back).expect("it comes back");
        assert!(back[..got] == sent, "{len} bytes came back as {got} others");
    }
    for size in [1, 333, 1100, 1300] {
        setsockopt(&socket, sockopt::UdpGsoSegment, &size).expect("the kernel cuts");
        let sent: Vec<u8> = (0..40 * size - size / 2)
            .map(|n| (n / 251 + n) as u8)
            .collect();
        let mut want: Vec<&[u8]> = sent.chunks(size as usize).collect();
        socket.send(&sent).expect("sending");
        while !want.is_empty() {
            let got = socket.recv(&mut back).expect("it comes back");
            let at = want.iter().position(|part| *part == &back[..got]);
            want.remove(at.unwrap_or_else(|| panic!("{got} bytes that nobody sent")));
        }
    }
}

/// Sends `count` bytes and reads them back, checked.
fn round_trip(stream: &TcpStream, count: usize) {
    let sent: Vec<u8> = (0..count).map(|n| (n / 251 + n) as u8).collect();
    let (copy, mut writer) = (sent.clone(), stream.try_clone().expect("a second handle"));
    let writing = std::thread::spawn(move || writer.write_all(&copy).expect("writing"));
    let mut back = vec![0; count];
    let mut reader = stream;
    reader.read_exact(&mut back).expect("reading back");
    writing.join().expect("the writer ends well");
    assert!(back == sent, "other bytes came back");
}

fn data_crosses_and_a_connection_outlives_the_engine() {
    let (a, b) = (
        MeshPrivateKey::generate().unwrap(),
        MeshPrivateKey::generate().unwrap(),
    );
    let (a_text, b_text) = (a.to_text(), b.to_text());
    let (a_public, b_public) = (a.public().to_string(), b.public().to_string());
    let mut net = Namespaces::new();
    let (a_nets, b_nets) = ("100.64.0.1/32,fd00::1/128", "100.64.0.2/32,fd00::2/128");
    // The second node is not waited for: each waits for the other.
    let second = ["node", &b_text, &a_public, a_nets, "10.99.0.1:51820"];
    net.children.push(spawn_quiet(&net.names[1], &second));
    let node = net.run(0, &["node", &a_text, &b_public, b_nets, "10.99.0.2:51820"]);
    net.run(1, &["echo"]);
    let v6 = connect(
        &net.names[0],
        (
            std::net::Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]),
            TCP_PORT,
        )
            .into(),
    );
    round_trip(&v6, 20_000_000);
    let v4 = connect(&net.names[0], ([100, 64, 0, 2], TCP_PORT).into());
    round_trip(&v4, 100_000_000);

    // The engine dies without a word; device, address, routes and connections stay. It comes
    // back over the other address family, which its peer has to learn.
    net.kill(node);
    let started = Instant::now();
    net.run(0, &["node", &a_text, &b_public, b_nets, "[fd99::2]:51820"]);
    round_trip(&v4, 1_000_000);
    round_trip(&v6, 1_000_000);
    let took = started.elapsed();
    assert!(
        took < Duration::from_secs(10),
        "the connections took {took:?} to go on"
    );
}

/// Over a way that loses, reorders and repeats, with new sessions all the time.
fn everything_arrives_as_it_was_sent() {
    let (a, b) = (
        MeshPrivateKey::generate().unwrap(),
        MeshPrivateKey::generate().unwrap(),
    );
    let (a_text, b_text) = (a.to_text(), b.to_text());
    let (a_public, b_public) = (a.public().to_string(), b.public().to_string());
    let mut net = Namespaces::new();
    let (a_nets, b_nets) = ("100.64.0.1/32,fd00::1/128", "100.64.0.2/32,fd00::2/128");
    let to = |ip: IpAddr| SocketAddr::new(ip, TCP_PORT);
    let both = [
        to([100, 64, 0, 2].into()),
        to(Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]).into()),
    ];

    // A good way first: nothing excuses a datagram that does not come back.
    let second = ["node", &b_text, &a_public, a_nets, "10.99.0.1:51820"];
    net.children.push(spawn_quiet(&net.names[1], &second));
    let first = net.run(0, &["node", &a_text, &b_public, b_nets, "10.99.0.2:51820"]);
    net.run(1, &["echo"]);
    both.iter()
        .for_each(|to| datagrams_return(&net.names[0], *to));
    net.kill(first);
    net.kill(0);

    net.run(0, &["rough"]);
    let second = ["restless", &b_text, &a_public, a_nets, "10.99.0.1:6002"];
    net.children.push(spawn_quiet(&net.names[1], &second));
    net.run(
        0,
        &["restless", &a_text, &b_public, b_nets, "10.99.0.1:6001"],
    );
    let flows: Vec<_> = (0..16)
        .map(|n| {
            let stream = connect(&net.names[0], both[n % 2]);
            std::thread::spawn(move || round_trip(&stream, 500_000 + n))
        })
        .collect();
    flows
        .into_iter()
        .for_each(|flow| flow.join().expect("the flow ends well"));
}

/// 200 ms there and back, 5 % lost each way: handshakes succeed, and connections carry what they are
/// given.
fn a_far_and_lossy_way_is_still_a_way() {
    let (a, b) = (
        MeshPrivateKey::generate().unwrap(),
        MeshPrivateKey::generate().unwrap(),
    );
    let (a_text, b_text) = (a.to_text(), b.to_text());
    let (a_public, b_public) = (a.public().to_string(), b.public().to_string());
    let mut net = Namespaces::new();
    let (a_nets, b_nets) = ("100.64.0.1/32,fd00::1/128", "100.64.0.2/32,fd00::2/128");
    net.run(0, &["far"]);
    let second = ["node", &b_text, &a_public, a_nets, "10.99.0.1:6002"];
    net.children.push(spawn_quiet(&net.names[1], &second));
    net.run(0, &["node", &a_text, &b_public, b_nets, "10.99.0.1:6001"]);
    net.run(1, &["echo"]);
    let begun = Instant::now();
    let flows: Vec<_> = (0..4)
        .map(|n| {
            let stream = connect(&net.names[0], ([100, 64, 0, 2], TCP_PORT).into());
            std::thread::spawn(move || round_trip(&stream, 60_000 + n))
        })
        .collect();
    flows
        .into_iter()
        .for_each(|flow| flow.join().expect("the flow ends well"));
    let took = begun.elapsed();
    // Nobody is quicker than the way itself: the delay is there.
    assert!(took > DELAY * 4, "{took:?}");
    println!("4 connections of 60 kB each way over 200 ms and 5 % loss: {took:.1?}");
}

fn spawn_quiet(namespace: &str, args: &[&str]) -> Child {
    Command::new("ip")
        .args(["netns", "exec", namespace])
        .arg(std::env::current_exe().expect("own path"))
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .expect("ip runs")
}
