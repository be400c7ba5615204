//! The way to the lighthouse: who it is, what it holds that is newer, errors as exit codes.

use crate::app::App;
use crate::cluster_dir::{ClusterDir, Documents, KeyFile};
use crate::exit::Exit;
use crate::words;
use anyhow::{Context as _, Result};
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::ApiErrorKind;
use holdfast_core::documents::{Lighthouse, Policy, next_generation};
use holdfast_core::keys::PrivateKey;
use holdfast_core::signed::Signed;
use holdfast_tls::Identity;

/// A lighthouse that answered, and all that is needed to talk through it.
pub struct Connection {
    /// The API.
    pub client: LighthouseClient,
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

/// Finds the cluster, opens the operator's key, and connects to the first lighthouse that answers.
pub async fn connect(app: &App) -> Result<Connection> {
    let cluster = app.cluster()?;
    let operator = app.key(&cluster, KeyFile::Operator)?;
    connect_as(cluster, operator).await
}

/// This machine's own way, where it has one; the nodes' way may lead nowhere from here, slowly.
fn addresses(cluster: &ClusterDir, lighthouse: &Lighthouse, first: bool) -> Vec<String> {
    let own = &cluster.config.api;
    if first && !own.is_empty() {
        own.clone()
    } else {
        lighthouse.https.clone()
    }
}

/// As [`connect`], with a key opened before.
pub async fn connect_as(cluster: ClusterDir, operator: PrivateKey) -> Result<Connection> {
    let identity = Identity::from_key(&operator).context("the operator's key")?;
    let mut documents = cluster.documents()?;
    let mut last = None;
    for (i, lighthouse) in documents.lighthouses.lighthouses.clone().iter().enumerate() {
        let client = LighthouseClient::new(
            addresses(&cluster, lighthouse, i == 0),
            lighthouse.key,
            Some(&identity),
        )
        .map_err(explain)?;
        match client.documents().await {
            Ok(found) => {
                if documents.take_newer(&found, &cluster.roots(), cluster.config.id)? {
                    let _lock = cluster.lock()?;
                    // Another command may have signed something since they were read.
                    let held = cluster.documents()?.set;
                    documents.take_newer(&held, &cluster.roots(), cluster.config.id)?;
                    cluster.save_documents(&documents.set)?;
                }
                return Ok(Connection {
                    client,
                    identity,
                    documents,
                    cluster,
                });
            }
            Err(error) => last = Some(explain(error)),
        }
    }
    Err(last.unwrap_or_else(|| Exit::Unreachable.error("documents.json names no lighthouse")))
}

impl Connection {
    /// The same lighthouse, for a member with this signing key.
    pub fn as_member(&self, key: &PrivateKey) -> Result<LighthouseClient> {
        let identity = Identity::from_key(key).context("the member's key")?;
        let all = &self.documents.lighthouses.lighthouses;
        let own = all
            .iter()
            .enumerate()
            .find(|(_, l)| l.key == self.client.key())
            .context("documents.json does not name the lighthouse that answers")?;
        let addresses = addresses(&self.cluster, own.1, own.0 == 0);
        LighthouseClient::new(addresses, own.1.key, Some(&identity)).map_err(explain)
    }

    /// Hands all documents over.
    pub async fn push_documents(&self) -> Result<()> {
        self.client
            .put_documents(&self.documents.set)
            .await
            .map_err(explain)
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
        let mut pushed = self.client.put_documents(&self.documents.set).await;
        if let Err(ClientError::Api(api)) = &pushed
            && api.kind == ApiErrorKind::Older
            && self.catch_up()?
        {
            // Another command signed a later one and was quicker.
            pushed = self.client.put_documents(&self.documents.set).await;
        }
        pushed.map_err(explain).context(
            "the policy is signed and kept in documents.json, but the lighthouse has not got it: `holdfast cluster push` tries again",
        )
    }
}
