//! The way to the lighthouse: who it is, what it holds that is newer, errors as exit codes.

use crate::app::{App, say};
use crate::cluster_dir::{ClusterDir, Documents, KeyFile};
use crate::exit::Exit;
use crate::words;
use anyhow::{Context as _, Result};
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::ApiErrorKind;
use holdfast_core::documents::{DocumentSet, Lighthouse, Policy, next_generation};
use holdfast_core::keys::PrivateKey;
use holdfast_core::signed::Signed;
use holdfast_tls::Identity;
use std::time::Duration;

mod beside;
mod everywhere;
mod round;

use beside::beside;
pub use everywhere::{Believed, merged};
use round::{Missed, Reached, Round};

/// The lighthouses that answered, and all that is needed to talk through them.
pub struct Connection {
    /// The API of the first of them, in the document's order.
    pub client: LighthouseClient,
    /// Its name.
    pub first: String,
    /// The others of them, by name, in the document's order.
    pub others: Vec<(String, LighthouseClient)>,
    /// Those that cannot be used.
    pub missed: Vec<Missed>,
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
    let connection = connect_as(cluster, operator).await?;
    connection.say_who_lies();
    Ok(connection)
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
    let clients = all.iter().map(|lighthouse| {
        LighthouseClient::new(cluster.way_to(lighthouse), lighthouse.key, Some(identity))
            .map_err(explain)
    });
    let clients: Vec<_> = clients.collect::<Result<_>>()?;
    let found = beside(clients.iter().map(LighthouseClient::documents), GRACE).await;
    let asked = all.iter().cloned().zip(clients).zip(found);
    Ok(asked
        .filter_map(|((lighthouse, client), found)| Some((lighthouse, client, found?)))
        .collect())
}

/// As [`connect`], with a key opened before.
pub async fn connect_as(cluster: ClusterDir, operator: PrivateKey) -> Result<Connection> {
    let identity = Identity::from_key(&operator).context("the operator's key")?;
    let (roots, id) = (cluster.roots(), cluster.config.id);
    let mut round = Round::new(cluster.documents()?);
    for _ in 0..FOLLOWED {
        let mut newer = false;
        for (lighthouse, client, found) in ask(&round.unasked(), &cluster, &identity).await? {
            newer |= round.heard(lighthouse, client, found, (&roots, id));
        }
        if !newer {
            break;
        }
        let _lock = cluster.lock()?;
        // Another command may have signed something since they were read.
        let held = cluster.documents()?.set;
        round.documents.take_newer(&held, &roots, id)?;
        cluster.save_documents(&round.documents.set)?;
    }
    let Reached {
        documents,
        clients,
        missed,
    } = round.ended()?;
    let mut clients = clients.into_iter();
    let (first, client) = clients.next().context("no lighthouse")?;
    Ok(Connection {
        client,
        first,
        others: clients.collect(),
        missed,
        identity,
        documents,
        cluster,
    })
}

impl Connection {
    /// One that answers as it must not is named at once, whatever the command is about.
    fn say_who_lies(&self) {
        for missed in self.missed.iter().filter(|m| m.astray) {
            say(&format!(
                "note: lighthouse {} is left out: {}",
                missed.name, missed.why
            ));
        }
    }

    /// The same lighthouse, for a member with this signing key.
    pub fn as_member(&self, key: &PrivateKey) -> Result<LighthouseClient> {
        let identity = Identity::from_key(key).context("the member's key")?;
        let all = &self.documents.lighthouses.lighthouses;
        let own = all
            .iter()
            .find(|l| l.key == self.client.key())
            .context(
                "only a lighthouse answers that documents.json names no more: `holdfast lighthouse list` shows where the others are to be",
            )?;
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
