//! Members as they are told: whole lists, and what changed.

use super::state::{Entry, State};
use super::views::{self, View};
use super::{Registry, Who, unix_now};
use crate::rows::{self, ToldRow};
use crate::store::StoreError;
use bytes::Bytes;
use holdfast_core::api::{MemberEntry, MemberList};
use holdfast_core::cluster::AddressPlan;
use holdfast_core::documents::Lighthouse;
use holdfast_core::keys::{MeshKey, PublicKey};
use holdfast_core::peers::{PeerPlan, plan_verified};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Changes are gathered for so long; after a quiet time the first is told at once.
const GATHER: Duration = Duration::from_millis(250);

/// For the next revision. Without random bytes it is what it was in earlier versions.
pub(super) fn step() -> u32 {
    getrandom::u32().map_or(0, |n| n >> 1)
}

/// Of `GET /v1/members`.
#[derive(Debug, Clone, Copy)]
pub struct Listing {
    /// The revision that the caller knows.
    pub after: u64,
    /// How long it waits for another.
    pub wait: Duration,
    /// It understands what changed, and needs no whole list.
    pub delta: bool,
}

impl Registry {
    /// Publishes what was gathered, for ever.
    pub async fn publish(&self) {
        loop {
            self.gathered.notified().await;
            let told = {
                // No list is made between the two: it would be kept under the wrong revision.
                let state = self
                    .state
                    .write()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let mut journal = self.journal();
                if !journal.publish(step()) {
                    continue;
                }
                self.views.clear();
                self.revision.send_replace(journal.revision());
                ToldRow {
                    revision: journal.revision(),
                    digest: state.digest(),
                }
            };
            // A slow disk does not hold news up: without this a restart costs whole lists.
            let keep = tokio::time::timeout(GATHER, self.keep(told));
            let (kept, ()) = tokio::join!(keep, tokio::time::sleep(GATHER));
            if let Ok(Err(error)) = kept {
                tracing::warn!(%error, "a restart now would tell everybody everything");
            }
        }
    }

    async fn keep(&self, told: ToldRow) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        rows::update(store, rows::TOLD, |_: Option<ToldRow>| Ok(told)).await?;
        Ok(())
    }

    fn list(&self, s: &State, shown: impl Fn(&PublicKey, &Entry) -> bool) -> MemberList {
        let members = s.members.iter().filter(|(key, e)| shown(key, e));
        MemberList {
            revision: self.journal().revision(),
            since: None,
            lasting: true,
            members: members.map(|(key, e)| views::entry(s, key, e)).collect(),
            gone: vec![],
            documents: None,
            generations: s.held.generations(),
            time: unix_now(),
        }
    }

    /// The members as they are now of which `caller` is told, whatever they are worth: whoever reads
    /// the list verifies each. With more than `most` members in all it is a list without any.
    #[must_use]
    pub fn members_of(&self, caller: &PublicKey, most: usize) -> MemberList {
        self.see(|s| {
            let rules = &s.held.policy.rules;
            let own = s.members.get(caller).and_then(Entry::groups);
            let view = own.map_or(View::Nobody, |own| View::of(own, rules, None));
            let full = s.members.len() <= most;
            let told = |key: &PublicKey, e: &Entry| key == caller || view.shows(rules, e.told());
            self.list(s, |key, e| full && told(key, e))
        })
    }

    /// Whether a whole list is the answer, and at once.
    #[must_use]
    pub fn costs_a_list(&self, asked: &Listing) -> bool {
        self.see(|_| {
            let journal = self.journal();
            let known = asked.delta && journal.since(asked.after).is_some();
            !known && journal.revision() != asked.after
        })
    }

    /// The body of a [`MemberList`] for `caller`, once the revision is another than the one it
    /// knows, or when it waited long enough.
    pub async fn listed(&self, caller: &PublicKey, asked: Listing) -> [Bytes; 2] {
        let mut revision = self.revision.subscribe();
        let other = revision.wait_for(|r| *r != asked.after);
        let _ = tokio::time::timeout(asked.wait, other).await;
        let operator = matches!(self.who(caller), Who::Operator(_));
        self.see(|s| {
            let mut journal = self.journal();
            let revision = journal.revision();
            let change = asked.delta.then(|| journal.since(asked.after)).flatten();
            // Members as they are now, also where what they became is not published yet.
            if change.as_ref().is_none_or(|c| !c.is_empty()) {
                journal.seen();
            }
            drop(journal);
            let own = s.members.get(caller);
            let view = match own.and_then(Entry::groups) {
                _ if operator => View::All,
                Some(groups) => View::of(groups, &s.held.policy.rules, change.as_ref()),
                None => View::Nobody,
            };
            match change {
                Some(change) => {
                    let make = || views::delta(s, &view, asked.after, revision, &change);
                    self.views.get(&view, Some(asked.after), make).body(None)
                }
                None => {
                    let list = self
                        .views
                        .get(&view, None, || views::whole(s, &view, revision));
                    // An older member learns its own groups from its own entry.
                    let own = own.filter(|e| !view.shows(&s.held.policy.rules, e.told()));
                    let own: Option<MemberEntry> = own
                        .filter(|_| !matches!(view, View::Nobody))
                        .map(|e| views::entry(s, caller, e));
                    list.body(own.as_ref())
                }
            }
        })
    }

    /// The peers of this lighthouse: all members in good standing. The policy's rules are between
    /// nodes; a lighthouse reaches everyone whom it keeps in.
    #[must_use]
    pub fn peers(
        &self,
        own: &PublicKey,
        addresses: &AddressPlan,
        others: &[(Lighthouse, Option<SocketAddr>)],
    ) -> Vec<PeerPlan> {
        self.see(|s| {
            let good = s.members.iter().filter_map(|(key, e)| {
                let good = e.good().ok()?;
                Some((&good.record, &good.grant, s.endpoints.get(key).copied()))
            });
            plan_verified((*own, None), addresses, others, good, |_| true)
        })
    }

    /// WireGuard keys of the nodes that plain clients are reached through.
    #[must_use]
    pub fn with_clients(&self) -> Vec<MeshKey> {
        self.see(|s| {
            let good = s.members.values().filter_map(|e| e.good().ok());
            let via: BTreeSet<_> = good.filter_map(|m| m.record.via).collect();
            via.into_iter().collect()
        })
    }

    /// Members that are not where they were last, of those in `seen`.
    #[must_use]
    pub fn moved(&self, seen: &BTreeMap<MeshKey, SocketAddr>) -> Vec<(PublicKey, SocketAddr)> {
        self.see(|s| {
            let good = s
                .members
                .iter()
                .filter_map(|(key, e)| Some((key, seen.get(&e.good().ok()?.record.mesh_key)?)));
            good.filter(|(key, at)| s.endpoints.get(key) != Some(at))
                .map(|(key, at)| (*key, *at))
                .collect()
        })
    }
}
