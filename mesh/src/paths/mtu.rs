//! How large a datagram one path carries, found by padded questions that must not be cut (DF). ICMP
//! is not waited for: many networks drop it.

use std::time::{Duration, Instant};

/// A full datagram as UDP payload: 1380 inside, WireGuard's 32, a relay's 12; and what is tried
/// below it, down to IPv6's least MTU less its headers and UDP's.
pub(crate) const SIZES: [u16; 7] = [1424, 1392, 1372, 1352, 1312, 1272, 1232];
/// Questions of one size before it counts as too large.
const TRIES: u8 = 3;
/// An answer is waited for at least so long, and three round trips.
const PATIENCE: Duration = Duration::from_millis(300);
/// A path is measured anew after so long: its middle may have changed.
const AGAIN: Duration = Duration::from_secs(600);

/// What is known of one path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mtu {
    /// Index of the size under way, how often it was asked, the last question.
    at: usize,
    tries: u8,
    asked: Option<(u64, Instant)>,
    /// The largest size that was answered, and when it was found.
    carries: Option<u16>,
    found: Option<Instant>,
    /// A full datagram got no answer.
    narrow: bool,
}

impl Mtu {
    /// The size to ask with now, if it is time to; `numbered` is the question's number.
    pub(super) fn due(&mut self, rtt: Duration, number: u64, now: Instant) -> Option<u16> {
        let since = |at| now.saturating_duration_since(at);
        if self.found.is_some_and(|at| since(at) < AGAIN) {
            return None;
        }
        if self.found.take().is_some() {
            (self.at, self.tries, self.asked) = (0, 0, None);
        }
        if let Some((_, at)) = self.asked
            && since(at) < PATIENCE.max(rtt * 3)
        {
            return None;
        }
        if self.tries >= TRIES {
            (self.at, self.tries) = (self.at + 1, 0);
            self.narrow = true;
        }
        let Some(size) = SIZES.get(self.at) else {
            // Nothing of these sizes: nothing is known but that datagrams must be cut.
            (self.carries, self.found) = (None, Some(now));
            return None;
        };
        self.tries += 1;
        self.asked = Some((number, now));
        Some(*size)
    }

    /// The path was silent: what went unanswered says nothing.
    pub(super) fn unsure(&mut self) {
        (self.tries, self.asked) = (0, None);
    }

    /// An answer; false when it was to no question of ours.
    pub(super) fn answered(&mut self, number: u64, now: Instant) -> bool {
        if self.asked.is_none_or(|(asked, _)| asked != number) {
            return false;
        }
        self.narrow = self.at > 0;
        self.carries = SIZES.get(self.at).copied();
        (self.found, self.asked) = (Some(now), None);
        true
    }

    /// UDP payload that the path carries whole, as far as was found.
    pub(super) fn carries(&self) -> Option<u16> {
        self.carries
    }

    /// A full datagram does not come through whole.
    pub(super) fn narrow(&self) -> bool {
        self.narrow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found on a path that carries up to `limit`, and how many questions it took.
    fn measure(limit: u16) -> (Mtu, usize) {
        let (mut mtu, mut now, mut asked) = (Mtu::default(), Instant::now(), 0);
        for number in 0..200 {
            now += Duration::from_millis(250);
            if let Some(size) = mtu.due(Duration::from_millis(5), number, now) {
                asked += 1;
                if size <= limit {
                    assert!(mtu.answered(number, now));
                }
            }
        }
        (mtu, asked)
    }

    #[test]
    fn the_largest_size_that_passes_is_found() {
        let (wide, asked) = measure(1500);
        assert_eq!(
            (wide.carries(), wide.narrow(), asked),
            (Some(1424), false, 1)
        );
        let (narrow, asked) = measure(1372);
        assert_eq!(
            (narrow.carries(), narrow.narrow(), asked),
            (Some(1372), true, 7)
        );
        let (worse, _) = measure(600);
        assert_eq!((worse.carries(), worse.narrow()), (None, true));
    }

    #[test]
    fn a_narrow_path_that_became_wide_is_found_out() {
        let (mut mtu, _) = measure(1372);
        let later = Instant::now() + AGAIN + AGAIN;
        let size = mtu.due(Duration::ZERO, 900, later);
        assert_eq!(size, Some(1424));
        assert!(mtu.narrow(), "until it is answered");
        assert!(!mtu.answered(1, later) && mtu.answered(900, later));
        assert!(!mtu.narrow());
    }
}
