//! The engine between device and socket: datagrams and packets in, datagrams and packets out.
//! No waiting in here; [`crate::mesh`] moves the bytes.

use crate::batch::Batch;
use crate::config::{ConfigError, PeerConfig, PeerUpdate};
use crate::keys::{MeshKey, MeshPrivateKey};
use crate::limiter::SourceLimiter;
use crate::outbox::Outbox;
use crate::packet::{self, Kind, MAX_PACKET};
use crate::peer::{Peer, PeerState, Received};
use crate::pending::Pending;
use crate::routes::Routes;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
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
    routes: Routes,
}

/// Where inner packets go; many pushes, then one flush.
pub(crate) trait PacketSink {
    fn push(&mut self, packet: &[u8]);
}

/// All state of one mesh member.
pub(crate) struct Engine {
    secret: StaticSecret,
    public: PublicKey,
    table: RwLock<Arc<Table>>,
    configured: Mutex<BTreeMap<MeshKey, PeerConfig>>,
    pending: Mutex<Pending>,
    sources: Mutex<SourceLimiter>,
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

    /// Applies the difference to `wanted`; new peers and moved ones get a handshake at once.
    pub(crate) fn set_peers(
        &self,
        wanted: &[PeerConfig],
        out: &mut Outbox,
        now: Instant,
    ) -> Result<PeerUpdate, ConfigError> {
        let mut configured = hold(&self.configured);
        let update = PeerUpdate::plan(self.key(), &configured, wanted)?;
        if update.is_empty() {
            return Ok(update);
        }
        let mut table = Table::clone(&self.table());
        for key in &update.remove {
            configured.remove(key);
            if let Some(peer) = table.by_key.remove(key) {
                table.by_index.remove(&peer.index);
                hold(&self.pending).take(peer.index);
            }
        }
        for config in &update.add {
            let peer = Arc::new(self.make_peer(config, &table));
            peer.lock().ask(false, out, now);
            table.by_index.insert(peer.index, peer.clone());
            table.by_key.insert(config.public_key, peer);
            configured.insert(config.public_key, config.clone());
        }
        for change in &update.change {
            configured.insert(change.config.public_key, change.config.clone());
            if let Some(peer) = table.by_key.get(&change.config.public_key) {
                let mut state = peer.lock();
                state.configure(&change.config, change.take_endpoint);
                if change.take_endpoint {
                    state.ask(true, out, now);
                }
            }
        }
        table.routes = routes(&configured, &table);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        Ok(update)
    }

    fn make_peer(&self, config: &PeerConfig, table: &Table) -> Peer {
        let mut index = first_index() & INDEX_MASK;
        while table.by_index.contains_key(&index) {
            index = index.wrapping_add(1) & INDEX_MASK;
        }
        let tunn = Tunn::new(
            self.secret.clone(),
            PublicKey::from(config.public_key.0),
            None,
            None,
            index,
            Some(self.unlimited.clone()),
        );
        Peer::new(index, config, tunn, self.key() > config.public_key)
    }

    /// Packets from the device: encrypted into `out`, or kept until there is a session. Each
    /// peer is locked once.
    pub(crate) fn outbound(&self, batch: &mut Batch, out: &mut Outbox, now: Instant) {
        let table = self.table();
        let mut last: Option<(IpAddr, Option<u32>)> = None;
        batch.sort(|packet| {
            let to = packet::destination(packet)?;
            match last {
                Some((addr, index)) if addr == to => index,
                _ => {
                    let index = table.routes.lookup(to);
                    last = Some((to, index));
                    index
                }
            }
        });
        let mut next = 0;
        while let Some((index, frames)) = batch.group(next) {
            next = frames.end;
            let Some(peer) = index.and_then(|index| table.by_index.get(&index)) else {
                continue;
            };
            let mut state = peer.lock();
            for frame in frames {
                let Some(mut segments) = batch.segments(frame) else {
                    continue;
                };
                while let Some(packet) = segments.next() {
                    if packet.len() <= MAX_PACKET && !state.send(packet, out, now) {
                        hold(&self.pending).push(peer.index, packet, now);
                        state.ask_if_due(true, out, now);
                    }
                }
            }
        }
    }

