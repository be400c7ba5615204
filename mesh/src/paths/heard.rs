//! What came from the peer, and what it shows of the way that it came on.

use super::path::{Origin, Path};
use super::{ANSWER_AGAIN, Ask, Paths, WATCH};
use crate::way::Way;
use std::time::Instant;

impl Paths {
    /// Something authentic of WireGuard came on `way`.
    pub(crate) fn heard(&mut self, way: Way, now: Instant, asks: &mut Vec<Ask>) {
        if self.plain {
            self.remember(way, Origin::Seen);
            self.current = Some(way);
        }
        // What is repeated by someone else must not look like an answer of a silent peer.
        let plain = self.plain;
        match self.path_mut(way) {
            Some(path) if plain || (path.confirmed && !path.dead(now)) => {
                path.heard(now);
                self.moved(way, now, asks);
            }
            _ => self.met(way, now, asks),
        }
    }

    /// The peer uses `way`. Where that is another than ours, it may have lost ours: that is in doubt
    /// until it answers, also while nothing of this member's own goes there, as at a relay.
    fn moved(&mut self, way: Way, now: Instant, asks: &mut Vec<Ask>) {
        if !self.plain
            && let Some(current) = self.current.filter(|current| *current != way)
            && let Some(path) = self.path(current)
            && path.since_asked(now) >= WATCH
        {
            self.ping(current, now, asks);
        }
    }

    /// Something authentic came on a way that was not confirmed, or is dead: ask back.
    fn met(&mut self, way: Way, now: Instant, asks: &mut Vec<Ask>) {
        if self.plain {
            return;
        }
        if way.is_relayed() {
            let gone = |p: &Path| p.way != way && p.dead(now);
            if self.relay.as_ref().is_none_or(gone) {
                self.relay = Some(Path::new(way, Origin::Seen));
            }
        } else {
            self.remember(way, Origin::Seen);
        }
        if self.current.is_none() {
            self.current = Some(way);
        }
        let Some(path) = self.path(way) else {
            return;
        };
        // A stranger may repeat what he saw of the peer's, from places of his choice.
        let known = path.confirmed;
        if path.since_asked(now) >= ANSWER_AGAIN && (known || self.met.one_more(now)) {
            self.ping(way, now, asks);
            // The peer may have moved: what we use now is in doubt until it answers.
            if let Some(current) = self.current.filter(|c| *c != way) {
                self.ping(current, now, asks);
            }
        }
    }

    /// A question of the peer came on `way`.
    pub(crate) fn asked(&mut self, way: Way, now: Instant, asks: &mut Vec<Ask>) {
        match self.path_mut(way) {
            Some(path) if path.confirmed && !path.dead(now) => {
                path.heard(now);
                self.moved(way, now, asks);
            }
            _ => self.met(way, now, asks),
        }
    }

    /// An answer came on `way`; true when it was to a question of ours, asked there.
    pub(crate) fn answered(&mut self, way: Way, number: u64, now: Instant) -> bool {
        let path = self.path_mut(way);
        if path.is_some_and(|p| p.mtu.answered(number, now)) {
            return true;
        }
        let known = self.path_mut(way).is_some_and(|p| p.answered(number, now));
        self.answers += u64::from(known);
        if known && !way.is_relayed() {
            self.races_lost = 0;
            self.next_race = None;
        }
        self.choose(now);
        known
    }
}
