//! A lighthouse restored without its store, or with an old one, is filled again by its members.
//!
//! Each shows the record and the grant it joined with. For a bounded time, because a grant's uses
//! and end are kept by the lighthouse alone, and this one has forgotten them.
//!
//! Where there are several lighthouses, what one of them let in comes to the others in the same way,
//! and not bounded in time.
//!
//! And each hands on what it holds of others, which may be switched off: newer documents, for they
//! say who is out, then records with their grants. What the connection's key proves of one that
//! joins, its own signature in the record has to prove here; without one (records from before) the
//! token has to be its alone. Otherwise one of several with the same token could put another's key
//! into a record of its own making.

use super::state::Entry;
use super::turn::facts;
use super::{Registry, unix_now};
use crate::refusal::Refusal;
use futures_util::{StreamExt as _, stream};
use holdfast_core::api::{ApiErrorKind, REFILL_MOST, Refill, Refilled};
use holdfast_core::grant::{Member, verify};
use holdfast_core::keys::PublicKey;
use holdfast_core::names::NodeName;
use std::sync::atomic::Ordering;

/// Members taken back beside each other: their writes share flushes.
const AT_ONCE: usize = 16;

impl Registry {
    /// Until `until` (Unix seconds) a join counts by the grant that the member shows, also where
    /// this store has no such grant, and after the grant's end.
    pub fn refill(&self, until: u64) {
        self.refill_until.store(until, Ordering::Relaxed);
        if unix_now() < until {
            tracing::info!(until, "members bring back what a lost lighthouse knew");
        }
    }

    fn recalls(&self) -> bool {
        unix_now() < self.refill_until.load(Ordering::Relaxed)
    }

    /// Takes over the grant of a member that comes back; false outside of that time.
    ///
    /// # Errors
    /// [`Refusal`]: the record or its grant does not hold, or another grant has its id.
    pub(super) async fn recall(&self, member: &Member, caller: PublicKey) -> Result<bool, Refusal> {
        if !self.recalls() {
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

    /// Takes over what `by` holds and this lighthouse lacks.
    ///
    /// # Errors
    /// [`Refusal`]: too many members, or another one hands on just now. What became of documents and
    /// members says the answer.
    pub async fn take_back(&self, refill: Refill, by: &NodeName) -> Result<Refilled, Refusal> {
        if refill.members.len() > REFILL_MOST {
            let text = format!("{} members; at most {REFILL_MOST}", refill.members.len());
            return Err(Refusal::new(ApiErrorKind::Malformed, text));
        }
        let Ok(_one) = self.refilling.try_lock() else {
            let text = "another member hands on what it holds; try again in some seconds";
            return Err(Refusal::new(ApiErrorKind::Busy, text));
        };
        let mut filled = Refilled::default();
        // First of all who is out.
        if let Some(set) = refill.documents
            && let Err(refusal) = self.merge_documents(*set).await
        {
            filled.refused.push(refusal.error.message);
        }
        let results: Vec<_> = stream::iter(refill.members)
            .map(|member| self.bring(member))
            .buffered(AT_ONCE)
            .collect()
            .await;
        for result in results {
            match result {
                Ok(true) => filled.taken += 1,
                Ok(false) => {}
                Err(refusal) => filled.refused.push(refusal.error.message),
            }
        }
        if filled != Refilled::default() {
            tracing::info!(%by, taken = filled.taken, refused = ?filled.refused, "handed on by a member");
        }
        Ok(filled)
    }

    /// Takes over one record of another; false when it is held.
    async fn bring(&self, member: Member) -> Result<bool, Refusal> {
        let refused = |text: String| Err(Refusal::new(ApiErrorKind::RecordRefused, text));
        let held = self.held();
        let verified = verify(&member, self.cluster().id, &held.operators, &held.policy)?;
        let (record, grant) = (&verified.record, &verified.grant);
        let _turn = self.turns.take(facts(record)).await;
        let key = record.signing_key;
        if self.has(&key, &member) {
            return Ok(false);
        }
        let counter = self.see(|s| {
            let known = s.members.get(&key).and_then(Entry::record);
            known.map(|r| r.counter)
        });
        if let Some(counter) = counter.filter(|held| record.counter <= *held) {
            let text = format!(
                "{}: counter {} is not newer than {counter}, which is held",
                record.name, record.counter
            );
            return Err(Refusal::older(counter, text));
        }
        // In the place of one that is held nothing comes by a token's signature.
        let alone = counter.is_none() && grant.uses == 1 && record.own.is_none();
        if !alone && !record.is_owned() {
            return refused(format!(
                "{} did not sign its record, and its token may be others' too: it has to come itself",
                record.name
            ));
        }
        self.put_grant(&grant.id, member.grant.clone()).await?;
        // Another lighthouse may have let it in while this one was away, and its grant have ended
        // meanwhile: it must not be lost with that other one. Uses are counted all the same.
        let several = held.lighthouses.lighthouses.len() > 1;
        let recalled = self.recalls() || several && record.is_owned();
        self.admit(&member, verified, recalled).await?;
        Ok(true)
    }
}
