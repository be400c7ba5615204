//! The lighthouse's HTTPS API, version 1 (axum on one side, reqwest or hyper on the other).
//!
//! TLS: the server's certificate carries the lighthouse's pinned Ed25519 key; a client that needs
//! to be someone presents a certificate with its own (node: its signing key; operator: its key).
//! Bodies are JSON. Errors are [`ApiError`] with a fitting status.
//!
//! | call | who | what |
//! |---|---|---|
//! | `GET /v1/health` | anyone | `{"ok":true}` |
//! | `PUT /v1/documents` | operator | [`DocumentSet`]; generations never go back |
//! | `GET /v1/documents` | anyone with a key | [`DocumentSet`] |
//! | `PUT /v1/grants/ID` | operator | [`GrantUpload`] |
//! | `GET /v1/grants` | operator | [`Vec<GrantStatus>`] |
//! | `POST /v1/offer` | token holder | [`OfferRequest`] -> [`Offer`]: the grant and a free index |
//! | `POST /v1/join` | node key | [`JoinRequest`] -> [`JoinReply`]; with `?members=few` without the members where they are many |
//! | `POST /v1/relay` | node | [`RelayRequest`] -> [`RelayReply`]: a channel to another member |
//! | `GET /v1/mesh` + `Upgrade: holdfast-relay/1` | node | its datagrams, where UDP is blocked; see below |
//! | `GET /v1/members?after=REVISION&wait=SECONDS&delta=true` | node or operator | [`MemberList`]; long poll. Without `delta=true`, and of a revision too long ago, the whole list |
//! | `POST /v1/refill` | node | [`Refill`] -> [`Refilled`]: what a restored lighthouse lacks of others; one from before does not know the call (`not-found`) |
//! | `PUT /v1/status` | node | `Signed<NodeStatus>` |
//! | `GET /v1/nodes` | operator | [`Vec<NodeEntry>`] |
//! | `PUT /v1/blobs/SHA256` | operator | body: the blob; refused if its digest differs |
//! | `GET`/`HEAD /v1/blobs/SHA256` | node or operator | the blob; `Range` honoured |
//! | `GET /v1/control/NAME` + `Upgrade: holdfast-splice/1` | operator | a raw stream to the node's control port |
//! | `GET /v1/standing` + `Upgrade: holdfast-standing/1` | node | the node waits; see below |
//! | `GET /v1/splice/ID` + `Upgrade: holdfast-splice/1` | node | the node's end of stream ID |
//! | `POST /v1/members/NAME/forget` | operator | drops an evicted node's record |
//!
//! A standing connection carries lines: the lighthouse writes `open ID\n` for each stream that an
//! operator asks for and the mesh cannot carry, and `ping\n` every 20 s; the node answers `pong\n`,
//! and opens `/v1/splice/ID`. Either side gives up after 60 s of silence.
//!
//! A mesh stream carries what would go as UDP between the node and the lighthouse's mesh socket: each
//! datagram's length in 2 bytes, big endian, then the datagram; length 0 keeps the stream alive. Either
//! side gives up after 45 s of silence.

use crate::cluster::MeshIndex;
use crate::documents::DocumentSet;
use crate::grant::{Grant, Member};
use crate::keys::{MeshKey, PublicKey};
use crate::names::{GrantId, NodeName};
use crate::signed::Signed;
use crate::status::NodeStatus;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `Upgrade` token of control streams.
pub const SPLICE: &str = "holdfast-splice/1";
/// `Upgrade` token of a node's standing connection.
pub const STANDING: &str = "holdfast-standing/1";

/// `Upgrade` token of a node's mesh stream.
pub const MESH_STREAM: &str = "holdfast-relay/1";

/// Body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// A word for programs.
    pub kind: ApiErrorKind,
    /// For people.
    pub message: String,
    /// With `older`: the counter or generation that is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
}

/// Why the lighthouse said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApiErrorKind {
    /// The request does not parse.
    Malformed,
    /// No key, or one without the right.
    Denied,
    /// No such grant: it never reached this lighthouse.
    GrantUnknown,
    /// Its `not_after` has passed.
    GrantExpired,
    /// Revoked by the policy.
    GrantRevoked,
    /// All uses belong to other keys.
    GrantUsedUp,
    /// The record does not fit its grant.
    RecordRefused,
    /// Name or index belongs to another key.
    Taken,
    /// Evicted by the policy.
    Evicted,
    /// No such node, blob or stream.
    NotFound,
    /// The node has neither mesh session nor standing connection.
    Unreachable,
    /// An older generation than what is held.
    Older,
    /// Too many requests, or the disk is full.
    Busy,
    /// The lighthouse's own fault.
    Internal,
}

