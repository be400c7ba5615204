//! What agent and init say to each other over `/run/holdfast/init.sock` (version 1): one JSON
//! object a line, a request answered by one reply, in order.

use crate::image::ServiceSpec;
use crate::keys::Digest;
use crate::status::{BootStatus, SlotName};
use serde::{Deserialize, Serialize};

/// Init's socket.
pub const SOCKET: &str = "/run/holdfast/init.sock";
/// The log child's socket.
pub const LOG_SOCKET: &str = "/run/holdfast/log.sock";
/// Init restarts an agent that sent nothing for so long, in seconds.
pub const HEARTBEAT_LIMIT: u64 = 30;

/// What the agent asks of init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum InitRequest {
    /// The agent lives; sent every 5 s.
    Heartbeat,
    /// The boot that is running, slots, devices.
    Boot,
    /// Mark `slot` empty, flushed before the answer. Refused for the running or last good slot.
    BeginWrite {
        /// Which.
        slot: SlotName,
    },
    /// `slot` is written and verified: make it a trial.
    Install {
        /// Which.
        slot: SlotName,
        /// Of its header block.
        digest: Digest,
        /// Of the image.
        generation: u64,
        /// Tries.
        tries: u8,
    },
    /// How far this start came (`holdfast_core::slots::Stage`, by its short name): written down where
    /// it may have to be said later, a trial's above all.
    Reached {
        /// `network`, `mesh` or `control`; what is not known changes nothing.
        stage: String,
    },
    /// The running trial is proven.
    Commit,
    /// The running trial failed: record why and reboot.
    FailTrial {
        /// In words; shown by `holdfast nodes`.
        reason: String,
    },
    /// Make the other slot a trial.
    Rollback,
    /// Stop in order and reboot.
    Reboot {
        /// Who or what asked.
        reason: String,
        /// Into the rescue system.
        rescue: bool,
    },
    /// Stop in order and switch the machine off.
    PowerOff {
        /// Who or what asked.
        reason: String,
    },
    /// This disk was an installer, has done its work and is to start nothing any more: both slots
    /// become empty in its record. Refused unless `hf-state` says that an installation is done
    /// and that this disk's node never joined. The caller then clears the headers.
    Retire,
    /// Start (or replace, when its spec changed) a supervised service.
    StartService {
        /// What.
        service: ServiceSpec,
    },
    /// Stop a service.
    StopService {
        /// Its name.
        name: String,
    },
    /// State of all services.
    Services,
    /// Kill the agent and start it anew.
    RestartAgent,
}

/// Where this boot's devices are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// The whole disk, e.g. `/dev/vda`.
    pub disk: String,
    /// Partition name to device node.
    pub partitions: std::collections::BTreeMap<String, String>,
}

/// What init tells of the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootInfo {
    /// Slots and reason; `version` comes from the image's description.
    pub boot: BootStatus,
    /// Devices.
    pub devices: Devices,
    /// `/var` is a disk and mounted.
    pub var_on_disk: bool,
    /// The verity root is mounted at `/`.
    pub root_mounted: bool,
    /// Seconds left for the running trial.
    #[serde(default)]
    pub trial_left: Option<u64>,
    /// Things an operator should know, in words.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Modules are still being loaded: not every disk may be there yet.
    #[serde(default)]
    pub loading: bool,
}

/// One supervised service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// Running process id, if any.
    pub pid: Option<u32>,
    /// Starts since boot.
    pub starts: u32,
    /// How the last run ended, in words.
    #[serde(default)]
    pub last_exit: Option<String>,
}

/// Init's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitReply {
    /// Done.
    Ok,
    /// To `Boot`.
    Boot(Box<BootInfo>),
    /// To `Services`.
    Services(Vec<ServiceState>),
    /// Not done, and why.
    Refused(String),
}

/// What is asked of the log child, one JSON line; it answers with
/// [`crate::control::LogLine`]s, one a line, and closes unless following.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRequest {
    /// How many past lines.
    pub lines: u32,
    /// Go on with what comes.
    pub follow: bool,
    /// Only this unit.
    pub unit: Option<String>,
}
