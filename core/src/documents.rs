//! The small documents that roots sign; their generation never goes back (decision 7).
//! The list of release keys has a binary form of its own ([`crate::releases`]), because the
//! loader reads it.

use crate::cluster::{ClusterId, MeshIndex};
use crate::keys::{MeshKey, PublicKey};
use crate::names::{GrantId, GroupName, OperatorName};
use crate::signed::{OpenError, Signable, Signed};
use serde::{Deserialize, Serialize};

/// The public halves of the cluster's root keys: one in use, one in a safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots(pub Vec<PublicKey>);

impl Roots {
    /// Whether `key` is one of them.
    #[must_use]
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.0.contains(key)
    }
}

/// What an operator may ask of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Read status, logs, history.
    Look,
    /// Reboot, restart the agent.
    Reboot,
    /// Upgrade and roll back.
    Upgrade,
    /// Everything: also admit nodes, reach the Kubernetes API, reset.
    All,
}

impl Right {
    /// Whether having `self` includes `wanted`.
    #[must_use]
    pub fn covers(self, wanted: Right) -> bool {
        self == Right::All || self == wanted || wanted == Right::Look
    }
}

/// One operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// As logs and history show it.
    pub name: OperatorName,
    /// The operator's Ed25519 key.
    pub key: PublicKey,
    /// What it may ask.
    pub rights: Vec<Right>,
}

/// A removed operator whose grants stay good, so that removing a person strands no node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerOperator {
    /// The removed key.
    pub key: PublicKey,
    /// The grants signed by it that still count.
    pub grants: Vec<GrantId>,
}

/// Who may ask what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operators {
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// Never goes back ([`next_generation`]).
    pub generation: u64,
    /// Today's operators.
    pub operators: Vec<Operator>,
    /// Removed ones whose grants stay good.
    #[serde(default)]
    pub former: Vec<FormerOperator>,
}

impl Operators {
    /// The operator with `key`.
    #[must_use]
    pub fn by_key(&self, key: &PublicKey) -> Option<&Operator> {
        self.operators.iter().find(|o| o.key == *key)
    }

    /// Whether the operator with `key` has `right`.
    #[must_use]
    pub fn allows(&self, key: &PublicKey, right: Right) -> bool {
        self.by_key(key)
            .is_some_and(|o| o.rights.iter().any(|r| r.covers(right)))
    }

    /// Whether a grant `id` signed by `key` counts.
    #[must_use]
    pub fn honours(&self, key: &PublicKey, id: &GrantId) -> bool {
        self.allows(key, Right::All)
            || self
                .former
                .iter()
                .any(|f| f.key == *key && f.grants.contains(id))
    }
}

/// One lighthouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lighthouse {
    /// A name for people.
    pub name: String,
    /// `host:port` of its HTTPS API, tried in order.
    pub https: Vec<String>,
    /// `host:port` of its mesh socket (UDP), tried in order.
    pub udp: Vec<String>,
    /// The Ed25519 key that its TLS certificate carries.
    pub key: PublicKey,
    /// Its WireGuard key.
    pub mesh_key: MeshKey,
    /// Its place in the mesh.
    pub index: MeshIndex,
}

/// With so many lighthouses, the first of the document, a member keeps in touch: each costs it a
/// session, two connections and a list of its members.
pub const MOST_LIGHTHOUSES: usize = 4;

/// Where the lighthouses are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lighthouses {
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// Never goes back.
    pub generation: u64,
    /// Tried in order.
    pub lighthouses: Vec<Lighthouse>,
}

/// One rule: members of `from` may reach members of `to`. A rule that says more than this version
/// knows allows nothing here: what was meant to narrow it must not be overlooked, and a policy that
/// does not parse would keep evictions out too. Versions before protocols and ports take a rule
/// with them for one without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Source group.
    pub from: GroupName,
    /// Destination group.
    pub to: GroupName,
    /// None: every protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Destination ports, of TCP and UDP; none: every port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Ports>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Rule {
    /// Members of `from` may reach members of `to` with everything.
    #[must_use]
    pub fn new(from: GroupName, to: GroupName) -> Self {
        Self {
            from,
            to,
            protocol: None,
            ports: vec![],
            other: serde_json::Map::new(),
        }
    }
}