/// An operator hands over a grant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantUpload {
    /// Signed by the operator.
    pub grant: Signed<Grant>,
}

/// A grant as the lighthouse keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrantStatus {
    /// As uploaded.
    pub grant: Signed<Grant>,
    /// The keys that used it, in order.
    pub used_by: Vec<PublicKey>,
    /// Whether the policy revokes it.
    pub revoked: bool,
}

/// A token holder asks what it may become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferRequest {
    /// The seed's grant.
    pub grant: GrantId,
    /// The node's signing key (also of its TLS certificate).
    pub signing_key: PublicKey,
}

/// The grant, a free index in its range (the same one when the key asks again), and what the
/// roots signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The grant.
    pub grant: Signed<Grant>,
    /// The index to put in the record.
    pub index: MeshIndex,
    /// All documents.
    pub documents: DocumentSet,
    /// The lighthouse's clock, Unix seconds.
    pub time: u64,
}

/// A node joins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// Record and grant.
    pub member: Member,
}

/// The node is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinReply {
    /// The other members, itself included.
    pub members: MemberList,
    /// All documents.
    pub documents: DocumentSet,
    /// The lighthouse's clock, Unix seconds.
    pub time: u64,
}

/// A member with what the lighthouse observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// To be verified by whoever reads it.
    pub member: Member,
    /// Its mesh socket as the lighthouse sees it.
    #[serde(default)]
    pub endpoint: Option<SocketAddr>,
}

/// The members at a revision, or what changed since one. A node is told of those whom it may reach
/// or who may reach it; an operator of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberList {
    /// Grows with every change; asked for as `after`.
    pub revision: u64,
    /// This is no whole list, but what changed since this revision. Only for those who ask with
    /// `delta=true`, and never from a lighthouse that does not know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The revision stands for one content for ever: it may be asked about again later, also after
    /// a restart. Of a lighthouse that does not say so only on the same connection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lasting: bool,
    /// The members; in a delta those that are new or changed.
    pub members: Vec<MemberEntry>,
    /// In a delta: signing keys of members that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<PublicKey>,
    /// In a delta: the documents, if they changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<Box<DocumentSet>>,
    /// Generations held: operators, lighthouses, policy, releases. A node fetches the documents
    /// when one is newer than its own.
    pub generations: [u64; 4],
    /// The lighthouse's clock, Unix seconds.
    pub time: u64,
}

/// A member wants to reach another through this lighthouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayRequest {
    /// The other one's WireGuard key.
    pub peer: MeshKey,
}

/// What a member holds and a restored lighthouse lacks. Everything is checked as if whom it
/// concerns had sent it; who hands it on adds nothing to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Refill {
    /// Documents, where one is newer than the lighthouse's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<Box<DocumentSet>>,
    /// Members that it does not list, or with an older record; at most [`REFILL_MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
}

/// Members in one [`Refill`].
pub const REFILL_MOST: usize = 64;

/// What became of a [`Refill`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refilled {
    /// Members that the lighthouse knows now and did not before.
    pub taken: usize,
    /// Why others were not taken, in their order, for people.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// The channel between the two, for as long as this lighthouse runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayReply {
    /// This lighthouse's WireGuard key.
    pub lighthouse: MeshKey,
    /// What stands before each datagram sent to its mesh socket.
    pub channel: u64,
}

/// A node as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Its name, as its record says.
    pub name: NodeName,
    /// Record and grant.
    pub member: Member,
    /// Its last account of itself; signed by the record's signing key.
    #[serde(default)]
    pub status: Option<Signed<NodeStatus>>,
    /// Seconds since that account came.
    #[serde(default)]
    pub status_age: Option<u64>,
    /// Seconds since the last handshake between lighthouse and node.
    #[serde(default)]
    pub handshake_age: Option<u64>,
    /// Whether a standing connection is open.
    pub standing: bool,
    /// Its mesh socket as observed.
    #[serde(default)]
    pub endpoint: Option<SocketAddr>,
}

/// What a lighthouse prints about itself for `holdfast` to put into the documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LighthouseIdentity {
    /// TLS key.
    pub key: PublicKey,
    /// WireGuard key.
    pub mesh_key: MeshKey,
}
