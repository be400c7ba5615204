//! One path to a peer, and what is known of it.

use super::mtu::Mtu;
use crate::way::Way;
use std::time::{Duration, Instant};

/// Questions under way on one path: those of more than a round trip, however long that is
/// ([`Path::ask_again`]).
const OPEN_PINGS: usize = 16;
/// Of a round trip, the part after which an unanswered question is asked again.
const PART: u32 = 12;
/// A path that was not heard of for longer counts no more: its NAT may have forgotten it.
pub(super) const STALE: Duration = Duration::from_secs(25);
/// A path whose questions stay without answer for so long is dead. With a second until it is asked
/// this is less than three: TCP, which sends again after 0.2, 0.6, 1.4 and 3 s, is heard by then.
pub(super) const DEAD: Duration = Duration::from_millis(1500);
/// The same where nothing was answered yet, and so the round trip is not known.
const UNKNOWN: Duration = Duration::from_millis(2500);
/// On a slow path, three round trips, but no more than this beyond one,
const BEYOND: Duration = Duration::from_secs(3);
/// and no more than this at all.
const LONGEST: Duration = Duration::from_secs(8);

/// No answer for so long begins to be a doubt.
const DOUBT: Duration = Duration::from_millis(300);

/// Questions over which loss is counted; older ones count by half.
const REMEMBERED: u32 = 64;
/// An answer may take so long, or two round trips, before it counts as lost.
const LATE: Duration = Duration::from_secs(1);

/// Who named a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The configuration.
    Configured,
    /// Something authentic came from there.
    Seen,
    /// The peer's invitation.
    Told,
}

/// One path.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub way: Way,
    pub origin: Origin,
    /// An answer came back on it.
    pub confirmed: bool,
    /// This member's own address or link changed since.
    pub shaken: bool,
    /// When something authentic last came on it.
    pub heard: Option<Instant>,
    /// The first question since the last answer.
    pub silent_since: Option<Instant>,
    /// When it was last asked.
    pub asked: Option<Instant>,
    /// Of the last answer.
    pub rtt: Option<Duration>,
    /// Smoothed as TCP does it (RFC 6298, 2): one late answer changes little.
    usual: Option<Duration>,
    /// What it carries.
    pub mtu: Mtu,
    pings: [Option<(u64, Instant)>; OPEN_PINGS],
    /// Questions of late, and the answers to them.
    questions: u32,
    answers: u32,
}

impl Path {
    pub(super) fn new(way: Way, origin: Origin) -> Self {
        Self {
            way,
            origin,
            confirmed: false,
            shaken: false,
            heard: None,
            silent_since: None,
            asked: None,
            rtt: None,
            usual: None,
            mtu: Mtu::default(),
            pings: [None; OPEN_PINGS],
            questions: 0,
            answers: 0,
        }
    }

    /// Its questions went unanswered for too long.
    pub(super) fn dead(&self, now: Instant) -> bool {
        self.silence(now) >= self.patience()
    }

    /// The usual round trip.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.usual
    }

    /// A silence for so long means death. Up to 0.5 s there and back it is [`DEAD`]. What is usual was
    /// found on another network, perhaps, where the path is shaken.
    fn patience(&self) -> Duration {
        let least = if self.shaken { UNKNOWN } else { DEAD };
        let known = self.usual.filter(|_| self.confirmed);
        known.map_or(UNKNOWN, |usual| {
            least.max((usual * 3).min(usual + BEYOND)).min(LONGEST)
        })
    }

    /// A question without answer is asked again after so long: on a slow path less often, so that those
    /// of a round trip are remembered until their answers come.
    pub(super) fn ask_again(&self, least: Duration) -> Duration {
        self.usual.map_or(least, |usual| least.max(usual / PART))
    }

    /// Since the first question that is not answered; nothing where all are.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let since = |at| now.saturating_duration_since(at);
        self.silent_since.map_or(Duration::ZERO, since)
    }

    /// A silence longer than this is not just the round trip.
    pub(super) fn late(&self) -> Duration {
        let twice = self.usual.map_or(DOUBT, |usual| DOUBT.max(usual * 2));
        twice.min(self.patience())
    }

    /// Confirmed, and heard of lately.
    pub(super) fn alive(&self, now: Instant) -> bool {
        let quiet = |at| now.saturating_duration_since(at);
        self.confirmed && !self.dead(now) && self.heard.is_some_and(|at| quiet(at) < STALE)
    }

    /// The same, and an answer came since this member's own address or link last changed.
    pub(super) fn certain(&self, now: Instant) -> bool {
        self.alive(now) && !self.shaken
    }

    /// Since it was last asked; the longest time when it never was.
    pub(super) fn since_asked(&self, now: Instant) -> Duration {
        self.asked
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at))
    }

    pub(super) fn asked(&mut self, number: u64, now: Instant) {
        self.asked = Some(now);
        self.silent_since.get_or_insert(now);
        self.pings.rotate_right(1);
        self.pings[0] = Some((number, now));
        if self.questions >= REMEMBERED {
            (self.questions, self.answers) = (self.questions / 2, self.answers / 2);
        }
        self.questions += 1;
    }

    /// Questions of late without an answer, in percent; none: nothing was asked.
    pub(super) fn loss(&self, now: Instant) -> Option<u8> {
        let open = self.pings.iter().flatten();
        let late = self.usual.map_or(LATE, |usual| LATE.max(usual * 2));
        let open = open.filter(|(_, at)| now.saturating_duration_since(*at) < late);
        let asked = self.questions.saturating_sub(open.count() as u32);
        let lost = asked.saturating_sub(self.answers) * 100;
        lost.checked_div(asked).map(|percent| percent as u8)
    }

    /// Something came on it: the peer is there, but only an answer shows that it hears us.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// An answer to question `number`; false when that was not asked here.
    pub(super) fn answered(&mut self, number: u64, now: Instant) -> bool {
        let of = |p: &Option<(u64, Instant)>| p.is_some_and(|(n, _)| n == number);
        let Some(slot) = self.pings.iter_mut().find(|p| of(p)) else {
            return false;
        };
        self.answers += 1;
        if let Some((_, at)) = slot.take() {
            let rtt = now.saturating_duration_since(at);
            self.rtt = Some(rtt);
            let known = self.usual.filter(|_| !self.shaken);
            self.usual = Some(known.map_or(rtt, |usual| (usual * 7 + rtt) / 8));
        }
        (self.confirmed, self.shaken) = (true, false);
        self.silent_since = None;
        self.heard(now);
        true
    }

    /// This member's own address or link changed: what was asked before shows nothing.
    pub(super) fn shake(&mut self) {
        self.shaken = true;
        (self.silent_since, self.asked) = (None, None);
        self.pings = [None; OPEN_PINGS];
    }

    /// Nothing is known of it any more but that it exists.
    pub(super) fn doubt(&mut self) {
        *self = Self::new(self.way, self.origin);
    }
}
