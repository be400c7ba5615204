//! The lighthouse's side of plain WireGuard clients: what they send goes on to the node whose peer
//! they are, one for one and as it came, and the node's answers back.
//!
//! ```text
//! client <-- its source address --> lighthouse <-- a channel of its own --> node
//! ```
//!
//! - A flow begins with a handshake initiation whose first authenticator (`mac1`) was made for a node
//!   that has clients: who does not know that node's key is not heard at all.
//! - A flow is bound to one source address. Another address begins another flow with a handshake of its
//!   own: whoever has one has shown that it receives there, so no flow can be turned on a third party.
//! - Until the client has used what the node answered, no more bytes go back than came.
//! - Bounded: flows, flows without an answer, searches for the node and initiations a second, bytes a
//!   second for each flow.

use crate::keys::MeshKey;
use crate::packet::Kind;
use crate::way::Channel;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::x25519::PublicKey;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Flows kept.
const MAX_FLOWS: usize = 4096;
/// Flows that no node has answered yet; nobody who has one is put out for another.
const MAX_UNANSWERED: usize = 256;
/// A flow without an answer is kept so long,
const UNANSWERED: Duration = Duration::from_secs(10);
/// any other without a datagram so long: as long as a WireGuard session lives.
const IDLE: Duration = Duration::from_secs(180);
/// Initiations a second that one node is sent for all its clients, and at once. A node lets ten a
/// second pass from one source (`limiter`): the lighthouse's own are never among those it drops.
const INITIATIONS: Bucket = Bucket::new(4.0, 8.0);
/// Authenticators computed a second, and at once, for messages of unknown sources: each takes about a
/// microsecond, so that is 2 % of a processor, and a line has to be filled to use it up.
const SEARCHES: Bucket = Bucket::new(20_000.0, 20_000.0);
/// A flow's burst, as time at its rate, and its least number of bytes.
const BURST: (Duration, f64) = (Duration::from_millis(250), 65_536.0);

/// Tokens that come back over time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: f64,
    most: f64,
    left: f64,
    at: Option<Instant>,
}

impl Bucket {
    const fn new(rate: f64, most: f64) -> Self {
        Self {
            rate,
            most,
            left: most,
            at: None,
        }
    }

    fn take(&mut self, count: f64, now: Instant) -> bool {
        if self.rate.is_infinite() {
            return true;
        }
        let since = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.left = (self.left + since.as_secs_f64() * self.rate).min(self.most);
        let enough = self.left >= count;
        if enough {
            self.left -= count;
        }
        enough
    }
}

/// A node that has clients.
struct Node {
    key: MeshKey,
    /// Tells whether a handshake message was made for it; limits nothing.
    check: RateLimiter,
    initiations: Bucket,
}

impl Node {
    fn new(key: MeshKey) -> Self {
        Self {
            key,
            check: RateLimiter::new(&PublicKey::from(key.0), u64::MAX),
            initiations: INITIATIONS,
        }
    }

    fn is_meant(&self, datagram: &[u8]) -> bool {
        // Its cookies are not used: at this limit it asks for none.
        let mut cookie = [0; 64];
        self.check
            .verify_packet(None, datagram, &mut cookie)
            .is_ok()
    }
}

/// One client at one address.
#[derive(Debug)]
struct Flow {
    node: MeshKey,
    channel: Channel,
    received: u64,
    sent: u64,
    answered: bool,
    /// The client used the node's answer: it does receive at its address.
    proven: bool,
    used: Instant,
    allowance: Bucket,
}

impl Flow {
    fn stale(&self, now: Instant) -> bool {
        let most = if self.answered { IDLE } else { UNANSWERED };
        now.saturating_duration_since(self.used) >= most
    }
}

/// All flows.
pub(crate) struct Clients {
    nodes: Vec<Node>,
    by_source: HashMap<SocketAddr, Flow>,
    by_channel: HashMap<Channel, SocketAddr>,
    searches: Bucket,
    /// Bytes a second for each flow.
    rate: f64,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            nodes: vec![],
            by_source: HashMap::new(),
            by_channel: HashMap::new(),
            searches: SEARCHES,
            rate: f64::INFINITY,
        }
    }
}

