//! The engine between device and socket: datagrams and packets in, datagrams and packets out.
//! No waiting in here; [`crate::mesh`] moves the bytes.

mod flow;
mod forward;
mod members;

use crate::clients::Clients;
use crate::config::PeerConfig;
use crate::filter::{Filter, Flows, Rules};
use crate::here::Here;
use crate::keys::{MeshKey, MeshPrivateKey};
use crate::limiter::SourceLimiter;
use crate::outbox::Outbox;
use crate::packet;
use crate::parts::Parts;
use crate::peer::Peer;
use crate::pending::Pending;
use crate::probe::Tag;
use crate::relay::Relay;
use crate::routes::Routes;
use crate::way::Channel;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::x25519::{PublicKey, StaticSecret};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::watch;

/// Handshake messages a second, over all sources, above which boringtun asks for cookies.
const LOAD_LIMIT: u64 = 200;
/// Peer indices are 24 bits wide: boringtun counts sessions in the lower 8 of 32.
const INDEX_MASK: u32 = 0x00ff_ffff;

/// Peers as they are found: by key, by index, by inner address.
#[derive(Default, Clone)]
pub(crate) struct Table {
    by_key: HashMap<MeshKey, Arc<Peer>>,
    by_index: HashMap<u32, Arc<Peer>>,
    by_tag: HashMap<Tag, Arc<Peer>>,
    routes: Routes,
    /// Plain clients, between which and other peers this member passes packets on.
    plain: HashSet<u32>,
}

impl Table {
    /// To which peer a packet goes on that came from peer `from`: only between a plain client, which
    /// has no other way to anyone, and a peer. It never meets the kernel, which need not forward.
    fn onward(&self, from: u32, packet: &[u8]) -> Option<u32> {
        if self.plain.is_empty() {
            return None;
        }
        let to = self.routes.lookup(packet::destination(packet)?)?;
        let passes = self.plain.contains(&from) || self.plain.contains(&to);
        (passes && to != from).then_some(to)
    }
}

/// Where lighthouses are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lighthouses {
    /// What is relayed goes there.
    current: Vec<(MeshKey, SocketAddr)>,
    /// It comes from there only.
    all: Vec<SocketAddr>,
}

/// Where inner packets go: each is decrypted into the room that the sink has for it, so that most
/// need not be moved again.
pub(crate) trait PacketSink {
    /// Room for `len` bytes; what was in it before and was not taken is lost.
    fn room(&mut self, len: usize) -> &mut [u8];

    /// The first `len` bytes of the room that was given last.
    fn held(&mut self, len: usize) -> &mut [u8];

    /// Takes these for a packet.
    fn take(&mut self, len: usize);
}

/// Keeps the packets.
#[cfg(any(test, feature = "fuzz"))]
#[derive(Default)]
pub(crate) struct Kept(pub(crate) Vec<Vec<u8>>, Vec<u8>);

#[cfg(any(test, feature = "fuzz"))]
impl PacketSink for Kept {
    fn room(&mut self, len: usize) -> &mut [u8] {
        self.1 = vec![0; len];
        &mut self.1
    }

    fn held(&mut self, len: usize) -> &mut [u8] {
        &mut self.1[..len]
    }

    fn take(&mut self, len: usize) {
        self.0.push(self.1[..len].to_vec());
    }
}