    /// A receive buffer from the socket, cut at `stride`: inner packets go to `sink`, answers to
    /// `out`. `plain` is working space, as long as a datagram may be.
    #[allow(
        clippy::too_many_arguments,
        reason = "one hot call; a struct would only rename them"
    )]
    pub(crate) fn inbound(
        &self,
        from: SocketAddr,
        buffer: &[u8],
        stride: usize,
        plain: &mut [u8],
        sink: &mut impl PacketSink,
        out: &mut Outbox,
        now: Instant,
    ) {
        if !packet::answerable(from) {
            return;
        }
        let table = self.table();
        let mut current: Option<(&Peer, MutexGuard<'_, PeerState>)> = None;
        // A batch is mostly one peer's, from one address: looked up once.
        let mut own_source: Option<(u32, IpAddr)> = None;
        for datagram in packet::datagrams(buffer, stride) {
            let Some(kind) = packet::classify(datagram) else {
                continue;
            };
            let same = |index: u32| {
                current
                    .as_ref()
                    .is_some_and(|(peer, _)| peer.index == index)
            };
            let wanted = match kind {
                Kind::Data(index) if same(index >> 8) => None,
                Kind::Data(index) => Some(table.by_index.get(&(index >> 8))),
                _ => Some(self.handshake_peer(&table, kind, from, datagram, out, now)),
            };
            match wanted {
                None => {}
                Some(None) => continue,
                Some(Some(peer)) if same(peer.index) => {}
                Some(Some(peer)) => {
                    drop(current.take());
                    current = Some((peer, peer.lock()));
                }
            }
            let Some((peer, state)) = current.as_mut() else {
                continue;
            };
            let roam = !matches!(kind, Kind::Cookie(_));
            match state.receive(datagram, from, roam, plain, out, now) {
                Received::Refused => continue,
                Received::Authentic => {}
                Received::Packet(packet, source) => {
                    if own_source == Some((peer.index, source))
                        || table.routes.lookup(source) == Some(peer.index)
                    {
                        own_source = Some((peer.index, source));
                        sink.push(packet);
                    } else {
                        tracing::debug!("{} sent a packet from {source}, not its own", peer.key);
                    }
                }
            }
            if state.settle(peer.index, &self.pending, out, now) {
                self.sessions.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
    }

    /// Whom a handshake message is for, once both limiters have let it pass.
    fn handshake_peer<'t>(
        &self,
        table: &'t Table,
        kind: Kind,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Option<&'t Arc<Peer>> {
        if !hold(&self.sources).allow(from.ip(), now) {
            return None;
        }
        let mut cookie = [0u8; 64];
        let parsed = match self
            .front
            .verify_packet(Some(from.ip()), datagram, &mut cookie)
        {
            Ok(parsed) => parsed,
            Err(TunnResult::WriteToNetwork(reply)) => {
                out.push(from, reply);
                return None;
            }
            Err(_) => return None,
        };
        match (kind, parsed) {
            (Kind::Initiation, Packet::HandshakeInit(init)) => {
                let half = parse_handshake_anon(&self.secret, &self.public, &init).ok()?;
                table.by_key.get(&MeshKey(half.peer_static_public))
            }
            (Kind::Response(index) | Kind::Cookie(index), _) => table.by_index.get(&(index >> 8)),
            _ => None,
        }
    }

    /// Timers of all peers, limits and queues; every 250 ms.
    pub(crate) fn tick(&self, out: &mut Outbox, now: Instant) {
        self.front.reset_count();
        hold(&self.sources).sweep(now);
        hold(&self.pending).expire(now);
        for peer in self.table().by_key.values() {
            let mut state = peer.lock();
            let waits = hold(&self.pending).waits(peer.index);
            state.tick(waits, out, now);
        }
    }

    /// Asks every peer that is kept in touch for a handshake now.
    pub(crate) fn knock(&self, out: &mut Outbox, now: Instant) {
        for peer in self.table().by_key.values() {
            let mut state = peer.lock();
            if state.kept_in_touch() {
                state.ask(true, out, now);
            }
        }
    }

    /// Packets that wait for a session.
    pub(crate) fn waiting(&self) -> usize {
        hold(&self.pending).len()
    }
}

fn routes(configured: &BTreeMap<MeshKey, PeerConfig>, table: &Table) -> Routes {
    let mut routes = Routes::default();
    for config in configured.values() {
        if let Some(peer) = table.by_key.get(&config.public_key) {
            config
                .allowed_ips
                .iter()
                .for_each(|net| routes.insert(*net, peer.index));
        }
    }
    routes
}

/// Random, so that an index tells nothing; without a random source any will do.
fn first_index() -> u32 {
    getrandom::u32().unwrap_or(1)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
