//! The number of this node's accounts, and what a lighthouse's word on it is worth.

use crate::store::Store;
use holdfast_core::state::StateDoc;
use std::time::{Duration, Instant};

/// How many counts are reserved on disk at a time, so that not every account is a write.
const RESERVE: u64 = 1000;
/// Further ahead than this no account of this node's, or of its twin's, can be: one in 200 ms for
/// 27 years. Beyond it a lighthouse makes numbers up, and the count would run out.
const AHEAD: u64 = 1 << 32;
/// Further ahead than this a number costs a write soon: it is followed once in [`PAUSE`].
const NEAR: u64 = 5;
const PAUSE: Duration = Duration::from_secs(600);
/// Within so long of each other, two later accounts are another machine's.
const TWIN: Duration = Duration::from_secs(3600);

/// Hands out counts that grow over reboots; the stored one is never below any that was used.
pub struct Counter {
    next: u64,
    reserved: u64,
    /// When no lighthouse took an account, and one had a later.
    behind: Option<Instant>,
    /// When a number far ahead was followed.
    leapt: Option<Instant>,
}

/// What a later account at a lighthouse means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// This node's, from before its state was restored from a backup.
    Restored,
    /// Another machine has the same keys.
    Twin,
    /// Another lighthouse took this node's: the one that refuses is odd, not the node.
    Outvoted,
}

impl Counter {
    pub fn stored(doc: &StateDoc) -> Self {
        Self {
            next: doc.status_counter,
            reserved: doc.status_counter,
            behind: None,
            leapt: None,
        }
    }

    /// Whether no account can have the number `held`.
    pub fn made_up(&self, held: u64) -> bool {
        held > self.next.saturating_add(AHEAD)
    }

    /// A lighthouse has an account with `held`, later than this node's: after a restored backup
    /// it goes on from there. If that is not the end of it, another machine has the same keys, unless
    /// another lighthouse has `taken` this node's.
    pub fn catch_up(&mut self, held: u64, taken: bool, now: Instant) -> Later {
        let lately =
            |at: Option<Instant>, within| at.is_some_and(|at| now.duration_since(at) < within);
        if held > self.next.saturating_add(NEAR) {
            if !lately(self.leapt, PAUSE) && !self.made_up(held) {
                self.leapt = Some(now);
                self.next = held;
            }
        } else {
            self.next = self.next.max(held);
        }
        if taken {
            return Later::Outvoted;
        }
        let again = lately(self.behind, TWIN);
        self.behind = Some(now);
        if again { Later::Twin } else { Later::Restored }
    }

    /// The next one; on disk first when the reserved ones are used up.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn take(&mut self, store: &Store) -> anyhow::Result<u64> {
        if self.next >= self.reserved && self.reserved < u64::MAX {
            // An older agent may have stored a number from the very end.
            let reserved = self.next.saturating_add(RESERVE);
            store.update(|d| d.status_counter = reserved).await?;
            self.reserved = reserved;
        }
        self.next = self.next.saturating_add(1);
        Ok(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::partition;

    fn counting_from(next: u64) -> Counter {
        Counter::stored(&StateDoc {
            status_counter: next,
            ..StateDoc::default()
        })
    }

    #[test]
    fn a_later_account_is_a_restored_backup_once_and_a_twin_when_it_comes_again() {
        let mut counter = counting_from(5);
        let now = Instant::now();
        assert_eq!(counter.catch_up(2000, false, now), Later::Restored);
        assert_eq!(counter.next, 2000);
        let soon = now + Duration::from_secs(60);
        assert_eq!(counter.catch_up(2005, false, soon), Later::Twin);
        assert_eq!(counter.next, 2005);
        assert_eq!(counter.catch_up(2010, false, soon + TWIN), Later::Restored);
    }

    #[test]
    fn one_lighthouse_makes_no_twin_of_a_node_whose_accounts_another_takes() {
        let mut counter = counting_from(5);
        let mut now = Instant::now();
        for held in [2000, 4000, 6000] {
            assert_eq!(counter.catch_up(held, true, now), Later::Outvoted);
            now += PAUSE;
            assert_eq!(counter.next, held);
        }
        // Nor is the first one that nobody outvotes the second.
        assert_eq!(counter.catch_up(8000, false, now), Later::Restored);
    }

    #[tokio::test]
    async fn a_lighthouse_that_always_holds_later_accounts_costs_a_write_in_ten_minutes() {
        let disk = partition();
        let (store, _) = Store::open(disk.path()).await.unwrap();
        let mut counter = Counter::stored(&store.get());
        let begin = Instant::now();
        // An account every five seconds, an hour long, and each is refused.
        for ahead in [NEAR, NEAR + 1, RESERVE, AHEAD] {
            let (mut writes, mut stored) = (0, store.get().status_counter);
            for n in 0..720 {
                let now = begin + Duration::from_secs(5 * n);
                let sent = counter.take(&store).await.unwrap();
                if store.get().status_counter != stored {
                    stored = store.get().status_counter;
                    writes += 1;
                }
                counter.catch_up(sent + ahead, false, now);
            }
            assert!(writes <= 7, "{ahead}: {writes}");
            counter.leapt = None;
        }
    }

    #[tokio::test]
    async fn no_number_of_a_lighthouse_ends_the_counting_in_this_boot_or_the_next() {
        let disk = partition();
        for made_up in [u64::MAX, u64::MAX - 1500, AHEAD + 5000] {
            let (store, _) = Store::open(disk.path()).await.unwrap();
            let mut counter = Counter::stored(&store.get());
            let before = counter.take(&store).await.unwrap();
            assert!(counter.made_up(made_up), "{made_up}");
            counter.catch_up(made_up, false, Instant::now());
            assert_eq!(counter.take(&store).await.unwrap(), before + 1);
            let (again, _) = Store::open(disk.path()).await.unwrap();
            assert_eq!(again.get().status_counter, store.get().status_counter);
        }
    }

    #[tokio::test]
    async fn a_number_from_the_end_that_is_stored_already_kills_no_agent() {
        let disk = partition();
        for stored in [u64::MAX, u64::MAX - 1, u64::MAX - 500] {
            let (store, _) = Store::open(disk.path()).await.unwrap();
            store.update(|d| d.status_counter = stored).await.unwrap();
            let mut counter = Counter::stored(&store.get());
            for _ in 0..1000 {
                counter.take(&store).await.unwrap();
            }
        }
    }
}
