//! Which path two members find, by the kind of NAT that each is behind.
//!
//! Every place is a network namespace of this process; nftables are the NATs. Needs root and `nft`;
//! everything is removed at the end. `make test-nat` prints the table.

mod common;

use common::testing::*;
use common::{Lab, current};
use holdfast_client::LighthouseClient;
use holdfast_core::api::{OfferRequest, RelayRequest};
use holdfast_core::grant::Grant;
use holdfast_lighthouse::{Config, Lighthouse};
use holdfast_mesh::{
    Channel, MTU, Mesh, MeshHandle, MeshPrivateKey, MeshSocket, MeshStream, Netstack, PeerConfig,
    Way,
};
use holdfast_tls::Identity;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
/// A direct path is waited for so long.
const RACE: Duration = Duration::from_secs(3);
const PORT: u16 = 51_820;
const HTTPS: u16 = 8443;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nat {
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
    /// A port-restricted one behind another.
    Double,
    /// No NAT: IPv6 behind a firewall that lets in answers only.
    V6Firewall,
}

impl Nat {
    fn v6(self) -> bool {
        self == Self::V6Firewall
    }

    /// What `nft` is told; `host` is the member behind it.
    fn rules(self, host: &str) -> String {
        let into = match self {
            Self::FullCone => format!("udp dport {PORT} dnat to {host}"),
            Self::AddressRestricted => {
                format!("ip saddr @seen udp dport {PORT} dnat to {host}")
            }
            _ => String::new(),
        };
        let masquerade = match self {
            Self::V6Firewall => "",
            Self::Symmetric => "oifname \"wan\" masquerade fully-random",
            _ => "oifname \"wan\" masquerade",
        };
        format!(
            "table ip n {{
               set seen {{ type ipv4_addr; flags dynamic,timeout; timeout 60s; size 1000; }}
               chain before {{ type nat hook prerouting priority dstnat
                 iifname \"wan\" {into}
               }}
               chain onward {{ type filter hook forward priority 0
                 oifname \"wan\" meta l4proto udp update @seen {{ ip daddr }}
               }}
               chain inward {{ type filter hook input priority 0
                 iifname \"wan\" meta l4proto udp drop
               }}
               chain inward_all {{ type filter hook prerouting priority -300
               }}
               chain after {{ type nat hook postrouting priority srcnat
                 {masquerade}
               }}
             }}
             table ip6 f {{
               chain onward {{ type filter hook forward priority 0
                 iifname \"wan\" ct state established,related accept
                 iifname \"wan\" drop
               }}
             }}\n"
        )
        .replace("iifname \"wan\" \n", "\n")
    }
}

/// What was found.
#[derive(Debug)]
struct Found {
    /// Until the first byte came back, relayed.
    first: Duration,
    /// Until both used a direct path; none: they stayed relayed.
    direct: Option<Duration>,
    lan: bool,
    /// Longest silence of the open stream when the direct path was cut.
    cut: Option<Duration>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.first.as_millis();
        match self.direct {
            Some(t) => {
                let kind = if self.lan { "LAN" } else { "direct" };
                write!(f, "{kind} after {} ms", t.as_millis())?;
            }
            None => write!(f, "relayed")?,
        }
        write!(f, " (first answer {first} ms)")?;
        match self.cut {
            Some(t) => write!(f, ", cut: relayed after {} ms", t.as_millis()),
            None => Ok(()),
        }
    }
}

fn run(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let done = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{line}: {said}");
}

/// Namespaces, removed when dropped.
struct World {
    names: Vec<String>,
    prefix: String,
}

impl World {
    fn new(tag: &str) -> Self {
        let prefix = format!("hfnat{}{tag}", std::process::id());
        let mut world = Self {
            names: vec![],
            prefix,
        };
        let wan = world.add("w");
        let inside = |line: &str| run(&format!("ip -n {wan} {line}"));
        inside("link add br0 type bridge");
        inside("addr add 203.0.113.1/24 dev br0");
        inside("addr add 2001:db8:ff::1/64 dev br0 nodad");
        inside("link set br0 up");
        world
    }

