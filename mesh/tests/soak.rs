//! A node with many peers, all of them active, for as long as asked: nothing grows, and every peer is
//! answered to the end. Root; two network namespaces.
//!
//! `HOLDFAST_SOAK=SECONDS` and `HOLDFAST_SOAK_PEERS=N` say how long and how many (5 s and 50; `make soak`
//! and `make test-long`: 600 s and 1,000). The node is a process of its own, whose memory is printed.
#![allow(missing_docs, reason = "a test")]

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use holdfast_mesh::{Mesh, MeshPrivateKey, MeshSocket, PeerConfig, Tun};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 51_820;
const ECHO: u16 = 7000;
const NODE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
/// The peers live at so many addresses behind the node's: it bounds handshakes from each.
const PLACES: u8 = 20;
/// Between the first handshakes of two peers: 133 a second.
const ENTRY: Duration = Duration::from_micros(7500);
/// A node with 1,000 peers, all active, is to need no more, in kB.
const MOST: u64 = 60_000;
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_secs(10);
/// A peer that is not answered for so long is lost.
const SILENT: Duration = Duration::from_secs(20);
/// Each peer sends a packet so often.
const PACE: Duration = Duration::from_secs(1);

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| text.parse().expect("a number"))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let peers = number("HOLDFAST_SOAK_PEERS", 50) as u16;
    match args.first().map(String::as_str) {
        Some("node") => node(peers),
        _ if args.iter().any(|a| a == "--list") => {}
        _ if !holdfast_testnet::possible(&[holdfast_testnet::Needs::Tun]) => {}
        _ => soak(peers, Duration::from_secs(number("HOLDFAST_SOAK", 5))),
    }
}

fn secret(n: u16) -> [u8; 32] {
    let mut bytes = [7; 32];
    // Not the first: three bits of it do not count (RFC 7748, 5).
    bytes[8..10].copy_from_slice(&n.to_le_bytes());
    bytes
}

/// Peer `n`'s address inside; the node has the first.
fn inner(n: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 1)) + u32::from(n))
}

/// The node: a TUN, its peers, and an echo behind it; until killed.
fn node(peers: u16) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let wanted: Vec<PeerConfig> = (1..=peers)
            .map(|n| PeerConfig {
                public_key: MeshPrivateKey::from_bytes(secret(n)).public(),
                allowed_ips: vec![std::net::IpAddr::from(inner(n)).into()],
                endpoint: None,
                keepalive: None,
                always_on: false,
                plain: true,
                relay: false,
            })
            .collect();
        let key = MeshPrivateKey::from_bytes(secret(0));
        let socket = MeshSocket::bind(PORT).expect("the port is free");
        let mesh = Mesh::start(Tun::open("hf0").expect("hf0"), socket, &key);
        mesh.set_peers(&wanted).expect("the peers are accepted");
        let echo = UdpSocket::bind((inner(0), ECHO)).expect("the echo's port");
        std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            while let Ok((len, from)) = echo.recv_from(&mut buffer) {
                let _ = echo.send_to(&buffer[..len], from);
            }
        });
        println!("ready");
        panic!("the mesh ended: {}", mesh.stopped().await);
    });
}

/// An address that peers share.
fn place(n: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(NODE) + 1 + u32::from(n))
}

struct World {
    names: [String; 2],
    children: Vec<Child>,
}

fn ip(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let done = Command::new("ip").args(&words).output().expect("ip runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {line}: {said}");
}

