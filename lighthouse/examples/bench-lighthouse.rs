//! A lighthouse under load, for `make bench-lighthouse`: `serve DIR` runs one, `load DIR PID NODES`
//! plays its nodes over real TLS connections, each from a loopback address of its own.
//!
//! Measured: joins a second, each with its own connection, before anybody waits for news; the time
//! until everybody who waits has read of a new member, and of an eviction; the lighthouse's memory.

#[path = "../src/testing.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod testing;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use holdfast_core::api::{JoinRequest, MemberList, Offer, OfferRequest};
use holdfast_core::documents::{DocumentSet, Policy};
use holdfast_core::grant::{Grant, MemberRecord};
use holdfast_core::keys::{MeshKey, PrivateKey, PublicKey};
use holdfast_core::signed::Signed;
use holdfast_lighthouse::{Config, Keys, Lighthouse, LighthouseDir, unix_now};
use holdfast_tls::{ClientStream, Identity, client_config, connect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use testing::{OPERATOR, cluster, key, policy, set};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

type Failed = Box<dyn Error + Send + Sync>;

/// Nodes of one grant.
const USES: u32 = 50;
/// Nodes that join at a time.
const AT_ONCE: usize = 64;
/// How long a poll waits, in seconds.
const WAIT: u64 = 60;

/// A node's keys, from its number.
fn signing(n: u32) -> PrivateKey {
    let mut bytes = [1; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    PrivateKey::from_bytes(bytes)
}

fn mesh_key(n: u32) -> MeshKey {
    let mut bytes = [2; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    MeshKey(bytes)
}

fn token(grant: u32) -> PrivateKey {
    let mut bytes = [3; 32];
    bytes[..4].copy_from_slice(&grant.to_be_bytes());
    PrivateKey::from_bytes(bytes)
}

fn grant(n: u32) -> Result<Grant, Failed> {
    let first = 16 + u16::try_from(n * USES)?;
    let last = first + u16::try_from(USES)? - 1;
    Ok(Grant {
        token: token(n).public(),
        first: first.try_into()?,
        last: last.try_into()?,
        not_after: unix_now() + 24 * 3600,
        ..testing::grant(&format!("g{n}"), 0, USES)
    })
}

/// One connection.
struct Client {
    stream: ClientStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// Caller `n` (its own source address) with `key`.
    async fn new(n: u32, key: &PrivateKey, to: SocketAddr, pin: PublicKey) -> Result<Self, Failed> {
        let tls = client_config(Some(&Identity::from_key(key)?), pin, &[b"http/1.1"])?;
        let socket = TcpSocket::new_v4()?;
        let own = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + n);
        socket.bind((own, 0).into())?;
        let stream = connect(socket.connect(to).await?, tls).await?;
        Ok(Self {
            stream,
            buffer: vec![],
        })
    }

    async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(), Failed> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.stream
            .write_all(&[head.as_bytes(), body].concat())
            .await?;
        Ok(self.stream.flush().await?)
    }

    async fn answer(&mut self) -> Result<Vec<u8>, Failed> {
        let (head, body) = loop {
            let end = self.buffer.windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8(self.buffer[..end].to_vec())?;
                break (head.to_ascii_lowercase(), end + 4);
            }
            self.more().await?;
        };
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        let length: usize = length.ok_or("an answer without its length")?.parse()?;
        while self.buffer.len() < body + length {
            self.more().await?;
        }
        let rest = self.buffer.split_off(body + length);
        let answer = std::mem::replace(&mut self.buffer, rest).split_off(body);
        if !head.starts_with("http/1.1 200") {
            return Err(format!("{head}\n{}", String::from_utf8_lossy(&answer)).into());
        }
        Ok(answer)
    }

    async fn more(&mut self) -> Result<(), Failed> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err("the lighthouse hung up".into()),
            _ => Ok(()),
        }
    }

    async fn call<A: DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, Failed> {
        self.ask(method, path, &serde_json::to_vec(body)?).await?;
        Ok(serde_json::from_slice(&self.answer().await?)?)
    }

    async fn poll(&mut self, after: u64) -> Result<(), Failed> {
        let path = format!("/v1/members?after={after}&wait={WAIT}&delta=true");
        self.ask("GET", &path, b"").await
    }
}

/// Joins as node `n`.
async fn join(n: u32, to: SocketAddr, pin: PublicKey) -> Result<Client, Failed> {
    let (key, grant) = (signing(n), grant(n / USES)?);
    let mut client = Client::new(n, &key, to, pin).await?;
    let request = OfferRequest {
        grant: grant.id.clone(),
        signing_key: key.public(),
    };
    let offer: Offer = client.call("POST", "/v1/offer", &request).await?;
    let record = MemberRecord {
        cluster: testing::CLUSTER,
        grant: grant.id.clone(),
        name: format!("n{n}").parse()?,
        index: offer.index,
        mesh_key: mesh_key(n),
        signing_key: key.public(),
        counter: 1,
        via: None,
        own: None,
    };
    let member = holdfast_core::grant::Member {
        record: Signed::sign(&record, &token(n / USES))?,
        grant: offer.grant,
    };
    let body = JoinRequest { member };
    let _: serde::de::IgnoredAny = client.call("POST", "/v1/join?members=few", &body).await?;
    Ok(client)
}

