//! Which way to a peer is used: a function of what was asked, answered and heard. No IO, no clock.
//!
//! - A path counts once an answer to a question of ours came back on it ([`Paths::answered`]).
//! - A direct path that lives is used; among several the quickest. Else the relay. Else a guess.
//! - Without a living direct path, traffic starts a race: everything known is asked at once, and
//!   the peer is invited through the relay to do the same, so that both NATs open.
//! - A stream that stands in for UDP is used only while no UDP path answers.
//! - The path in use is asked once a second while traffic flows: that something comes on it does not
//!   show that what we send arrives.
//!
//! A plain WireGuard peer answers no questions: there the last authentic source is the way.

mod choice;
mod heard;
mod mtu;
mod path;
mod quality;
mod race;
#[cfg(test)]
mod tests;
mod watch;

use crate::packet::answerable;
use crate::probe::MAX_CANDIDATES;
use crate::way::Way;
use path::{Origin, Path};
use race::Guesses;
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Direct paths remembered for one peer.
const MAX_PATHS: usize = MAX_CANDIDATES + 4;
/// Traffic within this time keeps the path in use under watch.
const IN_USE: Duration = Duration::from_secs(15);
/// The path in use is asked this often.
const WATCH: Duration = Duration::from_secs(1);
/// How long a race asks.
const RACE: Duration = Duration::from_secs(3);
/// The peer is invited so often while it lasts.
const INVITE_AGAIN: Duration = Duration::from_millis(600);
/// Pause after a race that found nothing; it doubles,
const PAUSE: Duration = Duration::from_secs(5);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A lighthouse is asked for a channel no more often.
const RELAY_AGAIN: Duration = Duration::from_secs(3);
/// Invitations are answered, and unknown sources asked, no more often.
const ANSWER_AGAIN: Duration = Duration::from_millis(200);
/// UDP is tried this often while a stream stands in for it.
const RETRY_UDP: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Send a question with this number.
    Ping(Way, u64),
    /// Send a question with this number, padded to so many bytes.
    Measure(Way, u64, u16),
    /// Tell the peer our places; `answer`: and ask for its.
    Invite {
        /// Where to.
        way: Way,
        /// Whether its places are wanted.
        answer: bool,
    },
    /// Ask a lighthouse for a channel.
    Relay,
}

#[derive(Debug, Clone, Copy)]
struct Race {
    until: Instant,
    next: Instant,
    /// The peer is invited again then: the first invitation may have been lost.
    invite: Instant,
}

/// All paths to one peer.
#[derive(Debug)]
pub(crate) struct Paths {
    plain: bool,
    direct: Vec<Path>,
    relay: Option<Path>,
    current: Option<Way>,
    number: u64,
    race: Option<Race>,
    next_race: Option<Instant>,
    races_lost: u32,
    used: Option<Instant>,
    relay_asked: Option<Instant>,
    invited: Option<Instant>,
    /// Handshakes that failed in a row: guesses take turns.
    failures: u32,
    /// Answers to questions of ours.
    answers: u64,
    /// No UDP path lives, since.
    udp_lost: Option<Instant>,
    /// UDP was last tried from a stream.
    udp_asked: Option<Instant>,
    /// Something was last relayed to the peer, or from it.
    relays: Option<Instant>,
    /// Questions to places that the peer named,
    guesses: Guesses,
    /// and where it seemed to be.
    met: Guesses,
}

impl Paths {
    /// `number`: the first question's; random, so that answers of an earlier run fit none.
    pub(crate) fn new(plain: bool, configured: Option<SocketAddr>, number: u64) -> Self {
        let direct: Vec<_> = configured
            .map(|a| Path::new(Way::Direct(a), Origin::Configured))
            .into_iter()
            .collect();
        Self {
            plain,
            current: direct.first().map(|p| p.way),
            direct,
            relay: None,
            number,
            race: None,
            next_race: None,
            races_lost: 0,
            used: None,
            relay_asked: None,
            invited: None,
            failures: 0,
            answers: 0,
            udp_lost: None,
            udp_asked: None,
            relays: None,
            guesses: Guesses::default(),
            met: Guesses::default(),
        }
    }

