//! The sockets around [`answer`]: UDP and TCP (RFC 7766), for members and this node's pods only.

use super::answer::{MAX_QUERY, answer};
use super::table::Table;
use crate::backoff::Backoff;
use crate::forever::forever;
use crate::meshed;
use crate::node::{self, Node};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

/// The port of DNS.
const PORT: u16 = 53;
/// TCP connections at a time, for all and for each address.
const CONNECTIONS: (usize, usize) = (64, 4);
/// Queries over one connection.
const QUERIES: usize = 100;
/// How long a connection may wait for its next query, or for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// The newest table.
type Tables = watch::Receiver<Option<Arc<Table>>>;

/// Answers on the mesh addresses, for ever.
pub async fn serve(node: Arc<Node>, tables: Tables) {
    let doc = node.store.get();
    let Some(admission) = &doc.admission else {
        return;
    };
    let places = Places::default();
    let all = meshed::addresses(&node::plan(admission), admission.index)
        .into_iter()
        .map(|net| {
            let at = SocketAddr::new(net.addr(), PORT);
            let (node, tables, places) = (node.clone(), tables.clone(), places.clone());
            forever("names", serve_at(node, at, tables, places))
        });
    futures_util::future::join_all(all).await;
}

async fn serve_at(node: Arc<Node>, at: SocketAddr, tables: Tables, places: Places) {
    let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut mesh = node.mesh.subscribe();
    loop {
        // The address comes with the mesh.
        if mesh.wait_for(Option::is_some).await.is_err() {
            return;
        }
        match both(at).await {
            Ok((udp, tcp)) => {
                pauses.reset();
                tracing::info!(%at, "names are answered");
                let ended = tokio::select! {
                    e = datagrams(&udp, &tables) => e,
                    e = connections(&tcp, &tables, &places) => e,
                };
                tracing::warn!(%at, "names: {ended}");
            }
            // The address is not there yet, or the mesh begins anew.
            Err(e) => tracing::debug!(%at, "the resolver waits: {e}"),
        }
        tokio::time::sleep(pauses.pause()).await;
    }
}

async fn both(at: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind(at).await?, TcpListener::bind(at).await?))
}

/// What `from` is answered; none for strangers and nonsense.
fn reply(tables: &Tables, from: IpAddr, query: &[u8]) -> Option<Vec<u8>> {
    let table = tables.borrow().clone()?;
    table.serves(from).then(|| answer(query, &table))?
}

/// Returns when the socket fails.
async fn datagrams(socket: &UdpSocket, tables: &Tables) -> std::io::Error {
    let mut buffer = [0; MAX_QUERY + 1];
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(got) => got,
            Err(e) => return e,
        };
        let query = buffer.get(..len).unwrap_or_default();
        if let Some(bytes) = reply(tables, from.ip(), query) {
            // A full queue or an unreachable asker: it asks again.
            if let Err(e) = socket.try_send_to(&bytes, from) {
                tracing::debug!(%from, "names: {e}");
            }
        }
    }
}

/// Returns when the socket fails.
async fn connections(listener: &TcpListener, tables: &Tables, places: &Places) -> std::io::Error {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(got) => got,
            Err(e) => return e,
        };
        let known = tables
            .borrow()
            .as_ref()
            .is_some_and(|t| t.serves(from.ip()));
        let Some(place) = known.then(|| places.take(from.ip())).flatten() else {
            continue;
        };
        let tables = tables.clone();
        tokio::spawn(async move {
            if let Err(e) = connection(stream, from.ip(), &tables).await {
                tracing::debug!(%from, "names over TCP: {e}");
            }
            drop(place);
        });
    }
}

