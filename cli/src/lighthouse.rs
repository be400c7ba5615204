//! The way to the lighthouse: who it is, what it holds that is newer, errors as exit codes.

use crate::app::App;
use crate::cluster_dir::{ClusterDir, Documents, KeyFile};
use crate::exit::Exit;
use crate::words;
use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::ApiErrorKind;
use holdfast_core::documents::{DocumentSet, Lighthouse, Policy, next_generation};
use holdfast_core::keys::{PrivateKey, PublicKey};
use holdfast_core::signed::Signed;
use holdfast_tls::Identity;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

mod everywhere;

pub use everywhere::merged;

/// The lighthouses that answered, and all that is needed to talk through them.
pub struct Connection {
    /// The API of the first of them.
    pub client: LighthouseClient,
    /// Its name.
    pub first: String,
    /// The others of them, by name, in the document's order.
    pub others: Vec<(String, LighthouseClient)>,
    /// Those that did not answer, and why.
    pub missed: Vec<(String, String)>,
    /// The operator's key as TLS shows it.
    pub identity: Identity,
    /// The newest documents known, verified.
    pub documents: Documents,
    /// The cluster's directory.
    pub cluster: ClusterDir,
}

/// A client's error with an exit code and what to do next.
pub fn explain(error: ClientError) -> anyhow::Error {
    let text = error.to_string();
    match &error {
        ClientError::Unreachable(_) | ClientError::NoAddress => Exit::Unreachable.error(format!(
            "{text}\n  Is it running (`holdfast lighthouse run`), and is its TCP port open?"
        )),
        ClientError::Broken { .. } => Exit::Unreachable.error(text),
        ClientError::WrongKey { .. } => Exit::Refused.error(format!(
            "{text}\n  Another cluster's lighthouse, or someone in between, answers at this address."
        )),
        ClientError::Api(api) => match api.kind {
            ApiErrorKind::Unreachable => Exit::Unreachable.error(text),
            ApiErrorKind::Denied
            | ApiErrorKind::GrantUnknown
            | ApiErrorKind::GrantExpired
            | ApiErrorKind::GrantRevoked
            | ApiErrorKind::GrantUsedUp
            | ApiErrorKind::RecordRefused
            | ApiErrorKind::Taken
            | ApiErrorKind::Evicted
            | ApiErrorKind::Older => Exit::Refused.error(text),
            ApiErrorKind::Malformed | ApiErrorKind::NotFound | ApiErrorKind::Busy | ApiErrorKind::Internal => {
                Exit::Failed.error(text)
            }
        },
        _ => anyhow::Error::new(error),
    }
}

/// Finds the cluster, opens the operator's key, and connects to the lighthouses that answer.
pub async fn connect(app: &App) -> Result<Connection> {
    let cluster = app.cluster()?;
    let operator = app.key(&cluster, KeyFile::Operator)?;
    connect_as(cluster, operator).await
}

/// Once one lighthouse answered, the others have so long: one that is gone must not hold up every
/// command.
const GRACE: Duration = Duration::from_secs(2);
/// Documents that name other lighthouses are followed so often.
const FOLLOWED: usize = 3;

/// What asking one lighthouse for its documents came to.
type Asked = (
    Lighthouse,
    LighthouseClient,
    Result<DocumentSet, ClientError>,
);

/// Asks all beside each other; those that are late are left out.
async fn ask(all: &[Lighthouse], cluster: &ClusterDir, identity: &Identity) -> Result<Vec<Asked>> {
    let mut asking = FuturesUnordered::new();
    for lighthouse in all {
        let client =
            LighthouseClient::new(cluster.way_to(lighthouse), lighthouse.key, Some(identity))
                .map_err(explain)?;
        asking.push(async move {
            let found = client.documents().await;
            (lighthouse.clone(), client, found)
        });
    }
    let mut asked: Vec<Asked> = vec![];
    let mut until = None;
    loop {
        let next = match until {
            None => Ok(asking.next().await),
            Some(until) => timeout_at(until, asking.next()).await,
        };
        let Ok(Some(one)) = next else { break };
        if one.2.is_ok() && until.is_none() {
            until = Some(Instant::now() + GRACE);
        }
        asked.push(one);
    }
    Ok(asked)
}

