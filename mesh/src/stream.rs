//! Datagrams over a byte stream to a lighthouse, for networks that let no UDP through.
//!
//! Both ends give the stream an address in 100::/64, which is discarded wherever it shows up on a
//! wire (RFC 6666), so that all that is known of paths and relays holds for it too: it is one more
//! place where the other end is, only taken last. Each datagram goes as its length (2 bytes, big
//! endian) and its bytes; a length of 0 says that the stream lives.
//!
//! The data plane never waits for a stream: what finds no room in its queue is dropped.

use crate::device::Spare;
use crate::engine::Engine;
use crate::keys::MeshKey;
use crate::mesh::MeshHandle;
use crate::outbox::Outbox;
use crate::socket::MeshSocket;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Bytes that wait for a stream: 0.2 s at 10 Mbit/s. More would only make latency.
const QUEUE: usize = 256 << 10;
/// An empty frame goes out after so much silence: less than a proxy or NAT forgets a connection in.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A stream that brings nothing, or takes nothing, for so long is given up.
const SILENCE: Duration = Duration::from_secs(45);
/// Bytes read at a time.
const READ: usize = 32 << 10;
/// Length of a frame's head.
const HEAD: usize = 2;

/// Whether an address stands for a stream: it is on no wire.
pub(crate) fn is_stream(at: SocketAddr) -> bool {
    matches!(at.ip(), IpAddr::V6(v6) if v6.segments()[..4] == [0x100, 0, 0, 0])
}

fn place(number: u64) -> SocketAddr {
    let ip = Ipv6Addr::from_bits((0x100 << 112) | u128::from(number));
    SocketAddr::from((ip, 1))
}

/// What waits for one stream.
#[derive(Debug, Default)]
struct Queue {
    frames: Mutex<Vec<u8>>,
    some: Notify,
}

impl Queue {
    /// Adds datagrams of `segment` bytes, the last may be shorter; those without room are dropped.
    fn push(&self, bytes: &[u8], segment: usize) {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        for datagram in bytes.chunks(segment.max(1)) {
            let Ok(len) = u16::try_from(datagram.len()) else {
                continue;
            };
            if frames.len() + HEAD + datagram.len() <= QUEUE {
                frames.extend(len.to_be_bytes());
                frames.extend(datagram);
            }
        }
        drop(frames);
        self.some.notify_one();
    }

    /// Takes all; `empty` becomes the next buffer.
    fn take(&self, empty: Vec<u8>) -> Vec<u8> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *frames, empty)
    }
}

/// The streams of one member.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: RwLock<HashMap<SocketAddr, Arc<Queue>>>,
    /// Numbers are not used twice: a place that is gone must not become another's.
    last: AtomicU64,
}

impl Streams {
    fn open(&self) -> (SocketAddr, Arc<Queue>) {
        let at = place(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let queue = Arc::new(Queue::default());
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(at, queue.clone());
        (at, queue)
    }

    fn close(&self, at: SocketAddr) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.remove(&at);
    }

    /// Sends datagrams into a stream; into none when it has ended meanwhile.
    pub(crate) fn push(&self, to: SocketAddr, bytes: &[u8], segment: usize) {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = open.get(&to) {
            queue.push(bytes, segment);
        }
    }
}

/// The whole datagrams at the beginning of `bytes`, and how many bytes they take.
pub(crate) fn frames(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut found, mut used) = (vec![], 0);
    while let Some((head, rest)) = bytes[used..].split_first_chunk::<HEAD>() {
        let len = usize::from(u16::from_be_bytes(*head));
        let Some(datagram) = rest.get(..len) else {
            break;
        };
        if len > 0 {
            found.push(datagram);
        }
        used += HEAD + len;
    }
    (found, used)
}

/// This member's end of a stream, as a place of a peer's; gone with it.
pub(crate) struct StreamEnd {
    pub at: SocketAddr,
    engine: Arc<Engine>,
    socket: Weak<MeshSocket>,
    device: Spare,
    queue: Arc<Queue>,
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.upgrade() {
            socket.streams().close(self.at);
        }
        self.engine.stream_ended(self.at, Instant::now());
    }
}

impl StreamEnd {
    /// None when the mesh has ended.
    pub(crate) fn new(
        engine: Arc<Engine>,
        socket: Weak<MeshSocket>,
        device: Spare,
    ) -> Option<Self> {
        let (at, queue) = socket.upgrade()?.streams().open();
        Some(Self {
            at,
            engine,
            socket,
            device,
            queue,
        })
    }

    /// Moves datagrams both ways until the stream ends.
    ///
    /// # Errors
    /// Of the stream; `TimedOut` when it was silent for too long.
    pub(crate) async fn run(&self, stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let (reader, writer) = tokio::io::split(stream);
        tokio::select! {
            result = self.inward(reader) => result,
            result = self.outward(writer) => result,
        }
    }

    async fn outward(&self, mut writer: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut frames = Vec::new();
        loop {
            frames.clear();
            frames = self.queue.take(frames);
            if frames.is_empty() {
                if timeout(KEEPALIVE, self.queue.some.notified()).await.is_ok() {
                    continue;
                }
                frames.extend([0; HEAD]);
            }
            let write = async {
                writer.write_all(&frames).await?;
                writer.flush().await
            };
            timeout(SILENCE, write).await??;
        }
    }

