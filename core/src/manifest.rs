//! The update bundle: magic, length, signed manifest, then two payloads (format 1).
//!
//! ```text
//! 0   8  "HFBUNDL1"
//! 8   4  length L of the manifest, little endian, at most 256 KiB
//! 12  L  JSON: Signed<Manifest>, by a release key
//! D      data area, D = 12 + L rounded up to 4096; payload offsets count from here
//! ```

use crate::cluster::ClusterId;
use crate::image::K3sInfo;
use crate::keys::Digest;
use crate::signed::{Signable, Signed};
use serde::{Deserialize, Serialize};

/// First eight bytes of a bundle.
pub const MAGIC: [u8; 8] = *b"HFBUNDL1";
/// Bytes before the manifest.
pub const PREFIX_LEN: u64 = 12;
/// Longest manifest, in bytes.
pub const MAX_MANIFEST: u32 = 256 * 1024;

/// How a payload is stored in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As it goes to the partition.
    Raw,
    /// One zstd frame (RFC 8878).
    Zstd,
}

/// One payload of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// From the start of the data area, in bytes; a multiple of 4096.
    pub offset: u64,
    /// Stored length in bytes.
    pub len: u64,
    /// SHA-256 of the stored bytes.
    pub digest: Digest,
    /// How it is stored.
    pub encoding: Encoding,
    /// Length on the partition.
    pub decoded_len: u64,
    /// SHA-256 of the bytes on the partition.
    pub decoded_digest: Digest,
}

/// What a bundle brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The cluster whose release key signed it.
    pub cluster: ClusterId,
    /// The board it is for.
    pub board: String,
    /// Grows from release to release; an older one is refused.
    pub generation: u64,
    /// For people.
    pub version: String,
    /// The recipe's name.
    pub recipe: String,
    /// Unix seconds.
    pub built: u64,
    /// The slot header as it goes to `hf-boot-X` (base64 of 4096 bytes; [`crate::header`]).
    pub header: String,
    /// The UKI, for `hf-boot-X` after its header.
    pub boot: Payload,
    /// The root file system and its verity tree, for `hf-root-X`.
    pub root: Payload,
    /// The k3s it holds, if any.
    #[serde(default)]
    pub k3s: Option<K3sInfo>,
}

impl Signable for Manifest {
    const KIND: &'static str = "bundle/1";
}

/// Why the front of a bundle was refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Fewer bytes than the prefix announces.
    #[error("the bundle is truncated: {have} bytes, {want} needed")]
    Truncated {
        /// What is there.
        have: u64,
        /// What is needed.
        want: u64,
    },
    /// Not a bundle.
    #[error("not a Holdfast bundle: it begins with {:?}", .0.escape_ascii().to_string())]
    Magic([u8; 8]),
    /// A length that no builder writes.
    #[error("the manifest's length {0} is over the limit")]
    TooLong(u32),
    /// The manifest is no JSON of its kind.
    #[error("the manifest does not parse: {0}")]
    Content(String),
}

/// Reads the prefix: the manifest's length.
///
/// # Errors
/// [`BundleError`].
pub fn manifest_len(prefix: &[u8]) -> Result<u32, BundleError> {
    let Some((magic, rest)) = prefix.split_first_chunk::<8>() else {
        return Err(BundleError::Truncated {
            have: prefix.len() as u64,
            want: PREFIX_LEN,
        });
    };
    if *magic != MAGIC {
        return Err(BundleError::Magic(*magic));
    }
    let Some(len) = rest.first_chunk::<4>().map(|b| u32::from_le_bytes(*b)) else {
        return Err(BundleError::Truncated {
            have: prefix.len() as u64,
            want: PREFIX_LEN,
        });
    };
    if len > MAX_MANIFEST {
        return Err(BundleError::TooLong(len));
    }
    Ok(len)
}

/// Where the data area begins, for a manifest of `len` bytes.
#[must_use]
pub fn data_start(len: u32) -> u64 {
    (PREFIX_LEN + u64::from(len)).next_multiple_of(4096)
}

/// Reads the signed manifest from the bundle's first bytes.
///
/// # Errors
/// [`BundleError`].
pub fn read(front: &[u8]) -> Result<(Signed<Manifest>, u64), BundleError> {
    let len = manifest_len(front)?;
    let end = PREFIX_LEN as usize + len as usize;
    let bytes = front
        .get(PREFIX_LEN as usize..end)
        .ok_or(BundleError::Truncated {
            have: front.len() as u64,
            want: end as u64,
        })?;
    let signed = serde_json::from_slice(bytes).map_err(|e| BundleError::Content(e.to_string()))?;
    Ok((signed, data_start(len)))
}

/// Writes prefix and manifest, padded to the start of the data area.
///
/// # Errors
/// [`BundleError`] when the manifest is too long.
pub fn write(signed: &Signed<Manifest>) -> Result<Vec<u8>, BundleError> {
    let json = serde_json::to_vec(signed).map_err(|e| BundleError::Content(e.to_string()))?;
    let len = u32::try_from(json.len()).unwrap_or(u32::MAX);
    if len > MAX_MANIFEST {
        return Err(BundleError::TooLong(len));
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&json);
    out.resize(data_start(len) as usize, 0);
    Ok(out)
}