async fn connection(mut stream: TcpStream, from: IpAddr, tables: &Tables) -> std::io::Result<()> {
    for _ in 0..QUERIES {
        let asked = timeout(PATIENCE, async {
            let len = usize::from(stream.read_u16().await?);
            let mut query = vec![0; len.min(MAX_QUERY + 1)];
            stream.read_exact(&mut query).await.map(|_| query)
        });
        let query = asked.await??;
        let Some(bytes) = reply(tables, from, &query) else {
            return Ok(());
        };
        let mut framed = u16::try_from(bytes.len())
            .unwrap_or(0)
            .to_be_bytes()
            .to_vec();
        framed.extend(bytes);
        timeout(PATIENCE, stream.write_all(&framed)).await??;
    }
    Ok(())
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One connection's; given back when it is dropped.
struct Place(Places, IpAddr);

impl Places {
    fn take(&self, from: IpAddr) -> Option<Place> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (held.values().sum::<usize>(), held.get(&from).copied());
        if all >= CONNECTIONS.0 || own.unwrap_or(0) >= CONNECTIONS.1 {
            return None;
        }
        *held.entry(from).or_default() += 1;
        Some(Place(self.clone(), from))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.1) {
            *count = count.saturating_sub(1);
        }
        held.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::demo;
    use super::*;
    use hickory_proto::op::{Message, Query, ResponseCode};
    use hickory_proto::rr::{Name, RData, RecordType};

    fn tables(strangers: bool) -> Tables {
        let mut table = demo();
        if !strangers {
            table.asked_by = vec!["127.0.0.0/8".parse().unwrap()];
        }
        // The sender may go: the last value stays.
        watch::channel(Some(Arc::new(table))).1
    }

    fn query(name: &str) -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    fn address(reply: &[u8]) -> RData {
        Message::from_vec(reply).unwrap().answers[0].data.clone()
    }

    #[tokio::test]
    async fn questions_over_both_transports() {
        let at = demo().names["n1"].v4;
        // A port that both have free: ask for it until it is so.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let server = udp.local_addr().unwrap();
        let (tables, places) = (tables(false), Places::default());
        let asks = async {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(server).await.unwrap();
            client.send(&query("N1.demo.internal.")).await.unwrap();
            let mut buffer = [0; 600];
            let len = client.recv(&mut buffer).await.unwrap();
            assert_eq!(address(&buffer[..len]), RData::A(at.into()));

            let mut stream = TcpStream::connect(server).await.unwrap();
            for name in ["n1.demo.internal.", "nobody.demo.internal."] {
                let bytes = query(name);
                stream.write_u16(bytes.len() as u16).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut reply).await.unwrap();
                let code = Message::from_vec(&reply).unwrap().metadata.response_code;
                match name {
                    "n1.demo.internal." => assert_eq!(address(&reply), RData::A(at.into())),
                    _ => assert_eq!(code, ResponseCode::NXDomain),
                }
            }
            // Places are bounded: one more than there are is closed at once.
            let mut more = vec![];
            for _ in 0..CONNECTIONS.1 {
                more.push(TcpStream::connect(server).await.unwrap());
            }
            let mut last = more.pop().unwrap();
            assert_eq!(last.read(&mut [0]).await.unwrap(), 0);
        };
        tokio::select! {
            e = datagrams(&udp, &tables) => panic!("{e}"),
            e = connections(&tcp, &tables, &places) => panic!("{e}"),
            r = timeout(Duration::from_secs(20), asks) => r.unwrap(),
        }
    }

    /// `dig`, a foreign implementation, where it is installed.
    #[tokio::test]
    async fn dig_understands_the_answers() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = udp.local_addr().unwrap().port().to_string();
        let tables = tables(false);
        let dig = async |name: &str| {
            let args = [
                "@127.0.0.1",
                "-p",
                &port,
                "+tries=2",
                "+time=5",
                name,
                "AAAA",
            ];
            tokio::process::Command::new("dig")
                .args(args)
                .output()
                .await
        };
        let asks = async {
            let Ok(found) = dig("n1.demo.internal").await else {
                eprintln!("dig is not installed: not asked");
                return;
            };
            let text = String::from_utf8_lossy(&found.stdout).into_owned();
            assert!(text.contains("status: NOERROR"), "{text}");
            assert!(text.contains(&demo().names["n1"].v6.to_string()), "{text}");
            assert!(!text.contains("WARNING: Message"), "{text}");
            for (name, status) in [("n2.demo.internal", "NXDOMAIN"), ("a.org", "REFUSED")] {
                let text = dig(name).await.unwrap().stdout;
                let text = String::from_utf8_lossy(&text).into_owned();
                assert!(text.contains(&format!("status: {status}")), "{text}");
            }
        };
        tokio::select! {
            e = datagrams(&udp, &tables) => panic!("{e}"),
            () = asks => {}
        }
    }

    #[test]
    fn strangers_get_no_answer() {
        let tables = tables(true);
        let bytes = query("n1.demo.internal.");
        assert!(reply(&tables, "127.0.0.1".parse().unwrap(), &bytes).is_none());
        assert!(reply(&tables, demo().names["n1"].v4.into(), &bytes).is_some());
    }

    #[test]
    fn places_come_back() {
        let places = Places::default();
        let from: IpAddr = "100.64.0.1".parse().unwrap();
        let held: Vec<_> = (0..CONNECTIONS.1).map(|_| places.take(from)).collect();
        assert!(held.iter().all(Option::is_some) && places.take(from).is_none());
        drop(held);
        assert!(places.take(from).is_some() && places.0.lock().unwrap().is_empty());
    }
}