    fn add(&mut self, name: &str) -> String {
        let full = format!("{}{name}", self.prefix);
        run(&format!("ip netns add {full}"));
        self.names.push(full.clone());
        run(&format!("ip -n {full} link set lo up"));
        full
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A cable from port `wan` of `place` to a bridge elsewhere.
    fn plug(&self, place: &str, at: &str, bridge: &str, address: &str, gateway: &str) {
        let end = format!("v{}", place.trim_start_matches(&self.prefix));
        run(&format!(
            "ip link add wan netns {place} type veth peer name {end} netns {at}"
        ));
        run(&format!("ip -n {at} link set {end} master {bridge} up"));
        run(&format!("ip -n {place} link set wan up"));
        let nodad = if address.contains(':') { " nodad" } else { "" };
        run(&format!("ip -n {place} addr add {address} dev wan{nodad}"));
        if !gateway.is_empty() {
            run(&format!("ip -n {place} route add default via {gateway}"));
        }
    }

    /// A router `name` on the wide net with a LAN of its own.
    fn router(&mut self, name: &str, nat: Nat, n: u8, upstream: (&str, &str)) -> String {
        let router = self.add(name);
        let (at, net) = (self.name(upstream.0), upstream.1);
        let gateway = if net == "203.0.113" {
            String::new()
        } else {
            format!("{net}.1")
        };
        self.plug(&router, &at, "br0", &format!("{net}.{n}0/24"), &gateway);
        let inside = |line: &str| run(&format!("ip -n {router} {line}"));
        inside("link add br0 type bridge");
        inside(&format!("addr add 192.168.{n}.1/24 dev br0"));
        if nat.v6() {
            inside(&format!("addr add 2001:db8:{n}::1/64 dev br0 nodad"));
            inside(&format!("addr add 2001:db8:ff::{n}0/64 dev wan nodad"));
            for other in (1..=2).filter(|o| *o != n) {
                inside(&format!(
                    "route add 2001:db8:{other}::/64 via 2001:db8:ff::{other}0"
                ));
            }
            run(&format!(
                "ip -n {at} route add 2001:db8:{n}::/64 via 2001:db8:ff::{n}0"
            ));
        }
        inside("link set br0 up");
        for knob in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            run(&format!("ip netns exec {router} sysctl -qw {knob}=1"));
        }
        let rules = nat.rules(&format!("192.168.{n}.2"));
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &router, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin
            .take()
            .unwrap()
            .write_all(rules.as_bytes())
            .unwrap();
        assert!(nft.wait().unwrap().success(), "{rules}");
        router
    }

