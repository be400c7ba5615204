//! Two members in a world, and a lighthouse outside.

use super::member::{Contact, Member};
use super::world::{HTTPS, Nat, PORT, World};
use super::{Lab, PATIENCE, current};
use holdfast_lighthouse::{Config, Lighthouse};
use holdfast_mesh::{MeshSocket, MeshStream, PeerConfig};
use holdfast_testnet::runtime_there;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

/// Answers each byte: 1 when the other is reached directly from there, 0 when relayed.
pub const ASK: u16 = 7000;
/// Answers with what it was sent.
pub const ECHO: u16 = 7001;

/// Takes a length (8 bytes, big endian) and so many bytes, and answers with one.
pub const SINK: u16 = 7002;

/// Both members' machines, made.
pub struct Scene {
    pub world: World,
    pub routers: Vec<String>,
    pub own: [IpAddr; 2],
    /// The lighthouse's address, as each sees it.
    at: [IpAddr; 2],
}

/// What the first member has in hand.
pub struct One {
    pub member: Member,
    pub other: PeerConfig,
    pub routers: Vec<String>,
    pub own: [IpAddr; 2],
}

impl One {
    /// Waits for the other member to listen.
    pub async fn connect(&self, port: u16) -> MeshStream {
        let to = SocketAddr::new(self.other.allowed_ips[0].addr(), port);
        let begun = Instant::now();
        loop {
            match self.member.stack.connect(to).await {
                Err(e)
                    if e.kind() == ErrorKind::ConnectionRefused && begun.elapsed() < PATIENCE =>
                {
                    sleep(Duration::from_millis(20)).await;
                }
                stream => return stream.unwrap(),
            }
        }
    }
}

impl Scene {
    /// Members behind `nats`, or both in the LAN of the first.
    pub fn new(tag: &str, nats: [Nat; 2], same_lan: bool) -> Self {
        let mut world = World::new(tag);
        let mut routers = vec![];
        let shared = same_lan || nats[0] == Nat::Hairpin;
        for (nat, n) in nats.into_iter().zip(1u8..) {
            if shared && n == 2 {
                continue;
            }
            let name = format!("r{n}");
            routers.push(if nat == Nat::Double {
                let (outer, net) = [("c", 9), ("d", 8)][usize::from(n - 1)];
                world.router(outer, Nat::PortRestricted, net, ("w", "203.0.113"));
                let upstream = format!("192.168.{net}");
                world.router(&name, Nat::PortRestricted, n, (outer, &upstream))
            } else {
                world.router(&name, nat, n, ("w", "203.0.113"))
            });
        }
        let (first, second) = (routers[0].clone(), routers.last().unwrap().clone());
        let one = world.host("ha", (&first, "br0"), 1, 2, nats[0].v6());
        let two = match nats[0] {
            Nat::Hairpin => world.host("hb", (&first, "br1"), 7, 2, false),
            _ if same_lan => world.host("hb", (&first, "br0"), 1, 3, nats[0].v6()),
            _ => world.host("hb", (&second, "br0"), 2, 2, nats[1].v6()),
        };
        let at = |nat: Nat| match nat.v6() {
            true => "2001:db8:ff::1".parse().unwrap(),
            false => "203.0.113.1".parse().unwrap(),
        };
        Self {
            world,
            routers,
            own: [one, two],
            at: nats.map(at),
        }
    }

    /// Both join and know each other; then `work` is done at the first one's, while the second
    /// answers on [`ASK`] and [`ECHO`].
    pub fn play<T: Send + 'static, F: Future<Output = T>>(
        self,
        work: impl FnOnce(One) -> F + Send + 'static,
    ) -> T {
        let mut lab = Lab::stopped();
        let config = Config {
            dir: lab.dir(),
            https: vec![format!("[::]:{HTTPS}").parse().unwrap()],
            udp: Some(format!("[::]:{PORT}").parse().unwrap()),
        };
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (tell, told) = mpsc::channel();
        let (mut end, key) = (stopped.clone(), lab.keys.tls.public());
        let lighthouse = runtime_there(&self.world.name("w"), move || async move {
            lab.lighthouse = Some(Lighthouse::start(config).await.unwrap());
            let g = current("g1", 50, 2);
            lab.hand_over_at(&g, SocketAddr::from(([127, 0, 0, 1], HTTPS)))
                .await;
            tell.send((lab.keys.identity().mesh_key, g)).unwrap();
            end.wait_for(|s| *s).await.unwrap();
            drop(lab);
        });
        let (mesh_key, grant) = told.recv_timeout(PATIENCE).unwrap();
        let [contact, second] = self.at.map(|at| Contact {
            https: SocketAddr::new(at, HTTPS),
            udp: SocketAddr::new(at, PORT),
            key,
            mesh_key,
            grant: grant.clone(),
        });

        let (to_one, from_two) = mpsc::channel::<PeerConfig>();
        let (to_two, from_one) = mpsc::channel::<PeerConfig>();
        let (ready, is_ready) = mpsc::channel();
        let (own, mut end) = (self.own, stopped);
        let two = runtime_there(&self.world.name("hb"), move || async move {
            let two = join(&second, 2, own[1]).await;
            to_one.send(two.as_peer()).unwrap();
            let one = from_one.recv_timeout(PATIENCE).unwrap();
            two.meet(one.clone()).await;
            ready.send(()).unwrap();
            tokio::select! { () = serve(&two, &one) => {}, _ = end.wait_for(|s| *s) => {} }
            two.mesh.shutdown().await;
        });
        let routers = self.routers.clone();
        let one = runtime_there(&self.world.name("ha"), move || async move {
            let member = join(&contact, 1, own[0]).await;
            to_two.send(member.as_peer()).unwrap();
            let other = from_two.recv_timeout(PATIENCE).unwrap();
            member.meet(other.clone()).await;
            is_ready.recv_timeout(PATIENCE).unwrap();
            let mesh = member.mesh.clone();
            let found = work(One {
                member,
                other,
                routers,
                own,
            });
            let found = found.await;
            mesh.shutdown().await;
            found
        });
        let found = one.join();
        stop.send_replace(true);
        two.join().unwrap();
        lighthouse.join().unwrap();
        found.unwrap()
    }
}

async fn join(contact: &Contact, n: u8, own: IpAddr) -> Member {
    let socket = MeshSocket::bind(PORT).unwrap();
    Member::join(contact, n, socket, vec![SocketAddr::new(own, PORT)], vec![]).await
}

async fn serve(two: &Member, one: &PeerConfig) {
    let (mut asks, mut echoes) = (
        two.stack.listen(ASK).unwrap(),
        two.stack.listen(ECHO).unwrap(),
    );
    let mut sinks = two.stack.listen(SINK).unwrap();
    let sink = async {
        loop {
            let mut stream = sinks.accept().await.unwrap();
            let mut buffer = vec![0; 64 << 10];
            let Ok(mut left) = stream.read_u64().await else {
                continue;
            };
            while left > 0 {
                match stream.read(&mut buffer).await {
                    Ok(n @ 1..) => left = left.saturating_sub(n as u64),
                    _ => break,
                }
            }
            let _ = stream.write_all(&[1]).await;
        }
    };
    let answer = async {
        loop {
            let mut stream = asks.accept().await.unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                // Back comes whether this side goes directly too.
                let direct = two.way(one.public_key).is_some_and(|w| !w.is_relayed());
                if stream.write_all(&[u8::from(direct)]).await.is_err() {
                    break;
                }
            }
        }
    };
    let echo = async {
        loop {
            let stream = echoes.accept().await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    };
    tokio::join!(answer, echo, sink);
}
