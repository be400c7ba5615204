//! Joining, and being forgotten.
//!
//! A join makes several entries, each by one compare-and-swap: claims of name and index, the use
//! of the grant, then the member itself. Power may fail between any two: the same key repeats the
//! join and finds its own claims; a claim whose key never became a member gives way. Joins run
//! beside each other: the store gathers their writes, and each waits for its own.

use super::journal::Change;
use super::state::{Entry, State};
use super::turn::{Fact, facts};
use super::{Registry, unix_now};
use crate::admission::{self, GrantRow};
use crate::refusal::Refusal;
use crate::rows::{self, Claim, EndpointRow, MemberRow, StatusRow};
use holdfast_core::api::ApiErrorKind;
use holdfast_core::cluster::MeshIndex;
use holdfast_core::grant::{Grant, Member, MemberRecord, VerifiedMember, verify};
use holdfast_core::keys::PublicKey;
use holdfast_core::names::NodeName;

/// Seconds that a join may take from its first claim to its last entry.
const JOIN_TIME: u64 = 60;

impl Registry {
    /// Admits a node, or the same node again.
    ///
    /// # Errors
    /// [`Refusal`]; nothing that matters was changed then.
    pub async fn join(&self, member: &Member, caller: PublicKey) -> Result<(), Refusal> {
        let recalled = self.recall(member, caller).await?;
        let held = self.held();
        let verified = verify(member, self.cluster().id, &held.operators, &held.policy)?;
        if verified.record.signing_key != caller {
            let text = "the record names another signing key than the connection's";
            return Err(Refusal::denied(text));
        }
        let _turn = self.turns.take(facts(&verified.record)).await;
        if self.has(&caller, member) {
            return Ok(());
        }
        self.admit(member, verified, recalled).await
    }

    /// Lets a member in that was verified; its turn is taken. `recalled`: it brings back what a
    /// lost lighthouse knew.
    pub(super) async fn admit(
        &self,
        member: &Member,
        verified: VerifiedMember,
        recalled: bool,
    ) -> Result<(), Refusal> {
        let (held, now) = (self.held(), unix_now());
        let VerifiedMember { record, grant } = verified;
        let caller = record.signing_key;
        // A grant's time was kept when the member first joined.
        let at = if recalled { 0 } else { now };
        self.fits(&record)?;
        let store = self.store.as_ref();
        let grant_key = rows::grant(&grant.id);
        let row = rows::read::<GrantRow>(store, &grant_key).await?;
        let (row, _) = row.ok_or_else(|| super::grants::unknown(&grant.id))?;
        if row.grant != member.grant {
            let text = format!(
                "this is not the grant {} that the operator handed over",
                grant.id
            );
            return Err(Refusal::new(ApiErrorKind::RecordRefused, text));
        }
        admission::may_use(&row, &grant, &caller, &held.policy, at)?;

        self.claim(&rows::name(&record.name), &caller, now).await?;
        self.claim(&rows::index(record.index), &caller, now).await?;
        rows::update(store, &grant_key, |row: Option<GrantRow>| {
            let row = row.ok_or_else(|| super::grants::unknown(&grant.id))?;
            admission::may_use(&row, &grant, &caller, &held.policy, at)?;
            Ok::<_, Refusal>(admission::used(row, &caller))
        })
        .await?;
        let old = self.see(|s| s.members.get(&caller).and_then(|e| e.record().cloned()));
        let row = rows::update(store, &rows::member(&caller), |old: Option<MemberRow>| {
            let joined = old.map_or(now, |o| o.joined);
            Ok::<_, Refusal>(MemberRow {
                member: member.clone(),
                joined,
            })
        })
        .await?;
        // Judged by the documents of this moment: newer ones may have come meanwhile.
        self.change(|s| {
            let change = before(s, &caller);
            s.put(caller, row);
            change
        });
        tracing::info!(node = %record.name, index = record.index.get(), role = %grant.role, "joined");
        if let Some(old) = old {
            self.release(&old, Some(&record)).await?;
        }
        Ok(())
    }

    /// Drops the records of a node that the policy does not let in any more; its name and index
    /// become free.
    ///
    /// # Errors
    /// [`Refusal`]: no such node, or one in good standing.
    pub async fn forget(&self, name: &NodeName) -> Result<(), Refusal> {
        let named: Vec<(PublicKey, MemberRecord, bool)> = self.see(|s| {
            let records = s
                .with(&Fact::Name(name.clone()))
                .filter_map(|(k, e)| Some((*k, e.record()?.clone(), e.good().is_ok())));
            records.collect()
        });
        if named.is_empty() {
            let text = format!("no node is called {name}");
            return Err(Refusal::new(ApiErrorKind::NotFound, text));
        }
        let out: Vec<_> = named.into_iter().filter(|(_, _, good)| !good).collect();
        if out.is_empty() {
            let text = format!("{name} is a member: `holdfast evict {name}` first");
            return Err(Refusal::denied(text));
        }
        for (key, record, _) in out {
            let _turn = self.turns.take(facts(&record)).await;
            let store = self.store.as_ref();
            rows::remove::<MemberRow>(store, &rows::member(&key), |_| true).await?;
            rows::remove::<StatusRow>(store, &rows::status(&key), |_| true).await?;
            rows::remove::<EndpointRow>(store, &rows::endpoint(&key), |_| true).await?;
            self.change(|s| {
                let change = before(s, &key);
                s.remove(&key);
                s.statuses.remove(&key);
                s.endpoints.remove(&key);
                change
            });
            self.standings.send_modify(|n| *n = n.wrapping_add(1));
            self.release(&record, None).await?;
            tracing::info!(node = %name, "forgotten");
        }
        Ok(())
    }

