//! What the agent's parts share.

use crate::clock::Clock;
use crate::documents::Trusted;
use crate::init::Init;
use crate::lighthouse::Posts;
use crate::lighthouse::known::Known;
use crate::network::Wanted;
use crate::notes::Notes;
use crate::seed::Places;
use crate::seed::report::Reporter;
use crate::spread::Callers;
use crate::store::Store;
use holdfast_client::LighthouseClient;
use holdfast_core::cluster::AddressPlan;
use holdfast_core::documents::Roots;
use holdfast_core::image::ImageInfo;
use holdfast_core::ipc::BootInfo;
use holdfast_core::state::{Admission, StateDoc};
use holdfast_core::status::{HistoryEntry, K3sState, SlotName};
use holdfast_mesh::MeshHandle;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use tokio::sync::{Mutex, Notify, watch};

/// Lines of history that are kept.
const HISTORY: usize = 200;

/// The node.
pub struct Node {
    /// What runs.
    pub image: ImageInfo,
    /// The boot, as init told it when the agent started.
    pub boot: BootInfo,
    /// PID 1.
    pub init: Init,
    /// `hf-state`.
    pub store: Arc<Store>,
    /// For operators.
    pub notes: Notes,
    /// The clock.
    pub clock: Arc<Clock>,
    /// For a person at the machine.
    pub reporter: Arc<Reporter>,
    /// Where seeds may be.
    pub places: Places,
    /// What the network is to be.
    pub wanted: watch::Sender<Wanted>,
    /// The running mesh.
    pub mesh: watch::Sender<Option<MeshHandle>>,
    /// A lighthouse shook hands in this boot, as far as this agent saw.
    pub handshake: watch::Sender<bool>,
    /// A control request was answered in this boot.
    pub answered: watch::Sender<bool>,
    /// k3s as last seen.
    pub k3s: watch::Sender<K3sState>,
    /// The first lighthouse that answers, or the last that did.
    pub lighthouse: watch::Sender<Option<Arc<LighthouseClient>>>,
    /// The account of this node should be sent anew.
    pub changed: Notify,
    /// Held while slots are written.
    pub writing: Mutex<()>,
    /// k3s must not be started, because its datastore is copied for a trial; locked while one is
    /// being started.
    pub k3s_held: Mutex<bool>,
    /// What [`Node::trusted`] opened last.
    pub opened: Opened,
    /// Members that called to exchange documents.
    pub callers: Callers,
    /// Members whose signatures were checked.
    pub known: Arc<Known>,
    /// Counts the moves to another network, or to another place of one
    /// ([`roaming`](crate::network::roaming)): connections from before are begun anew.
    pub roamed: watch::Sender<u64>,
    /// Asks for a new life of the mesh.
    pub mesh_anew: Notify,
    /// The lighthouses that this node keeps in touch with.
    pub posts: Posts,
}

/// The last state's documents, opened.
#[derive(Default)]
pub struct Opened(std::sync::Mutex<Option<(Arc<StateDoc>, Arc<Trusted>)>>);

impl Opened {
    fn of(&self, doc: &Arc<StateDoc>) -> anyhow::Result<Arc<Trusted>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The pointer stays another's as long as it is held here.
        if let Some((of, trusted)) = &*last
            && Arc::ptr_eq(of, doc)
        {
            return Ok(trusted.clone());
        }
        let fresh = Arc::new(trusted(doc)?);
        *last = Some((doc.clone(), fresh.clone()));
        Ok(fresh)
    }
}

impl Node {
    /// The device of a partition.
    pub fn partition(&self, name: &str) -> Option<PathBuf> {
        self.boot.devices.partitions.get(name).map(PathBuf::from)
    }

    /// The documents that are held, opened.
    ///
    /// # Errors
    /// When there are none, or they do not open.
    pub fn trusted(&self) -> anyhow::Result<Arc<Trusted>> {
        self.trusted_in(&self.store.get())
    }

    /// The documents in `doc`, opened; their signatures are checked once a document.
    ///
    /// # Errors
    /// When there are none, or they do not open.
    pub fn trusted_in(&self, doc: &Arc<StateDoc>) -> anyhow::Result<Arc<Trusted>> {
        self.opened.of(doc)
    }

    /// Adds a line to the history.
    pub async fn remember(&self, entry: HistoryEntry) {
        tracing::info!(event = entry.event, detail = entry.detail, "history");
        if let Err(e) = self.store.update(|d| remember(&mut d.history, entry)).await {
            self.notes
                .set("history", format!("the history cannot be stored: {e:#}"));
        }
    }
}

/// A line of history, by the node's clock.
pub fn event(event: &str, detail: impl Into<String>) -> HistoryEntry {
    HistoryEntry {
        at: Clock::now(),
        event: event.into(),
        operator: None,
        slot: None,
        version: None,
        detail: detail.into(),
    }
}

/// A line of history about a slot.
pub fn slot_event(
    name: &str,
    slot: SlotName,
    version: Option<String>,
    detail: impl Into<String>,
) -> HistoryEntry {
    HistoryEntry {
        slot: Some(slot),
        version,
        ..event(name, detail)
    }
}

/// Appends, dropping the oldest.
pub fn remember(history: &mut Vec<HistoryEntry>, entry: HistoryEntry) {
    history.push(entry);
    let over = history.len().saturating_sub(HISTORY);
    history.drain(..over);
}

/// The documents in a state, opened.
///
/// # Errors
/// When there are none, or they do not open.
pub fn trusted(doc: &StateDoc) -> anyhow::Result<Trusted> {
    let (Some(admission), Some(set)) = (&doc.admission, &doc.documents) else {
        anyhow::bail!("this node has not joined");
    };
    Ok(Trusted::open(
        set,
        &Roots(admission.roots.clone()),
        admission.cluster_id,
    )?)
}

/// The cluster's ranges.
pub fn plan(admission: &Admission) -> AddressPlan {
    AddressPlan::new(admission.cluster_id, admission.dual_stack)
}