/// As [`connect`], with a key opened before.
pub async fn connect_as(cluster: ClusterDir, operator: PrivateKey) -> Result<Connection> {
    let identity = Identity::from_key(&operator).context("the operator's key")?;
    let mut documents = cluster.documents()?;
    let mut reached: Vec<(Lighthouse, LighthouseClient)> = vec![];
    let mut failed: Vec<Failed> = vec![];
    for _ in 0..FOLLOWED {
        let new = |l: &&Lighthouse| {
            reached.iter().all(|(r, _)| r.key != l.key) && failed.iter().all(|f| f.key != l.key)
        };
        let all: Vec<_> = documents
            .lighthouses
            .lighthouses
            .iter()
            .filter(new)
            .cloned()
            .collect();
        if all.is_empty() {
            break;
        }
        let mut newer = false;
        for (lighthouse, client, found) in ask(&all, &cluster, &identity).await? {
            // One that lies must not stop what is done at the others, its removal least of all.
            let mut with = documents.clone();
            let taken = match found {
                Ok(found) => with
                    .take_newer(&found, &cluster.roots(), cluster.config.id)
                    .map_err(|e| (e.to_string(), e)),
                Err(error) => Err((error.to_string(), explain(error))),
            };
            match taken {
                Ok(more) => {
                    newer |= more;
                    documents = with;
                    reached.push((lighthouse, client));
                }
                Err((why, error)) => failed.push(Failed {
                    key: lighthouse.key,
                    name: lighthouse.name,
                    why,
                    error,
                }),
            }
        }
        if newer {
            let _lock = cluster.lock()?;
            // Another command may have signed something since they were read.
            let held = cluster.documents()?.set;
            documents.take_newer(&held, &cluster.roots(), cluster.config.id)?;
            cluster.save_documents(&documents.set)?;
        } else {
            break;
        }
    }
    let named = &documents.lighthouses.lighthouses;
    let place = |key: &PublicKey| named.iter().position(|l| l.key == *key);
    // One that is named no more is the last to be asked: as long as no other answers.
    reached.sort_by_key(|(l, _)| place(&l.key).unwrap_or(usize::MAX));
    let mut missed = vec![];
    for l in named
        .iter()
        .filter(|l| reached.iter().all(|(r, _)| r.key != l.key))
    {
        let why = failed.iter().find(|f| f.key == l.key);
        let why = why.map_or_else(
            || format!("no answer within {} s", GRACE.as_secs()),
            |f| f.why.clone(),
        );
        missed.push((l.name.clone(), why));
    }
    let mut clients = reached.into_iter().map(|(l, client)| (l.name, client));
    match clients.next() {
        Some((first, client)) => Ok(Connection {
            client,
            first,
            others: clients.collect(),
            missed,
            identity,
            documents,
            cluster,
        }),
        None => {
            failed.sort_by_key(|f| place(&f.key));
            Err(none_answers(failed))
        }
    }
}

/// A lighthouse that was asked in vain.
struct Failed {
    key: PublicKey,
    name: String,
    /// In one line.
    why: String,
    error: anyhow::Error,
}

/// What to say when all failed: the first one's error, and each other's in a line.
fn none_answers(failed: Vec<Failed>) -> anyhow::Error {
    let lines: Vec<_> = failed
        .iter()
        .map(|f| format!("{}: {}", f.name, f.why))
        .collect();
    let several = lines.len() > 1;
    match failed.into_iter().next() {
        None => Exit::Unreachable.error("documents.json names no lighthouse"),
        Some(first) if several => first.error.context(format!(
            "none of the lighthouses can be used:\n  {}",
            lines.join("\n  ")
        )),
        Some(first) => first.error,
    }
}

impl Connection {
    /// The same lighthouse, for a member with this signing key.
    pub fn as_member(&self, key: &PrivateKey) -> Result<LighthouseClient> {
        let identity = Identity::from_key(key).context("the member's key")?;
        let all = &self.documents.lighthouses.lighthouses;
        let own = all
            .iter()
            .find(|l| l.key == self.client.key())
            .context("documents.json does not name the lighthouse that answers")?;
        LighthouseClient::new(self.cluster.way_to(own), own.key, Some(&identity)).map_err(explain)
    }

    /// Hands all documents over, to every lighthouse that answers.
    pub async fn push_documents(&self, app: &App) -> Result<()> {
        self.put_documents(app, "the documents", &self.documents.set)
            .await
    }

    /// Takes what other commands on this machine signed meanwhile; whether that was anything.
    fn catch_up(&mut self) -> Result<bool> {
        let held = self.cluster.documents()?.set;
        let (roots, id) = (self.cluster.roots(), self.cluster.config.id);
        self.documents.take_newer(&held, &roots, id)
    }

    /// Signs a changed policy with the root, keeps it, hands it over. `change` gets the newest and
    /// says whether it changed it.
    pub async fn change_policy(
        &mut self,
        app: &App,
        change: impl FnOnce(&mut Policy) -> Result<bool>,
    ) -> Result<()> {
        let root = app.key(&self.cluster, KeyFile::Root)?;
        // Nodes only say so: no member may keep an operator from signing.
        if let Ok(entries) = self.entries().await {
            let ahead = self.judge().ahead_in_policy(&entries);
            if let Some(node) = ahead.first() {
                app.say(&format!(
                    "note: {node} ({} of {} nodes) says that it holds a newer policy than this one, which comes from an older backup: evictions and revocations in it are undone by what is signed now; look at `holdfast policy show` and repeat them",
                    ahead.len(),
                    entries.len()
                ));
            }
        }
        {
            let _lock = self.cluster.lock()?;
            self.catch_up()?;
            let mut policy = self.documents.policy.clone();
            if change(&mut policy)? {
                policy.generation = next_generation(policy.generation, words::now());
                self.documents.set.policy =
                    Signed::sign(&policy, &root).context("signing the policy")?;
                self.documents.policy = policy;
                self.cluster.save_documents(&self.documents.set)?;
            }
        }
        let mut told = self
            .put_documents(app, "the policy", &self.documents.set)
            .await;
        if told.is_err() && self.catch_up()? {
            // Another command signed a later one and was quicker.
            told = self
                .put_documents(app, "the policy", &self.documents.set)
                .await;
        }
        told.context(
            "the policy is signed and kept in documents.json, but no lighthouse has got it: `holdfast cluster push` tries again",
        )
    }
}
