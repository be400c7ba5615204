//! The release list: which keys may sign slot headers. One block, signed by the cluster's roots,
//! in two copies in `hf-slots`, so that changing a release key never touches the loader.
//!
//! Version 1. Little endian; bytes not named are zero when written and ignored when read.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `HFRELEAS` |
//! | 8 | 2, 2 | major version (1), minor version (0) |
//! | 12 | 1 | number of release keys, 1 to 8 |
//! | 13 | 1 | number of signatures, 0 to 2 (not signed) |
//! | 16 | 16 | cluster id |
//! | 32 | 8 | generation: never goes back |
//! | 64 | 8 × 32 | release keys (Ed25519) |
//! | 512 | 2 × (32 + 64) | root key, its signature over `holdfast release list 1\n` and bytes 0 to 511 with byte 13 as zero |
//! | 4092 | 4 | CRC-32 of bytes 0 to 4091 |
//!
//! Of two copies that verify the one with the higher generation counts.

use crate::bytes::{BLOCK, Block, as_block, get, put, seal, sealed, u16_at, u64_at};
use crate::loader_keys::LoaderKeys;
use ed25519_dalek::{Signature, VerifyingKey};

const MAGIC: &[u8; 8] = b"HFRELEAS";
const MAJOR: u16 = 1;
const CONTEXT: &[u8] = b"holdfast release list 1\n";
const SIGNED: usize = 512;
const SIGNATURE_COUNT_AT: usize = 13;
/// The most release keys a list holds.
pub const KEYS_MAX: usize = 8;
/// The most root signatures a list holds.
pub const SIGNATURES_MAX: usize = 2;

/// Why a release list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not one block of 4096 bytes with the list's mark.
    #[error("no release list here")]
    Absent,
    /// The CRC does not fit.
    #[error("release list damaged: its CRC does not fit")]
    Damaged,
    /// Written by a newer major version.
    #[error("release list of version {0}; this loader reads version 1")]
    Version(u16),
    /// Too many or no keys.
    #[error("release list with {0} keys; 1 to 8 are allowed")]
    Keys(usize),
    /// Made for another cluster.
    #[error("release list of another cluster")]
    Cluster,
    /// No known root signed it.
    #[error(
        "release list of generation {generation}: none of its {signatures} signatures is by a root this loader knows"
    )]
    NoRoot {
        /// Its generation.
        generation: u64,
        /// How many signatures it carries.
        signatures: u8,
    },
    /// There is no room for another signature.
    #[error("release list already carries two signatures")]
    Full,
}

/// The keys that may sign slot headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleaseList {
    /// The cluster it is for.
    pub cluster: [u8; 16],
    /// Counts changes; a node never goes back.
    pub generation: u64,
    count: usize,
    keys: [[u8; 32]; KEYS_MAX],
}