    async fn inward(&self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(READ);
        let mut out = Outbox::default();
        loop {
            bytes.reserve(READ);
            if timeout(SILENCE, reader.read_buf(&mut bytes)).await?? == 0 {
                return Ok(());
            }
            let (found, used) = frames(&bytes);
            self.deliver(&found, &mut out)?;
            bytes.drain(..used);
        }
    }

    fn deliver(&self, found: &[&[u8]], out: &mut Outbox) -> io::Result<()> {
        let ended = || io::Error::other("the mesh has ended");
        let socket = self.socket.upgrade().ok_or_else(ended)?;
        let mut writer = self.device.writer().ok_or_else(ended)?;
        for datagram in found {
            let now = Instant::now();
            self.engine
                .inbound_at(self.at, datagram, 0, &mut writer, out, now);
        }
        writer.flush(socket.stop())?;
        // Others must not wait here for room in the socket.
        socket.send_now(out);
        Ok(())
    }
}

/// Without UDP for so long, a stream is opened.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same while open connections wait, which a stream is to be ready for when the path is given up:
/// TCP sends again three seconds after the last thing that arrived, and then only after six.
const HASTE: Duration = Duration::from_millis(500);
/// After so long with UDP the stream is given back.
const LINGER: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Pause after a stream that could not be had; it doubles,
const PAUSE: Duration = Duration::from_secs(1);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl MeshHandle {
    /// Keeps a stream to `lighthouse` while UDP does not reach it: `open` opens one. Runs for ever.
    pub async fn stand_in<F, S, E>(&self, lighthouse: MeshKey, open: impl Fn() -> F)
    where
        F: Future<Output = Result<S, E>>,
        S: AsyncRead + AsyncWrite,
        E: std::fmt::Display,
    {
        let mut pause = PAUSE;
        loop {
            while !self.needs_stream(lighthouse) {
                sleep(LOOK).await;
            }
            let begun = Instant::now();
            match open().await {
                Ok(stream) => {
                    tracing::info!("no UDP to lighthouse {lighthouse}: going over TLS");
                    tokio::select! {
                        ended = self.carry(lighthouse, stream) => {
                            tracing::info!("the stream to {lighthouse} ended: {ended:?}");
                        }
                        () = self.has_udp(lighthouse) => {
                            tracing::info!("lighthouse {lighthouse} is reached by UDP again");
                        }
                    }
                }
                Err(e) => tracing::debug!("no stream to lighthouse {lighthouse}: {e}"),
            }
            // One that lasted was no failure.
            pause = if begun.elapsed() > LONGEST_PAUSE {
                PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            sleep(pause).await;
        }
    }

    fn needs_stream(&self, lighthouse: MeshKey) -> bool {
        let lost = self.without_udp(lighthouse);
        let silent = self.needed_and_silent(lighthouse);
        lost.is_some_and(|t| t >= PATIENCE) || silent.is_some_and(|t| t >= HASTE)
    }

    /// Returns once UDP has reached `lighthouse` for a while.
    async fn has_udp(&self, lighthouse: MeshKey) {
        let mut since = Instant::now();
        while since.elapsed() < LINGER {
            sleep(LOOK).await;
            if self.without_udp(lighthouse).is_some() {
                since = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_are_told_from_those_on_a_wire() {
        assert!(is_stream(place(1)) && is_stream(place(u64::MAX)));
        assert_ne!(place(1), place(2));
        for at in ["[100:0:0:1::1]:1", "[2001:db8::1]:1", "192.0.2.1:1"] {
            assert!(!is_stream(at.parse().unwrap()), "{at}");
        }
        // Nobody on a wire may claim to be one.
        assert!(!crate::packet::answerable(place(1)));
    }

    #[test]
    fn what_finds_no_room_is_dropped() {
        let streams = Streams::default();
        let (at, queue) = streams.open();
        for _ in 0..400 {
            streams.push(at, &[7; 1000], 1000);
        }
        let frames = queue.take(vec![]);
        assert!(frames.len() <= QUEUE && frames.len() > QUEUE - 1002);
        streams.push(at, &[7; 1000], 1000);
        assert_eq!(queue.take(vec![]).len(), 1002);
        streams.close(at);
        streams.push(at, &[7; 1000], 1000);
        assert!(queue.take(vec![]).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn datagrams_come_back_however_the_stream_is_cut(
            datagrams in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            cut in 1usize..200,
        ) {
            let queue = Queue::default();
            datagrams.iter().for_each(|d| queue.push(d, d.len()));
            let (mut bytes, mut got) = (vec![], vec![]);
            for part in queue.take(vec![]).chunks(cut) {
                bytes.extend(part);
                let (found, used) = frames(&bytes);
                got.extend(found.into_iter().map(<[u8]>::to_vec));
                bytes.drain(..used);
            }
            prop_assert_eq!(got, datagrams);
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (found, used) = frames(&bytes);
            prop_assert!(used <= bytes.len() && found.iter().all(|d| !d.is_empty()));
        }
    }
}
