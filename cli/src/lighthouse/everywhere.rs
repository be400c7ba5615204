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

/// The nodes of several lists, each once. `believed` gives the counter of a record whose signatures
/// hold: the newest counts. What lighthouses saw of one record is put together.
pub fn merged(
    lists: Vec<Vec<NodeEntry>>,
    believed: impl Fn(&NodeEntry) -> Option<u64>,
) -> Vec<NodeEntry> {
    let mut all: BTreeMap<NodeName, NodeEntry> = BTreeMap::new();
    for entry in lists.into_iter().flatten() {
        let Some(held) = all.get_mut(&entry.name) else {
            all.insert(entry.name.clone(), entry);
            continue;
        };
        if held.member != entry.member {
            if believed(&entry) > believed(held) {
                *held = entry;
            }
            continue;
        }
        // The ages count from its last account and handshake anywhere.
        let fresher = |new: Option<u64>, old: Option<u64>| {
            new.is_some_and(|new| old.is_none_or(|old| new < old))
        };
        if fresher(entry.status_age, held.status_age) {
            (held.status, held.status_age) = (entry.status, entry.status_age);
        }
        if fresher(entry.handshake_age, held.handshake_age) {
            held.handshake_age = entry.handshake_age;
            held.endpoint = entry.endpoint.or(held.endpoint);
        }
        held.standing |= entry.standing;
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::tests::{entry, key};

    #[test]
    fn a_node_is_shown_once_with_what_any_lighthouse_saw() {
        let (mut here, mut there) = (entry(3, 1), entry(3, 1));
        (here.status_age, here.standing, here.handshake_age) = (Some(900), false, None);
        (there.status_age, there.standing, there.handshake_age) = (Some(3), true, Some(7));
        let all = merged(vec![vec![here.clone()], vec![there]], |_| Some(1));
        assert_eq!(all.len(), 1);
        let one = &all[0];
        assert_eq!(
            (one.status_age, one.standing, one.handshake_age),
            (Some(3), true, Some(7))
        );
        // Another record under its name counts only if it is newer and believed.
        let mut other = entry(4, 8);
        other.name = here.name.clone();
        let counter = |e: &NodeEntry| (e.member != other.member).then_some(1);
        let all = merged(vec![vec![here.clone()], vec![other.clone()]], counter);
        assert_eq!(all[0].member, here.member);
        let all = merged(vec![vec![other.clone()], vec![here.clone()]], counter);
        assert_eq!(all[0].member, here.member);
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
