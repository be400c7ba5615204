//! Starts the engine's threads and steers them.
//!
//! One thread takes packets from the device to the socket, one the other way, one runs timers.
//! They share the peers' state and nothing else: no packet is handed from thread to thread. With
//! one or two processors a single thread moves both ways: it is as fast there, and a packet that
//! answers another (an acknowledgment, a ping) waits for no second thread to wake up.

use crate::config::{PeerConfig, PeerUpdate};
use crate::device::{Device, Spare};
use crate::engine::Engine;
use crate::error::MeshError;
use crate::filter::Rules;
use crate::keys::{MeshKey, MeshPrivateKey};
use crate::outbox::Outbox;
use crate::pump::{self, Inward, Outward};
use crate::socket::MeshSocket;
use crate::stop::Stop;
use crate::stream::StreamEnd;
use crate::threads::End;
use crate::way::{Channel, Way};
use ipnet::IpNet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

/// boringtun's timers want to be looked at this often.
const TICK: Duration = Duration::from_millis(250);

/// A member of the mesh.
pub struct Mesh;

/// What is known of a peer at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its key.
    pub public_key: MeshKey,
    /// The way that datagrams take to it now.
    pub way: Option<Way>,
    /// The peer itself answered on that way.
    pub confirmed: bool,
    /// Its last answer's round trip.
    pub rtt: Option<Duration>,
    /// The largest IP packet that was found to come through whole on that way, in bytes; what larger
    /// ones there may be is not asked beyond a full datagram of ours.
    pub mtu: Option<u16>,
    /// Full datagrams do not come through whole: they are cut on the way.
    pub narrow: bool,
    /// Questions on that way that stayed without an answer, in percent of the last ones.
    pub loss: Option<u8>,
    /// Age of the session in use; `None`: there is none.
    pub last_handshake: Option<Duration>,
    /// Authentic bytes received from it, as UDP payload.
    pub rx_bytes: u64,
    /// Bytes sent to it, as UDP payload.
    pub tx_bytes: u64,
}

/// Steers a running mesh; clones steer the same one. It runs until the last handle is dropped,
/// [`shutdown`](Self::shutdown) is called, or device or socket fail ([`stopped`](Self::stopped)).
#[derive(Clone)]
pub struct MeshHandle {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    /// The threads hold it: with them it is given back.
    socket: Weak<MeshSocket>,
    device: Spare,
    port: u16,
    stop: Arc<Stop>,
    ended: watch::Receiver<Option<Arc<MeshError>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.raise();
    }
}

impl Inner {
    fn send_now(&self, out: &mut Outbox) {
        if let Some(socket) = self.socket.upgrade() {
            socket.send_now(out);
        }
    }
}

impl Mesh {
    /// Starts a member without peers on `device` and `socket`: one or two threads for data, one
    /// for timers. Set the clock before: the time of this moment goes into handshakes, and a peer
    /// refuses one older than the last it saw.
    pub fn start(
        device: impl Into<Device>,
        mut socket: MeshSocket,
        private_key: &MeshPrivateKey,
    ) -> MeshHandle {
        let engine = Arc::new(Engine::new(private_key));
        socket.heed(engine.here.narrow.clone());
        let (stop, port) = (socket.stop().clone(), socket.port());
        let apart = std::thread::available_parallelism().is_ok_and(|n| n.get() > 2);
        let end = End::of(if apart { 3 } else { 2 }, stop.clone());
        let ended = end.watch();
        let socket = Arc::new(socket);
        let (reader, writer) = device.into().split();
        let inner = Inner {
            engine: engine.clone(),
            socket: Arc::downgrade(&socket),
            device: writer.spare(),
            port,
            stop: stop.clone(),
            ended,
        };
        let mut outward = Outward::new(engine.clone(), socket.clone(), reader);
        let mut inward = Inward::new(engine.clone(), socket.clone(), writer);
        if apart {
            let also = stop.clone();
            end.spawn("mesh-out", move || pump::run(&stop, &mut [&mut outward]));
            end.spawn("mesh-in", move || pump::run(&also, &mut [&mut inward]));
        } else {
            end.spawn("mesh", move || {
                pump::run(&stop, &mut [&mut outward, &mut inward])
            });
        }
        end.spawn("mesh-timers", move || timers(&engine, &socket));
        MeshHandle {
            inner: Arc::new(inner),
        }
    }
}

