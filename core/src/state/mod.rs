//! `hf-state`: the node's own small state, two copies 16 MiB apart (format 1).
//!
//! ```text
//! 0    8  "HFSTATE1"
//! 8    4  format version, little endian: 1
//! 12   4  length of the payload, at most 15 MiB
//! 16   8  sequence number; the higher valid copy counts, the other is written next
//! 24  32  SHA-256 of the payload
//! 56   4  CRC-32 (IEEE) of bytes 0..56
//! 4096    payload: JSON, a [`StateDoc`]
//! ```
//! Readers keep fields they do not know and write them back (decision 6). A field that they know but
//! cannot read, because a later version wrote it, costs no more than that field ([`decode`]).

mod kept;
mod salvage;

use crate::cluster::{ClusterId, MeshIndex};
use crate::documents::DocumentSet;
use crate::grant::Member;
use crate::keys::{Digest, MeshKey, PrivateKey, PublicKey};
use crate::names::{ClusterName, NodeName, Role};
use crate::status::HistoryEntry;
pub use kept::{K3s, KnownNetwork, Lighthouse, Network, Wifi};
pub use salvage::{UNREAD, unread};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// First eight bytes of a copy.
pub const MAGIC: [u8; 8] = *b"HFSTATE1";
/// Format version.
pub const VERSION: u32 = 1;
/// Distance of the two copies, in bytes.
pub const COPY_OFFSET: u64 = 16 * 1024 * 1024;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 4096;
/// Longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 15 * 1024 * 1024;

pub(crate) type Extra = serde_json::Map<String, serde_json::Value>;

/// Everything that a node must remember besides `/var`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StateDoc {
    /// `/var` was formatted; never again but by a reset.
    pub var_formatted: bool,
    /// 32 hex digits, made once.
    pub machine_id: Option<String>,
    /// Keys made on the node, before it first joins.
    pub identity: Option<Identity>,
    /// What the node is, once it has joined.
    pub admission: Option<Admission>,
    /// What the roots signed.
    pub documents: Option<DocumentSet>,
    /// Generations of operators, lighthouses and policy that were held once: none goes back behind
    /// them, not even where [`documents`](Self::documents) cannot be read any more.
    pub document_floors: [u64; 3],
    /// Known members, with the last endpoint of each that a lighthouse told.
    pub members: Vec<CachedMember>,
    /// Where peers last answered this node itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub good_endpoints: BTreeMap<MeshKey, SocketAddr>,
    /// Unix seconds; the clock never starts below it.
    pub clock_floor: u64,
    /// UDP port of the mesh socket.
    pub mesh_port: Option<u16>,
    /// The node's status counter and the slot history, newest last, bounded.
    pub history: Vec<HistoryEntry>,
    /// The loader's id of the boot that the history knows last.
    pub last_boot: Option<String>,
    /// Counter of the last signed status.
    pub status_counter: u64,
    /// k3s was Ready under the last committed system.
    pub k3s_was_ready: bool,
    /// Grants used by this node, so that a seed is not used twice.
    pub spent_grants: Vec<String>,
    /// Reboots that the node made by itself, for nobody reached it; none: all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Escalation>,
    /// Disks that this one installed its system on, as an installer; the newest last, bounded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub installed: Vec<Installed>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

/// Reboots that did not help so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Escalation {
    /// For want of a lighthouse or a member that answers.
    pub alone: u32,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

/// A disk that an installer worked on: written before the first byte of that disk, so that a later
/// start knows half-done work for its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The GUID of the table that the disk gets, made for it, in the usual text form.
    pub disk: String,
    /// For people: name, model, serial number and size.
    pub name: String,
    /// Its table is written and everything before it was read back.
    pub done: bool,
    /// The installer is spent with it: seed scrubbed, slots emptied.
    pub retire: bool,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

/// The node's keys; they never leave it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// Signs records and status; key of its TLS certificates.
    pub signing: PrivateKey,
    /// WireGuard private key (X25519, base64 as `wg` writes it).
    pub mesh: PrivateKey,
    /// The machine that the keys were made on, as its firmware names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

/// What the join settled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admission {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Its id.
    pub cluster_id: ClusterId,
    /// Pods and services in both families.
    pub dual_stack: bool,
    /// Root keys, as the seed pinned them.
    pub roots: Vec<PublicKey>,
    /// The node's name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Its place in the mesh.
    pub index: MeshIndex,
    /// Its own record and grant.
    pub member: Member,
    /// Lighthouses as the seed named them; the document's come first.
    pub lighthouses: Vec<Lighthouse>,
    /// Network settings from the seed.
    pub network: Network,
    /// Wi-Fi from the seed, passphrases included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi: Option<Wifi>,
    /// k3s settings from the seed.
    pub k3s: K3s,
    /// The seed volume was formatted anew after the join.
    pub seed_scrubbed: bool,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

/// A peer on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CachedMember {
    /// To be verified at every use.
    pub member: Member,
    /// Where it last answered.
    #[serde(default)]
    pub endpoint: Option<SocketAddr>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