    /// A member's machine in the LAN of `router`.
    fn host(&mut self, name: &str, router: &str, n: u8, number: u8, v6: bool) -> IpAddr {
        let host = self.add(name);
        let (address, gateway) = if v6 {
            (
                format!("2001:db8:{n}::{number}/64"),
                format!("2001:db8:{n}::1"),
            )
        } else {
            (format!("192.168.{n}.{number}/24"), format!("192.168.{n}.1"))
        };
        self.plug(&host, router, "br0", &address, &gateway);
        let (own, _) = address.split_once('/').unwrap();
        own.parse().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Does `work` in the namespace `place`, with a runtime whose threads all live there.
fn there<T: Send + 'static, F: Future<Output = T>>(
    place: String,
    work: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<T> {
    std::thread::spawn(move || {
        let at = File::open(format!("/run/netns/{place}")).unwrap();
        setns(at, CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work())
    })
}

struct Member {
    mesh: MeshHandle,
    stack: Netstack,
    inner: IpAddr,
}

/// What members need of the lighthouse.
#[derive(Clone)]
struct Contact {
    at: IpAddr,
    key: holdfast_core::keys::PublicKey,
    mesh_key: holdfast_mesh::MeshKey,
    grant: Grant,
}

impl Contact {
    fn client(&self, n: u8) -> LighthouseClient {
        let identity = Identity::from_key(&key(n)).unwrap();
        let address = SocketAddr::new(self.at, HTTPS).to_string();
        LighthouseClient::new(vec![address], self.key, Some(&identity)).unwrap()
    }
}

impl Member {
    async fn join(contact: &Contact, n: u8, own: IpAddr) -> Self {
        let g = &contact.grant;
        let secret = MeshPrivateKey::from_bytes([n + 70; 32]);
        let client = contact.client(n);
        let request = OfferRequest {
            grant: g.id.clone(),
            signing_key: Lab::public(n),
        };
        let offer = client.offer(&request).await.unwrap();
        let mut record = record(n, &format!("n{n}"), offer.index.get(), g);
        record.mesh_key = secret.public();
        client.join(member(&record, g, 50)).await.unwrap();
        let inner = IpAddr::from(cluster().plan().address4(record.index));
        let (stack, device) = Netstack::new(&[inner.into()], MTU).unwrap();
        let mesh = Mesh::start(device, MeshSocket::bind(PORT).unwrap(), &secret);
        mesh.set_places(vec![SocketAddr::new(own, PORT)], vec![]);
        let (asked, mut wanted) = (mesh.clone(), mesh.relay_wanted().unwrap());
        tokio::spawn(async move {
            while let Some(peer) = wanted.recv().await {
                if let Ok(r) = client.relay(&RelayRequest { peer }).await {
                    let _ = asked.set_channel(peer, r.lighthouse, Channel(r.channel));
                }
            }
        });
        Self { mesh, stack, inner }
    }

    fn as_peer(&self) -> PeerConfig {
        PeerConfig {
            public_key: self.mesh.public_key(),
            allowed_ips: vec![self.inner.into()],
            endpoint: None,
            keepalive: None,
            always_on: false,
            plain: false,
            relay: false,
        }
    }

    async fn meet(&self, contact: &Contact, other: PeerConfig) {
        let lighthouse = PeerConfig {
            public_key: contact.mesh_key,
            allowed_ips: vec![IpAddr::from(cluster().plan().address4(index(1))).into()],
            endpoint: Some(SocketAddr::new(contact.at, PORT)),
            keepalive: Some(25),
            always_on: true,
            plain: false,
            relay: true,
        };
        self.mesh.set_peers(&[lighthouse, other]).unwrap();
        let session = self.mesh.wait_handshake(contact.mesh_key, PATIENCE);
        session.await.unwrap();
    }

    fn way(&self, to: &PeerConfig) -> Option<Way> {
        let all = self.mesh.status();
        all.into_iter().find(|s| s.public_key == to.public_key)?.way
    }
}

/// A byte goes there and back; what came back.
async fn echo(stream: &mut MeshStream) -> u8 {
    let mut answer = [0];
    stream.write_all(&[1]).await.unwrap();
    let read = timeout(PATIENCE, stream.read_exact(&mut answer));
    read.await.unwrap().unwrap();
    answer[0]
}

/// Two members behind these NATs, or both in the LAN of the first; `cut`: the direct path is cut then.
fn find(tag: &str, nats: [Nat; 2], same_lan: bool, cut: bool) -> Found {
    let mut world = World::new(tag);
    let v6 = nats[0].v6();
    let mut routers = vec![];
    for (nat, n) in nats.into_iter().zip(1u8..) {
        if same_lan && n == 2 {
            continue;
        }
        let name = format!("r{n}");
        let router = if nat == Nat::Double {
            world.router("c", Nat::PortRestricted, 9, ("w", "203.0.113"));
            world.router(&name, Nat::PortRestricted, n, ("c", "192.168.9"))
        } else {
            world.router(&name, nat, n, ("w", "203.0.113"))
        };
        routers.push(router);
    }
    let second = routers.last().unwrap().clone();
    let own = [
        world.host("ha", &routers[0], 1, 2, v6),
        world.host(
            "hb",
            &second,
            if same_lan { 1 } else { 2 },
            3 - u8::from(!same_lan),
            v6,
        ),
    ];

    let mut lab = Lab::stopped();
    let config = Config {
        dir: lab.dir(),
        https: vec![format!("[::]:{HTTPS}").parse().unwrap()],
        udp: Some(format!("[::]:{PORT}").parse().unwrap()),
    };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (tell, told) = mpsc::channel();
    let (mut end, keys) = (stopped.clone(), lab.keys.tls.public());
    let lighthouse = there(world.name("w"), move || async move {
        lab.lighthouse = Some(Lighthouse::start(config).await.unwrap());
        let g = current("g1", 50, 2);
        lab.hand_over_at(&g, SocketAddr::from(([127, 0, 0, 1], HTTPS)))
            .await;
        tell.send((lab.keys.identity().mesh_key, g)).unwrap();
        end.wait_for(|s| *s).await.unwrap();
        drop(lab);
    });
    let (mesh_key, grant) = told.recv_timeout(PATIENCE).unwrap();
    let at: IpAddr = if v6 { "2001:db8:ff::1" } else { "203.0.113.1" }
        .parse()
        .unwrap();
    let contact = Contact {
        at,
        key: keys,
        mesh_key,
        grant,
    };

    let (to_one, from_two) = mpsc::channel::<PeerConfig>();
    let (to_two, from_one) = mpsc::channel::<PeerConfig>();
    let (ready, is_ready) = mpsc::channel();
    let (mut end, second) = (stopped, contact.clone());
    let two = there(world.name("hb"), move || async move {
        let two = Member::join(&second, 2, own[1]).await;
        to_one.send(two.as_peer()).unwrap();
        let one = from_one.recv_timeout(PATIENCE).unwrap();
        two.meet(&second, one.clone()).await;
        let mut listener = two.stack.listen(7000).unwrap();
        ready.send(()).unwrap();
        let serve = async {
            let mut stream = listener.accept().await.unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                // Back comes whether this side goes directly too.
                let direct = two.way(&one).is_some_and(|w| !w.is_relayed());
                stream.write_all(&[u8::from(direct)]).await.unwrap();
            }
        };
        tokio::select! { () = serve => {}, _ = end.wait_for(|s| *s) => {} }
        two.mesh.shutdown().await;
    });
    let router = routers[0].clone();
    let one = there(world.name("ha"), move || async move {
        let one = Member::join(&contact, 1, own[0]).await;
        to_two.send(one.as_peer()).unwrap();
        let two = from_two.recv_timeout(PATIENCE).unwrap();
        one.meet(&contact, two.clone()).await;
        is_ready.recv_timeout(PATIENCE).unwrap();
        let IpAddr::V4(inner) = two.allowed_ips[0].addr() else {
            panic!("{two:?}");
        };
        let begun = Instant::now();
        let mut stream = one.stack.connect((inner, 7000).into()).await.unwrap();
        let (mut first, mut direct) = (None, None);
        while direct.is_none() && begun.elapsed() < RACE {
            let answer = echo(&mut stream).await;
            first.get_or_insert_with(|| begun.elapsed());
            let here = one.way(&two).is_some_and(|w| !w.is_relayed());
            direct = (here && answer == 1).then(|| begun.elapsed());
            sleep(Duration::from_millis(2)).await;
        }
        let at = one.way(&two).and_then(Way::direct).map(|a| a.ip());
        let lan = at == Some(own[1]) && !matches!(own[1], IpAddr::V6(_));
        let mut silence = None;
        if cut && direct.is_some() {
            // Nothing from the other's router comes in any more.
            run(&format!(
                "ip netns exec {router} nft add rule ip n inward_all ip saddr 203.0.113.20 drop"
            ));
            let begun = Instant::now();
            let mut longest = Duration::ZERO;
            while begun.elapsed() < RACE + RACE {
                let asked = Instant::now();
                echo(&mut stream).await;
                longest = longest.max(asked.elapsed());
                sleep(Duration::from_millis(20)).await;
            }
            assert!(one.way(&two).is_some_and(Way::is_relayed));
            silence = Some(longest);
        }
        one.mesh.shutdown().await;
        Found {
            cut: silence,
            first: first.unwrap(),
            direct,
            lan,
        }
    });
    let found = one.join();
    stop.send_replace(true);
    two.join().unwrap();
    lighthouse.join().unwrap();
    found.unwrap()
}

fn possible() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let nft = Command::new("nft").arg("--version").output().is_ok();
    if !root || !nft {
        println!("skipped: needs root and nft (network namespaces with NATs)");
    }
    root && nft
}

