//! What is done at, or read from, every lighthouse that answers.

use super::{Connection, GRACE, beside, explain};
use crate::app::{App, say};
use anyhow::Result;
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::{ApiErrorKind, GrantStatus, NodeEntry};
use holdfast_core::documents::DocumentSet;
use holdfast_core::grant::Grant;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::{GrantId, NodeName};
use holdfast_core::signed::Signed;
use std::collections::BTreeMap;
use std::time::Duration;

/// Once one lighthouse took something over, the others have so long: it may be some MB.
const TAKING: Duration = Duration::from_secs(10);

impl Connection {
    /// All that answered, the first one first.
    pub fn all(&self) -> impl Iterator<Item = &LighthouseClient> {
        std::iter::once(&self.client).chain(self.others.iter().map(|(_, client)| client))
    }

    /// The same with their names.
    pub fn named(&self) -> impl Iterator<Item = (&str, &LighthouseClient)> {
        let others = self
            .others
            .iter()
            .map(|(name, client)| (name.as_str(), client));
        std::iter::once((self.first.as_str(), &self.client)).chain(others)
    }

    /// Does something at every lighthouse that answers. Who does not get it is told of: nodes hand
    /// it on, and `later` does it again.
    ///
    /// # Errors
    /// When none takes it.
    pub async fn tell_all<'a, F>(
        &'a self,
        app: &App,
        what: &str,
        later: &str,
        tell: impl Fn(&'a LighthouseClient) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<(), ClientError>> + 'a,
    {
        let told = beside(self.all().map(tell), TAKING).await;
        let taken = told.iter().any(|told| matches!(told, Some(Ok(()))));
        let mut refused = vec![];
        for ((name, _), told) in self.named().zip(told) {
            match told {
                Some(Ok(())) => {}
                Some(Err(error)) if !taken => return Err(explain(error)),
                Some(Err(error)) => refused.push((name.to_owned(), error.to_string())),
                None => refused.push((name.to_owned(), late(TAKING))),
            }
        }
        let missed = self.missed.iter().map(|m| (m.name.clone(), m.why.clone()));
        for (name, why) in missed.chain(refused) {
            app.say(&format!(
                "note: {name} has not got {what} ({why}): it learns of that from nodes, or by {later} once it answers"
            ));
        }
        Ok(())
    }

    /// Hands documents over, to every lighthouse that answers.
    ///
    /// # Errors
    /// When none takes them.
    pub async fn put_documents(&self, app: &App, what: &str, set: &DocumentSet) -> Result<()> {
        let later = "`holdfast cluster push`";
        self.tell_all(app, what, later, |one| one.put_documents(set))
            .await
    }

    /// Hands a grant over, to every lighthouse that answers.
    ///
    /// # Errors
    /// When none takes it.
    pub async fn put_grant(&self, app: &App, id: &GrantId, grant: &Signed<Grant>) -> Result<()> {
        let what = format!("grant {id}");
        self.tell_all(app, &what, "`holdfast token push --again`", |one| {
            one.put_grant(id, grant)
        })
        .await
    }

    /// Drops an evicted node's record wherever that can be done; a lighthouse that has not got the
    /// policy yet does so when it gets it from nodes.
    pub async fn forget(&self, app: &App, name: &NodeName) {
        let done = beside(self.all().map(|one| one.forget(name)), TAKING).await;
        for ((lighthouse, _), done) in self.named().zip(done) {
            let why = match done {
                Some(Ok(())) => continue,
                Some(Err(error)) if error.kind() == Some(ApiErrorKind::NotFound) => continue,
                Some(Err(error)) => error.to_string(),
                None => late(TAKING),
            };
            app.say(&format!("note: {lighthouse} still lists {name} ({why})"));
        }
    }

    /// What the lighthouses answer, in their order. Who does not say is told of: it said before that
    /// it is there.
    async fn gather<'a, T, F>(
        &'a self,
        what: &str,
        ask: impl Fn(&'a LighthouseClient) -> F,
    ) -> Result<Vec<T>>
    where
        F: Future<Output = Result<T, ClientError>> + 'a,
    {
        let (mut found, mut failed) = (vec![], vec![]);
        let answers = beside(self.all().map(ask), GRACE).await;
        for ((name, _), answer) in self.named().zip(answers) {
            match answer {
                Some(Ok(answer)) => found.push(answer),
                Some(Err(error)) => failed.push((name, error.to_string(), Some(error))),
                None => failed.push((name, late(GRACE), None)),
            }
        }
        if found.is_empty()
            && let Some(error) = failed.iter_mut().find_map(|(_, _, error)| error.take())
        {
            return Err(explain(error));
        }
        for (name, why, _) in failed {
            say(&format!("note: {name} does not say {what} ({why})"));
        }
        Ok(found)
    }

    /// All grants. A use counts wherever it was made: each lighthouse knows its own.
    ///
    /// # Errors
    /// When no lighthouse says.
    pub async fn grants(&self) -> Result<Vec<GrantStatus>> {
        Ok(united(
            self.gather("who used grants", LighthouseClient::grants)
                .await?,
        ))
    }

    /// What each lighthouse that answers says of the nodes.
    ///
    /// # Errors
    /// When none does.
    pub async fn listed(&self) -> Result<Vec<Vec<NodeEntry>>> {
        self.gather("which nodes there are", LighthouseClient::nodes)
            .await
    }
}

fn late(grace: Duration) -> String {
    format!("no answer within {} s", grace.as_secs())
}

/// The grants of several lighthouses, each once, with all keys that used it.
fn united(lists: Vec<Vec<GrantStatus>>) -> Vec<GrantStatus> {
    let mut all: Vec<GrantStatus> = vec![];
    for status in lists.into_iter().flatten() {
        match all.iter_mut().find(|held| held.grant == status.grant) {
            None => all.push(status),
            Some(held) => {
                held.revoked |= status.revoked;
                let keys = status.used_by;
                let new = |k: &PublicKey| !held.used_by.contains(k);
                let new: Vec<_> = keys.into_iter().filter(new).collect();
                held.used_by.extend(new);
            }
        }
    }
    all
}

/// What signatures alone say of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Believed {
    /// Whose record it is.
    pub key: PublicKey,
    /// The policy has not put it out.
    pub is_in: bool,
    /// The record's counter.
    pub record: u64,
    /// The counter of the account that comes with it, if its key signed that.
    pub account: Option<u64>,
}

