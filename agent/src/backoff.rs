//! Pauses between attempts, as a value.

use std::time::Duration;

/// Doubling pauses between two bounds.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins at `first`, doubles up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// In seconds.
    pub const fn secs(first: u64, longest: u64) -> Self {
        Self::new(Duration::from_secs(first), Duration::from_secs(longest))
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_bound_and_begins_anew() {
        let mut b = Backoff::secs(1, 5);
        let pauses: Vec<u64> = (0..5).map(|_| b.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        b.reset();
        assert_eq!(b.pause().as_secs(), 1);
    }
}
