//! Handshake messages allowed per source address, counted before any cryptography.
//!
//! boringtun's own limiter is one counter for all senders together: whoever floods it makes
//! everybody pay with a cookie round trip. This one stands in front and is per source, so a
//! single flooding address does not reach it. Sources can be forged; a flood from more addresses
//! than the table holds passes through to boringtun's limiter, whose cookies ask for proof.

use crate::stream::is_stream;
use crate::way::{Channel, Way};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Messages a source may send at once.
const BURST: u32 = 20;
/// After which one more is allowed: 10 a second, far above what a peer needs (one in 5 s).
const REFILL: Duration = Duration::from_millis(100);
/// Sources remembered; about 300 kB at most.
const TABLE: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    since: Instant,
}

/// One token bucket per source: an IPv4 address or an IPv6 /64, and the channel of what is relayed, so
/// that no member takes what the lighthouse needs, or other members behind it.
#[derive(Debug, Default)]
pub(crate) struct SourceLimiter {
    buckets: HashMap<(IpAddr, Option<Channel>), Bucket>,
}

impl SourceLimiter {
    /// Takes a token of what came on `way`; false when it has none left.
    pub(crate) fn allow(&mut self, way: Way, now: Instant) -> bool {
        let channel = match way {
            Way::Relayed { channel, .. } => Some(channel),
            Way::Direct(_) => None,
        };
        let key = (group(way.next_hop().ip()), channel);
        // Not swept here: a flood from many sources would pay for it with each datagram.
        if self.buckets.len() >= TABLE && !self.buckets.contains_key(&key) {
            return true;
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket {
            tokens: BURST,
            since: now,
        });
        refill(bucket, now);
        let allowed = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        allowed
    }

    /// Called on each tick: forgets sources that have been quiet long enough to have a full bucket again.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| {
            refill(bucket, now);
            bucket.tokens < BURST
        });
    }
}

fn refill(bucket: &mut Bucket, now: Instant) {
    let steps = now.saturating_duration_since(bucket.since).as_millis() / REFILL.as_millis();
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    if steps > 0 {
        bucket.tokens = bucket.tokens.saturating_add(steps).min(BURST);
        bucket.since += REFILL
            .saturating_mul(steps)
            .min(now.saturating_duration_since(bucket.since));
    }
}

/// An IPv6 host owns its /64, so counting single addresses would count nothing.
fn group(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        // One for each stream.
        IpAddr::V6(a) if is_stream((a, 1).into()) => a.into(),
        IpAddr::V6(a) => {
            let [a, b, c, d, ..] = a.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(source: impl Into<IpAddr>) -> Way {
        Way::Direct((source.into(), 1).into())
    }

    #[test]
    fn a_relayed_flood_takes_nothing_from_the_lighthouse_or_other_channels() {
        let (mut limiter, now) = (SourceLimiter::default(), Instant::now());
        let via = ([198, 51, 100, 1], 1).into();
        let relayed = |n| Way::Relayed {
            via,
            channel: Channel(n),
        };
        let passed = (0..1000).filter(|_| limiter.allow(relayed(1), now)).count();
        assert_eq!(passed, BURST as usize);
        assert!(limiter.allow(relayed(2), now) && limiter.allow(Way::Direct(via), now));
    }

    #[test]
    fn a_flood_is_cut_and_others_are_not() {
        let mut limiter = SourceLimiter::default();
        let now = Instant::now();
        let bad = from([198, 51, 100, 1]);
        let passed = (0..1000).filter(|_| limiter.allow(bad, now)).count();
        assert_eq!(passed, BURST as usize);
        assert!(limiter.allow(from([198, 51, 100, 2]), now));
        assert!(!limiter.allow(bad, now + Duration::from_millis(99)));
        assert!(limiter.allow(bad, now + Duration::from_millis(100)));
        assert!(!limiter.allow(bad, now + Duration::from_millis(100)));
    }

    #[test]
    fn a_whole_ipv6_network_is_one_source() {
        let mut limiter = SourceLimiter::default();
        let now = Instant::now();
        let passed = (0..1000u16)
            .filter(|n| limiter.allow(from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, *n)), now))
            .count();
        assert_eq!(passed, BURST as usize);
    }

    #[test]
    fn the_table_is_bounded_and_quiet_sources_are_forgotten() {
        let mut limiter = SourceLimiter::default();
        let now = Instant::now();
        for n in 0..20_000u32 {
            limiter.allow(from(n.to_be_bytes()), now);
        }
        assert_eq!(limiter.buckets.len(), TABLE);
        limiter.sweep(now + Duration::from_secs(60));
        assert!(limiter.buckets.is_empty());
    }
}
