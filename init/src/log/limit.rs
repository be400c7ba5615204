//! How much one unit may write: a bucket that fills with time. What is over is counted, not kept.

use std::collections::BTreeMap;
use std::time::Duration;

const BURST: f64 = 2000.0;
const PER_SECOND: f64 = 100.0;
/// Names of units come from whoever writes: more than this share one bucket.
const UNITS_MAX: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Duration,
    dropped: u64,
}

/// The buckets.
#[derive(Debug, Default)]
pub struct Limiter(BTreeMap<String, Bucket>);

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Keep it; so many were dropped before it.
    Keep(u64),
    /// Drop and count it.
    Drop,
}

impl Limiter {
    /// Judges a line of `unit` at `now`.
    pub fn judge(&mut self, unit: &str, now: Duration) -> Verdict {
        let key = if self.0.contains_key(unit) || self.0.len() < UNITS_MAX {
            unit
        } else {
            ""
        };
        let fresh = Bucket {
            left: BURST,
            at: now,
            dropped: 0,
        };
        let bucket = self.0.entry(key.to_owned()).or_insert(fresh);
        let gained = now.saturating_sub(bucket.at).as_secs_f64() * PER_SECOND;
        bucket.left = (bucket.left + gained).min(BURST);
        bucket.at = now;
        if bucket.left < 1.0 {
            bucket.dropped = bucket.dropped.saturating_add(1);
            return Verdict::Drop;
        }
        bucket.left -= 1.0;
        Verdict::Keep(std::mem::take(&mut bucket.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted_and_others_are_heard() {
        let mut limiter = Limiter::default();
        let now = Duration::from_secs(1);
        let kept = (0..5000)
            .filter(|_| limiter.judge("noisy", now) != Verdict::Drop)
            .count();
        assert_eq!(kept, 2000);
        assert_eq!(limiter.judge("calm", now), Verdict::Keep(0));
        assert_eq!(
            limiter.judge("noisy", now + Duration::from_secs(1)),
            Verdict::Keep(3000)
        );
    }

    #[test]
    fn made_up_units_share_one_bucket() {
        let mut limiter = Limiter::default();
        for i in 0..10_000 {
            limiter.judge(&format!("u{i}"), Duration::ZERO);
        }
        assert!(limiter.0.len() <= UNITS_MAX + 1);
    }
}
