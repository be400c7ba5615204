//! One peer: boringtun's state machine and what we know beside it.

mod handshake;

use crate::MTU;
use crate::config::PeerConfig;
use crate::crypto::{Crypto, Due, Opened};
use crate::here::Here;
use crate::keys::MeshKey;
use crate::outbox::{MIN_ROOM, Outbox};
use crate::packet::{DATA_OVERHEAD, answerable};
use crate::paths::{Ask, Paths};
use crate::probe::{Message, ProbeKey};
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

    fn sent(&mut self, to: Way, len: usize, out: &mut Outbox, now: Instant) {
        out.commit(to, len);
        self.sent_bytes(len);
        self.last_sent = now;
    }

    fn sent_bytes(&mut self, len: usize) {
        self.tx_bytes += len as u64;
    }
}
