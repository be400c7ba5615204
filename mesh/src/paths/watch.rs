//! Whether the way in use is there still, and what is done when that is in doubt.

use super::{ANSWER_AGAIN, Ask, Paths, RELAY_AGAIN, RETRY_UDP, WATCH};
use crate::way::Way;
use std::time::{Duration, Instant};

impl Paths {
    /// While a stream is in use: UDP is tried again from time to time.
    pub(crate) fn retry_udp(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        let again = |at| now.saturating_duration_since(at) >= RETRY_UDP;
        if self.current.is_some_and(Way::is_stream) && self.udp_asked.is_none_or(again) {
            self.udp_asked = Some(now);
            self.ping_all(now, asks);
        }
    }

    /// The way in use gave no answer lately, though there is traffic: is the lighthouse there still,
    /// which passes on what is relayed, and will be needed when a direct path has died?
    pub(crate) fn needs_lighthouse(&self, now: Instant) -> bool {
        let current = self.current.and_then(|way| self.path(way));
        current.is_some_and(|p| {
            let late = p.way.is_relayed() || p.silence(now) >= p.late();
            p.confirmed && p.silent_since.is_some() && late
        }) && self.wanted(now)
    }

    /// For how long the way in use has been silent, beyond what is common on it.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Duration> {
        let current = self.current.and_then(|way| self.path(way))?;
        let silence = current.silence(now);
        (silence >= current.late()).then_some(silence)
    }

    /// The way in use was asked and has not answered yet.
    pub(crate) fn in_doubt(&self) -> bool {
        let current = self.current.and_then(|way| self.path(way));
        current.is_some_and(|p| p.silent_since.is_some())
    }

    /// Asks on the way in use, unless it was asked within `every`.
    pub(crate) fn watch(&mut self, every: Duration, now: Instant, asks: &mut Vec<Ask>) {
        if !self.plain
            && let Some(path) = self.current.and_then(|way| self.path(way))
            && path.since_asked(now) >= every.max(ANSWER_AGAIN)
        {
            self.ping(path.way, now, asks);
        }
    }

    /// Watches the way in use, and seeks a better one when it is not direct.
    pub(super) fn look(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        if self.plain {
            return;
        }
        let current = self.current.and_then(|way| self.path(way));
        // One lost answer is made up for at once.
        let shaken = current.is_some_and(|p| p.shaken);
        let doubtful = current.filter(|p| p.silent_since.is_some() && !p.dead(now));
        let every = doubtful.map_or(WATCH, |p| p.ask_again(ANSWER_AGAIN));
        self.watch(every, now, asks);
        if self.direct_lives(now) {
            return;
        }
        let relay = self.relay.as_ref().filter(|p| !p.dead(now)).map(|p| p.way);
        // The one that died may be the only one there is: an answer revives it. And what is in use may
        // not work any more where this member is now.
        let sought = self.relay.as_ref().filter(|p| match p.dead(now) {
            true => p.since_asked(now) >= WATCH,
            false => shaken && !p.certain(now) && p.since_asked(now) >= ANSWER_AGAIN,
        });
        if let Some(way) = sought.map(|p| p.way) {
            self.ping(way, now, asks);
        }
        let again = |at| now.saturating_duration_since(at) >= RELAY_AGAIN;
        if relay.is_none() && self.relay_asked.is_none_or(again) {
            self.relay_asked = Some(now);
            asks.push(Ask::Relay);
        }
        if self.race.is_none() && self.next_race.is_none_or(|at| now >= at) {
            self.start_race(now, asks);
            if let Some(way) = relay {
                self.invite(way, true, now, asks);
            }
        }
    }
}
