//! What a node says of itself; signed, so that a lighthouse can withhold but not forge it.

use crate::cluster::{ClusterId, MeshIndex};
use crate::image::K3sInfo;
use crate::names::{NodeName, Role};
use crate::signed::Signable;
use serde::{Deserialize, Serialize};

/// Which system partition pair is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotName {
    /// The first.
    A,
    /// The second.
    B,
    /// The rescue system.
    Rescue,
}

impl std::fmt::Display for SlotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SlotName::A => "a",
            SlotName::B => "b",
            SlotName::Rescue => "rescue",
        })
    }
}

/// One slot as the record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Which.
    pub slot: SlotName,
    /// `empty`, `trial`, `good`, `bad`.
    pub state: String,
    /// Of the image in it.
    pub generation: u64,
    /// Tries left of a trial.
    pub tries_left: u8,
    /// Why it came to this state.
    pub reason: String,
    /// Committed, and not yet up for an hour: should it not last, the other good slot is next.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probation: bool,
}

/// The boot that is running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootStatus {
    /// The loader's random id, hex.
    pub boot_id: String,
    /// The running slot.
    pub slot: SlotName,
    /// The running image's version.
    pub version: String,
    /// The running image's generation.
    pub generation: u64,
    /// Whether the running slot is on trial.
    pub on_trial: bool,
    /// Why the machine booted this way: the last change's reason in words.
    pub reason: String,
    /// Both slots.
    pub slots: Vec<SlotStatus>,
}

impl BootStatus {
    /// Whether the running slot is on trial or on probation: the node may still go back by itself.
    #[must_use]
    pub fn may_go_back(&self) -> bool {
        let here = self.slots.iter().find(|s| s.slot == self.slot);
        self.on_trial || here.is_some_and(|s| s.probation)
    }
}

/// k3s on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum K3sState {
    /// The role runs none.
    None,
    /// Started, not Ready.
    Starting,
    /// The node object says Ready.
    Ready,
    /// Was Ready, is not.
    NotReady,
    /// The process keeps failing.
    Failed,
}

impl std::fmt::Display for K3sState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            K3sState::None => "-",
            K3sState::Starting => "starting",
            K3sState::Ready => "ready",
            K3sState::NotReady => "not-ready",
            K3sState::Failed => "failed",
        })
    }
}

/// Resident memory (`VmRSS` of `/proc/PID/status`, proc(5)) of what Holdfast runs on a node, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemMemory {
    /// PID 1.
    pub init_kib: u64,
    /// The agent.
    pub agent_kib: u64,
}

/// A node's account of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Its place in the mesh.
    pub index: MeshIndex,
    /// Grows with each account of this node, over reboots.
    pub counter: u64,
    /// Seconds since the kernel started.
    pub uptime: u64,
    /// The boot that is running.
    pub boot: BootStatus,
    /// k3s.
    pub k3s: K3sState,
    /// Which k3s the image holds.
    #[serde(default)]
    pub k3s_info: Option<K3sInfo>,
    /// Seconds since the last handshake with a lighthouse; none: never.
    pub handshake_age: Option<u64>,
    /// What the system itself holds in memory; none: not known.
    #[serde(default)]
    pub memory: Option<SystemMemory>,
    /// Generations of the documents that it holds: operators, lighthouses, policy; none: it is of a
    /// version that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<[u64; 3]>,
    /// Things an operator should know (LAN overlap, `/var` in memory, second seed), in words.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Signable for NodeStatus {
    const KIND: &'static str = "status/1";
}

/// One line of a node's history: an upgrade, a going back, a start that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Unix seconds by the node's clock.
    pub at: u64,
    /// `upgrade`, `commit`, `went-back`, `reboot`, `rollback`, `join`, ...
    pub event: String,
    /// Who asked, where someone did.
    #[serde(default)]
    pub operator: Option<String>,
    /// Slot concerned.
    #[serde(default)]
    pub slot: Option<SlotName>,
    /// Version concerned.
    #[serde(default)]
    pub version: Option<String>,
    /// In words.
    pub detail: String,
}