impl Clients {
    /// Bounds each flow to `rate` bytes a second, both directions together.
    pub(crate) fn limit(&mut self, rate: f64) {
        self.rate = rate;
    }

    /// These nodes have clients, and no others.
    pub(crate) fn set_nodes(&mut self, keys: &[MeshKey]) {
        self.nodes.retain(|n| keys.contains(&n.key));
        for key in keys {
            if !self.nodes.iter().any(|n| n.key == *key) {
                self.nodes.push(Node::new(*key));
            }
        }
        self.by_source.retain(|_, flow| keys.contains(&flow.node));
        self.forget_channels();
    }

    fn forget_channels(&mut self) {
        let kept = &self.by_source;
        self.by_channel
            .retain(|channel, source| kept.get(source).is_some_and(|f| f.channel == *channel));
    }

    /// To be called every 250 ms or so.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let before = self.by_source.len();
        self.by_source.retain(|_, flow| !flow.stale(now));
        if self.by_source.len() != before {
            self.forget_channels();
        }
    }

    /// A datagram that is not for this member came from `source`: the node that it goes on to, and on
    /// which channel. None: it is dropped.
    pub(crate) fn inward(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        kind: Kind,
        now: Instant,
    ) -> Option<(MeshKey, Channel)> {
        let known = self.by_source.get(&source).map(|f| f.node);
        if kind == Kind::Initiation {
            let of = |n: &Node| known == Some(n.key) && n.is_meant(datagram);
            // Who is known goes on, however many others knock.
            let at = match self.nodes.iter().position(of) {
                Some(at) => at,
                None if !self.searches.take(self.nodes.len() as f64, now) => return None,
                None => self.nodes.iter().position(|n| n.is_meant(datagram))?,
            };
            let node = &mut self.nodes[at];
            if !node.initiations.take(1.0, now) {
                return None;
            }
            let key = node.key;
            if known != Some(key) {
                self.begin(source, key, now)?;
            }
        }
        let flow = self.by_source.get_mut(&source)?;
        if !flow.allowance.take(datagram.len() as f64, now) {
            return None;
        }
        flow.received += datagram.len() as u64;
        flow.proven |= flow.answered && matches!(kind, Kind::Data(_));
        if flow.answered {
            flow.used = now;
        }
        Some((flow.node, flow.channel))
    }

    fn begin(&mut self, source: SocketAddr, node: MeshKey, now: Instant) -> Option<()> {
        let unanswered = self.by_source.values().filter(|f| !f.answered).count();
        if unanswered >= MAX_UNANSWERED || self.by_source.len() >= MAX_FLOWS {
            return None;
        }
        let channel = Channel(getrandom::u64().ok()?);
        if self.by_channel.contains_key(&channel) {
            return None;
        }
        let burst = (self.rate * BURST.0.as_secs_f64()).max(BURST.1);
        let flow = Flow {
            node,
            channel,
            received: 0,
            sent: 0,
            answered: false,
            proven: false,
            used: now,
            allowance: Bucket::new(self.rate, burst),
        };
        if let Some(old) = self.by_source.insert(source, flow) {
            self.by_channel.remove(&old.channel);
        }
        self.by_channel.insert(channel, source);
        Some(())
    }

    /// The node that a client's channel leads to.
    pub(crate) fn node(&self, channel: Channel) -> Option<MeshKey> {
        let source = self.by_channel.get(&channel)?;
        self.by_source.get(source).map(|f| f.node)
    }

    /// The node sent `len` bytes on `channel`: where they go on to. None: they are dropped.
    pub(crate) fn outward(
        &mut self,
        channel: Channel,
        len: usize,
        now: Instant,
    ) -> Option<SocketAddr> {
        let source = *self.by_channel.get(&channel)?;
        let flow = self.by_source.get_mut(&source)?;
        if !flow.proven && flow.sent + len as u64 > flow.received {
            return None;
        }
        if !flow.allowance.take(len as f64, now) {
            return None;
        }
        flow.sent += len as u64;
        flow.answered = true;
        flow.used = now;
        Some(source)
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
