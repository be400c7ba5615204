//! The copy in memory: members with what is found by, and how each stands.

use super::turn::{Fact, facts};
use crate::held::Held;
use crate::rows::{MemberRow, StatusRow};
use holdfast_core::grant::{MemberError, MemberRecord, OpenedMember, VerifiedMember, open};
use holdfast_core::keys::{Digest, PublicKey};
use holdfast_core::names::GroupName;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

/// A member in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub row: MemberRow,
    /// Of the member's bytes.
    digest: Digest,
    /// Its record and grant, where their signatures fit: checked once.
    opened: Option<OpenedMember>,
    /// Against the documents held now. A store that was tampered with may hold anything: this is
    /// what the lighthouse itself believes; nodes check for themselves.
    standing: Result<(), MemberError>,
}

impl Entry {
    pub fn new(row: MemberRow, held: &Held) -> Self {
        let opened = open(&row.member);
        // Read from JSON, so it can be written again.
        let bytes = serde_json::to_vec(&row.member).unwrap_or_default();
        let mut entry = Self {
            digest: Digest::of(&bytes),
            row,
            standing: Ok(()),
            opened: None,
        };
        match opened {
            Ok(opened) => {
                entry.opened = Some(opened);
                entry.judge(held);
            }
            Err(error) => entry.standing = Err(error),
        }
        entry
    }

    /// Looks again with other documents.
    fn judge(&mut self, held: &Held) {
        if let Some(opened) = &self.opened {
            let cluster = held.operators.cluster;
            self.standing = opened.stands(cluster, &held.operators, &held.policy);
        }
    }

    /// Its record, where it parses at all.
    pub fn record(&self) -> Option<&MemberRecord> {
        self.opened.as_ref().map(|o| &o.record)
    }

    /// Record and grant of one in good standing.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn good(&self) -> Result<&OpenedMember, &MemberError> {
        // One that was not opened has an error for its standing.
        static NONE: MemberError = MemberError::OtherCluster;
        self.standing.as_ref()?;
        self.opened.as_ref().ok_or(&NONE)
    }

    pub fn verified(&self) -> Option<VerifiedMember> {
        let good = self.good().ok()?;
        Some(VerifiedMember {
            record: good.record.clone(),
            grant: good.grant.clone(),
        })
    }

    /// The groups by which members are told of it; none: nobody is. One that does not hold counts as
    /// one without groups: who is in is every reader's to say, not this store's.
    pub fn told(&self) -> Option<&[GroupName]> {
        match self.good() {
            Ok(good) => Some(&good.grant.groups),
            Err(MemberError::Evicted(_) | MemberError::Revoked(_)) => None,
            Err(_) => Some(&[]),
        }
    }

    /// The groups of one in good standing.
    pub fn groups(&self) -> Option<&[GroupName]> {
        self.good().ok().map(|good| good.grant.groups.as_slice())
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub held: Arc<Held>,
    pub members: BTreeMap<PublicKey, Entry>,
    /// Who has what; a store that was tampered with may name two.
    by: HashMap<Fact, BTreeSet<PublicKey>>,
    pub statuses: BTreeMap<PublicKey, StatusRow>,
    pub endpoints: BTreeMap<PublicKey, SocketAddr>,
}

impl State {
    pub fn new(
        held: Arc<Held>,
        members: BTreeMap<PublicKey, MemberRow>,
        statuses: BTreeMap<PublicKey, StatusRow>,
        endpoints: BTreeMap<PublicKey, SocketAddr>,
    ) -> Self {
        let mut state = Self {
            held,
            members: BTreeMap::new(),
            by: HashMap::new(),
            statuses,
            endpoints,
        };
        for (key, row) in members {
            state.put(key, row);
        }
        state
    }

    /// Of everything that members are told. Where less or more is shown of the same one day, the
    /// first line has to change.
    pub fn digest(&self) -> Digest {
        let mut bytes = b"told/1\n".to_vec();
        bytes.extend(serde_json::to_vec(&self.held.set).unwrap_or_default());
        for (key, entry) in &self.members {
            bytes.extend(key.0);
            bytes.extend(entry.digest.0);
            let endpoint = self.endpoints.get(key).map(ToString::to_string);
            bytes.extend(endpoint.unwrap_or_default().as_bytes());
            bytes.push(b'\n');
        }
        Digest::of(&bytes)
    }

    /// Takes a member in, in the place of what had its key.
    pub fn put(&mut self, key: PublicKey, row: MemberRow) {
        self.remove(&key);
        let entry = Entry::new(row, &self.held);
        if let Some(record) = entry.record() {
            for fact in facts(record) {
                self.by.entry(fact).or_default().insert(key);
            }
        }
        self.members.insert(key, entry);
    }

    /// Takes a member out.
    pub fn remove(&mut self, key: &PublicKey) {
        let Some(old) = self.members.remove(key) else {
            return;
        };
        for fact in old.record().map(facts).into_iter().flatten() {
            if let Some(keys) = self.by.get_mut(&fact) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by.remove(&fact);
                }
            }
        }
    }

    /// Who has `fact`.
    pub fn with<'s>(
        &'s self,
        fact: &Fact,
    ) -> impl Iterator<Item = (&'s PublicKey, &'s Entry)> + use<'s> {
        let keys = self.by.get(fact).into_iter().flatten();
        keys.filter_map(|key| self.members.get_key_value(key))
    }

    /// Takes newer documents over; those whose standing changed.
    pub fn judge(&mut self, held: Arc<Held>) -> Vec<PublicKey> {
        self.held = held;
        let mut changed = vec![];
        for (key, entry) in &mut self.members {
            let before = entry.good().is_ok();
            entry.judge(&self.held);
            if entry.good().is_ok() != before {
                changed.push(*key);
            }
        }
        changed
    }
}
