//! Control streams: from an operator, through the mesh or a node's standing connection, to a
//! node. The lighthouse copies bytes; the TLS inside is between operator and node.

use crate::refusal::Refusal;
use holdfast_core::api::ApiErrorKind;
use holdfast_core::keys::{PublicKey, hex};
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// Any stream.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}
/// Any stream, owned.
pub type BoxedStream = Box<dyn Duplex>;

/// How long a node may take to open its end.
const OPEN_WAIT: Duration = Duration::from_secs(15);
/// Between pings on a standing connection.
const PING: Duration = Duration::from_secs(20);
/// Silence after which a standing connection is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// A control stream on which nothing moves is ended: somebody may follow quiet logs for hours.
const IDLE: Duration = Duration::from_secs(6 * 3600);
/// Streams that may wait for one node.
const WAITING: usize = 16;
/// Streams that may wait in all.
const WAITING_IN_ALL: usize = 1024;
/// Longest line that a node may send on its standing connection, in bytes.
const MAX_LINE: u64 = 64;

#[derive(Debug)]
struct Standing {
    serial: u64,
    asks: mpsc::Sender<String>,
}

struct Waiting {
    node: PublicKey,
    stream: oneshot::Sender<BoxedStream>,
}

#[derive(Default)]
struct Table {
    serial: u64,
    standing: HashMap<PublicKey, Standing>,
    waiting: HashMap<String, Waiting>,
}

/// Standing connections, and streams that wait for their other end.
#[derive(Default)]
pub struct Switchboard {
    table: Mutex<Table>,
}

impl std::fmt::Debug for Switchboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with(|t| {
            write!(
                f,
                "Switchboard({} standing, {} waiting)",
                t.standing.len(),
                t.waiting.len()
            )
        })
    }
}

/// A place in the table that is given back when dropped.
struct Ticket<'a> {
    board: &'a Switchboard,
    id: String,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.board.with(|t| t.waiting.remove(&self.id));
    }
}

impl Switchboard {
    fn with<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        work(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether `node` has a standing connection.
    #[must_use]
    pub fn stands(&self, node: &PublicKey) -> bool {
        self.with(|t| t.standing.contains_key(node))
    }

    /// Asks `node` over its standing connection to open a stream, and waits for it.
    ///
    /// # Errors
    /// `Unreachable`, `Busy`.
    pub async fn ask(&self, node: PublicKey, name: &str) -> Result<BoxedStream, Refusal> {
        let unreachable = |text: String| Refusal::new(ApiErrorKind::Unreachable, text);
        let id = random_id()?;
        let (stream, waits) = oneshot::channel();
        let asks = self.with(|t| {
            let own = t.waiting.values().filter(|w| w.node == node).count();
            if own >= WAITING || t.waiting.len() >= WAITING_IN_ALL {
                return Err(Refusal::new(ApiErrorKind::Busy, "too many streams wait already"));
            }
            let standing = t.standing.get(&node).ok_or_else(|| {
                unreachable(format!(
                    "{name} has neither a mesh session nor a standing connection: is it on, and can it reach this lighthouse?"
                ))
            })?;
            t.waiting.insert(id.clone(), Waiting { node, stream });
            Ok(standing.asks.clone())
        })?;
        let ticket = Ticket { board: self, id };
        let late = || {
            let secs = OPEN_WAIT.as_secs();
            unreachable(format!(
                "{name} did not open its end of the stream within {secs} s"
            ))
        };
        asks.try_send(ticket.id.clone()).map_err(|_| late())?;
        timeout(OPEN_WAIT, waits)
            .await
            .map_err(|_| late())?
            .map_err(|_| late())
    }

    /// Takes the place of stream `id`, if `node` is the one it waits for.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn answer(
        &self,
        id: &str,
        node: &PublicKey,
    ) -> Result<oneshot::Sender<BoxedStream>, Refusal> {
        self.with(|t| match t.waiting.get(id) {
            Some(w) if w.node == *node => t.waiting.remove(id).map(|w| w.stream),
            _ => None,
        })
        .ok_or_else(|| Refusal::new(ApiErrorKind::NotFound, "nobody waits for this stream"))
    }