/// Of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// What a later version wrote.
    #[serde(untagged)]
    Unknown(serde_json::Value),
}

/// Of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ports {
    /// `80`, `8000-8080`.
    Known(PortRange),
    /// What a later version wrote.
    Unknown(serde_json::Value),
}

/// Ports from one to another, both included; as text `80` or `8000-8080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port; 0 too, which no rule names.
    pub(crate) const fn all() -> Self {
        Self {
            first: 0,
            last: u16::MAX,
        }
    }

    /// The one port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl std::str::FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!(
                "{text:?} is no port from 1 to 65535, nor a range like 8000-8080"
            )),
        }
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

/// A grant whose further uses are refused, but for those who used it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedGrant {
    /// Which grant.
    pub id: GrantId,
    /// Signing keys that had joined with it and stay.
    #[serde(default)]
    pub except: Vec<PublicKey>,
}

/// Who may reach whom, and who is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// Never goes back.
    pub generation: u64,
    /// Empty: every member may reach every other.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Signing keys of evicted nodes.
    #[serde(default)]
    pub evicted: Vec<PublicKey>,
    /// Revoked grants.
    #[serde(default)]
    pub revoked: Vec<RevokedGrant>,
}

impl Signable for Operators {
    const KIND: &'static str = "operators/1";
}
impl Signable for Lighthouses {
    const KIND: &'static str = "lighthouses/1";
}
impl Signable for Policy {
    const KIND: &'static str = "policy/1";
}

/// Why a document was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not signed by a root, or damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Made for another cluster.
    #[error("the document is for cluster {found}, this is {wanted}")]
    OtherCluster {
        /// What it names.
        found: ClusterId,
        /// What this is.
        wanted: ClusterId,
    },
    /// Older than what is held.
    #[error("generation {found} is older than {held}, which is held")]
    Older {
        /// What came.
        found: u64,
        /// What is held.
        held: u64,
    },
}

/// What the documents have in common.
pub trait Document: Signable {
    /// The cluster it is for.
    fn cluster(&self) -> ClusterId;
    /// Never goes back.
    fn generation(&self) -> u64;
}

/// The generation of a document that is signed at `now` (Unix seconds) in the place of one of
/// generation `held`: later than anything signed before, also than what an older backup, from which
/// it is signed, does not know of.
#[must_use]
pub fn next_generation(held: u64, now: u64) -> u64 {
    held.saturating_add(1).max(now)
}

macro_rules! document {
    ($($t:ty),*) => {$(
        impl Document for $t {
            fn cluster(&self) -> ClusterId { self.cluster }
            fn generation(&self) -> u64 { self.generation }
        }
    )*};
}
document!(Operators, Lighthouses, Policy);

/// Opens `signed` against `roots`, for `cluster`, refusing anything older than `held`.
///
/// # Errors
/// [`DocumentError`].
pub fn accept<T: Document>(
    signed: &Signed<T>,
    roots: &Roots,
    cluster: ClusterId,
    held: Option<u64>,
) -> Result<T, DocumentError> {
    let doc = signed.open(|k| roots.contains(k))?;
    if doc.cluster() != cluster {
        return Err(DocumentError::OtherCluster {
            found: doc.cluster(),
            wanted: cluster,
        });
    }
    match held {
        Some(held) if doc.generation() < held => Err(DocumentError::Older {
            found: doc.generation(),
            held,
        }),
        _ => Ok(doc),
    }
}

/// All documents as they travel to a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentSet {
    /// Who may ask what.
    pub operators: Signed<Operators>,
    /// Where the lighthouses are.
    pub lighthouses: Signed<Lighthouses>,
    /// Who may reach whom.
    pub policy: Signed<Policy>,
    /// Base64 of the release list ([`crate::releases`]).
    pub releases: String,
}
