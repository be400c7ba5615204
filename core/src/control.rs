//! The control protocol between `holdfast` and a node's agent (decision 9, version 1).
//!
//! Inside a TLS 1.3 stream between the operator's key and the node's (both pinned, no session
//! resumption: the handshake's server random is the single-use challenge of this boot). Frames
//! are a 4-byte big-endian length and that many bytes of JSON. The operator sends one
//! [`Request`]; the node answers with [`Reply`] frames until `Done`, `Failed` or `Tunnel`; after
//! `Tunnel` the stream carries raw bytes.

use crate::documents::Right;
use crate::keys::Digest;
use crate::status::{HistoryEntry, NodeStatus};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Longest frame, in bytes.
pub const MAX_FRAME: u32 = 1024 * 1024;
/// Most questions of one [`Request::MeshPing`].
pub const MAX_PINGS: u32 = 1000;
/// TLS ALPN protocol id (RFC 7301).
pub const ALPN: &[u8] = b"holdfast-control/1";

/// What an operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The node's account of itself.
    Status,
    /// Log lines.
    Logs {
        /// How many of the past.
        lines: u32,
        /// Go on with what comes.
        follow: bool,
        /// Only this unit (`agent`, `init`, `k3s`, a service).
        unit: Option<String>,
    },
    /// What happened to the node's slots.
    History,
    /// The members that the node knows, and its ways to them.
    Mesh,
    /// Asks a member on the way to it, once a second.
    MeshPing {
        /// Whom.
        member: String,
        /// How often; at most [`MAX_PINGS`].
        count: u32,
    },
    /// Reboot.
    Reboot {
        /// Into the rescue system.
        rescue: bool,
    },
    /// Fetch a bundle, write it to the other slot, reboot into its trial.
    Upgrade {
        /// `blob:` for the lighthouse's store, or an HTTPS address.
        url: String,
        /// SHA-256 of the whole bundle.
        digest: Digest,
        /// Its length in bytes.
        len: u64,
        /// Take an older generation.
        allow_downgrade: bool,
    },
    /// Try the other slot.
    Rollback,
    /// Kill and restart the agent (the data plane's proof).
    RestartAgent,
    /// The node's k3s administrator configuration, as k3s wrote it.
    Kubeconfig,
    /// A raw stream to the Kubernetes API on the node.
    KubeTunnel,
}

impl Request {
    /// The right that it takes.
    #[must_use]
    pub fn right(&self) -> Right {
        match self {
            Request::Status
            | Request::Logs { .. }
            | Request::History
            | Request::Mesh
            | Request::MeshPing { .. } => Right::Look,
            Request::Reboot { .. } | Request::RestartAgent => Right::Reboot,
            Request::Upgrade { .. } | Request::Rollback => Right::Upgrade,
            Request::Kubeconfig | Request::KubeTunnel => Right::All,
        }
    }

    /// The verb, for logs.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Request::Status => "status",
            Request::Logs { .. } => "logs",
            Request::History => "history",
            Request::Mesh => "mesh",
            Request::MeshPing { .. } => "mesh-ping",
            Request::Reboot { .. } => "reboot",
            Request::Upgrade { .. } => "upgrade",
            Request::Rollback => "rollback",
            Request::RestartAgent => "restart-agent",
            Request::Kubeconfig => "kubeconfig",
            Request::KubeTunnel => "kube-tunnel",
        }
    }
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To `Status`.
    Status(Box<NodeStatus>),
    /// A log line.
    Line(LogLine),
    /// To `History`.
    History(Vec<HistoryEntry>),
    /// To `Mesh`.
    Mesh(Vec<MeshPeer>),
    /// One answer, to `MeshPing`.
    Ping(MeshPing),
    /// Text, to `Kubeconfig`.
    Text(String),
    /// How far a long step is.
    Progress {
        /// `fetch`, `verify`, `write`, `install`, ...
        step: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Raw bytes follow.
    Tunnel,
    /// All is done; for a reboot: it begins now.
    Done,
    /// Not done, and why.
    Failed {
        /// A word for programs: `denied`, `bad-bundle`, `busy`, `unavailable`, `internal`.
        kind: String,
        /// For people: what, where, what to do next.
        message: String,
    },
}

/// How a member is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// At its own address, or its NAT's.
    Direct,
    /// Through a lighthouse.
    Relayed,
}

/// The way to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshPath {
    /// Direct or relayed.
    pub kind: PathKind,
    /// Where datagrams are sent: the member's address, or the lighthouse's; none: into the TLS
    /// connection to it, for want of UDP.
    #[serde(default)]
    pub endpoint: Option<SocketAddr>,
    /// The member answered on it.
    pub confirmed: bool,
    /// The last round trip, in microseconds.
    #[serde(default)]
    pub rtt: Option<u64>,
    /// The largest IP packet that was found to come through whole, in bytes.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Full datagrams are larger than that: they are cut on the way.
    #[serde(default)]
    pub fragmented: bool,
    /// Questions without an answer, in percent of the last ones.
    #[serde(default)]
    pub loss: Option<u8>,
}

/// A member as another one knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshPeer {
    /// Its name.
    pub name: String,
    /// Its mesh addresses, as prefixes.
    pub addresses: Vec<IpNet>,
    /// The way to it now; none: none is known.
    #[serde(default)]
    pub path: Option<MeshPath>,
    /// Seconds since the last handshake; none: there is no session.
    #[serde(default)]
    pub handshake_age: Option<u64>,
    /// Bytes of UDP payload received from it.
    pub received: u64,
    /// Bytes of UDP payload sent to it.
    pub sent: u64,
}

/// What one question on the way to a member brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshPing {
    /// The round trip in microseconds; none: no answer in time.
    #[serde(default)]
    pub rtt: Option<u64>,
    /// The way then.
    #[serde(default)]
    pub path: Option<MeshPath>,
}

/// One stored log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Unix microseconds by the node's clock.
    pub at: u64,
    /// Who wrote it: `agent`, `init`, `k3s`, a service, `kernel`.
    pub unit: String,
    /// syslog severity, 0 (emergency) to 7 (debug), RFC 5424.
    pub priority: u8,
    /// The text.
    pub message: String,
}
