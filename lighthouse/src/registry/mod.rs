//! What the lighthouse knows: a copy in memory of what the store holds, and the revision that
//! long polls wait for.

mod grants;
mod join;
mod refill;
mod reports;
pub use reports::Live;

use crate::dir::ClusterFile;
use crate::error::LighthouseError;
use crate::held::{Held, HeldError};
use crate::refusal::Refusal;
use crate::rows::{self, EndpointRow, MemberRow, StatusRow};
use crate::store::{Store, StoreError};
use holdfast_core::api::{MemberEntry, MemberList};
use holdfast_core::documents::{DocumentSet, Right};
use holdfast_core::grant::{MemberError, MemberRecord, VerifiedMember, verify};
use holdfast_core::keys::PublicKey;
use holdfast_core::names::{NodeName, OperatorName};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, watch};

/// Changes that fit between two starts' revisions.
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

/// A member in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub row: MemberRow,
    /// Its record, where it parses at all.
    pub record: Option<MemberRecord>,
    /// Against the documents held now. A store that was tampered with may hold anything: this is
    /// what the lighthouse itself believes; nodes check for themselves.
    pub verified: Result<VerifiedMember, MemberError>,
}

impl Entry {
    fn new(row: MemberRow, held: &Held) -> Self {
        let cluster = held.operators.cluster;
        Self {
            record: row.member.record.open_self().ok().map(|(record, _)| record),
            verified: verify(&row.member, cluster, &held.operators, &held.policy),
            row,
        }
    }
}

#[derive(Debug)]
struct State {
    held: Arc<Held>,
    members: BTreeMap<PublicKey, Entry>,
    statuses: BTreeMap<PublicKey, StatusRow>,
    endpoints: BTreeMap<PublicKey, SocketAddr>,
}

/// The registry. Changes are made one at a time; the store's compare-and-swap guards against
/// other processes.
#[derive(Debug)]
pub struct Registry {
    store: Arc<dyn Store>,
    cluster: ClusterFile,
    state: RwLock<State>,
    revision: watch::Sender<u64>,
    writing: Mutex<()>,
    /// Unix seconds until which members bring back what a lost lighthouse knew of them.
    refill_until: AtomicU64,
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
        let state = State {
            members: members
                .into_iter()
                .map(|(k, row)| (k, Entry::new(row, &held)))
                .collect(),
            statuses: load(store.as_ref(), "statuses/").await?,
            endpoints: endpoints
                .into_iter()
                .map(|(k, row)| (k, row.endpoint))
                .collect(),
            held,
        };
        Ok(Self {
            store,
            cluster,
            state: RwLock::new(state),
            revision: watch::channel(starts.wrapping_mul(REVISIONS_A_START)).0,
            writing: Mutex::new(()),
            refill_until: AtomicU64::new(0),
        })
    }

    fn see<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = work(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.revision.send_modify(|r| *r += 1);
        result
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

    /// Hears of every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Whose `key` is.
    #[must_use]
    pub fn who(&self, key: &PublicKey) -> Who {
        self.see(|s| {
            if let Some(operator) = s.held.operators.by_key(key) {
                return Who::Operator(operator.name.clone());
            }
            match s.members.get(key).map(|e| &e.verified) {
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
        let _one = self.writing.lock().await;
        let new = Held::open(set, &self.cluster)?;
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
        self.change(|s| {
            s.held = Arc::new(new);
            let members = std::mem::take(&mut s.members);
            s.members = members
                .into_iter()
                .map(|(k, e)| (k, Entry::new(e.row, &s.held)))
                .collect();
        });
        Ok(())
    }

    /// The members as they are now. All of them: whoever reads the list verifies each.
    #[must_use]
    pub fn members(&self) -> MemberList {
        let revision = *self.revision.borrow();
        self.see(|s| MemberList {
            revision,
            members: s
                .members
                .iter()
                .map(|(key, entry)| MemberEntry {
                    member: entry.row.member.clone(),
                    endpoint: s.endpoints.get(key).copied(),
                })
                .collect(),
            generations: s.held.generations(),
            time: unix_now(),
        })
    }

    /// The members once the revision is another than `after`, or after `wait`.
    pub async fn members_after(&self, after: u64, wait: Duration) -> MemberList {
        let mut revision = self.watch();
        let _ = tokio::time::timeout(wait, revision.wait_for(|r| *r != after)).await;
        self.members()
    }

    /// Verified members with their signing keys and last endpoints.
    #[must_use]
    pub fn verified(&self) -> Vec<(VerifiedMember, Option<SocketAddr>)> {
        self.see(|s| {
            let good = s
                .members
                .iter()
                .filter_map(|(k, e)| Some((k, e.verified.as_ref().ok()?)));
            good.map(|(k, v)| (v.clone(), s.endpoints.get(k).copied()))
                .collect()
        })
    }

    /// The verified member called `name`.
    ///
    /// # Errors
    /// `NotFound`; or why it does not count any more.
    pub fn by_name(&self, name: &NodeName) -> Result<VerifiedMember, Refusal> {
        self.see(|s| {
            let named = |e: &&Entry| e.record.as_ref().is_some_and(|r| r.name == *name);
            let all: Vec<&Entry> = s.members.values().filter(named).collect();
            if let Some(v) = all.iter().find_map(|e| e.verified.as_ref().ok()) {
                return Ok(v.clone());
            }
            Err(match all.first().map(|e| &e.verified) {
                Some(Err(e)) => member_refusal(e),
                _ => Refusal::new(
                    holdfast_core::api::ApiErrorKind::NotFound,
                    format!("no node is called {name}; `holdfast nodes` lists them"),
                ),
            })
        })
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
