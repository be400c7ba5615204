//! How often the members that a lighthouse lists are written to the disk. Where they are changes all
//! the time where some stand behind NATs that forget, and each write is one of the whole state.

use crate::store::Store;
use holdfast_core::state::CachedMember;
use std::time::{Duration, Instant};

/// Between two writes for endpoints alone. Until then the memory has them; after a power cut relays
/// and invitations make up for the difference.
const PAUSE: Duration = Duration::from_secs(600);

/// Keeps members.
#[derive(Debug, Default)]
pub struct Keeper {
    written: Option<Instant>,
    /// The memory has endpoints that the disk lacks.
    owed: bool,
}

impl Keeper {
    /// Takes `fresh` in the place of what `store` has.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn keep(
        &mut self,
        store: &Store,
        fresh: Vec<CachedMember>,
        now: Instant,
    ) -> anyhow::Result<()> {
        let doc = store.get();
        let pairs = || doc.members.iter().zip(&fresh);
        let same = doc.members.len() == fresh.len() && pairs().all(|(a, b)| a.member == b.member);
        let moved = !same || pairs().any(|(a, b)| a.endpoint != b.endpoint);
        let rested = self
            .written
            .is_none_or(|w| now.saturating_duration_since(w) >= PAUSE);
        if same && !(rested && (moved || self.owed)) {
            if moved {
                store.note(|d| d.members = fresh).await;
                self.owed = true;
            }
            return Ok(());
        }
        store.update(|d| d.members = fresh).await?;
        (self.written, self.owed) = (Some(now), false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lighthouse::tests::doc;
    use crate::store::tests::partition;
    use std::net::SocketAddr;

    fn at(port: u16) -> Vec<CachedMember> {
        vec![CachedMember {
            member: doc().admission.unwrap().member,
            endpoint: Some(SocketAddr::from(([192, 0, 2, 1], port))),
            other: Default::default(),
        }]
    }

    #[tokio::test]
    async fn a_member_that_moves_every_half_minute_costs_few_writes() {
        let disk = partition();
        let (store, _) = Store::open(disk.path()).await.unwrap();
        let (mut keeper, begin) = (Keeper::default(), Instant::now());
        let (mut writes, mut last) = (0, vec![]);
        for n in 1..=120 {
            let now = begin + Duration::from_secs(30) * u32::from(n);
            keeper.keep(&store, at(n), now).await.unwrap();
            assert_eq!(store.get().members[0].endpoint, at(n)[0].endpoint);
            let (disk, _) = Store::open(disk.path()).await.unwrap();
            let held = disk.get().members.clone();
            writes += u32::from(
                held.first().map(|m| m.endpoint) != last.first().map(|m: &CachedMember| m.endpoint),
            );
            last = held;
        }
        assert_eq!(writes, 6, "in an hour");
        // What is owed is written without another change; a member that comes or goes at once.
        let later = begin + Duration::from_secs(3600) + PAUSE;
        keeper.keep(&store, at(120), later).await.unwrap();
        let on_disk = || async { Store::open(disk.path()).await.unwrap().0.get() };
        assert_eq!(on_disk().await.members[0].endpoint, at(120)[0].endpoint);
        let two = [at(1), at(120)].concat();
        keeper.keep(&store, two, later).await.unwrap();
        assert_eq!(on_disk().await.members.len(), 2);
        // Nothing owed, nothing new: nothing written.
        let bytes = std::fs::read(disk.path()).unwrap();
        let two = store.get().members.clone();
        keeper.keep(&store, two, later + PAUSE).await.unwrap();
        assert!(std::fs::read(disk.path()).unwrap() == bytes);
    }
}
