//! One peer: boringtun's state machine and what we know beside it.

use crate::MTU;
use crate::config::PeerConfig;
use crate::crypto::{Crypto, Due, Opened};
use crate::here::Here;
use crate::keys::MeshKey;
use crate::outbox::{MIN_ROOM, Outbox};
use crate::packet::{DATA_OVERHEAD, answerable};
use crate::paths::{Ask, Paths};
use crate::pending::Pending;
use crate::probe::{Message, ProbeKey};
use crate::retry::{self, View};
use crate::way::{RELAY_HEADER, Way};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A peer; its index is the upper 24 bits of every session index it is given.
pub(crate) struct Peer {
    pub key: MeshKey,
    pub index: u32,
    state: Mutex<PeerState>,
}

impl Peer {
    pub(crate) fn new(
        index: u32,
        config: &PeerConfig,
        crypto: Box<dyn Crypto>,
        second: bool,
        probes: ProbeKey,
        here: Arc<Here>,
    ) -> Self {
        let configured = endpoint(config, &here);
        let state = PeerState {
            key: config.public_key,
            crypto,
            paths: Paths::new(config.plain, configured, getrandom::u64().unwrap_or(1)),
            probes,
            places: here.version(),
            here,
            keepalive: interval(config),
            always_on: config.always_on,
            relay: config.relay,
            second,
            live: false,
            last_sent: Instant::now(),
            asked_at: None,
            gave_up_at: None,
            failures: 0,
            repeated: 0,
            rx_bytes: 0,
            tx_bytes: 0,
        };
        Self {
            key: config.public_key,
            index,
            state: Mutex::new(state),
        }
    }

