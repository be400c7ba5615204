//! One peer: boringtun's state machine and what we know beside it.

use crate::config::PeerConfig;
use crate::keys::MeshKey;
use crate::outbox::{MIN_ROOM, Outbox};
use crate::packet::{DATA_OVERHEAD, answerable};
use crate::pending::Pending;
use crate::retry::{self, View};
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A peer; its index is the upper 24 bits of every session index it is given.
pub(crate) struct Peer {
    pub key: MeshKey,
    pub index: u32,
    state: Mutex<PeerState>,
}

impl Peer {
    pub(crate) fn new(index: u32, config: &PeerConfig, tunn: Tunn, second: bool) -> Self {
        let places = Places {
            configured: config.endpoint.filter(|e| answerable(*e)),
            learned: None,
        };
        let state = PeerState {
            tunn,
            endpoint: places.configured,
            places,
            keepalive: interval(config),
            always_on: config.always_on,
            second,
            live: false,
            last_sent: Instant::now(),
            asked_at: None,
            gave_up_at: None,
            failures: 0,
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
    tunn: Tunn,
    pub endpoint: Option<SocketAddr>,
    places: Places,
    keepalive: Option<Duration>,
    always_on: bool,
    second: bool,
    /// A session was there when we last looked.
    pub live: bool,
    last_sent: Instant,
    asked_at: Option<Instant>,
    gave_up_at: Option<Instant>,
    failures: u32,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

/// Where a peer may be.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    /// As it was configured.
    configured: Option<SocketAddr>,
    /// Where something authentic last came from.
    learned: Option<SocketAddr>,
}

impl Places {
    /// Where a silent peer is sought after so many failures: in turn as configured and as learned,
    /// for an address that was learned on the way (or replayed from elsewhere) may be a dead end.
    fn after(&self, failures: u32) -> Option<SocketAddr> {
        if failures % 2 == 1 {
            self.configured.or(self.learned)
        } else {
            self.learned.or(self.configured)
        }
    }
}

/// What a datagram turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// Nothing of this peer, or nothing valid.
    Refused,
    /// Authentic, without an inner packet.
    Authentic,
    /// Authentic; the inner packet and its source.
    Packet(&'a [u8], IpAddr),
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
        self.places.configured = config.endpoint.filter(|e| answerable(*e));
        if take_endpoint || self.endpoint.is_none() {
            self.endpoint = self.places.configured.or(self.endpoint);
        }
    }

    /// Age of the session in use.
    pub(crate) fn session(&self) -> Option<Duration> {
        self.tunn.time_since_last_handshake()
    }

    /// Encrypts `packet` into `out`; false when there is no session or no address yet.
    /// boringtun is only handed packets it can encrypt at once: its own queue stays empty.
    pub(crate) fn send(&mut self, packet: &[u8], out: &mut Outbox, now: Instant) -> bool {
        // Sessions end in `tick` alone, which sets `live`: no clock is read for each packet.
        let Some(to) = self.endpoint.filter(|_| self.live) else {
            return false;
        };
        let room = out.room(packet.len() + DATA_OVERHEAD);
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(packet, room) {
            let len = datagram.len();
            self.sent(to, len, out, now);
        }
        true
    }

    /// Asks for a handshake when it is time to ([`retry::due`]).
    pub(crate) fn ask_if_due(&mut self, packets_wait: bool, out: &mut Outbox, now: Instant) {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let view = View {
            has_endpoint: self.endpoint.is_some(),
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
        let Some(to) = self.endpoint else { return };
        self.asked_at = Some(now);
        self.gave_up_at = None;
        let room = out.room(MIN_ROOM);
        if let TunnResult::WriteToNetwork(m) = self.tunn.format_handshake_initiation(room, again) {
            let len = m.len();
            self.sent(to, len, out, now);
        }
    }

    /// Lets boringtun's timers run; every 250 ms.
    pub(crate) fn tick(&mut self, packets_wait: bool, out: &mut Outbox, now: Instant) {
        match self.tunn.update_timers(out.room(MIN_ROOM)) {
            TunnResult::WriteToNetwork(message) => {
                let len = message.len();
                if let Some(to) = self.endpoint {
                    self.sent(to, len, out, now);
                }
            }
            TunnResult::Err(WireGuardError::ConnectionExpired) if self.gave_up_at.is_none() => {
                self.gave_up_at = Some(now);
                self.failures = self.failures.saturating_add(1);
                self.endpoint = self.places.after(self.failures).or(self.endpoint);
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
    /// `plain`, which is at least as long. Answers go to `out`. `roam`: an authentic message
    /// tells where the peer is.
    pub(crate) fn receive<'a>(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        roam: bool,
        plain: &'a mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Received<'a> {
        if datagram.is_empty() || plain.len() < datagram.len().max(MIN_ROOM) {
            return Received::Refused;
        }
        let received = match self.tunn.decapsulate(None, datagram, plain) {
            TunnResult::Err(e) => {
                tracing::trace!("a datagram from {from} was refused: {e:?}");
                return Received::Refused;
            }
            TunnResult::Done => Received::Authentic,
            TunnResult::WriteToTunnelV4(packet, source) => Received::Packet(packet, source.into()),
            TunnResult::WriteToTunnelV6(packet, source) => Received::Packet(packet, source.into()),
            TunnResult::WriteToNetwork(answer) => {
                self.sent_bytes(answer.len());
                self.last_sent = now;
                out.push(from, answer);
                Received::Authentic
            }
        };
        self.rx_bytes += datagram.len() as u64;
        if roam {
            self.places.learned = Some(from);
            if self.endpoint != Some(from) {
                tracing::debug!("a peer is at {from} now");
                self.endpoint = Some(from);
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
        self.failures = 0;
        self.gave_up_at = None;
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

    /// boringtun queues the keepalives that its timers send without a session; it hands them
    /// out when called with an empty datagram.
    fn drain(&mut self, out: &mut Outbox, now: Instant) {
        let Some(to) = self.endpoint else { return };
        while let TunnResult::WriteToNetwork(datagram) =
            self.tunn.decapsulate(None, &[], out.room(MIN_ROOM))
        {
            let len = datagram.len();
            self.sent(to, len, out, now);
        }
    }

    fn sent(&mut self, to: SocketAddr, len: usize, out: &mut Outbox, now: Instant) {
        out.commit(to, len);
        self.sent_bytes(len);
        self.last_sent = now;
    }

    fn sent_bytes(&mut self, len: usize) {
        self.tx_bytes += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_sought_in_turn_where_it_was_configured_and_where_it_was_seen() {
        let [home, seen]: [SocketAddr; 2] =
            ["192.0.2.1:1", "198.51.100.1:2"].map(|a| a.parse().unwrap());
        let both = Places {
            configured: Some(home),
            learned: Some(seen),
        };
        let sought: Vec<_> = (1..5).filter_map(|n| both.after(n)).collect();
        assert_eq!(sought, [home, seen, home, seen]);
        let learned = Places {
            configured: None,
            ..both
        };
        assert_eq!(
            (learned.after(1), learned.after(2)),
            (Some(seen), Some(seen))
        );
        assert_eq!(Places::default().after(1), None);
    }
}
