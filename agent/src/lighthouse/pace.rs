//! How often something may be done that somebody else causes.

use std::time::{Duration, Instant};

/// So many times as it comes, then once in a while.
pub struct Pace {
    burst: u32,
    every: Duration,
    left: u32,
    filled: Instant,
}

impl Pace {
    /// `burst` at once, and one more after each `every`.
    pub fn new(burst: u32, every: Duration, now: Instant) -> Self {
        Self {
            burst,
            every,
            left: burst,
            filled: now,
        }
    }

    /// How long to wait before the next time.
    pub fn pause(&mut self, now: Instant) -> Duration {
        while self.left < self.burst && now.duration_since(self.filled) >= self.every {
            self.left += 1;
            self.filled += self.every;
        }
        if self.left == self.burst {
            self.filled = now;
        }
        if self.left > 0 {
            self.left -= 1;
            return Duration::ZERO;
        }
        let wait = self.every.saturating_sub(now.duration_since(self.filled));
        self.filled += self.every;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_always_has_news_is_heard_less_often() {
        let (burst, every) = (60, Duration::from_secs(5));
        let begin = Instant::now();
        let (mut pace, mut now, mut asked) = (Pace::new(burst, every, begin), begin, 0);
        while now < begin + Duration::from_secs(3600) {
            now += pace.pause(now) + Duration::from_millis(1);
            asked += 1;
        }
        assert!((700..800).contains(&asked), "{asked}");
        now += Duration::from_secs(3600);
        assert_eq!(pace.pause(now), Duration::ZERO);
        assert_eq!(pace.left, burst - 1);
    }
}