/// All state of one mesh member.
pub(crate) struct Engine {
    secret: StaticSecret,
    public: PublicKey,
    table: RwLock<Arc<Table>>,
    configured: Mutex<BTreeMap<MeshKey, PeerConfig>>,
    pending: Mutex<Pending>,
    sources: Mutex<SourceLimiter>,
    /// Halves of datagrams.
    parts: Mutex<Parts>,
    /// What this member relays for others.
    relay: Mutex<Relay>,
    /// Plain clients of its peers.
    clients: Mutex<Clients>,
    /// Some peer has plain clients.
    has_clients: AtomicBool,
    /// Channels to peers, through which lighthouse.
    channels: Mutex<BTreeMap<MeshKey, (MeshKey, Channel)>>,
    lighthouses: RwLock<Arc<Lighthouses>>,
    /// Some peer with traffic was silent when last looked at.
    lighthouse_needed: AtomicBool,
    /// What peers may send here; none: everything.
    filter: RwLock<Option<Arc<Filter>>>,
    flows: Arc<Flows>,
    pub here: Arc<Here>,
    /// Stands in front of all peers and hands out cookies.
    front: RateLimiter,
    /// For the peers themselves: checks, never limits; `front` has done that.
    unlimited: Arc<RateLimiter>,
    /// Counts sessions that came, for those who wait for one.
    pub sessions: watch::Sender<u64>,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    pub(crate) fn new(key: &MeshPrivateKey) -> Self {
        let secret = key.secret();
        let public = PublicKey::from(&secret);
        Self {
            table: RwLock::default(),
            configured: Mutex::default(),
            pending: Mutex::default(),
            sources: Mutex::default(),
            parts: Mutex::default(),
            relay: Mutex::default(),
            clients: Mutex::default(),
            has_clients: AtomicBool::new(false),
            channels: Mutex::default(),
            lighthouses: RwLock::default(),
            lighthouse_needed: AtomicBool::new(false),
            filter: RwLock::default(),
            flows: Arc::default(),
            here: Arc::default(),
            front: RateLimiter::new(&public, LOAD_LIMIT),
            unlimited: Arc::new(RateLimiter::new(&public, u64::MAX)),
            sessions: watch::channel(0).0,
            secret,
            public,
        }
    }

    pub(crate) fn key(&self) -> MeshKey {
        MeshKey(self.public.to_bytes())
    }

    fn table(&self) -> Arc<Table> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn peer(&self, key: MeshKey) -> Option<Arc<Peer>> {
        self.table().by_key.get(&key).cloned()
    }

    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        self.table().by_key.values().cloned().collect()
    }

    fn filter(&self) -> Option<Arc<Filter>> {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        filter.clone()
    }

    /// From now on each member may send what its access says; one that is not named, nothing.
    pub(crate) fn set_access(&self, rules: Rules) {
        let filter = Arc::new(Filter::new(rules, self.flows.clone()));
        *self.filter.write().unwrap_or_else(PoisonError::into_inner) = Some(filter);
    }

    /// Some peer with traffic is silent: a lighthouse may be needed.
    pub(crate) fn lighthouse_needed(&self) -> bool {
        self.lighthouse_needed.load(Ordering::Relaxed)
    }

    /// Timers of all peers, limits and queues; every 250 ms.
    pub(crate) fn tick(&self, out: &mut Outbox, now: Instant) {
        self.front.reset_count();
        hold(&self.sources).sweep(now);
        hold(&self.clients).sweep(now);
        hold(&self.pending).expire(now);
        self.find_lighthouses(now);
        let lighthouses = self.lighthouses();
        let doubted = self.lighthouse_needed.load(Ordering::Relaxed);
        let mut in_doubt = false;
        for peer in self.table().by_key.values() {
            let way = self.relayed_way(peer.key, &lighthouses);
            let waits = hold(&self.pending).waits(peer.index);
            let mut state = peer.lock();
            if way.is_some_and(|way| state.paths.follows(way)) {
                state.set_relay(way, waits, out, now);
            }
            state.tick(waits, doubted, out, now);
            in_doubt |= state.paths.needs_lighthouse(now);
        }
        self.lighthouse_needed.store(in_doubt, Ordering::Relaxed);
    }

    /// This member's own address or link changed: paths are sought anew, and every peer that is
    /// kept in touch is asked for a handshake.
    pub(crate) fn knock(&self, out: &mut Outbox, now: Instant) {
        self.here.moved();
        for peer in self.table().by_key.values() {
            peer.lock().roamed(out, now);
        }
    }

    /// Packets that wait for a session.
    pub(crate) fn waiting(&self) -> usize {
        hold(&self.pending).len()
    }
}

#[cfg(test)]
mod paths_tests;
#[cfg(test)]
mod plain_tests;
#[cfg(test)]
mod tests;