    /// Serves `node`'s standing connection until it ends, falls silent, is replaced by a newer
    /// one, or `leave` resolves.
    ///
    /// # Errors
    /// Of the stream.
    pub async fn serve(
        &self,
        node: PublicKey,
        stream: impl Duplex,
        leave: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let (asks, mut asked) = mpsc::channel(WAITING);
        let serial = self.with(|t| {
            t.serial += 1;
            let serial = t.serial;
            t.standing.insert(node, Standing { serial, asks });
            serial
        });
        let _gone = Gone {
            board: self,
            node,
            serial,
        };
        let (read, mut write) = tokio::io::split(stream);
        let listen = async {
            let mut lines = BufReader::new(read);
            loop {
                let mut line = String::new();
                let mut bounded = (&mut lines).take(MAX_LINE);
                let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "silent");
                if timeout(SILENCE, bounded.read_line(&mut line))
                    .await
                    .map_err(silent)??
                    == 0
                {
                    return Ok::<(), io::Error>(());
                }
                if line != "pong\n" {
                    let text = format!("not understood: {line:?}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        };
        let speak = async {
            let mut ping = Instant::now();
            loop {
                let line = match timeout_at(ping, asked.recv()).await {
                    Ok(Some(id)) => format!("open {id}\n"),
                    // A newer connection took this one's place.
                    Ok(None) => return Ok::<(), io::Error>(()),
                    Err(_) => {
                        ping = Instant::now() + PING;
                        "ping\n".into()
                    }
                };
                let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "takes no bytes");
                timeout(SILENCE, async {
                    write.write_all(line.as_bytes()).await?;
                    write.flush().await
                })
                .await
                .map_err(slow)??;
            }
        };
        tokio::select! {
            done = listen => done,
            done = speak => done,
            () = leave => Ok(()),
        }
    }
}

/// Takes a standing connection out of the table, unless a newer one stands there.
struct Gone<'a> {
    board: &'a Switchboard,
    node: PublicKey,
    serial: u64,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.board.with(|t| {
            if t.standing
                .get(&self.node)
                .is_some_and(|s| s.serial == self.serial)
            {
                t.standing.remove(&self.node);
            }
        });
    }
}

/// 16 random bytes in hex: nobody else can guess which stream waits.
fn random_id() -> Result<String, Refusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| {
        Refusal::new(
            ApiErrorKind::Internal,
            format!("no random bytes from the system: {e}"),
        )
    })?;
    Ok(hex(&bytes))
}

/// Copies both ways until both sides have ended, or nothing moved for [`IDLE`].
///
/// # Errors
/// Of either stream.
pub async fn copy(mut a: impl Duplex, mut b: impl Duplex) -> io::Result<(u64, u64)> {
    let moved = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut a = crate::guard::Counting::new(&mut a, moved.clone());
    let idle = async {
        let mut last = 0;
        loop {
            tokio::time::sleep(IDLE).await;
            let now = moved.load(std::sync::atomic::Ordering::Relaxed);
            if now == last {
                return;
            }
            last = now;
        }
    };
    tokio::select! {
        done = tokio::io::copy_bidirectional(&mut a, &mut b) => done,
        () = idle => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing moved for hours")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;
    use std::sync::Arc;
    use tokio::io::duplex;

    async fn lines(stream: &mut BufReader<tokio::io::DuplexStream>) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        line
    }

    #[tokio::test]
    async fn a_stream_is_asked_for_opened_and_belongs_to_its_node_alone() {
        let board = Arc::new(Switchboard::default());
        let (node, thief) = (key(1).public(), key(2).public());
        let nobody = board.ask(node, "n1").await.err().unwrap();
        assert_eq!(nobody.error.kind, ApiErrorKind::Unreachable);

        let (ours, theirs) = duplex(1024);
        let serving = tokio::spawn({
            let board = board.clone();
            async move { board.serve(node, ours, std::future::pending()).await }
        });
        let mut theirs = BufReader::new(theirs);
        assert_eq!(lines(&mut theirs).await, "ping\n");
        theirs.write_all(b"pong\n").await.unwrap();
        assert!(board.stands(&node));
        let asking = tokio::spawn({
            let board = board.clone();
            async move { board.ask(node, "n1").await }
        });
        let line = lines(&mut theirs).await;
        let id = line.strip_prefix("open ").unwrap().trim();
        assert!(board.answer(id, &thief).is_err());
        let (mut near, far) = duplex(64);
        assert!(board.answer(id, &node).unwrap().send(Box::new(far)).is_ok());
        let mut stream = asking.await.unwrap().unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        assert!(board.answer(id, &node).is_err());
        assert_eq!(board.with(|t| t.waiting.len()), 0);

        // A newer connection takes the place of the older one, which ends.
        let (ours, _newer) = duplex(1024);
        let newer = tokio::spawn({
            let board = board.clone();
            async move { board.serve(node, ours, std::future::pending()).await }
        });
        serving.await.unwrap().unwrap();
        assert!(board.stands(&node));
        newer.abort();
        let _ = newer.await;
        assert!(!board.stands(&node));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_in_time_and_number_and_silence_ends_a_connection() {
        let board = Arc::new(Switchboard::default());
        let node = key(1).public();
        let (ours, _theirs) = duplex(4096);
        let serving = tokio::spawn({
            let board = board.clone();
            async move { board.serve(node, ours, std::future::pending()).await }
        });
        while !board.stands(&node) {
            tokio::task::yield_now().await;
        }
        let asks = (0..WAITING + 1).map(|_| board.ask(node, "n1"));
        let kinds: Vec<_> = futures_util::future::join_all(asks)
            .await
            .into_iter()
            .map(|r| r.err().unwrap().error.kind)
            .collect();
        assert_eq!(
            kinds.iter().filter(|k| **k == ApiErrorKind::Busy).count(),
            1
        );
        assert_eq!(
            kinds
                .iter()
                .filter(|k| **k == ApiErrorKind::Unreachable)
                .count(),
            WAITING
        );
        assert_eq!(board.with(|t| t.waiting.len()), 0);
        let ended = serving.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert!(!board.stands(&node));
    }
}