impl ReleaseList {
    /// A list of `keys`.
    ///
    /// # Errors
    /// [`ReleaseError::Keys`] unless there are 1 to 8.
    pub fn new(
        cluster: [u8; 16],
        generation: u64,
        keys: &[[u8; 32]],
    ) -> Result<Self, ReleaseError> {
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(ReleaseError::Keys(keys.len()));
        }
        let mut all = [[0; 32]; KEYS_MAX];
        all[..keys.len()].copy_from_slice(keys);
        Ok(Self {
            cluster,
            generation,
            count: keys.len(),
            keys: all,
        })
    }

    /// The release keys.
    #[must_use]
    pub fn keys(&self) -> &[[u8; 32]] {
        self.keys.get(..self.count).unwrap_or_default()
    }

    /// The list of the keys that are in both, as the one of the higher generation; none without a key
    /// in common. What is to start has to pass the list that the loader reads and the newest one.
    #[must_use]
    pub fn common(&self, other: &Self) -> Option<Self> {
        let (newer, older) = match self.generation >= other.generation {
            true => (self, other),
            false => (other, self),
        };
        let mut keys = [[0; 32]; KEYS_MAX];
        let both = newer.keys().iter().filter(|k| older.keys().contains(k));
        let count = keys
            .iter_mut()
            .zip(both)
            .map(|(to, key)| *to = *key)
            .count();
        Self::new(newer.cluster, newer.generation, keys.get(..count)?).ok()
    }

    /// Encodes the block, still without signatures; see [`add_signature`].
    #[must_use]
    pub fn encode(&self) -> Block {
        let mut b = [0; BLOCK];
        put(&mut b, 0, MAGIC);
        put(&mut b, 8, &MAJOR.to_le_bytes());
        b[12] = self.count as u8;
        put(&mut b, 16, &self.cluster);
        put(&mut b, 32, &self.generation.to_le_bytes());
        for (i, key) in self.keys().iter().enumerate() {
            put(&mut b, 64 + 32 * i, key);
        }
        seal(&mut b);
        b
    }

    /// Reads a block without asking who signed it.
    ///
    /// # Errors
    /// [`ReleaseError`] except for its cluster and signature cases.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let b = as_block(bytes)
            .filter(|b| &b[..8] == MAGIC)
            .ok_or(ReleaseError::Absent)?;
        if !sealed(b) {
            return Err(ReleaseError::Damaged);
        }
        let major = u16_at(b, 8);
        if major != MAJOR {
            return Err(ReleaseError::Version(major));
        }
        let count = usize::from(b[12]);
        if count == 0 || count > KEYS_MAX {
            return Err(ReleaseError::Keys(count));
        }
        let mut keys = [[0; 32]; KEYS_MAX];
        for (i, key) in keys.iter_mut().enumerate().take(count) {
            *key = get(b, 64 + 32 * i);
        }
        Ok(Self {
            cluster: get(b, 16),
            generation: u64_at(b, 32),
            count,
            keys,
        })
    }

    /// Reads a block and checks that one of `trusted`'s roots signed it for this cluster.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn verify(bytes: &[u8], trusted: &LoaderKeys) -> Result<Self, ReleaseError> {
        let list = Self::parse(bytes)?;
        let b = as_block(bytes).ok_or(ReleaseError::Absent)?;
        if list.cluster != trusted.cluster {
            return Err(ReleaseError::Cluster);
        }
        let message = signed_bytes(b);
        let signatures = b[SIGNATURE_COUNT_AT];
        let good = (0..SIGNATURES_MAX.min(signatures.into())).any(|i| {
            let at = SIGNED + 96 * i;
            let root: [u8; 32] = get(b, at);
            trusted.roots().contains(&root)
                && VerifyingKey::from_bytes(&root).is_ok_and(|k| {
                    k.verify_strict(&message, &Signature::from_bytes(&get(b, at + 32)))
                        .is_ok()
                })
        });
        if good {
            Ok(list)
        } else {
            Err(ReleaseError::NoRoot {
                generation: list.generation,
                signatures,
            })
        }
    }

    /// Of the two copies as read, the list that counts; else why the first one is refused.
    ///
    /// # Errors
    /// The first copy's [`ReleaseError`] when neither verifies.
    pub fn newest(copies: [&[u8]; 2], trusted: &LoaderKeys) -> Result<Self, ReleaseError> {
        match copies.map(|c| Self::verify(c, trusted)) {
            [Ok(a), Ok(b)] => Ok(if b.generation > a.generation { b } else { a }),
            [Ok(list), Err(_)] | [Err(_), Ok(list)] => Ok(list),
            [Err(e), Err(_)] => Err(e),
        }
    }

    /// Which copy a new list replaces: one that does not verify, else the older.
    #[must_use]
    pub fn copy_to_replace(copies: [&[u8]; 2], trusted: &LoaderKeys) -> usize {
        match copies.map(|c| Self::verify(c, trusted)) {
            [Err(_), _] => 0,
            [_, Err(_)] => 1,
            [Ok(a), Ok(b)] => usize::from(b.generation < a.generation),
        }
    }
}