    /// Gives back the claims of `old` that `new` does not have too.
    async fn release(&self, old: &MemberRecord, new: Option<&MemberRecord>) -> Result<(), Refusal> {
        let store = self.store.as_ref();
        let mine = |claim: &Claim| claim.key == old.signing_key;
        if new.is_none_or(|n| n.name != old.name) {
            rows::remove::<Claim>(store, &rows::name(&old.name), mine).await?;
        }
        if new.is_none_or(|n| n.index != old.index) {
            rows::remove::<Claim>(store, &rows::index(old.index), mine).await?;
        }
        Ok(())
    }

    async fn claim(&self, what: &str, key: &PublicKey, now: u64) -> Result<(), Refusal> {
        rows::update(self.store.as_ref(), what, |old: Option<Claim>| match old {
            Some(old) if old.key == *key => Ok(old),
            Some(old) if self.holds(&old.key, what) || now < old.at.saturating_add(JOIN_TIME) => {
                let (kind, value) = what.split_once('/').unwrap_or(("names", what));
                let kind = if kind == "names" {
                    "name"
                } else {
                    "mesh index"
                };
                Err(Refusal::new(
                    ApiErrorKind::Taken,
                    format!(
                        "the {kind} {value} belongs to the node with key {}",
                        old.key
                    ),
                ))
            }
            _ => Ok(Claim { key: *key, at: now }),
        })
        .await?;
        Ok(())
    }

    /// Whether the member with `key` has what the claim names.
    fn holds(&self, key: &PublicKey, what: &str) -> bool {
        self.see(|s| {
            let record = s.members.get(key).and_then(Entry::record);
            record.is_some_and(|r| rows::name(&r.name) == what || rows::index(r.index) == what)
        })
    }

    pub(super) fn has(&self, key: &PublicKey, member: &Member) -> bool {
        self.see(|s| s.members.get(key).is_some_and(|e| e.row.member == *member))
    }

    /// Against the members there are.
    fn fits(&self, record: &MemberRecord) -> Result<(), Refusal> {
        let taken = |text| Err(Refusal::new(ApiErrorKind::Taken, text));
        self.see(|s| {
            let lighthouses = &s.held.lighthouses.lighthouses;
            if lighthouses.iter().any(|l| l.mesh_key == record.mesh_key) {
                return taken("this WireGuard key is a lighthouse's".into());
            }
            let own = s.members.get(&record.signing_key).and_then(Entry::record);
            if let Some(own) = own.filter(|own| record.counter < own.counter) {
                let text = format!(
                    "the record's counter {} is older than {}, which is held",
                    record.counter, own.counter
                );
                return Err(Refusal::new(ApiErrorKind::RecordRefused, text));
            }
            let other = |fact: Fact| {
                let mut all = s.with(&fact).filter(|(k, _)| **k != record.signing_key);
                all.find_map(|(_, e)| e.record())
            };
            if other(Fact::Name(record.name.clone())).is_some() {
                return taken(format!("another node is called {}", record.name));
            }
            if let Some(other) = other(Fact::Index(record.index)) {
                let n = record.index.get();
                return taken(format!("mesh index {n} belongs to node {}", other.name));
            }
            if let Some(other) = other(Fact::Mesh(record.mesh_key)) {
                return taken(format!("this WireGuard key is node {}'s", other.name));
            }
            Ok(())
        })
    }

    /// Whether a member but `key` has `index`.
    pub(super) fn index_taken(&self, index: MeshIndex, key: &PublicKey) -> bool {
        self.see(|s| s.with(&Fact::Index(index)).any(|(k, _)| k != key))
    }

    /// The index that `key` has already, if the grant allows it.
    pub(super) fn index_of(&self, key: &PublicKey, grant: &Grant) -> Option<MeshIndex> {
        let index = self.see(|s| s.members.get(key)?.record().map(|r| r.index))?;
        (grant.first..=grant.last).contains(&index).then_some(index)
    }
}

/// A member that is about to change.
pub(super) fn before(state: &State, key: &PublicKey) -> Change {
    let groups = state.members.get(key).and_then(Entry::told);
    Change {
        members: [(*key, groups.map(<[_]>::to_vec))].into(),
        ..Change::default()
    }
}