impl MeshHandle {
    /// Makes `wanted` the peers. Peers that stay keep their sessions; new ones, and those whose
    /// wanted endpoint changed, get a handshake at once when an endpoint is known.
    ///
    /// # Errors
    /// [`MeshError::Config`]; then nothing was changed.
    pub fn set_peers(&self, wanted: &[PeerConfig]) -> Result<PeerUpdate, MeshError> {
        let mut out = Outbox::default();
        let update = self
            .inner
            .engine
            .set_peers(wanted, &mut out, Instant::now())?;
        self.inner.send_now(&mut out);
        Ok(update)
    }

    /// To be called when this member's own address or link changed: paths are sought anew, and peers
    /// that are kept in touch get a handshake at once, not when a timer has run down.
    pub fn knock(&self) {
        let mut out = Outbox::default();
        self.inner.engine.knock(&mut out, Instant::now());
        self.inner.send_now(&mut out);
    }

    /// What each member may send to this one and through it; one that is not named may send nothing,
    /// and before this is called everybody may send everything. Before
    /// [`set_peers`](Self::set_peers), so that a new peer finds its rules in place.
    pub fn set_access(&self, rules: Rules) {
        self.inner.engine.set_access(rules);
    }

    /// This member's own addresses with its port, which peers are told when they seek it; and
    /// networks in which none is sought (the mesh's, pods', services', loopback).
    pub fn set_places(&self, local: Vec<SocketAddr>, avoid: Vec<IpNet>) {
        self.inner.engine.here.set(local, avoid);
    }

    /// On a lighthouse: peers come here, and none is sought where it says that it may be.
    pub fn seek_nobody(&self) {
        self.inner.engine.here.seek_nobody();
    }

    /// Peers to which traffic goes and no direct path is known: whoever takes this asks a lighthouse
    /// for a channel and hands it to [`set_channel`](Self::set_channel). To be taken once.
    #[must_use]
    pub fn relay_wanted(&self) -> Option<mpsc::Receiver<MeshKey>> {
        self.inner.engine.here.relay_wanted()
    }

    /// `peer` may be reached through `lighthouse` on this channel; false when either is no peer
    /// with a known place.
    #[must_use]
    pub fn set_channel(&self, peer: MeshKey, lighthouse: MeshKey, channel: Channel) -> bool {
        let mut out = Outbox::default();
        let engine = &self.inner.engine;
        let set = engine.set_channel(peer, lighthouse, channel, &mut out, Instant::now());
        self.inner.send_now(&mut out);
        set
    }

    /// On a lighthouse: the channel between two of its peers. None when either is not one.
    #[must_use]
    pub fn open_channel(&self, a: MeshKey, b: MeshKey) -> Option<Channel> {
        self.inner.engine.open_channel(a, b, Instant::now())
    }

    /// On a lighthouse: bounds each channel to so many bytes a second, both directions together.
    pub fn limit_relay(&self, bytes_per_second: u64) {
        self.inner.engine.limit_relay(bytes_per_second as f64);
    }

    /// `peer` was at `at` once: it is sought there too. Nothing that is known better gives way.
    pub fn suggest(&self, peer: MeshKey, at: SocketAddr) {
        let engine = &self.inner.engine;
        if let Some(peer) = engine.peer(peer).filter(|_| engine.here.may_seek(at)) {
            peer.lock().paths.suggest(at, Instant::now());
        }
    }

    /// Carries datagrams of `peer`, and what this member relays for it, over `stream` too, until the
    /// stream ends. It is used while the peer is not reached by UDP.
    ///
    /// # Errors
    /// Of the stream; `TimedOut` when it was silent for too long; `NotFound`: no such peer.
    pub async fn carry(
        &self,
        peer: MeshKey,
        stream: impl AsyncRead + AsyncWrite,
    ) -> io::Result<()> {
        let inner = &self.inner;
        let end = StreamEnd::new(
            inner.engine.clone(),
            inner.socket.clone(),
            inner.device.clone(),
        );
        let end = end.ok_or_else(|| io::Error::other("the mesh has ended"))?;
        let mut out = Outbox::default();
        if !inner
            .engine
            .stream_begun(peer, end.at, &mut out, Instant::now())
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.send_now(&mut out);
        tokio::select! {
            result = end.run(stream) => result,
            _ = self.stopped() => Ok(()),
        }
    }

    /// Whether traffic waits for a lighthouse that may be out of reach: for how long it has been
    /// silent.
    pub(crate) fn needed_and_silent(&self, lighthouse: MeshKey) -> Option<Duration> {
        if !self.inner.engine.lighthouse_needed() {
            return None;
        }
        let peer = self.inner.engine.peer(lighthouse)?;
        let state = peer.lock();
        state.paths.overdue(Instant::now())
    }

    /// For how long a lighthouse has not been reached by UDP; none: it is, or is no peer.
    #[must_use]
    pub fn without_udp(&self, lighthouse: MeshKey) -> Option<Duration> {
        let peer = self.inner.engine.peer(lighthouse)?;
        let state = peer.lock();
        state.paths.without_udp(Instant::now())
    }