#[test]
fn every_pair_of_nats_finds_a_path_and_a_direct_one_where_there_is_one() {
    if !possible() {
        return;
    }
    use Nat::*;
    let pairs = [
        (FullCone, FullCone, true),
        (FullCone, Symmetric, true),
        (AddressRestricted, PortRestricted, true),
        (AddressRestricted, Symmetric, true),
        (PortRestricted, PortRestricted, true),
        (PortRestricted, Symmetric, false),
        (Symmetric, Symmetric, false),
        (Double, PortRestricted, true),
        (V6Firewall, V6Firewall, true),
    ];
    let mut wrong = vec![];
    for (n, (a, b, direct)) in pairs.into_iter().enumerate() {
        let found = find(&n.to_string(), [a, b], false, false);
        println!("{:<18} {:<18} {found}", format!("{a:?}"), format!("{b:?}"));
        if found.direct.is_some() != direct {
            wrong.push(format!("{a:?} and {b:?}: {found}"));
        }
    }
    let found = find("l", [PortRestricted, PortRestricted], true, false);
    println!("{:<18} {:<18} {found}", "the same LAN", "");
    assert!(found.lan, "{found}");
    let found = find("x", [PortRestricted, PortRestricted], false, true);
    println!("{:<18} {:<18} {found}", "cut later", "");
    assert!(found.cut.is_some_and(|t| t < Duration::from_secs(5)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
