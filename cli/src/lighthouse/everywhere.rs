//! What is done at, or read from, every lighthouse that answers.

use super::{Connection, explain};
use crate::app::App;
use anyhow::Result;
use futures_util::future::join_all;
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::{ApiErrorKind, GrantStatus, NodeEntry};
use holdfast_core::grant::Grant;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::{GrantId, NodeName};
use holdfast_core::signed::Signed;
use std::collections::BTreeMap;

impl Connection {
    /// All that answered, the first one first.
    pub fn all(&self) -> impl Iterator<Item = &LighthouseClient> {
        std::iter::once(&self.client).chain(self.others.iter().map(|(_, client)| client))
    }

    /// Does at the others what was done at the first. Who does not get it is told of: nodes hand
    /// it on, and `later` does it again.
    pub async fn tell_others<'a, F>(
        &'a self,
        app: &App,
        what: &str,
        later: &str,
        tell: impl Fn(&'a LighthouseClient) -> F,
    ) where
        F: Future<Output = Result<(), ClientError>> + 'a,
    {
        let telling = self.others.iter().map(|(name, client)| {
            let told = tell(client);
            async move { (name, told.await) }
        });
        let told = join_all(telling).await.into_iter();
        let refused = told.filter_map(|(name, told)| match told {
            Ok(()) => None,
            // Of documents: it holds newer ones, which the nodes hand on.
            Err(error) if error.kind() == Some(ApiErrorKind::Older) => None,
            Err(error) => Some((name.clone(), error.to_string())),
        });
        for (name, why) in self.missed.iter().cloned().chain(refused) {
            app.say(&format!(
                "note: {name} has not got {what} ({why}): it learns of that from nodes, or by {later} once it answers"
            ));
        }
    }

    /// Hands a grant over, to every lighthouse that answers.
    pub async fn put_grant(&self, app: &App, id: &GrantId, grant: &Signed<Grant>) -> Result<()> {
        self.client.put_grant(id, grant).await.map_err(explain)?;
        let what = format!("grant {id}");
        self.tell_others(app, &what, "`holdfast token push --again`", |other| {
            other.put_grant(id, grant)
        })
        .await;
        Ok(())
    }

    /// Drops an evicted node's record everywhere.
    pub async fn forget(&self, name: &NodeName) -> Result<()> {
        let done = join_all(self.all().map(|client| client.forget(name))).await;
        let known = done.iter().any(Result::is_ok);
        for error in done.into_iter().filter_map(Result::err) {
            // It joined at another.
            if !(known && error.kind() == Some(ApiErrorKind::NotFound)) {
                return Err(explain(error));
            }
        }
        Ok(())
    }

    /// All grants. A use counts wherever it was made: each lighthouse knows its own.
    pub async fn grants(&self) -> Result<Vec<GrantStatus>> {
        let mut lists = vec![self.client.grants().await.map_err(explain)?];
        let others = self.others.iter().map(|(_, client)| client.grants());
        lists.extend(join_all(others).await.into_iter().filter_map(Result::ok));
        Ok(united(lists))
    }

    /// What each lighthouse that answers says of the nodes.
    pub async fn listed(&self) -> Result<Vec<Vec<NodeEntry>>> {
        let mut lists = vec![self.client.nodes().await.map_err(explain)?];
        let others = self.others.iter().map(|(_, client)| client.nodes());
        lists.extend(join_all(others).await.into_iter().filter_map(Result::ok));
        Ok(lists)
    }
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