/// Waits until every client has read an answer that `news` says holds what is waited for; the
/// slowest one's time since `begun`, and the revision then.
async fn seen_by_all(
    clients: &mut [Client],
    begun: Instant,
    news: impl Fn(&MemberList) -> bool + Sync,
) -> Result<(Duration, u64), Failed> {
    let news = &news;
    let waits = clients.iter_mut().map(|client| async move {
        loop {
            let list: MemberList = serde_json::from_slice(&client.answer().await?)?;
            if list.since.is_none() {
                return Err("a whole list came where a difference was asked for".into());
            }
            let seen = news(&list);
            let at = begun.elapsed();
            client.poll(list.revision).await?;
            if seen {
                return Ok::<_, Failed>((at, list.revision));
            }
        }
    });
    let all = futures_util::future::try_join_all(waits).await?;
    let last = all.iter().map(|(at, _)| *at).max().unwrap_or_default();
    let revision = all.iter().map(|(_, r)| *r).max().unwrap_or_default();
    Ok((last, revision))
}

/// CPU seconds that the lighthouse has used (`/proc/PID/stat`, in hundredths).
fn cpu(pid: &str) -> Result<f64, Failed> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').ok_or("a strange stat file")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| words.get(at).and_then(|w| w.parse::<f64>().ok());
    Ok((ticks(11).ok_or("no utime")? + ticks(12).ok_or("no stime")?) / 100.0)
}

fn resident(pid: &str) -> Result<u64, Failed> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no VmRSS")?.trim().parse::<u64>()? / 1024)
}

async fn load(dir: &Path, pid: &str, nodes: u32) -> Result<(), Failed> {
    let to: SocketAddr = std::fs::read_to_string(dir.join("at"))?.parse()?;
    let pin = LighthouseDir::open(&dir.join("lighthouse"))?
        .keys()?
        .tls
        .public();
    let identity = LighthouseDir::open(&dir.join("lighthouse"))?
        .keys()?
        .identity();
    let mut operator = Client::new(nodes + 2, &key(OPERATOR), to, pin).await?;
    for n in 0..=nodes / USES {
        let grant = grant(n)?;
        let upload = holdfast_core::api::GrantUpload {
            grant: testing::granted(&grant),
        };
        let path = format!("/v1/grants/{}", grant.id);
        let _: serde::de::IgnoredAny = operator.call("PUT", &path, &upload).await?;
    }

    let (begun, before) = (Instant::now(), cpu(pid)?);
    stream::iter(0..nodes)
        .map(|n| join(n, to, pin))
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let rate = f64::from(nodes) / begun.elapsed().as_secs_f64();
    let rate_cpu = f64::from(nodes) / (cpu(pid)? - before);
    eprintln!("bench-lighthouse: {nodes} joined");

    // Everybody knows all members now (the first list of each is not measured), and waits.
    let mut operator = Client::new(nodes + 2, &key(OPERATOR), to, pin).await?;
    let mut list: MemberList = operator.call("GET", "/v1/members", &()).await?;
    loop {
        // Until all of it is published.
        let path = format!("/v1/members?after={}&wait=2&delta=true", list.revision);
        let next: MemberList = operator.call("GET", &path, &()).await?;
        if next.revision == list.revision {
            break;
        }
        list = next;
    }
    let mut clients: Vec<Client> = stream::iter(0..nodes)
        .map(|n| async move {
            let mut client = Client::new(n, &signing(n), to, pin).await?;
            client.poll(list.revision).await?;
            Ok::<_, Failed>(client)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    eprintln!("bench-lighthouse: all wait for news");
    // A call that came later was answered: those before it wait.
    let _: serde::de::IgnoredAny = operator.call("GET", "/v1/health", &()).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let begun = Instant::now();
    let late = nodes;
    let joined = join(late, to, pin);
    // Nobody else changes.
    let news = |list: &MemberList| !list.members.is_empty();
    let (joined, seen) = tokio::join!(joined, seen_by_all(&mut clients, begun, news));
    joined?;
    let (new_member, _) = seen?;

    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = Instant::now();
    let out = Policy {
        evicted: vec![signing(late).public()],
        ..policy(2)
    };
    let documents: DocumentSet = set(&out, &identity);
    let put = operator.call::<serde::de::IgnoredAny>("PUT", "/v1/documents", &documents);
    let news = |list: &MemberList| {
        let policy = list.documents.as_ref().map(|d| d.policy.open(|_| true));
        policy.is_some_and(|p| p.is_ok_and(|p| p.evicted == out.evicted))
    };
    let (put, seen) = tokio::join!(put, seen_by_all(&mut clients, begun, news));
    put?;
    let (eviction, _) = seen?;
    println!(
        "{}",
        serde_json::json!({
            "nodes": nodes,
            "joins_per_second": rate.round(),
            "joins_per_cpu_second": rate_cpu.round(),
            "new_member_seen_by_all_s": (new_member.as_secs_f64() * 100.0).round() / 100.0,
            "eviction_seen_by_all_s": (eviction.as_secs_f64() * 100.0).round() / 100.0,
            "memory_mb": resident(pid)?,
        })
    );
    Ok(())
}

async fn serve(dir: &Path) -> Result<(), Failed> {
    let keys = Keys::generate()?;
    let documents = set(&policy(1), &keys.identity());
    let home = dir.join("lighthouse");
    LighthouseDir::create(&home, &cluster(), &keys, &documents)?;
    let mut config = Config::new(&home);
    config.https = vec!["127.0.0.1:0".parse()?];
    config.udp = Some("127.0.0.1:0".parse()?);
    let mut running = Lighthouse::start(config).await?;
    let at = running.https.first().ok_or("it listens nowhere")?;
    std::fs::write(dir.join("at.new"), at.to_string())?;
    std::fs::rename(dir.join("at.new"), dir.join("at"))?;
    Err(running.failed().await.into())
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", dir] => serve(Path::new(dir)).await,
        ["load", dir, pid, nodes] => load(Path::new(dir), pid, nodes.parse()?).await,
        _ => Err("serve DIR | load DIR PID NODES".into()),
    }
}
