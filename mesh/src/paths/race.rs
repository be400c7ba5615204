//! The search for a direct path: all candidates are asked at once, by both sides.

use super::path::{Origin, Path};
use super::{ANSWER_AGAIN, Ask, LONGEST_PAUSE, PAUSE, Paths, RACE, Race};
use crate::way::Way;
use std::net::SocketAddr;
use std::time::Instant;

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
        self.direct
            .retain(|p| p.origin != Origin::Told || p.confirmed);
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
        } else if now >= race.next {
            race.next = now + ANSWER_AGAIN;
            self.ping_all(now, asks);
        }
    }

    pub(super) fn ping_all(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        for at in 0..self.direct.len() {
            if !self.direct[at].alive(now) {
                let way = self.direct[at].way;
                self.ping(way, now, asks);
            }
        }
    }

    /// This member's own address or link changed: nothing is certain any more.
    pub(crate) fn roamed(&mut self, now: Instant, asks: &mut Vec<Ask>) {
        if self.plain {
            return;
        }
        let mut all = self.direct.iter_mut().chain(&mut self.relay);
        all.by_ref().for_each(Path::doubt);
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
