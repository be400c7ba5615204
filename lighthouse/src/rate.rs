//! Token buckets: how often one address or key may ask for what costs.

use crate::limits::group;
use holdfast_core::keys::PublicKey;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many are counted; beyond it those at rest are forgotten, then whoever has asked least. A
/// newcomer is never refused for others.
const MOST: usize = 4096;

/// So many at once, then one more in each `refill`.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    refill: Duration,
}

impl Rate {
    fn filled(self, (tokens, since): (u32, Instant), now: Instant) -> (u32, Instant) {
        let steps = now.saturating_duration_since(since).as_millis() / self.refill.as_millis();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        if tokens.saturating_add(steps) >= self.burst {
            return (self.burst, now);
        }
        (tokens + steps, since + self.refill * steps)
    }
}

/// A bucket for each `K`.
#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    held: Mutex<HashMap<K, (u32, Instant)>>,
}

impl<K: Hash + Eq + Copy> Buckets<K> {
    fn new(burst: u32, refill: Duration) -> Self {
        Self {
            rate: Rate { burst, refill },
            held: Mutex::default(),
        }
    }

    fn allow(&self, who: K, now: Instant) -> bool {
        let rate = self.rate;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= MOST && !held.contains_key(&who) {
            held.retain(|_, bucket| rate.filled(*bucket, now).0 < rate.burst);
            if held.len() >= MOST {
                let fullest = held.iter().max_by_key(|(_, b)| rate.filled(**b, now).0);
                let fullest = fullest.map(|(who, _)| *who);
                fullest.map(|who| held.remove(&who));
            }
        }
        let bucket = held.entry(who).or_insert((rate.burst, now));
        *bucket = rate.filled(*bucket, now);
        let allowed = bucket.0 > 0;
        bucket.0 = bucket.0.saturating_sub(1);
        allowed
    }
}

/// All that is bounded so.
#[derive(Debug)]
pub struct Rates {
    joins: Buckets<IpAddr>,
    documents: Buckets<IpAddr>,
    statuses: Buckets<PublicKey>,
    reads: Buckets<PublicKey>,
    lists: Buckets<PublicKey>,
}

impl Default for Rates {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            joins: Buckets::new(60, Duration::from_millis(500)),
            documents: Buckets::new(120, Duration::from_millis(500)),
            // An agent gives one each half minute, and one for each change.
            statuses: Buckets::new(20, secs(1)),
            reads: Buckets::new(60, secs(5)),
            lists: Buckets::new(60, secs(5)),
        }
    }
}

impl Rates {
    /// Joins and offers of a source.
    pub fn join(&self, source: IpAddr) -> bool {
        self.joins.allow(group(source), Instant::now())
    }

    /// Documents for a source whose key nobody knows.
    pub fn documents(&self, source: IpAddr) -> bool {
        self.documents.allow(group(source), Instant::now())
    }

    /// A member's accounts of itself: each is written to the disk.
    pub fn status(&self, key: PublicKey) -> bool {
        self.statuses.allow(key, Instant::now())
    }

    /// Documents for a member: as often as its agent takes lists.
    pub fn read(&self, key: PublicKey) -> bool {
        self.reads.allow(key, Instant::now())
    }

    /// Whole lists for a member, megabytes in a large cluster: as often as its agent takes them.
    pub fn list(&self, key: PublicKey) -> bool {
        self.lists.allow(key, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 60;
    const REFILL: Duration = Duration::from_millis(500);

    #[test]
    fn asking_is_allowed_again_after_a_while() {
        let (joins, now) = (Buckets::new(BURST, REFILL), Instant::now());
        let allowed = (0..100).filter(|_| joins.allow(1, now)).count();
        assert_eq!(allowed, BURST as usize);
        assert!(joins.allow(2, now));
        assert!(!joins.allow(1, now + REFILL / 2));
        assert!(joins.allow(1, now + REFILL));
        assert!(!joins.allow(1, now + REFILL));
    }

    #[test]
    fn however_many_ask_a_newcomer_is_heard_and_the_greedy_are_remembered() {
        let (joins, now) = (Buckets::new(BURST, REFILL), Instant::now());
        for _ in 0..=BURST {
            joins.allow(0, now);
        }
        for who in 1..2 * MOST {
            assert!(joins.allow(who, now), "{who}");
        }
        assert!(!joins.allow(0, now));
        assert!(joins.held.lock().unwrap().len() <= MOST);
    }
}
