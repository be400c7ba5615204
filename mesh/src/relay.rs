//! The lighthouse's side of relaying: channels, each bound to two members, bounded in rate.
//!
//! A datagram is passed on as it came, one for one, and only when it came from where one of the two
//! members is known to be; everything else is dropped without a word. Nothing is encrypted or
//! decrypted here.

use crate::keys::MeshKey;
use crate::way::Channel;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Channels kept; the one unused for longest makes room.
const MAX_CHANNELS: usize = 65_536;
/// A channel's burst, as time at its rate.
const BURST: Duration = Duration::from_millis(250);

/// The two ends, in the order of their keys.
type Pair = (MeshKey, MeshKey);

#[derive(Debug)]
struct Bound {
    pair: Pair,
    used: Instant,
    /// Bytes that may pass now.
    allowance: f64,
}

/// All channels.
#[derive(Debug)]
pub(crate) struct Relay {
    channels: HashMap<Channel, Bound>,
    by_pair: HashMap<Pair, Channel>,
    /// Bytes a second for each channel.
    rate: f64,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            channels: HashMap::new(),
            by_pair: HashMap::new(),
            rate: f64::INFINITY,
        }
    }
}

impl Relay {
    /// Bounds each channel to `rate` bytes a second.
    pub(crate) fn limit(&mut self, rate: f64) {
        self.rate = rate;
    }

    fn burst(&self) -> f64 {
        // Never less than some full datagrams.
        (self.rate * BURST.as_secs_f64()).max(65_536.0)
    }

    /// The channel between two members: the one they have, or a new one. None: no random bytes.
    pub(crate) fn open(&mut self, a: MeshKey, b: MeshKey, now: Instant) -> Option<Channel> {
        let pair = (a.min(b), a.max(b));
        if let Some(channel) = self.by_pair.get(&pair) {
            return Some(*channel);
        }
        let channel = Channel(getrandom::u64().ok()?);
        if self.channels.contains_key(&channel) {
            return None;
        }
        if self.channels.len() >= MAX_CHANNELS
            && let Some(oldest) = self
                .channels
                .values()
                .min_by_key(|b| b.used)
                .map(|b| b.pair)
        {
            self.close(oldest);
        }
        let bound = Bound {
            pair,
            used: now,
            allowance: self.burst(),
        };
        self.channels.insert(channel, bound);
        self.by_pair.insert(pair, channel);
        Some(channel)
    }

    fn close(&mut self, pair: Pair) {
        if let Some(channel) = self.by_pair.remove(&pair) {
            self.channels.remove(&channel);
        }
    }

    /// A member is gone: its channels too.
    pub(crate) fn forget(&mut self, member: MeshKey) {
        let gone: Vec<Pair> = self.by_pair.keys().copied().collect();
        let of = |pair: &Pair| pair.0 == member || pair.1 == member;
        gone.into_iter()
            .filter(of)
            .for_each(|pair| self.close(pair));
    }

    /// The ends of a channel; none when there is no such channel.
    pub(crate) fn ends(&self, channel: Channel) -> Option<[MeshKey; 2]> {
        let bound = self.channels.get(&channel)?;
        Some([bound.pair.0, bound.pair.1])
    }

    /// Whether `bytes` more may pass, which came from one of the ends; counts them.
    pub(crate) fn pass(&mut self, channel: Channel, bytes: usize, now: Instant) -> bool {
        let (rate, burst) = (self.rate, self.burst());
        let Some(bound) = self.channels.get_mut(&channel) else {
            return false;
        };
        let since = now.saturating_duration_since(bound.used).as_secs_f64();
        bound.used = now;
        if rate.is_infinite() {
            return true;
        }
        bound.allowance = (bound.allowance + since * rate).min(burst);
        let passes = bound.allowance >= bytes as f64;
        if passes {
            bound.allowance -= bytes as f64;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> MeshKey {
        MeshKey([n; 32])
    }

    #[test]
    fn a_pair_has_one_channel_whoever_asks_and_loses_it_with_either() {
        let (mut relay, now) = (Relay::default(), Instant::now());
        let one = relay.open(key(1), key(2), now).unwrap();
        assert_eq!(relay.open(key(2), key(1), now), Some(one));
        let other = relay.open(key(3), key(1), now).unwrap();
        assert_ne!(one, other);
        assert_eq!(relay.ends(other), Some([key(1), key(3)]));
        relay.forget(key(2));
        assert_eq!((relay.ends(one), relay.ends(other).is_some()), (None, true));
        assert!(!relay.pass(one, 1, now));
        assert_ne!(relay.open(key(1), key(2), now), Some(one));
    }

    #[test]
    fn the_rate_is_held_over_time() {
        let mut relay = Relay::default();
        relay.limit(1_000_000.0);
        let begin = Instant::now();
        let channel = relay.open(key(1), key(2), begin).unwrap();
        let mut passed = 0u64;
        for ms in 0..4000 {
            let now = begin + Duration::from_millis(ms);
            for _ in 0..4 {
                passed += if relay.pass(channel, 1400, now) {
                    1400
                } else {
                    0
                };
            }
        }
        assert!((3_900_000..4_300_000).contains(&passed), "{passed}");
    }
}