    /// The way that datagrams take now.
    pub(crate) fn current(&self) -> Option<Way> {
        self.current
    }

    /// The last round trip on the way in use.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.path(self.current?)?.rtt
    }

    /// The usual round trip on the way in use.
    pub(crate) fn usual_rtt(&self) -> Option<Duration> {
        self.path(self.current?)?.usual()
    }

    /// When something authentic last came on the way in use, if the peer has answered there.
    pub(crate) fn heard_last(&self) -> Option<Instant> {
        let path = self.path(self.current?).filter(|p| p.confirmed)?;
        path.heard
    }

    /// Something is relayed to the peer, or from it.
    pub(crate) fn relays(&mut self, now: Instant) {
        self.relays = Some(now);
    }

    /// How many answers came.
    pub(crate) fn answers(&self) -> u64 {
        self.answers
    }

    /// Whether the way in use was confirmed by the peer itself.
    pub(crate) fn confirmed(&self) -> bool {
        self.current
            .and_then(|way| self.path(way))
            .is_some_and(|p| p.confirmed)
    }

    fn path(&self, way: Way) -> Option<&Path> {
        self.direct.iter().chain(&self.relay).find(|p| p.way == way)
    }

    /// Whether the peer answers on `way`, as far as is known.
    pub(crate) fn works(&self, way: Way, now: Instant) -> bool {
        self.path(way).is_some_and(|p| p.certain(now))
    }

    /// Whether `way` is one of them.
    pub(crate) fn holds(&self, way: Way) -> bool {
        self.path(way).is_some()
    }

    fn path_mut(&mut self, way: Way) -> Option<&mut Path> {
        let mut all = self.direct.iter_mut().chain(&mut self.relay);
        all.find(|p| p.way == way)
    }

    /// The configuration names another address; `take`: use it, whatever was learned.
    pub(crate) fn configure(&mut self, plain: bool, to: Option<SocketAddr>, take: bool) {
        self.plain = plain;
        let keep = |p: &Path| p.origin != Origin::Configured || p.confirmed;
        self.direct.retain(keep);
        if let Some(to) = to {
            self.remember(Way::Direct(to), Origin::Configured);
        }
        if take {
            let udp = self.direct.iter_mut().filter(|p| !p.way.is_stream());
            udp.for_each(Path::doubt);
            // A stream goes on until UDP has answered.
            let streams = self.current.is_some_and(Way::is_stream);
            self.current = to.map(Way::Direct).filter(|_| !streams).or(self.current);
        } else if self.current.is_none() {
            self.current = to.map(Way::Direct);
        }
    }

    fn remember(&mut self, way: Way, origin: Origin) {
        match self.path_mut(way) {
            Some(path) => path.origin = path.origin.min(origin),
            None => {
                if self.direct.len() >= MAX_PATHS {
                    self.make_room();
                }
                self.direct.push(Path::new(way, origin));
            }
        }
    }

    /// Forgets the path that is missed least: one that never answered, else the one heard of longest
    /// ago. A peer whose NAT gives it new places all the time has to be followed.
    fn make_room(&mut self) {
        let paths = self.direct.iter().enumerate();
        let others = paths.filter(|(_, p)| Some(p.way) != self.current);
        let least = others.min_by_key(|(at, p)| (p.confirmed, Reverse(p.origin), p.heard, *at));
        if let Some((at, _)) = least {
            self.direct.remove(at);
        }
    }

    /// The peer was at `at` once.
    pub(crate) fn suggest(&mut self, at: SocketAddr, now: Instant) {
        if answerable(at) {
            self.remember(Way::Direct(at), Origin::Seen);
            self.choose(now);
        }
    }

    /// The peer may also be reached by the stream at `at`: asked at once, used when nothing else
    /// answers.
    pub(crate) fn stream(&mut self, at: SocketAddr, now: Instant, asks: &mut Vec<Ask>) {
        let way = Way::Direct(at);
        self.remember(way, Origin::Seen);
        self.ping(way, now, asks);
        // Whoever opens a stream does so for want of UDP, or after a move, which a stream of before
        // does not outlive: a lighthouse asks its members nothing by itself.
        let other = |w: &Way| !w.is_relayed() && *w != way;
        if let Some(before) = self.current.filter(other) {
            self.ping(before, now, asks);
        }
        self.choose(now);
    }

    /// What was at `at` is there no more.
    pub(crate) fn gone(&mut self, at: SocketAddr, now: Instant) {
        self.direct.retain(|p| p.way.next_hop() != at);
        self.relay = self.relay.take().filter(|p| p.way.next_hop() != at);
        self.current = self.current.filter(|way| way.next_hop() != at);
        self.choose(now);
    }

    /// For how long no UDP path to the peer has lived.
    pub(crate) fn without_udp(&self, now: Instant) -> Option<Duration> {
        self.udp_lost.map(|at| now.saturating_duration_since(at))
    }

    /// Whether the peer was heard, not long ago, and by an answer, at this place of its own.
    pub(crate) fn stands_at(&self, at: SocketAddr, now: Instant) -> bool {
        let way = Way::Direct(at);
        self.current == Some(way) || self.path(way).is_some_and(|p| p.alive(now))
    }

    /// Where the peer itself answered lately.
    pub(crate) fn places(&self, now: Instant) -> impl Iterator<Item = SocketAddr> {
        let living = self.direct.iter().filter(move |p| p.alive(now));
        living.filter_map(|p| p.way.direct())
    }

    /// Whether the relay is `way`'s channel, wherever its lighthouse was, or there is none: another
    /// one, which the peer may have shown to work, is replaced only when a lighthouse is asked.
    pub(crate) fn follows(&self, way: Way) -> bool {
        let channel = |way| match way {
            Way::Relayed { channel, .. } => Some(channel),
            Way::Direct(_) => None,
        };
        self.relay
            .as_ref()
            .is_none_or(|p| channel(p.way) == channel(way))
    }

    /// A channel through a lighthouse, or none any more.
    pub(crate) fn set_relay(&mut self, way: Option<Way>, now: Instant, asks: &mut Vec<Ask>) {
        if self.relay.as_ref().map(|p| p.way) == way {
            return;
        }
        self.relay = way.map(|way| Path::new(way, Origin::Configured));
        if let Some(way) = way
            && self.wanted(now)
            && !self.direct_lives(now)
        {
            self.start_race(now, asks);
            self.invite(way, true, now, asks);
        }
        self.choose(now);
    }

    /// Traffic goes to the peer: cheap, called for every batch.
    pub(crate) fn used(&mut self, now: Instant) {
        self.used = Some(now);
    }

    /// Traffic waits for a way.
    pub(crate) fn want(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        self.used = Some(now);
        self.look(now, asks);
    }

    fn wanted(&self, now: Instant) -> bool {
        let since = |at| now.saturating_duration_since(at);
        self.used.is_some_and(|at| since(at) < IN_USE)
    }

    fn direct_lives(&self, now: Instant) -> bool {
        let udp = |p: &&Path| !p.way.is_stream();
        self.direct.iter().filter(udp).any(|p| p.certain(now))
    }

    fn ping(&mut self, way: Way, now: Instant, asks: &mut Vec<Ask>) {
        let number = self.next_number();
        if let Some(path) = self.path_mut(way) {
            path.asked(number, now);
            asks.push(Ask::Ping(way, number));
        }
    }

    fn next_number(&mut self) -> u64 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// To be called every 250 ms or oftener.
    pub(crate) fn tick(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        if self.plain {
            return;
        }
        self.step(now, asks);
        if self.wanted(now) {
            self.look(now, asks);
        }
        if self.direct_lives(now) {
            self.udp_lost = None;
        } else {
            self.udp_lost.get_or_insert(now);
        }
        self.choose(now);
    }

    /// So many handshakes failed in a row: guesses take turns.
    pub(crate) fn failed(&mut self, failures: u32, now: Instant) {
        self.failures = failures;
        if self.plain {
            self.current = self.guess();
        } else {
            self.choose(now);
        }
    }
}
