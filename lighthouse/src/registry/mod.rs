//! What the lighthouse knows: a copy in memory of what the store holds, and the revisions that
//! long polls wait for.

#[cfg(test)]
mod deltas_tests;
mod grants;
mod join;
mod journal;
mod lists;
mod refill;
mod reports;
mod state;
mod turn;
mod views;
pub use lists::Listing;
pub use reports::Live;

use crate::admission::Reservation;
use crate::dir::ClusterFile;
use crate::error::LighthouseError;
use crate::held::{Held, HeldError};
use crate::refusal::Refusal;
use crate::rows::{self, EndpointRow, MemberRow, ToldRow};
use crate::store::{Store, StoreError};
use holdfast_core::access::connects;
use holdfast_core::documents::{DocumentSet, Right};
use holdfast_core::grant::{MemberError, VerifiedMember};
use holdfast_core::keys::{MeshKey, PublicKey};
use holdfast_core::names::{GrantId, NodeName, OperatorName};
use journal::{Change, Journal};
use state::State;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, Notify, watch};
use turn::{Fact, Turns};
use views::Views;

/// Between two starts' revisions, unless the second goes on from the first one's last.
const REVISIONS_A_START: u64 = 1 << 32;

/// Unix seconds by this machine's clock.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Who a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// An operator.
    Operator(OperatorName),
    /// A member in good standing.
    Member(NodeName),
    /// One with a record that does not count (any more): the reason.
    Refused(Refusal),
    /// Nobody known.
    Stranger,
}

/// The registry. Who wants the same name, index or key takes turns; the store's compare-and-swap
/// guards against other processes.
#[derive(Debug)]
pub struct Registry {
    store: Arc<dyn Store>,
    cluster: ClusterFile,
    state: RwLock<State>,
    journal: std::sync::Mutex<Journal>,
    views: Views,
    /// The published revision: what members wait for.
    revision: watch::Sender<u64>,
    /// Something is gathered.
    gathered: Notify,
    /// Counts every change, at once: for the lighthouse's own mesh.
    changes: watch::Sender<u64>,
    /// Counts the changes that may put somebody out.
    standings: watch::Sender<u64>,
    turns: Turns,
    /// Indexes shown to keys that have not joined. They bind nobody, so they are not stored.
    offers: std::sync::Mutex<BTreeMap<GrantId, Vec<Reservation>>>,
    /// Documents are taken over one set at a time.
    documents: Mutex<()>,
    /// Unix seconds until which members bring back what a lost lighthouse knew of them.
    refill_until: AtomicU64,
    /// One member at a time brings back what it holds of others.
    refilling: Mutex<()>,
}

impl Registry {
    /// Reads everything from `store`; `beside` is the directory's `documents.json`.
    ///
    /// # Errors
    /// [`LighthouseError`]: no documents at all, documents that no root signed, the store.
    pub async fn open(
        store: Arc<dyn Store>,
        cluster: ClusterFile,
        beside: Option<DocumentSet>,
    ) -> Result<Self, LighthouseError> {
        let held = Arc::new(open_documents(store.as_ref(), &cluster, beside).await?);
        let starts = rows::update::<u64, StoreError>(store.as_ref(), rows::STARTS, |old| {
            Ok(old.unwrap_or(0) + 1)
        })
        .await?;
        let members = load::<MemberRow>(store.as_ref(), "members/").await?;
        let endpoints = load::<EndpointRow>(store.as_ref(), "endpoints/").await?;
        let endpoints = endpoints.into_iter().map(|(k, row)| (k, row.endpoint));
        let statuses = load(store.as_ref(), "statuses/").await?;
        let state = State::new(held, members, statuses, endpoints.collect());
        let told = rows::read::<ToldRow>(store.as_ref(), rows::TOLD).await?;
        let fresh = starts.wrapping_mul(REVISIONS_A_START);
        let revision = match told {
            // Nothing is lost: whoever was told this knows all that there is.
            Some((told, _)) if told.digest == state.digest() => told.revision,
            Some((told, _)) => journal::after(told.revision.max(fresh), lists::step()),
            None => fresh,
        };
        Ok(Self {
            state: RwLock::new(state),
            store,
            cluster,
            journal: Journal::new(revision).into(),
            views: Views::default(),
            revision: watch::channel(revision).0,
            gathered: Notify::new(),
            changes: watch::channel(0).0,
            standings: watch::channel(0).0,
            turns: Turns::default(),
            offers: Default::default(),
            documents: Mutex::new(()),
            refill_until: AtomicU64::new(0),
            refilling: Mutex::new(()),
        })
    }

    fn see<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what members hear of: `work` says what it changed.
    fn change(&self, work: impl FnOnce(&mut State) -> Change) {
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let change = work(&mut state);
            // Under the state's lock: no list is older than the journal says.
            self.journal().add(&change);
        }
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
        self.gathered.notify_one();
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &ClusterFile {
        &self.cluster
    }

    /// The documents held now.
    #[must_use]
    pub fn held(&self) -> Arc<Held> {
        self.see(|s| s.held.clone())
    }

    /// Hears of every change, at once.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Hears when somebody may have stopped being a member.
    #[must_use]
    pub fn watch_standings(&self) -> watch::Receiver<u64> {
        self.standings.subscribe()
    }

    /// Whose `key` is.
    #[must_use]
    pub fn who(&self, key: &PublicKey) -> Who {
        self.see(|s| {
            if let Some(operator) = s.held.operators.by_key(key) {
                return Who::Operator(operator.name.clone());
            }
            match s.members.get(key).map(state::Entry::good) {
                Some(Ok(v)) if v.record.signing_key == *key => Who::Member(v.record.name.clone()),
                Some(Err(e)) => Who::Refused(member_refusal(e)),
                _ => Who::Stranger,
            }
        })
    }

