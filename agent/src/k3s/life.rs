//! Decisions about the running k3s.

use holdfast_core::ipc::ServiceState;
use holdfast_core::status::K3sState;
use std::time::Duration;

/// k3s renews its certificates (365 days) only at a start within their last 90 days: one that was
/// not due at a start has more than 90 left, so a start every 60 days is always in time.
const RESTART_AFTER: Duration = Duration::from_secs(60 * 24 * 3600);
/// A start is looked at closely for so long.
const START: Duration = Duration::from_secs(5 * 60);
/// Starts in one boot, beyond those we asked for, that count as failing.
const FAILING: u32 = 5;

/// Whether a k3s that has run for so long is started anew.
pub fn restart_due(running_for: Duration) -> bool {
    running_for >= RESTART_AFTER
}

/// k3s's state from init's view and the API's.
pub fn state(service: Option<&ServiceState>, ready: bool, was_ready: bool) -> K3sState {
    if ready {
        return K3sState::Ready;
    }
    match service {
        Some(s) if s.starts >= FAILING && s.last_exit.is_some() => K3sState::Failed,
        _ if was_ready => K3sState::NotReady,
        _ => K3sState::Starting,
    }
}

/// How long until k3s is looked at again, `since` its start.
pub fn pause(state: K3sState, since: Duration) -> Duration {
    match state {
        K3sState::Ready => Duration::from_secs(10),
        K3sState::Starting if since < START => Duration::from_millis(500),
        _ => Duration::from_secs(2),
    }
}

/// Seconds since boot at which a process started, from `/proc/PID/stat` (proc(5), field 22; ticks
/// of 1/100 s).
pub fn started_at(stat: &str) -> Option<u64> {
    // The command's name may hold spaces and parentheses: count from its end.
    let rest = stat.rsplit_once(')')?.1;
    let ticks: u64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(starts: u32, exit: Option<&str>) -> ServiceState {
        ServiceState {
            name: "k3s".into(),
            pid: Some(5),
            starts,
            last_exit: exit.map(Into::into),
        }
    }

    #[test]
    fn what_operators_see() {
        assert_eq!(state(None, false, false), K3sState::Starting);
        assert_eq!(state(Some(&service(1, None)), true, false), K3sState::Ready);
        assert_eq!(
            state(Some(&service(1, None)), false, true),
            K3sState::NotReady
        );
        assert_eq!(
            state(Some(&service(6, Some("exit 1"))), false, true),
            K3sState::Failed
        );
    }

    #[test]
    fn only_a_start_is_looked_at_closely_and_not_for_ever() {
        let millis = |state, secs| pause(state, Duration::from_secs(secs)).as_millis();
        assert_eq!(millis(K3sState::Starting, 299), 500);
        assert_eq!(millis(K3sState::Starting, 300), 2000);
        assert_eq!(millis(K3sState::NotReady, 1), 2000);
        assert_eq!(millis(K3sState::Failed, 1), 2000);
        assert_eq!(millis(K3sState::Ready, 1), 10_000);
    }

    #[test]
    fn certificates_are_renewed_in_time_whatever_their_age_at_the_first_start() {
        for age_at_start in 0..365u64 {
            let mut left = 365 - age_at_start;
            for _ in 0..20 {
                if left <= 90 {
                    left = 365;
                }
                let days = RESTART_AFTER.as_secs() / 86_400;
                assert!(left > days, "{left} days left for {days} of running");
                left -= days;
            }
        }
        assert!(restart_due(RESTART_AFTER) && !restart_due(RESTART_AFTER - Duration::from_secs(1)));
    }

    #[test]
    fn reads_the_start_behind_an_odd_name() {
        let stat = "77 (k3s (server) x) S 1 77 77 0 -1 4194560 1 0 0 0 5 5 0 0 20 0 12 0 4200 1 2";
        assert_eq!(started_at(stat), Some(42));
        assert_eq!(started_at("nonsense"), None);
    }
}