impl World {
    fn new() -> Self {
        let id = std::process::id();
        let world = Self {
            names: [format!("hfsoak{id}a"), format!("hfsoak{id}b")],
            children: vec![],
        };
        world
            .names
            .iter()
            .for_each(|name| ip(&format!("netns add {name}")));
        let [a, b] = &world.names;
        ip(&format!(
            "link add wire netns {a} type veth peer name wire netns {b}"
        ));
        ip(&format!("-n {a} addr add {NODE}/24 dev wire"));
        for n in 0..PLACES {
            ip(&format!("-n {b} addr add {}/24 dev wire", place(n)));
        }
        for name in [a, b] {
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set wire up"));
        }
        ip(&format!("-n {a} tuntap add dev hf0 mode tun vnet_hdr"));
        ip(&format!("-n {a} addr add {}/16 dev hf0", inner(0)));
        ip(&format!("-n {a} link set hf0 mtu 1380 up"));
        world
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Resident kB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the node lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let text = line.expect("VmRSS").trim().trim_end_matches(" kB");
    text.parse().expect("a number")
}

struct Peer {
    tunn: Tunn,
    sent: u64,
    answered: u64,
    last: Instant,
    next: Instant,
}

/// An inner UDP packet of 200 bytes to the node's echo; without a checksum, as IPv4 allows.
fn packet(n: u16) -> [u8; 200] {
    let mut packet = [n as u8; 200];
    packet[..20].copy_from_slice(&[
        0x45, 0, 0, 200, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    packet[12..16].copy_from_slice(&inner(n).octets());
    packet[16..20].copy_from_slice(&inner(0).octets());
    let sum: u32 = packet[..20]
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&folded.to_be_bytes());
    packet[20..22].copy_from_slice(&ECHO.to_be_bytes());
    packet[22..24].copy_from_slice(&ECHO.to_be_bytes());
    packet[24..26].copy_from_slice(&180u16.to_be_bytes());
    packet[26..28].fill(0);
    packet
}

fn soak(count: u16, time: Duration) {
    let mut world = World::new();
    let this = std::env::current_exe().expect("own path");
    let mut node = Command::new("ip")
        .args(["netns", "exec", &world.names[0]])
        .arg(this)
        .arg("node")
        .env("HOLDFAST_SOAK_PEERS", count.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ip runs");
    let output = node.stdout.take().expect("its output");
    // `ip netns exec` replaces itself by the program.
    let pid = node.id();
    world.children.push(node);
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    assert!(lines.any(|l| l == "ready"), "the node ended early");

    let sockets: Vec<UdpSocket> = {
        let at =
            std::fs::File::open(format!("/run/netns/{}", world.names[1])).expect("it is there");
        let bound = std::thread::spawn(move || {
            nix::sched::setns(&at, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering it");
            let bind = |n| {
                let socket = UdpSocket::bind((place(n), PORT)).expect("the port is free");
                socket.set_nonblocking(true).expect("it does not block");
                socket
            };
            (0..PLACES).map(bind).collect()
        });
        bound.join().expect("the thread ends well")
    };
    let socket = |n: u16| &sockets[usize::from(n) % sockets.len()];
    let to = SocketAddr::from((NODE, PORT));
    let begun = Instant::now();
    let node_key = PublicKey::from(&StaticSecret::from(secret(0)));
    let mut peers: Vec<Peer> = (1..=count)
        .map(|n| Peer {
            tunn: Tunn::new(
                StaticSecret::from(secret(n)),
                node_key,
                None,
                None,
                u32::from(n),
                None,
            ),
            sent: 0,
            answered: 0,
            last: begun,
            next: begun + ENTRY * u32::from(n),
        })
        .collect();
    let all_in = begun + ENTRY * u32::from(count) + Duration::from_secs(2);
    let end = all_in + time;
    let (mut looks, mut next_look, mut next_tick) = (vec![], all_in, begun);
    let (mut buffer, mut room) = (vec![0; 65_536], vec![0; 65_536]);
    let mut now = begun;
    while now < end {
        let arrived = sockets.iter().cycle().take(sockets.len() * 16);
        for from in arrived {
            let Ok(len) = from.recv(&mut buffer) else {
                continue;
            };
            let at = if buffer[0] == 2 { 8 } else { 4 };
            let word = buffer[at..at + 4].try_into().expect("four bytes");
            let index = u32::from_le_bytes(word) >> 8;
            let Some(peer) = peers.get_mut((index as usize).wrapping_sub(1)) else {
                continue;
            };
            let mut datagram = &buffer[..len];
            loop {
                match peer.tunn.decapsulate(None, datagram, &mut room) {
                    TunnResult::WriteToNetwork(answer) => {
                        let _ = from.send_to(answer, to);
                        datagram = &[];
                    }
                    TunnResult::WriteToTunnelV4(inner, _) => {
                        assert!(inner[28..] == packet(index as u16)[28..], "other bytes");
                        peer.answered += 1;
                        peer.last = now;
                        break;
                    }
                    _ => break,
                }
            }
        }
        // What comes meanwhile waits in the sockets.
        std::thread::sleep(Duration::from_millis(1));
        now = Instant::now();
        if now >= next_tick {
            next_tick = now + Duration::from_millis(250);
            for (n, peer) in (1..).zip(&mut peers).filter(|(_, p)| p.sent > 0) {
                if let TunnResult::WriteToNetwork(message) = peer.tunn.update_timers(&mut room) {
                    let _ = socket(n).send_to(message, to);
                }
            }
        }
        for (n, peer) in (1..).zip(&mut peers) {
            if now >= peer.next {
                peer.next = now + PACE;
                peer.sent += 1;
                let sealed = peer.tunn.encapsulate(&packet(n), &mut room);
                if let TunnResult::WriteToNetwork(message) = sealed {
                    let _ = socket(n).send_to(message, to);
                }
            }
        }
        if now >= next_look {
            next_look = now + LOOK;
            let kb = resident(pid);
            let answered: u64 = peers.iter().map(|p| p.answered).sum();
            let sent: u64 = peers.iter().map(|p| p.sent).sum();
            println!(
                "soak: {:>4} s, {count} peers, RSS {:.1} MB, {answered} of {sent} packets answered",
                (now - all_in).as_secs(),
                kb as f64 / 1000.0
            );
            looks.push(kb);
        }
    }
    // A busy machine loses datagrams of both sides; a peer that is given up is another thing.
    for (n, peer) in (1u16..).zip(&peers) {
        let (sent, answered, silent) = (peer.sent, peer.answered, now - peer.last);
        let heard = silent < SILENT && answered >= (sent / 2).saturating_sub(2);
        assert!(
            heard,
            "peer {n}: {answered} of {sent} packets came back, the last {silent:?} ago"
        );
    }
    let last = resident(pid);
    looks.push(last);
    assert!(last <= MOST, "{last} kB with {count} active peers");
    // What was needed once all were in, and a little for the allocator.
    let early = *looks[..looks.len().div_ceil(4)]
        .iter()
        .max()
        .expect("a look");
    assert!(last <= early + early / 10 + 512, "it grew: {looks:?} kB");
    println!("test soak ... ok");
}
