//! A lighthouse restored without its store is filled again by its members: each shows the record
//! and the grant it joined with. For a bounded time, because a grant's uses and end are kept by the
//! lighthouse alone, and this one has forgotten them.

use super::{Registry, unix_now};
use crate::refusal::Refusal;
use holdfast_core::grant::{Member, verify};
use holdfast_core::keys::PublicKey;
use std::sync::atomic::Ordering;

impl Registry {
    /// Until `until` (Unix seconds) a join counts by the grant that the member shows, also where
    /// this store has no such grant, and after the grant's end.
    pub fn refill(&self, until: u64) {
        self.refill_until.store(until, Ordering::Relaxed);
        if unix_now() < until {
            tracing::info!(until, "members bring back what a lost lighthouse knew");
        }
    }

    /// Takes over the grant of a member that comes back; false outside of that time.
    ///
    /// # Errors
    /// [`Refusal`]: the record or its grant does not hold, or another grant has its id.
    pub(super) async fn recall(&self, member: &Member, caller: PublicKey) -> Result<bool, Refusal> {
        if unix_now() >= self.refill_until.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let held = self.held();
        let verified = verify(member, self.cluster().id, &held.operators, &held.policy)?;
        if verified.record.signing_key == caller {
            self.put_grant(&verified.grant.id, member.grant.clone())
                .await?;
        }
        Ok(true)
    }
}
