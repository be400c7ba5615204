//! When to force a handshake, as a function of elapsed times.
//!
//! boringtun 0.7.1 gives up 90 s after a peer fell silent (`REKEY_ATTEMPT_TIME`) and then sends
//! nothing any more, persistent keepalive or not, until somebody asks for a handshake. It also
//! renews a session only when data was sent. Both decisions are made here instead.

use std::time::Duration;

/// First pause after boringtun gave up; it doubles with every attempt that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two attempts. An attempt lasts 90 s and sends every 5 s, so a peer that
/// comes back is heard of within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// WireGuard's `REKEY_TIMEOUT`: never ask more often, whatever waits.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// A session is renewed at this age without waiting for data (it dies at 180 s); boringtun does
/// so at 120 s when data was sent.
const RENEW_AT: Duration = Duration::from_secs(130);
/// The peer with the greater key waits this much longer, so that not both begin.
const RENEW_LATER: Duration = Duration::from_secs(15);

/// What is known of a peer at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// An address to send to is known.
    pub has_endpoint: bool,
    /// Age of the session in use.
    pub session: Option<Duration>,
    /// boringtun gave up (`ConnectionExpired`) since the last attempt began.
    pub gave_up: bool,
    /// When boringtun gave up, how long ago.
    pub since_gave_up: Duration,
    /// Attempts that failed in a row.
    pub failures: u32,
    /// Since we last asked for a handshake; `None`: never.
    pub since_asked: Option<Duration>,
    /// A session is wanted without traffic (always on, or a keepalive is set).
    pub wanted: bool,
    /// Packets wait for a session.
    pub packets_wait: bool,
    /// Our key is the greater one.
    pub second: bool,
}

/// Ask for a handshake now.
pub(crate) fn due(view: &View) -> bool {
    if !view.has_endpoint || view.since_asked.is_some_and(|t| t < REKEY_TIMEOUT) {
        return false;
    }
    match view.session {
        Some(age) => {
            let limit = if view.second {
                RENEW_AT + RENEW_LATER
            } else {
                RENEW_AT
            };
            view.wanted && age >= limit
        }
        // Packets are there now: the pause is for those who only hope.
        None if view.packets_wait => true,
        None if !view.wanted => false,
        None if view.gave_up => view.since_gave_up >= pause(view.failures),
        None => true,
    }
}

fn pause(failures: u32) -> Duration {
    let doubled = 1u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    FIRST_PAUSE
        .saturating_mul(doubled.max(1))
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: View = View {
        has_endpoint: true,
        session: None,
        gave_up: false,
        since_gave_up: Duration::ZERO,
        failures: 0,
        since_asked: None,
        wanted: true,
        packets_wait: false,
        second: false,
    };

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_new_wanted_peer_is_asked_at_once() {
        assert!(due(&QUIET));
        assert!(!due(&View {
            has_endpoint: false,
            ..QUIET
        }));
        assert!(!due(&View {
            wanted: false,
            ..QUIET
        }));
        assert!(due(&View {
            wanted: false,
            packets_wait: true,
            ..QUIET
        }));
    }

    #[test]
    fn never_more_often_than_wireguard_allows() {
        let asked = View {
            since_asked: Some(secs(4)),
            packets_wait: true,
            ..QUIET
        };
        assert!(!due(&asked));
        assert!(due(&View {
            since_asked: Some(secs(5)),
            ..asked
        }));
    }

    #[test]
    fn pauses_grow_to_half_a_minute_and_stay_there() {
        let pauses: Vec<u64> = (0..9).map(|n| pause(n).as_secs()).collect();
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    /// An hour of silence, second by second: boringtun tries for 90 s each time it is asked.
    #[test]
    fn an_hour_of_silence_never_ends_the_attempts() {
        let (mut asked_at, mut gave_up_at, mut failures) = (None::<u64>, None::<u64>, 0);
        let mut last_try = 0;
        let mut longest = 0;
        for now in 0..3600u64 {
            let trying = asked_at.is_some_and(|t| now < t + 90) && gave_up_at.is_none();
            if !trying && gave_up_at.is_none() && asked_at.is_some() {
                gave_up_at = Some(now);
                failures += 1;
            }
            let view = View {
                gave_up: gave_up_at.is_some(),
                since_gave_up: secs(now - gave_up_at.unwrap_or(now)),
                failures,
                since_asked: asked_at.map(|t| secs(now - t)),
                ..QUIET
            };
            if !trying && due(&view) {
                asked_at = Some(now);
                gave_up_at = None;
            }
            if asked_at.is_some_and(|t| now < t + 90) && gave_up_at.is_none() {
                last_try = now;
            }
            longest = longest.max(now - last_try);
        }
        assert!(longest <= 31, "{longest} s without an attempt");
        assert!(failures > 20);
    }

    #[test]
    fn a_wanted_session_is_renewed_before_it_dies_and_by_one_side_first() {
        let at = |age| View {
            session: Some(secs(age)),
            ..QUIET
        };
        assert!(!due(&at(129)));
        assert!(due(&at(130)));
        assert!(!due(&View {
            second: true,
            ..at(140)
        }));
        assert!(due(&View {
            second: true,
            ..at(145)
        }));
        assert!(!due(&View {
            wanted: false,
            ..at(170)
        }));
    }
}