/// Adds the signature of `root`; `sign` signs the bytes it is given with it.
///
/// # Errors
/// [`ReleaseError`] when the block holds no list or already two signatures.
pub fn add_signature(
    b: &mut Block,
    root: &[u8; 32],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<(), ReleaseError> {
    ReleaseList::parse(b)?;
    let n = usize::from(b[SIGNATURE_COUNT_AT]);
    if n >= SIGNATURES_MAX {
        return Err(ReleaseError::Full);
    }
    let signature = sign(&signed_bytes(b));
    put(b, SIGNED + 96 * n, root);
    put(b, SIGNED + 96 * n + 32, &signature);
    b[SIGNATURE_COUNT_AT] = (n + 1) as u8;
    seal(b);
    Ok(())
}

fn signed_bytes(b: &Block) -> [u8; CONTEXT.len() + SIGNED] {
    let mut out = [0; CONTEXT.len() + SIGNED];
    out[..CONTEXT.len()].copy_from_slice(CONTEXT);
    out[CONTEXT.len()..].copy_from_slice(&b[..SIGNED]);
    out[CONTEXT.len() + SIGNATURE_COUNT_AT] = 0;
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    fn root(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn signed(generation: u64, roots: &[u8]) -> Block {
        let mut b = ReleaseList::new([7; 16], generation, &[[1; 32], [2; 32]])
            .unwrap()
            .encode();
        for r in roots {
            let key = root(*r);
            add_signature(&mut b, key.verifying_key().as_bytes(), |m| {
                key.sign(m).to_bytes()
            })
            .unwrap();
        }
        b
    }

    fn trusted(roots: &[u8], cluster: [u8; 16]) -> LoaderKeys {
        let keys: Vec<_> = roots
            .iter()
            .map(|r| root(*r).verifying_key().to_bytes())
            .collect();
        LoaderKeys::new(cluster, &keys).unwrap()
    }

    #[test]
    fn either_root_is_enough() {
        for signers in [&[1][..], &[2], &[1, 2], &[9, 2]] {
            let list =
                ReleaseList::verify(&signed(4, signers), &trusted(&[1, 2], [7; 16])).unwrap();
            assert_eq!((list.generation, list.keys()), (4, &[[1; 32], [2; 32]][..]));
        }
    }

    #[test]
    fn strangers_other_clusters_and_rot_are_refused() {
        let mine = trusted(&[1, 2], [7; 16]);
        assert_eq!(
            ReleaseList::verify(&signed(4, &[3]), &mine),
            Err(ReleaseError::NoRoot {
                generation: 4,
                signatures: 1
            })
        );
        assert_eq!(
            ReleaseList::verify(&signed(4, &[1]), &trusted(&[1], [8; 16])),
            Err(ReleaseError::Cluster)
        );
        let mut rotten = signed(4, &[1]);
        rotten[70] ^= 1;
        assert_eq!(
            ReleaseList::verify(&rotten, &mine),
            Err(ReleaseError::Damaged)
        );
        seal(&mut rotten);
        assert!(matches!(
            ReleaseList::verify(&rotten, &mine),
            Err(ReleaseError::NoRoot { .. })
        ));
        assert_eq!(ReleaseList::verify(&[], &mine), Err(ReleaseError::Absent));
        let mut full = signed(4, &[1, 2]);
        assert_eq!(
            add_signature(&mut full, &[0; 32], |_| [0; 64]),
            Err(ReleaseError::Full)
        );
    }

    #[test]
    fn the_newer_copy_counts_and_the_older_is_replaced() {
        let mine = trusted(&[1], [7; 16]);
        let (old, new, bad) = (signed(4, &[1]), signed(5, &[1]), signed(6, &[3]));
        assert_eq!(
            ReleaseList::newest([&old, &new], &mine).unwrap().generation,
            5
        );
        assert_eq!(ReleaseList::copy_to_replace([&new, &old], &mine), 1);
        assert_eq!(ReleaseList::copy_to_replace([&old, &new], &mine), 0);
        assert_eq!(
            ReleaseList::newest([&bad, &old], &mine).unwrap().generation,
            4
        );
        assert_eq!(ReleaseList::copy_to_replace([&old, &bad], &mine), 1);
    }
}