/// The members of several lists, each once; two that have one name are two. `believed` is none where
/// signatures do not hold: such an entry is shown only where nobody else has its name.
pub fn merged(
    lists: Vec<Vec<NodeEntry>>,
    believed: impl Fn(&NodeEntry) -> Option<Believed>,
) -> Vec<NodeEntry> {
    let mut all: BTreeMap<NodeName, Vec<(Option<Believed>, NodeEntry)>> = BTreeMap::new();
    for entry in lists.into_iter().flatten() {
        let known = believed(&entry);
        let named = all.entry(entry.name.clone()).or_default();
        let key = |known: &Option<Believed>| known.map(|k| k.key);
        match named.iter_mut().find(|(held, _)| key(held) == key(&known)) {
            None => named.push((known, entry)),
            Some(held) => join(held, known, entry),
        }
    }
    let rank = |known: &Option<Believed>| known.map_or(0, |k| 1 + u8::from(k.is_in));
    let counting = all.into_values().flat_map(|mut named| {
        let most = named.iter().map(|(known, _)| rank(known)).max();
        named.retain(|(known, _)| Some(rank(known)) == most);
        named
    });
    counting.map(|(_, entry)| entry).collect()
}

/// Puts together what two lighthouses say of one member. What is signed counts by its counter; ages
/// are a lighthouse's word, and count for the same account only.
fn join(
    (held, entry): &mut (Option<Believed>, NodeEntry),
    new: Option<Believed>,
    other: NodeEntry,
) {
    let (Some(held), Some(new)) = (held, new) else {
        // Neither is believed: the first is as good as any other.
        return;
    };
    if new.record > held.record {
        entry.member = other.member;
        held.record = new.record;
    }
    let fresher =
        |new: Option<u64>, old: Option<u64>| new.is_some_and(|new| old.is_none_or(|old| new < old));
    if new.account > held.account {
        (entry.status, entry.status_age) = (other.status, other.status_age);
        held.account = new.account;
    } else if new.account == held.account && fresher(other.status_age, entry.status_age) {
        entry.status_age = other.status_age;
    }
    if fresher(other.handshake_age, entry.handshake_age) {
        entry.handshake_age = other.handshake_age;
        entry.endpoint = other.endpoint.or(entry.endpoint);
    }
    entry.standing |= other.standing;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::tests::{entry, key};

    /// Of the member with key `n`, by its record's counter and its account's.
    fn by(n: u8, record: u64, account: Option<u64>) -> Option<Believed> {
        Some(Believed {
            key: key(n).public(),
            is_in: true,
            record,
            account,
        })
    }

    fn aged(age: u64, standing: bool, handshake: Option<u64>) -> NodeEntry {
        NodeEntry {
            status_age: Some(age),
            standing,
            handshake_age: handshake,
            ..entry(3, 1)
        }
    }

    #[test]
    fn a_node_is_shown_once_with_what_any_lighthouse_saw() {
        let lists = vec![vec![aged(900, false, None)], vec![aged(3, true, Some(7))]];
        let all = merged(lists, |_| by(3, 1, Some(5)));
        assert_eq!(all.len(), 1);
        let one = &all[0];
        assert_eq!(
            (one.status_age, one.standing, one.handshake_age),
            (Some(3), true, Some(7))
        );
    }

    #[test]
    fn the_newest_account_counts_whatever_age_a_lighthouse_gives_an_older_one() {
        let (new, old) = (aged(40, true, None), aged(0, true, None));
        let account = |e: &NodeEntry| by(3, 1, Some(if e.status_age == Some(40) { 9 } else { 8 }));
        for lists in [[&new, &old], [&old, &new]] {
            let lists = lists.map(|e| vec![e.clone()]).to_vec();
            assert_eq!(merged(lists, account)[0].status_age, Some(40));
        }
        // One that nobody signed counts less than any.
        let account = |e: &NodeEntry| by(3, 1, (e.status_age == Some(40)).then_some(1));
        let all = merged(vec![vec![old], vec![new]], account);
        assert_eq!(all[0].status_age, Some(40));
    }

    #[test]
    fn two_members_of_one_name_are_both_shown_and_what_nobody_signed_is_not() {
        let (one, mut two, mut forged) = (entry(3, 1), entry(4, 1), entry(4, 8));
        (two.status_age, forged.status_age) = (Some(50), Some(60));
        let who = |e: &NodeEntry| match e.status_age {
            Some(50) => by(4, 1, None),
            Some(60) => None,
            _ => by(3, 9, None),
        };
        let lists = || vec![vec![forged.clone(), two.clone()], vec![one.clone()]];
        let ages = |all: Vec<NodeEntry>| all.iter().map(|e| e.status_age).collect::<Vec<_>>();
        assert_eq!(ages(merged(lists(), who)), [Some(50), Some(2)]);
        // One that was put out is shown only while nobody has taken its name.
        let out = |e: &NodeEntry| {
            let mut known = who(e)?;
            known.is_in = known.key == key(4).public();
            Some(known)
        };
        assert_eq!(ages(merged(lists(), out)), [Some(50)]);
        assert_eq!(ages(merged(vec![vec![one.clone()]], out)), [Some(2)]);
        assert_eq!(ages(merged(lists(), |_| None)), [Some(60)]);
    }

    #[test]
    fn uses_are_counted_over_all_lighthouses() {
        let status = |used_by: &[u8]| GrantStatus {
            grant: entry(3, 1).member.grant,
            used_by: used_by.iter().map(|n| key(*n).public()).collect(),
            revoked: false,
        };
        let all = united(vec![vec![status(&[3])], vec![status(&[4, 3])]]);
        assert_eq!(all, [status(&[3, 4])]);
    }
}
