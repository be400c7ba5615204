//! What changed at which revision. Changes are gathered; each publication is a revision, and the
//! last ones are kept, so that whoever knows one of them is told the difference only.

use holdfast_core::documents::Rule;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::GroupName;
use std::collections::{BTreeMap, VecDeque};

/// Revisions that are kept: at four a second more than a minute.
const REVISIONS: usize = 256;
/// Members that may have changed in them, all together.
const MEMBERS: usize = 32 << 10;

/// Groups by which members are told of one; none: nobody was.
pub type Groups = Option<Vec<GroupName>>;

/// What changed, and how it was before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Members, with the groups that each had before.
    pub members: BTreeMap<PublicKey, Groups>,
    /// The rules before, if they are others now.
    pub rules: Option<Vec<Rule>>,
    /// The documents are others.
    pub documents: bool,
    /// Somebody was told of members in the middle of it: any of them may have been in that.
    pub seen: bool,
}

impl Change {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what changed after this; what was before stays what it was.
    fn then(&mut self, later: &Change) {
        for (key, groups) in &later.members {
            self.members.entry(*key).or_insert_with(|| groups.clone());
        }
        if self.rules.is_none() {
            self.rules.clone_from(&later.rules);
        }
        self.documents |= later.documents;
        self.seen |= later.seen;
    }
}

/// A revision after `revision`.
pub fn after(revision: u64, step: u32) -> u64 {
    revision.saturating_add(1 + u64::from(step))
}

/// Published changes, and those that wait for it.
#[derive(Debug)]
pub struct Journal {
    revision: u64,
    pending: Change,
    /// Each with the revision that it led away from; the last one led to `revision`.
    past: VecDeque<(u64, Change)>,
    members: usize,
}

impl Journal {
    /// Nothing before `revision` is known.
    pub fn new(revision: u64) -> Self {
        Self {
            revision,
            pending: Change::default(),
            past: VecDeque::new(),
            members: 0,
        }
    }

    /// The last published one.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Gathers a change.
    pub fn add(&mut self, change: &Change) {
        self.pending.then(change);
    }

    /// Members are told, under the published revision but with what is gathered.
    pub fn seen(&mut self) {
        self.pending.seen = !self.pending.is_empty();
    }

    /// Makes what was gathered a revision; false when there was nothing. `step`, a random number,
    /// keeps one that goes on from a backup off the numbers that were told after it was made.
    pub fn publish(&mut self, step: u32) -> bool {
        let change = std::mem::take(&mut self.pending);
        if change.is_empty() {
            return false;
        }
        self.members += change.members.len();
        self.past.push_back((self.revision, change));
        self.revision = after(self.revision, step);
        while self.past.len() > REVISIONS || (self.members > MEMBERS && !self.past.is_empty()) {
            if let Some((_, old)) = self.past.pop_front() {
                self.members -= old.members.len();
            }
        }
        true
    }

    /// What changed after `revision`, with what is gathered: whoever is told is told of the members as
    /// they are now, by the rules as they are now. None when the revision is not known any more, or
    /// never was.
    pub fn since(&self, revision: u64) -> Option<Change> {
        let first = if revision == self.revision {
            self.past.len()
        } else {
            let found = self.past.binary_search_by_key(&revision, |(from, _)| *from);
            found.ok()?
        };
        let mut all = Change::default();
        for (_, change) in self.past.range(first..) {
            all.then(change);
        }
        all.then(&self.pending);
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    fn change(n: u8, groups: &[&str]) -> Change {
        let groups = groups.iter().map(|g| g.parse().unwrap()).collect();
        Change {
            members: [(key(n).public(), Some(groups))].into(),
            ..Change::default()
        }
    }

    #[test]
    fn the_difference_to_a_known_revision_tells_what_was_before() {
        let mut journal = Journal::new(7);
        assert!(!journal.publish(0));
        journal.add(&change(1, &["a"]));
        journal.add(&change(1, &["b"]));
        assert!(journal.publish(4));
        journal.add(&change(1, &["c"]));
        journal.add(&change(2, &["c"]));
        assert!(journal.publish(0));
        assert_eq!(journal.revision(), 13);
        let groups = |change: &Change, n: u8| {
            let groups = change.members[&key(n).public()].clone().unwrap();
            groups[0].to_string()
        };
        let all = journal.since(7).unwrap();
        assert_eq!((groups(&all, 1), groups(&all, 2)), ("a".into(), "c".into()));
        assert_eq!(groups(&journal.since(12).unwrap(), 1), "c");
        assert!(journal.since(13).unwrap().is_empty());
        // Before the start, from another lighthouse's time, and from a backup's other future.
        assert!([6, 14, 9].iter().all(|r| journal.since(*r).is_none()));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut journal = Journal::new(0);
        for n in 0..2 * REVISIONS {
            journal.add(&change(n as u8, &["a"]));
            journal.publish(0);
        }
        let now = journal.revision();
        assert!(journal.since(now - REVISIONS as u64).is_some());
        assert!(journal.since(now - REVISIONS as u64 - 1).is_none());
    }
}