    /// Whether `key` is an operator's that has `right`.
    #[must_use]
    pub fn allows(&self, key: &PublicKey, right: Right) -> bool {
        self.see(|s| s.held.operators.allows(key, right))
    }

    /// Takes over a newer set of documents.
    ///
    /// # Errors
    /// [`Refusal`]: not signed by a root, older than what is held, the store.
    pub async fn put_documents(&self, set: DocumentSet) -> Result<(), Refusal> {
        let _one = self.documents.lock().await;
        let new = Held::open(set, &self.cluster)?;
        self.take_over(new).await
    }

    /// Takes over those documents of a set that are newer, which a member brought.
    ///
    /// # Errors
    /// As [`Self::put_documents`].
    async fn merge_documents(&self, set: DocumentSet) -> Result<(), Refusal> {
        let _one = self.documents.lock().await;
        let brought = Held::open(set, &self.cluster)?;
        self.take_over(self.held().as_ref().clone().merged(&brought))
            .await
    }

    async fn take_over(&self, new: Held) -> Result<(), Refusal> {
        let held = self.held();
        held.may_become(&new)?;
        if *held == new {
            return Ok(());
        }
        rows::update(
            self.store.as_ref(),
            rows::DOCUMENTS,
            |stored: Option<DocumentSet>| {
                // Another process may have stored newer ones meanwhile.
                if let Some(stored) = stored {
                    Held::open(stored, &self.cluster)?.may_become(&new)?;
                }
                Ok::<_, Refusal>(new.set.clone())
            },
        )
        .await?;
        tracing::info!(generations = ?new.generations(), "documents taken over");
        self.change(|s| become_held(s, new));
        self.standings.send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }

    /// The verified member called `name`.
    ///
    /// # Errors
    /// `NotFound`; or why it does not count any more.
    pub fn by_name(&self, name: &NodeName) -> Result<VerifiedMember, Refusal> {
        self.see(|s| {
            let all: Vec<_> = s.with(&Fact::Name(name.clone())).map(|(_, e)| e).collect();
            if let Some(v) = all.iter().find_map(|e| e.verified()) {
                return Ok(v);
            }
            Err(match all.first().map(|e| e.good()) {
                Some(Err(e)) => member_refusal(e),
                _ => Refusal::new(
                    holdfast_core::api::ApiErrorKind::NotFound,
                    format!("no node is called {name}; `holdfast nodes` lists them"),
                ),
            })
        })
    }
}

impl Registry {
    /// Whether the members with these WireGuard keys may talk.
    #[must_use]
    pub fn connected(&self, one: MeshKey, other: MeshKey) -> bool {
        self.see(|s| {
            let groups = |key| s.with(&Fact::Mesh(key)).find_map(|(_, e)| e.groups());
            match (groups(one), groups(other)) {
                (Some(one), Some(other)) => connects(&s.held.policy.rules, one, other),
                _ => false,
            }
        })
    }
}

/// Puts other documents in the place of those held; what members hear of that.
fn become_held(s: &mut State, new: Held) -> Change {
    let rules = (s.held.policy.rules != new.policy.rules).then(|| s.held.policy.rules.clone());
    let before: BTreeMap<_, _> = s
        .members
        .iter()
        .map(|(key, e)| (*key, e.told().map(<[_]>::to_vec)))
        .collect();
    let changed = s.judge(Arc::new(new)).into_iter();
    Change {
        members: changed
            .filter_map(|key| Some((key, before.get(&key)?.clone())))
            .collect(),
        rules,
        documents: true,
        seen: false,
    }
}

/// As [`Refusal::from`], without taking the error.
fn member_refusal(error: &MemberError) -> Refusal {
    use holdfast_core::api::ApiErrorKind as K;
    let kind = match error {
        MemberError::Evicted(_) => K::Evicted,
        MemberError::Revoked(_) => K::GrantRevoked,
        _ => K::RecordRefused,
    };
    Refusal::new(kind, error.to_string())
}

async fn open_documents(
    store: &dyn Store,
    cluster: &ClusterFile,
    beside: Option<DocumentSet>,
) -> Result<Held, LighthouseError> {
    let open = |place: &str, set| {
        Held::open(set, cluster).map_err(|e: HeldError| LighthouseError::Documents {
            place: place.into(),
            reason: e.to_string(),
        })
    };
    let stored = rows::read::<DocumentSet>(store, rows::DOCUMENTS).await?;
    let version = stored.as_ref().map(|(_, v)| *v);
    let stored = stored.map(|(set, _)| open("the store", set)).transpose()?;
    let beside = beside.map(|set| open("documents.json", set)).transpose()?;
    let held = match (stored.clone(), beside) {
        (Some(stored), Some(beside)) => stored.merged(&beside),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => {
            return Err(LighthouseError::Documents {
                place: "documents.json".into(),
                reason: "there is none".into(),
            });
        }
    };
    if stored.as_ref() != Some(&held) {
        rows::write(store, rows::DOCUMENTS, version, &held.set).await?;
    }
    Ok(held)
}

/// Everything under `prefix`; what does not parse is named in the log and left out.
async fn load<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    prefix: &str,
) -> Result<BTreeMap<PublicKey, T>, StoreError> {
    let mut all = BTreeMap::new();
    for (key, found) in store.list(prefix).await? {
        match (rows::key_of(&key), rows::parse(&key, &found.value)) {
            (Some(signing), Ok(row)) => {
                all.insert(signing, row);
            }
            (None, _) => tracing::error!(key, "the store holds an entry with a strange key"),
            (_, Err(error)) => tracing::error!(%error, "the store holds a strange entry"),
        }
    }
    Ok(all)
}
