//! The search for a direct path: all candidates are asked at once, by both sides.

use super::path::{Origin, Path};
use super::{ANSWER_AGAIN, Ask, INVITE_AGAIN, LONGEST_PAUSE, PAUSE, Paths, RACE, Race};
use crate::way::Way;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Questions to places that never answered, at once: a whole race with four places ...
const GUESSES: u32 = 60;
/// ... and the time after which one more is allowed. With 79 bytes each that is 800 bytes a second.
const GUESS_AGAIN: Duration = Duration::from_millis(100);

/// Questions to places that never answered: bounded, however often the peer names some or seems to be
/// there, since they may be anybody's.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    asked: u32,
    since: Option<Instant>,
}

impl Guesses {
    pub(super) fn one_more(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let steps = now.saturating_duration_since(since).as_millis() / GUESS_AGAIN.as_millis();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.since = since.checked_add(GUESS_AGAIN.saturating_mul(steps));
        self.asked = self.asked.saturating_sub(steps);
        let may = self.asked < GUESSES;
        self.asked += u32::from(may);
        may
    }
}

impl Paths {
    /// The peer told where it may be, on `way`.
    pub(crate) fn invited(
        &mut self,
        way: Way,
        candidates: &[SocketAddr],
        answer: bool,
        now: Instant,
        asks: &mut Vec<Ask>,
    ) {
        if self.plain {
            return;
        }
        self.asked(way, now, asks);
        let named = |p: &Path| p.way.direct().is_some_and(|at| candidates.contains(&at));
        self.direct
            .retain(|p| p.origin != Origin::Told || p.confirmed || named(p));
        for address in candidates {
            self.remember(Way::Direct(*address), Origin::Told);
        }
        let again = |at| now.saturating_duration_since(at) >= ANSWER_AGAIN;
        if answer && self.invited.is_none_or(again) {
            self.invite(way, false, now, asks);
        }
        if self.race.is_none() {
            self.start_race(now, asks);
        } else {
            self.ping_all(now, asks);
        }
    }

    pub(super) fn invite(&mut self, way: Way, answer: bool, now: Instant, asks: &mut Vec<Ask>) {
        self.invited = Some(now);
        asks.push(Ask::Invite { way, answer });
    }

    pub(super) fn start_race(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        self.race = Some(Race {
            until: now + RACE,
            next: now,
            invite: now + INVITE_AGAIN,
        });
        self.step(now, asks);
    }

    /// One step of a race.
    pub(super) fn step(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        let Some(race) = &mut self.race else { return };
        if now >= race.until {
            self.race = None;
            if !self.direct_lives(now) {
                let pause = PAUSE.saturating_mul(1 << self.races_lost.min(8));
                self.next_race = Some(now + pause.min(LONGEST_PAUSE));
                self.races_lost = self.races_lost.saturating_add(1);
            }
            return;
        }
        if now >= race.next {
            race.next = now + ANSWER_AGAIN;
            self.ping_all(now, asks);
        }
        if let Some(race) = self.race.as_mut().filter(|race| now >= race.invite) {
            race.invite = now + INVITE_AGAIN;
            let relay = self.relay.as_ref().filter(|p| !p.dead(now)).map(|p| p.way);
            if let Some(way) = relay.filter(|_| !self.direct_lives(now)) {
                self.invite(way, true, now, asks);
            }
        }
    }

    pub(super) fn ping_all(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        // Each first in its turn, for where not all may be asked.
        let (count, first) = (self.direct.len(), self.number as usize);
        for at in 0..count {
            let path = &self.direct[(at + first % count) % count];
            let guess = path.origin == Origin::Told && !path.confirmed;
            // The way in use is asked by itself too: twice as often its slow answers would find their
            // questions forgotten.
            let just = path.confirmed && path.since_asked(now) < GUESS_AGAIN;
            if !path.certain(now) && !just && (!guess || self.guesses.one_more(now)) {
                self.ping(path.way, now, asks);
            }
        }
    }

    /// This member's own address or link changed: nothing is certain any more. What is in use stays in
    /// use until another way was answered, or this one was silent for too long: often enough nothing
    /// that matters has changed, and anything else would be a guess.
    pub(crate) fn roamed(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        if self.plain {
            return;
        }
        let all = self.direct.iter_mut().chain(&mut self.relay);
        all.for_each(Path::shake);
        (self.race, self.next_race, self.races_lost) = (None, None, 0);
        self.relay_asked = None;
        if self.wanted(now) {
            self.look(now, asks);
        }
        self.choose(now);
    }

    /// This member learned of another place of its own: a search under way begins anew with it.
    pub(crate) fn news(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        if self.wanted(now) && !self.direct_lives(now) {
            (self.race, self.next_race) = (None, None);
            self.look(now, asks);
        }
    }
}