/// Why a copy does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Never written (or not ours).
    #[error("no state: it begins with {0:02x?}")]
    Magic([u8; 8]),
    /// A later format.
    #[error("state format {0} is newer than {VERSION}")]
    Version(u32),
    /// Shorter than announced.
    #[error("the state is truncated: {have} of {want} bytes")]
    Truncated {
        /// What is there.
        have: usize,
        /// What is announced.
        want: usize,
    },
    /// Damaged.
    #[error("the state is damaged: {0}")]
    Damaged(&'static str),
    /// Sound bytes of which this version cannot read what a node is nothing without: a later one
    /// wrote them, and reads them.
    #[error("the state does not parse: {0}")]
    Content(String),
    /// Too much to store.
    #[error("the state has {0} bytes, more than a copy holds")]
    TooLong(usize),
}

/// Writes one copy.
///
/// # Errors
/// [`StateError::TooLong`], [`StateError::Content`].
pub fn encode(doc: &StateDoc, seq: u64) -> Result<Vec<u8>, StateError> {
    let payload = serde_json::to_vec(doc).map_err(|e| StateError::Content(e.to_string()))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(StateError::TooLong(payload.len()));
    }
    let mut out = vec![0; HEADER_LEN];
    out[0..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    out[16..24].copy_from_slice(&seq.to_le_bytes());
    out[24..56].copy_from_slice(&Digest::of(&payload).0);
    let crc = crc32fast::hash(&out[..56]);
    out[56..60].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&payload);
    out.resize(out.len().next_multiple_of(4096), 0);
    Ok(out)
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4)
        .and_then(|s| s.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// Length of the payload that a copy's header announces, and its sequence number.
///
/// # Errors
/// [`StateError`] when the header does not count.
pub fn peek(header: &[u8]) -> Result<(usize, u64), StateError> {
    if header.len() < 60 {
        return Err(StateError::Truncated {
            have: header.len(),
            want: 60,
        });
    }
    let mut magic = [0; 8];
    magic.copy_from_slice(&header[..8]);
    if magic != MAGIC {
        return Err(StateError::Magic(magic));
    }
    if crc32fast::hash(&header[..56]) != u32_at(header, 56) {
        return Err(StateError::Damaged("header checksum"));
    }
    let version = u32_at(header, 8);
    if version != VERSION {
        return Err(StateError::Version(version));
    }
    let len = u32_at(header, 12) as usize;
    if len > MAX_PAYLOAD {
        return Err(StateError::Damaged("length"));
    }
    let mut seq = [0; 8];
    seq.copy_from_slice(&header[16..24]);
    Ok((len, u64::from_le_bytes(seq)))
}

/// Reads one copy. What this version cannot read of it is left out, and kept aside under [`UNREAD`],
/// unless it is what a node is nothing without.
///
/// # Errors
/// [`StateError`] when it does not count.
pub fn decode(copy: &[u8]) -> Result<(StateDoc, u64), StateError> {
    let (len, seq) = peek(copy)?;
    let want = HEADER_LEN + len;
    let payload = copy.get(HEADER_LEN..want).ok_or(StateError::Truncated {
        have: copy.len(),
        want,
    })?;
    if Digest::of(payload).0 != copy[24..56] {
        return Err(StateError::Damaged("payload digest"));
    }
    let doc = match serde_json::from_slice(payload) {
        Ok(doc) => salvage::give_back(doc),
        Err(e) => salvage::salvage(payload).ok_or(StateError::Content(e.to_string()))?,
    };
    Ok((doc, seq))
}

/// Which copy counts, and which is written next (0 or 1).
#[must_use]
pub fn choose(
    first: Result<(StateDoc, u64), StateError>,
    second: Result<(StateDoc, u64), StateError>,
) -> (Option<(StateDoc, u64)>, usize) {
    match (first, second) {
        (Ok(a), Ok(b)) if b.1 > a.1 => (Some(b), 0),
        (Ok(a), _) => (Some(a), 1),
        (Err(_), Ok(b)) => (Some(b), 0),
        (Err(_), Err(_)) => (None, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn doc(floor: u64) -> StateDoc {
        StateDoc {
            clock_floor: floor,
            ..StateDoc::default()
        }
    }

    #[test]
    fn keeps_what_a_later_version_wrote() {
        let doc: StateDoc = serde_json::from_str(r#"{"clock_floor":3,"colour":"blue"}"#).unwrap();
        let (back, seq) = decode(&encode(&doc, 7).unwrap()).unwrap();
        assert_eq!((back.clock_floor, seq), (3, 7));
        assert_eq!(back.other["colour"], "blue");
    }

    #[test]
    fn the_older_copy_is_written_next() {
        let copy = |s| decode(&encode(&doc(s), s).unwrap());
        assert_eq!(choose(copy(1), copy(2)).1, 0);
        assert_eq!(choose(copy(2), copy(1)).1, 1);
        let (kept, next) = choose(Err(StateError::Damaged("x")), copy(1));
        assert_eq!((kept.unwrap().0.clock_floor, next), (1, 0));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_passes_for_another_state(at in 0usize..4200, bit in 0u8..8) {
            let good = encode(&doc(5), 9).unwrap();
            let mut bad = good.clone();
            let at = at % bad.len();
            bad[at] ^= 1 << bit;
            if let Ok((d, s)) = decode(&bad) {
                prop_assert_eq!((d.clock_floor, s), (5, 9));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = decode(&bytes);
        }
    }
}
