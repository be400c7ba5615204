//! The engine between device and socket: datagrams and packets in, datagrams and packets out.
//! No waiting in here; [`crate::mesh`] moves the bytes.

use crate::MTU;
use crate::batch::Batch;
use crate::clients::Clients;
use crate::config::{ConfigError, PeerConfig, PeerUpdate};
use crate::filter::{Filter, Flows, Rules};
use crate::here::Here;
use crate::keys::{MeshKey, MeshPrivateKey};
use crate::limiter::SourceLimiter;
use crate::mss;
use crate::outbox::Outbox;
use crate::packet::{self, Kind, MAX_PACKET};
use crate::peer::{Peer, PeerState, Received};
use crate::pending::Pending;
use crate::probe::{self, ProbeKey, Tag};
use crate::relay::Relay;
use crate::routes::Routes;
use crate::way::{self, Channel, Way};
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use holdfast_core::access::Access;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
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
    /// What this member relays for others.
    relay: Mutex<Relay>,
    /// Plain clients of its peers.
    clients: Mutex<Clients>,
    /// Some peer has plain clients.
    has_clients: AtomicBool,
    /// Channels to peers, through which lighthouse.
    channels: Mutex<BTreeMap<MeshKey, (MeshKey, Channel)>>,
    lighthouses: RwLock<Arc<Lighthouses>>,
    /// Some peer's relay gave no answer when last looked at.
    relay_in_doubt: AtomicBool,
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
            relay: Mutex::default(),
            clients: Mutex::default(),
            has_clients: AtomicBool::new(false),
            channels: Mutex::default(),
            lighthouses: RwLock::default(),
            relay_in_doubt: AtomicBool::new(false),
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
                table.by_tag.retain(|_, p| p.index != peer.index);
                hold(&self.pending).take(peer.index);
                hold(&self.relay).forget(*key);
                hold(&self.channels).remove(key);
            }
        }
        for config in &update.add {
            let (peer, tag) = self.make_peer(config, &table);
            let peer = Arc::new(peer);
            peer.lock().ask(false, out, now);
            table.by_tag.insert(tag, peer.clone());
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
        let plain = configured.values().filter(|c| c.plain);
        table.plain = plain
            .filter_map(|c| Some(table.by_key.get(&c.public_key)?.index))
            .collect();
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.find_lighthouses(now);
        Ok(update)
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

    fn lighthouses(&self) -> Arc<Lighthouses> {
        self.lighthouses
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks where lighthouses are, and sees to it that channels lead there.
    fn find_lighthouses(&self, now: Instant) {
        let mut found = Lighthouses::default();
        for peer in self.table().by_key.values() {
            let state = peer.lock();
            if state.relay
                && let Some(at) = state.paths.current().and_then(Way::direct)
            {
                found.current.push((peer.key, at));
                found.all.push(at);
                found.all.extend(state.paths.places(now));
            }
        }
        found.current.sort_unstable();
        found.all.sort_unstable();
        found.all.dedup();
        if *self.lighthouses() != found {
            *self
                .lighthouses
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        }
    }

    /// The way through a channel that this member was given for `peer`.
    fn relayed_way(&self, peer: MeshKey, lighthouses: &Lighthouses) -> Option<Way> {
        let (lighthouse, channel) = hold(&self.channels).get(&peer).copied()?;
        let (_, via) = lighthouses
            .current
            .iter()
            .find(|(key, _)| *key == lighthouse)?;
        Some(Way::Relayed { via: *via, channel })
    }

    /// `peer` may be reached through `lighthouse` on this channel.
    pub(crate) fn set_channel(
        &self,
        peer: MeshKey,
        lighthouse: MeshKey,
        channel: Channel,
        out: &mut Outbox,
        now: Instant,
    ) -> bool {
        let table = self.table();
        let Some(peer) = table.by_key.get(&peer) else {
            return false;
        };
        hold(&self.channels).insert(peer.key, (lighthouse, channel));
        self.find_lighthouses(now);
        let Some(way) = self.relayed_way(peer.key, &self.lighthouses()) else {
            return false;
        };
        let waits = hold(&self.pending).waits(peer.index);
        peer.lock().set_relay(Some(way), waits, out, now);
        true
    }

    /// A channel between two members for which this one relays.
    pub(crate) fn open_channel(&self, a: MeshKey, b: MeshKey, now: Instant) -> Option<Channel> {
        let table = self.table();
        let both = table.by_key.contains_key(&a) && table.by_key.contains_key(&b);
        if !both || a == b {
            return None;
        }
        hold(&self.relay).open(a, b, now)
    }

    /// Bounds each channel to so many bytes a second.
    pub(crate) fn limit_relay(&self, rate: f64) {
        hold(&self.relay).limit(rate);
        hold(&self.clients).limit(rate);
    }

    /// These peers have plain clients, for which this member passes datagrams on.
    pub(crate) fn set_nodes_with_clients(&self, keys: &[MeshKey]) {
        hold(&self.clients).set_nodes(keys);
        self.has_clients.store(!keys.is_empty(), Ordering::Relaxed);
    }

    fn direct(&self, table: &Table, key: MeshKey) -> Option<SocketAddr> {
        let state = table.by_key.get(&key)?.lock();
        state.paths.current()?.direct()
    }

    /// What is nothing of this member's own may be a plain client's: it goes on to its node. No
    /// peer may be locked.
    fn pass_to_node(
        &self,
        table: &Table,
        from: Way,
        kind: Kind,
        datagram: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) {
        let Some(source) = from.direct() else { return };
        if !self.has_clients.load(Ordering::Relaxed) {
            return;
        }
        let to = hold(&self.clients).inward(source, datagram, kind, now);
        if let Some((node, channel)) = to
            && let Some(via) = self.direct(table, node)
        {
            out.push(Way::Relayed { via, channel }, datagram);
        }
    }

    /// A node's answer on a plain client's channel goes on to the client; false when it is none. No
    /// peer may be locked.
    fn pass_to_client(
        &self,
        table: &Table,
        channel: Channel,
        from: SocketAddr,
        inner: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) -> bool {
        if !self.has_clients.load(Ordering::Relaxed) {
            return false;
        }
        let Some(node) = hold(&self.clients).node(channel) else {
            return false;
        };
        let stands = |node| {
            let state = table.by_key.get(&node)?.lock();
            Some(state.paths.stands_at(from, now))
        };
        if stands(node) == Some(true)
            && packet::classify(inner).is_some()
            && let Some(to) = hold(&self.clients).outward(channel, inner.len(), now)
        {
            out.push(Way::Direct(to), inner);
        }
        true
    }

    /// Passes packets on between a plain client and other peers.
    fn pass_on(&self, table: &Table, packets: Vec<(u32, Vec<u8>)>, out: &mut Outbox, now: Instant) {
        for (index, packet) in packets {
            let Some(peer) = table.by_index.get(&index) else {
                continue;
            };
            let mut state = peer.lock();
            if !state.send(&packet, out, now) {
                hold(&self.pending).push(index, &packet, now);
                state.ask_if_due(true, out, now);
            }
        }
    }

    /// Where a relayed datagram goes on to; none: not ours, or not from one of its ends.
    fn onward(
        &self,
        table: &Table,
        channel: Channel,
        from: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        let ends = hold(&self.relay).ends(channel)?;
        let place = |key: MeshKey| {
            let mut state = table.by_key.get(&key)?.lock();
            state.paths.relays(now);
            let at = state.paths.current()?.direct()?;
            Some((at, state.paths.stands_at(from, now)))
        };
        match [place(ends[0])?, place(ends[1])?] {
            [(_, true), (other, _)] => Some(other),
            [(one, _), (_, true)] => Some(one),
            ends => {
                tracing::debug!("a relayed datagram from {from} is dropped: the ends are {ends:?}");
                None
            }
        }
    }

    fn make_peer(&self, config: &PeerConfig, table: &Table) -> (Peer, Tag) {
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
        let probes = ProbeKey::new(&self.secret, self.key(), config.public_key);
        let (tag, second) = (probes.theirs, self.key() > config.public_key);
        let here = self.here.clone();
        (
            Peer::new(index, config, Box::new(tunn), second, probes, here),
            tag,
        )
    }

    /// Packets from the device: encrypted into `out`, or kept until there is a session. Each
    /// peer is locked once.
    pub(crate) fn outbound(&self, batch: &mut Batch, out: &mut Outbox, now: Instant) {
        let table = self.table();
        let filter = self.filter();
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
            let mtu = state.inner_mtu();
            for frame in frames {
                let Some(mut segments) = batch.segments(frame) else {
                    continue;
                };
                while let Some(packet) = segments.next() {
                    if let Some(filter) = &filter {
                        filter.sent(packet, now);
                    }
                    let lower = mss::clamped(packet, mtu);
                    let packet = lower.as_deref().unwrap_or(packet);
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
        if packet::answerable(from) {
            self.inbound_at(from, buffer, stride, plain, sink, out, now);
        }
    }

    /// [`inbound`](Self::inbound) of what may have come by a stream, which `from` stands for.
    #[allow(clippy::too_many_arguments, reason = "as above")]
    pub(crate) fn inbound_at(
        &self,
        from: SocketAddr,
        buffer: &[u8],
        stride: usize,
        plain: &mut [u8],
        sink: &mut impl PacketSink,
        out: &mut Outbox,
        now: Instant,
    ) {
        let table = self.table();
        let mut current: Option<(&Peer, MutexGuard<'_, PeerState>)> = None;
        // A batch is mostly one peer's, from one address: looked up once.
        let mut own_source: Option<(u32, IpAddr)> = None;
        let mut passing: Option<(Channel, SocketAddr)> = None;
        let mut onward = vec![];
        let lighthouses = self.lighthouses();
        let filter = self.filter();
        let mut access: Option<(IpAddr, Option<&Access>)> = None;
        for datagram in packet::datagrams(buffer, stride) {
            let (way, datagram) = match way::relayed(datagram) {
                None => (Way::Direct(from), datagram),
                Some((channel, inner)) if lighthouses.all.contains(&from) => {
                    (Way::Relayed { via: from, channel }, inner)
                }
                Some((channel, inner)) => {
                    if self.has_clients.load(Ordering::Relaxed) {
                        drop(current.take());
                        if self.pass_to_client(&table, channel, from, inner, out, now) {
                            continue;
                        }
                    }
                    if passing.is_none_or(|(of, _)| of != channel) {
                        // The lock is given back before others are taken.
                        drop(current.take());
                        passing = self
                            .onward(&table, channel, from, now)
                            .map(|to| (channel, to));
                    }
                    if let Some((_, to)) = passing
                        && hold(&self.relay).pass(channel, datagram.len(), now)
                    {
                        out.push(Way::Direct(to), datagram);
                    }
                    continue;
                }
            };
            if let Some(tag) = probe::tag(datagram) {
                drop(current.take());
                self.probed(&table, tag, datagram, way, out, now);
                continue;
            }
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
                _ => Some(self.handshake_peer(&table, kind, way, datagram, out, now)),
            };
            match wanted {
                None => {}
                Some(None) => {
                    drop(current.take());
                    self.pass_to_node(&table, way, kind, datagram, out, now);
                    continue;
                }
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
            match state.receive(datagram, way, roam, plain, out, now) {
                Received::Refused => {
                    drop(current.take());
                    self.pass_to_node(&table, way, kind, datagram, out, now);
                    continue;
                }
                Received::Authentic => {}
                Received::Packet(packet, source) => {
                    if own_source == Some((peer.index, source))
                        || table.routes.lookup(source) == Some(peer.index)
                    {
                        own_source = Some((peer.index, source));
                        let lower = mss::clamped(packet, MTU);
                        let packet = lower.as_deref().unwrap_or(packet);
                        let to = table.onward(peer.index, packet);
                        let admitted = filter.as_ref().is_none_or(|filter| match to {
                            Some(_) => filter.forwards(source, packet, now),
                            None => {
                                if access.is_none_or(|(of, _)| of != source) {
                                    access = Some((source, filter.of(source)));
                                }
                                filter.admits(access.and_then(|(_, of)| of), packet, now)
                            }
                        });
                        match to {
                            _ if !admitted => {}
                            Some(to) => onward.push((to, packet.to_vec())),
                            None => sink.push(packet),
                        }
                    } else {
                        tracing::debug!("{} sent a packet from {source}, not its own", peer.key);
                    }
                }
            }
            if state.settle(peer.index, &self.pending, out, now) {
                self.sessions.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
        drop(current);
        self.pass_on(&table, onward, out, now);
    }

    /// A probe that bears some peer's tag.
    fn probed(
        &self,
        table: &Table,
        tag: Tag,
        datagram: &[u8],
        way: Way,
        out: &mut Outbox,
        now: Instant,
    ) {
        let Some(peer) = table.by_tag.get(&tag) else {
            return;
        };
        let waits = hold(&self.pending).waits(peer.index);
        let (before, after) = {
            let mut state = peer.lock();
            let before = state.paths.current();
            state.probed(datagram, way, waits, out, now);
            (before.filter(|_| state.relay), state.paths.current())
        };
        if before.is_some() && before != after {
            self.find_lighthouses(now);
        }
    }

    /// Whom a handshake message is for, once both limiters have let it pass.
    fn handshake_peer<'t>(
        &self,
        table: &'t Table,
        kind: Kind,
        way: Way,
        datagram: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Option<&'t Arc<Peer>> {
        let from = way.next_hop();
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
                out.push(way, reply);
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
        hold(&self.clients).sweep(now);
        hold(&self.pending).expire(now);
        self.find_lighthouses(now);
        let lighthouses = self.lighthouses();
        let doubted = self.relay_in_doubt.load(Ordering::Relaxed);
        let mut in_doubt = false;
        for peer in self.table().by_key.values() {
            let way = self.relayed_way(peer.key, &lighthouses);
            let waits = hold(&self.pending).waits(peer.index);
            let mut state = peer.lock();
            if way.is_some() {
                state.set_relay(way, waits, out, now);
            }
            state.tick(waits, doubted, out, now);
            in_doubt |= state.paths.relay_in_doubt();
        }
        self.relay_in_doubt.store(in_doubt, Ordering::Relaxed);
    }

    /// `peer` is also reached by a stream now, which `at` stands for; false when it is no peer.
    pub(crate) fn stream_begun(
        &self,
        peer: MeshKey,
        at: SocketAddr,
        out: &mut Outbox,
        now: Instant,
    ) -> bool {
        let Some(peer) = self.peer(peer) else {
            return false;
        };
        peer.lock().stream(at, out, now);
        true
    }

    /// The stream that `at` stood for is no more.
    pub(crate) fn stream_ended(&self, at: SocketAddr, now: Instant) {
        for peer in self.table().by_key.values() {
            peer.lock().paths.gone(at, now);
        }
        self.find_lighthouses(now);
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
#[path = "paths_tests.rs"]
mod paths_tests;
#[cfg(test)]
#[path = "plain_tests.rs"]
mod plain_tests;
#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