    /// A panic elsewhere ends the engine; until then the state is as good as it was.
    pub(crate) fn lock(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What changes.
pub(crate) struct PeerState {
    key: MeshKey,
    crypto: Box<dyn Crypto>,
    pub paths: Paths,
    probes: ProbeKey,
    here: Arc<Here>,
    /// [`Here::version`] that the peer's search knows.
    places: u64,
    keepalive: Option<Duration>,
    always_on: bool,
    /// It is a lighthouse.
    pub relay: bool,
    second: bool,
    /// A session was there when we last looked.
    pub live: bool,
    last_sent: Instant,
    asked_at: Option<Instant>,
    gave_up_at: Option<Instant>,
    failures: u32,
    /// Handshakes begun anew, since the last session, because the peer answered all else.
    repeated: u32,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

/// A lighthouse is asked this often where it sees us, while nothing else is said.
const OBSERVE: Duration = Duration::from_secs(20);
/// and this often while it is in doubt whether it is there.
const SOON: Duration = Duration::from_millis(500);
/// A way was found: a handshake that is under way on another that works is begun anew after so long.
const HANDSHAKE_PATIENCE: Duration = Duration::from_millis(300);

/// What a datagram turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Nothing of this peer, or nothing valid.
    Refused,
    /// Authentic, without an inner packet.
    Authentic,
    /// Authentic; how long the inner packet is, and its source.
    Packet(usize, IpAddr),
}

/// Where the peer may be, if it may be there.
fn endpoint(config: &PeerConfig, here: &Here) -> Option<SocketAddr> {
    let may = |at: &SocketAddr| answerable(*at) && (config.relay || here.may_seek(*at));
    config.endpoint.filter(may)
}

fn interval(config: &PeerConfig) -> Option<Duration> {
    config
        .keepalive
        .filter(|s| *s > 0)
        .map(|s| Duration::from_secs(s.into()))
}

impl PeerState {
    pub(crate) fn configure(&mut self, config: &PeerConfig, take_endpoint: bool) {
        self.keepalive = interval(config);
        self.always_on = config.always_on;
        self.relay = config.relay;
        let endpoint = endpoint(config, &self.here);
        self.paths.configure(config.plain, endpoint, take_endpoint);
    }

    /// Carries out what the paths ask for.
    fn carry_out(&mut self, asks: Vec<Ask>, out: &mut Outbox) {
        for ask in asks {
            let (way, message) = match ask {
                Ask::Relay if self.relay => continue,
                Ask::Relay => {
                    self.here.want_relay(self.key);
                    continue;
                }
                Ask::Measure(way, number, size) => {
                    if let Some(probe) = self.probes.seal_padded(number, size.into()) {
                        out.push(way, &probe);
                    }
                    self.tell_narrow(way);
                    continue;
                }
                Ask::Ping(way, number) => (way, Message::Ping(number)),
                Ask::Invite { way, answer } => {
                    let candidates = self.here.candidates();
                    (way, Message::Invite { candidates, answer })
                }
            };
            self.probe(way, &message, out);
        }
    }

    /// Whoever sends to the next hop of `way`, which is in use, learns whether it is narrow.
    fn tell_narrow(&self, way: Way) {
        let (to, narrow) = (way.next_hop(), self.paths.narrow());
        let before = self.here.narrow.size(to);
        if narrow != before && self.here.narrow.set(to, narrow) {
            match narrow {
                Some(_) if before.is_some() => {}
                Some(_) => tracing::warn!(
                    "{to} (peer {}) gets no full datagram whole: they are cut",
                    self.key
                ),
                None => tracing::info!("{to} (peer {}) gets full datagrams again", self.key),
            }
        }
    }

    /// The longest packet that travels whole inside of the mesh on the way in use, of a relayed one on
    /// this member's leg.
    pub(crate) fn inner_mtu(&self) -> usize {
        let over = DATA_OVERHEAD + RELAY_HEADER;
        let narrow = match self.paths.current() {
            Some(Way::Relayed { via, .. }) => self.here.narrow.size(via),
            _ => self.paths.narrow(),
        };
        narrow.map_or(MTU, |payload| usize::from(payload) - over)
    }

    fn probe(&mut self, way: Way, message: &Message, out: &mut Outbox) {
        if let Some(probe) = self.probes.seal(message) {
            out.push(way, &probe);
        }
    }

    /// A probe that is tagged as this peer's came on `way`; false when it is not authentic.
    pub(crate) fn probed(
        &mut self,
        datagram: &[u8],
        way: Way,
        packets_wait: bool,
        out: &mut Outbox,
        now: Instant,
    ) -> bool {
        let Some(message) = self.probes.open(datagram) else {
            return false;
        };
        if !self.may_learn(way) {
            return true;
        }
        let mut asks = vec![];
        match message {
            Message::Ping(number) => {
                let pong = Message::Pong(number, way.next_hop());
                self.probe(way, &pong, out);
                self.paths.asked(way, now, &mut asks);
            }
            Message::Pong(number, seen) => {
                let before = self.paths.current();
                if self.paths.answered(way, number, now) && self.relay && answerable(seen) {
                    self.here.observed(self.key, seen);
                }
                if self.paths.current() == Some(way) && !way.is_relayed() && !way.is_stream() {
                    self.tell_narrow(way);
                }
                self.found(before, packets_wait, out, now);
            }
            Message::Invite { candidates, answer } => {
                let places = self.here.sought(&candidates);
                self.paths.invited(way, &places, answer, now, &mut asks);
            }
        }
        self.carry_out(asks, out);
        true
    }

    /// Whether the peer may be reached so: not through the mesh itself, whatever it pretends. Where a
    /// lighthouse is, the documents say.
    fn may_learn(&self, way: Way) -> bool {
        let elsewhere = |at| self.paths.holds(way) || self.here.may_seek(at);
        self.relay || way.direct().is_none_or(elsewhere)
    }

    /// The way may be another than before: who waits for a session asks on the new one.
    fn found(&mut self, before: Option<Way>, packets_wait: bool, out: &mut Outbox, now: Instant) {
        let current = self.paths.current();
        if current == before {
            return;
        }
        if let Some(way) = current {
            tracing::debug!("peer {} is reached by {way} now", self.key);
        }
        let patience = HANDSHAKE_PATIENCE.max(self.paths.usual_rtt().unwrap_or_default());
        // What went to a mere guess is most likely lost: nothing is waited for then.
        let under_way = before.is_some_and(|way| self.paths.works(way, now));
        let patient = |at| under_way && now.saturating_duration_since(at) < patience;
        let wanted = packets_wait || self.kept_in_touch();
        if !self.live && wanted && !self.asked_at.is_some_and(patient) {
            self.ask(true, out, now);
        }
    }

    /// A peer that was heard since it was asked for a handshake lost that, or its answer got lost: one
    /// begins anew without waiting for the protocol's 5 s; later each time, lest a peer that refuses
    /// be asked for ever.
    fn repeat_handshake(&mut self, packets_wait: bool, out: &mut Outbox, now: Instant) {
        let wanted = !self.live && (packets_wait || self.kept_in_touch());
        let Some(asked) = self.asked_at.filter(|_| wanted) else {
            return;
        };
        let patience = HANDSHAKE_PATIENCE + 2 * self.paths.usual_rtt().unwrap_or_default();
        let patience = patience.saturating_mul(1 << self.repeated.min(8));
        let heard = self.paths.heard_last().is_some_and(|at| at > asked);
        if heard && now.saturating_duration_since(asked) >= patience {
            self.repeated = self.repeated.saturating_add(1);
            self.ask(true, out, now);
        }
    }

    /// Asks the peer on the way in use, and seeks one; how many answers came until now.
    pub(crate) fn ping(&mut self, out: &mut Outbox, now: Instant) -> u64 {
        let mut asks = vec![];
        self.paths.want(now, &mut asks);
        self.paths.watch(Duration::ZERO, now, &mut asks);
        self.carry_out(asks, out);
        self.paths.answers()
    }

    /// A channel through a lighthouse, or none any more.
    pub(crate) fn set_relay(
        &mut self,
        way: Option<Way>,
        packets_wait: bool,
        out: &mut Outbox,
        now: Instant,
    ) {
        let (before, mut asks) = (self.paths.current(), vec![]);
        self.paths.set_relay(way, now, &mut asks);
        self.carry_out(asks, out);
        self.found(before, packets_wait, out, now);
    }

    /// There is a stream to the peer.
    pub(crate) fn stream(&mut self, at: SocketAddr, out: &mut Outbox, now: Instant) {
        let mut asks = vec![];
        self.paths.stream(at, now, &mut asks);
        self.carry_out(asks, out);
    }

    /// This member's own address or link changed.
    pub(crate) fn roamed(&mut self, out: &mut Outbox, now: Instant) {
        let mut asks = vec![];
        self.paths.roamed(now, &mut asks);
        if self.relay {
            self.paths.watch(Duration::ZERO, now, &mut asks);
        }
        self.carry_out(asks, out);
        if self.kept_in_touch() {
            self.ask(true, out, now);
        }
    }

    /// Age of the session in use.
    pub(crate) fn session(&self) -> Option<Duration> {
        self.crypto.session()
    }

    /// Encrypts `packet` into `out`; false when there is no session or no address yet.
    /// boringtun is only handed packets it can encrypt at once: its own queue stays empty.
    pub(crate) fn send(&mut self, packet: &[u8], out: &mut Outbox, now: Instant) -> bool {
        // Sessions end in `tick` alone, which sets `live`: no clock is read for each packet.
        let Some(to) = self.paths.current().filter(|_| self.live) else {
            return false;
        };
        if !packet.is_empty() {
            self.paths.used(now);
        }
        let room = out.room(to, packet.len() + DATA_OVERHEAD);
        if let Some(len) = self.crypto.seal(packet, room) {
            self.sent(to, len, out, now);
        }
        true
    }

    /// Asks for a handshake when it is time to ([`retry::due`]).
    pub(crate) fn ask_if_due(&mut self, packets_wait: bool, out: &mut Outbox, now: Instant) {
        if packets_wait {
            let mut asks = vec![];
            self.paths.want(now, &mut asks);
            self.carry_out(asks, out);
        }
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let view = View {
            has_endpoint: self.paths.current().is_some(),
            session: self.session(),
            gave_up: self.gave_up_at.is_some(),
            since_gave_up: since(self.gave_up_at).unwrap_or_default(),
            failures: self.failures,
            since_asked: since(self.asked_at),
            wanted: self.kept_in_touch(),
            packets_wait,
            second: self.second,
        };
        if retry::due(&view) {
            self.ask(false, out, now);
        }
    }

    /// Whether a session is wanted without traffic.
    pub(crate) fn kept_in_touch(&self) -> bool {
        self.always_on || self.keepalive.is_some()
    }

    /// Asks for a handshake now; `again` also while one is under way.
    pub(crate) fn ask(&mut self, again: bool, out: &mut Outbox, now: Instant) {
        let Some(to) = self.paths.current() else {
            return;
        };
        self.asked_at = Some(now);
        self.gave_up_at = None;
        let room = out.room(to, MIN_ROOM);
        if let Some(len) = self.crypto.begin(again, room) {
            self.sent(to, len, out, now);
        }
    }

    /// Lets boringtun's timers run; every 250 ms. `relay_in_doubt`: what is relayed gets no answer.
    pub(crate) fn tick(
        &mut self,
        packets_wait: bool,
        lighthouse_needed: bool,
        out: &mut Outbox,
        now: Instant,
    ) {
        let (before, mut asks) = (self.paths.current(), vec![]);
        if self.relay {
            if self.live {
                let soon = lighthouse_needed || self.paths.in_doubt();
                let every = if soon { SOON } else { OBSERVE };
                self.paths.watch(every, now, &mut asks);
            }
            self.paths.retry_udp(now, &mut asks);
        }
        if std::mem::replace(&mut self.places, self.here.version()) != self.places {
            self.paths.news(now, &mut asks);
        }
        self.paths.tick(now, &mut asks);
        self.paths.measure(self.relay, now, &mut asks);
        self.carry_out(asks, out);
        self.found(before, packets_wait, out, now);
        self.repeat_handshake(packets_wait, out, now);
        let mut message = [0; MIN_ROOM];
        match self.crypto.tick(&mut message) {
            Due::Message(len) => {
                if let Some(to) = self.paths.current() {
                    out.push(to, &message[..len]);
                    self.sent_bytes(len);
                    self.last_sent = now;
                }
            }
            Due::Silent if self.gave_up_at.is_none() => {
                self.gave_up_at = Some(now);
                self.failures = self.failures.saturating_add(1);
                self.paths.failed(self.failures, now);
            }
            _ => {}
        }
        self.live = self.session().is_some();
        let silence = now.saturating_duration_since(self.last_sent);
        if self.keepalive.is_some_and(|k| silence >= k) {
            self.send(&[], out, now);
        }
        self.ask_if_due(packets_wait, out, now);
    }

    /// Takes a datagram that was checked to be a WireGuard message (`packet::classify`) into
    /// `plain`, which is at least as long. Answers go to `out`. `roam`: the message tells
    /// that the peer is there.
    pub(crate) fn receive(
        &mut self,
        datagram: &[u8],
        way: Way,
        roam: bool,
        plain: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Received {
        if datagram.is_empty() || plain.len() < datagram.len().max(MIN_ROOM) {
            return Received::Refused;
        }
        let received = match self.crypto.open(datagram, plain) {
            Opened::Refused => return Received::Refused,
            Opened::Authentic => Received::Authentic,
            Opened::Packet(packet, source) => Received::Packet(packet.len(), source),
            Opened::Answer(answer) => {
                self.sent_bytes(answer.len());
                self.last_sent = now;
                out.push(way, answer);
                Received::Authentic
            }
        };
        self.rx_bytes += datagram.len() as u64;
        if roam && self.may_learn(way) {
            let mut asks = vec![];
            self.paths.heard(way, now, &mut asks);
            if !asks.is_empty() {
                self.carry_out(asks, out);
            }
        }
        received
    }

    /// A session has come since [`live`](Self::live) was last true: sends what waited for it.
    /// To be called after everything authentic.
    pub(crate) fn settle(
        &mut self,
        index: u32,
        pending: &Mutex<Pending>,
        out: &mut Outbox,
        now: Instant,
    ) -> bool {
        if self.live || self.session().is_none() {
            return false;
        }
        self.live = true;
        (self.failures, self.repeated) = (0, 0);
        self.paths.failed(0, now);
        self.gave_up_at = None;
        if self.relay {
            let mut asks = vec![];
            self.paths.watch(Duration::ZERO, now, &mut asks);
            self.carry_out(asks, out);
        }
        self.drain(out, now);
        let waiting = pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(index);
        for packet in waiting {
            self.send(&packet, out, now);
        }
        true
    }

    /// Sends what the protocol itself kept for the session.
    fn drain(&mut self, out: &mut Outbox, now: Instant) {
        let Some(to) = self.paths.current() else {
            return;
        };
        while let Some(len) = self.crypto.waiting(out.room(to, MIN_ROOM)) {
            self.sent(to, len, out, now);
        }
    }

    fn sent(&mut self, to: Way, len: usize, out: &mut Outbox, now: Instant) {
        out.commit(to, len);
        self.sent_bytes(len);
        self.last_sent = now;
    }

    fn sent_bytes(&mut self, len: usize) {
        self.tx_bytes += len as u64;
    }
}
