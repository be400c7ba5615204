//! When a service that ended is started again: a function of how long it ran and how often it failed.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// A run of this length counts as healthy: what ended it is a new trouble.
const HEALTHY: Duration = Duration::from_secs(60);

/// A service's back-off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The service ended after running for `ran`; returns how long to wait before the next start.
    pub fn ended(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            self.failures = 0;
        }
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        FIRST.saturating_mul(1 << doublings).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_and_a_healthy_run_forgives() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<_> = (0..12).map(|_| backoff.ended(short).as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 30_000);
        assert_eq!(backoff.ended(HEALTHY), FIRST);
    }

    proptest! {
        #[test]
        fn waits_stay_in_bounds(runs in proptest::collection::vec(0u64..100, 0..200)) {
            let mut backoff = Backoff::default();
            for ran in runs {
                let wait = backoff.ended(Duration::from_secs(ran));
                prop_assert!((FIRST..=LONGEST).contains(&wait));
            }
        }
    }
}