    /// On a lighthouse: these of its peers have plain WireGuard clients, whose datagrams it passes on
    /// to them.
    pub fn set_nodes_with_clients(&self, keys: &[MeshKey]) {
        self.inner.engine.set_nodes_with_clients(keys);
    }

    /// Asks `key` on the way to it, seeking one where none is known; the round trip. None: no answer
    /// within `patience`. Plain WireGuard peers answer nothing.
    ///
    /// # Errors
    /// [`MeshError::UnknownPeer`].
    pub async fn ping(
        &self,
        key: MeshKey,
        patience: Duration,
    ) -> Result<Option<Duration>, MeshError> {
        let begun = Instant::now();
        let peer = || {
            self.inner
                .engine
                .peer(key)
                .ok_or(MeshError::UnknownPeer(key))
        };
        let mut before = None;
        let mut asked: Option<Instant> = None;
        while begun.elapsed() < patience {
            if asked.is_none_or(|at| at.elapsed() >= TICK) {
                let mut out = Outbox::default();
                let answers = peer()?.lock().ping(&mut out, Instant::now());
                before.get_or_insert(answers);
                self.inner.send_now(&mut out);
                asked = Some(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            let peer = peer()?;
            let state = peer.lock();
            if before.is_some_and(|n| state.paths.answers() > n) {
                return Ok(state.paths.rtt());
            }
        }
        Ok(None)
    }

    /// All peers, by key.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let now = Instant::now();
        let mut all: Vec<PeerStatus> = self
            .inner
            .engine
            .peers()
            .iter()
            .map(|peer| {
                let state = peer.lock();
                let quality = state.paths.quality(now);
                PeerStatus {
                    mtu: quality.mtu,
                    narrow: quality.narrow,
                    loss: quality.loss,
                    public_key: peer.key,
                    way: state.paths.current(),
                    confirmed: state.paths.confirmed(),
                    rtt: state.paths.rtt(),
                    last_handshake: state.session(),
                    rx_bytes: state.rx_bytes,
                    tx_bytes: state.tx_bytes,
                }
            })
            .collect();
        all.sort_by_key(|status| status.public_key);
        all
    }

    /// Waits until there is a session with `key`; at once when there is one already.
    ///
    /// # Errors
    /// [`MeshError::UnknownPeer`], [`MeshError::NoHandshake`] after `timeout`, or why the mesh
    /// ended.
    pub async fn wait_handshake(&self, key: MeshKey, timeout: Duration) -> Result<(), MeshError> {
        let mut sessions = self.inner.engine.sessions.subscribe();
        let wait = async {
            loop {
                sessions.mark_unchanged();
                let peer = self
                    .inner
                    .engine
                    .peer(key)
                    .ok_or(MeshError::UnknownPeer(key))?;
                if peer.lock().session().is_some() {
                    return Ok(());
                }
                if sessions.changed().await.is_err() {
                    return Err(MeshError::Stopped);
                }
            }
        };
        tokio::select! {
            result = tokio::time::timeout(timeout, wait) => result.unwrap_or_else(|_| {
                let peer = self.inner.engine.peer(key);
                let way = peer.and_then(|p| p.lock().paths.current());
                Err(MeshError::NoHandshake { key, way, waited: timeout })
            }),
            _ = self.stopped() => Err(MeshError::Stopped),
        }
    }

    /// This member's key.
    #[must_use]
    pub fn public_key(&self) -> MeshKey {
        self.inner.engine.key()
    }

    /// The UDP port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.inner.port
    }

    /// Packets that wait for a session, over all peers.
    #[must_use]
    pub fn packets_waiting(&self) -> usize {
        self.inner.engine.waiting()
    }

    /// Waits for the end and tells why; [`MeshError::Stopped`] after a shutdown.
    pub async fn stopped(&self) -> Arc<MeshError> {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_else(|| Arc::new(MeshError::Stopped)),
            Err(_) => Arc::new(MeshError::Stopped),
        }
    }

    /// Stops, and waits until device and socket are given back.
    pub async fn shutdown(&self) {
        self.inner.stop.raise();
        self.stopped().await;
    }
}

fn timers(engine: &Engine, socket: &MeshSocket) -> MeshError {
    let stop = socket.stop();
    let mut out = Outbox::default();
    while !stop.raised() {
        engine.tick(&mut out, Instant::now());
        if let Err(e) = socket.send(&mut out) {
            return MeshError::Socket(e);
        }
        stop.sleep(TICK);
    }
    MeshError::Stopped
}
