//! Which way is used.

use super::Paths;
use super::path::Path;
use crate::way::Way;
use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// A path has to be quicker by a quarter and by this to be preferred to the one in use.
const MARGIN: Duration = Duration::from_millis(2);

impl Paths {
    pub(super) fn choose(&mut self, now: Instant) {
        if self.plain {
            return;
        }
        let rank = |p: &&Path| {
            let rtt = p.rtt.unwrap_or(Duration::MAX);
            let overdue = p.silence(now) >= p.late();
            (overdue, p.way.is_stream(), p.silent_since.is_some(), rtt)
        };
        let certain = self.direct.iter().filter(|p| p.certain(now));
        let best = certain.min_by_key(rank);
        let held = self.current.and_then(|way| self.path(way));
        let shaken = held.filter(|p| p.shaken && p.alive(now)).map(|p| p.way);
        let udp = |p: &&Path| !p.way.is_relayed() && !p.way.is_stream();
        let held = held.filter(|p| udp(p) && p.certain(now) && p.silent_since.is_none());
        let chosen = match (best, held) {
            (Some(best), Some(held)) => {
                let (new, old) = (best.rtt, held.rtt);
                let clearly = new
                    .zip(old)
                    .is_some_and(|(new, old)| new + new / 4 + MARGIN < old);
                Some(if clearly { best.way } else { held.way })
            }
            (Some(best), None) => Some(best.way),
            _ => None,
        };
        let relay = self.relay.as_ref().filter(|p| !p.dead(now));
        let answered = relay.filter(|p| p.certain(now)).map(|p| p.way);
        let chosen = chosen.or(answered).or(shaken).or(relay.map(|p| p.way));
        self.current = chosen.or_else(|| self.guess()).or(self.current);
    }

    /// Without anything certain: the confirmed and last heard of first, in turn.
    pub(super) fn guess(&self) -> Option<Way> {
        let mut all: Vec<&Path> = self.direct.iter().collect();
        let old = |p: &Path| p.heard.map(Reverse);
        all.sort_by_key(|p| (!p.confirmed, old(p).is_none(), old(p), p.origin));
        let at = self.failures as usize % all.len().max(1);
        all.get(at).map(|p| p.way)
    }
}
