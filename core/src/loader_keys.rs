//! What a cluster's loader knows from its own file: the cluster id and the root keys. The builder
//! writes them into the generic loader, so that no Rust is compiled for a cluster.
//!
//! The block stands once in the loader's image. Frozen:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 16 | mark |
//! | 16 | 1 | version (1) |
//! | 17 | 1 | number of root keys, 0 (not written yet) to 4 |
//! | 24 | 16 | cluster id |
//! | 40 | 4 × 32 | root keys (Ed25519) |

/// The block's length in bytes.
pub const LEN: usize = 40 + 32 * ROOTS_MAX;
/// The most root keys a loader knows.
pub const ROOTS_MAX: usize = 4;
const MARK: [u8; 16] = *b"\xf1HFLOADERKEYS\x0d\x0a\x1a";
const VERSION: u8 = 1;

/// The block as the generic loader carries it.
pub const UNWRITTEN: [u8; LEN] = {
    let mut b = [0; LEN];
    let mut i = 0;
    while i < MARK.len() {
        b[i] = MARK[i];
        i += 1;
    }
    b[16] = VERSION;
    b
};

/// Why keys cannot be read from, or written into, a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoaderKeysError {
    /// The image is no Holdfast loader, or an odd one.
    #[error("the key block occurs {0} times in this file; a Holdfast loader has exactly one")]
    Marks(usize),
    /// No keys, or too many.
    #[error("{0} root keys; a loader holds 1 to 4")]
    Roots(usize),
    /// Another version of the block.
    #[error("key block of version {0}; version 1 was expected")]
    Version(u8),
}

/// The cluster and its roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderKeys {
    /// The cluster id.
    pub cluster: [u8; 16],
    count: usize,
    roots: [[u8; 32]; ROOTS_MAX],
}

impl LoaderKeys {
    /// For a cluster with these root keys.
    ///
    /// # Errors
    /// [`LoaderKeysError::Roots`] unless there are 1 to 4.
    pub fn new(cluster: [u8; 16], roots: &[[u8; 32]]) -> Result<Self, LoaderKeysError> {
        if roots.is_empty() || roots.len() > ROOTS_MAX {
            return Err(LoaderKeysError::Roots(roots.len()));
        }
        let mut all = [[0; 32]; ROOTS_MAX];
        all[..roots.len()].copy_from_slice(roots);
        Ok(Self {
            cluster,
            count: roots.len(),
            roots: all,
        })
    }

    /// The root keys.
    #[must_use]
    pub fn roots(&self) -> &[[u8; 32]] {
        self.roots.get(..self.count).unwrap_or_default()
    }

    /// Reads the block. The mark is not compared, so that the loader's file holds it only once.
    ///
    /// # Errors
    /// [`LoaderKeysError::Roots`] with 0 when no builder has written the keys.
    pub fn parse(b: &[u8; LEN]) -> Result<Self, LoaderKeysError> {
        if b[16] != VERSION {
            return Err(LoaderKeysError::Version(b[16]));
        }
        let count = usize::from(b[17]);
        if count == 0 || count > ROOTS_MAX {
            return Err(LoaderKeysError::Roots(count));
        }
        let mut roots = [[0; 32]; ROOTS_MAX];
        for (i, root) in roots.iter_mut().enumerate() {
            *root = crate::bytes::get(b, 40 + 32 * i);
        }
        Ok(Self {
            cluster: crate::bytes::get(b, 24),
            count,
            roots,
        })
    }

    /// Reads the keys out of a loader's file. Not for the loader itself: it would put a second
    /// mark into its file.
    ///
    /// # Errors
    /// [`LoaderKeysError`] when the file is no loader, or no builder has written its keys.
    pub fn of_loader(loader: &[u8]) -> Result<Self, LoaderKeysError> {
        let at = find(loader)?;
        let mut block = [0; LEN];
        block.copy_from_slice(&loader[at..at + LEN]);
        Self::parse(&block)
    }

    /// Writes the keys into a loader's file.
    ///
    /// # Errors
    /// [`LoaderKeysError::Marks`] when the file is no loader; then nothing was written.
    pub fn patch(&self, loader: &mut [u8]) -> Result<(), LoaderKeysError> {
        let at = find(loader)?;
        let block = &mut loader[at..at + LEN];
        if block[16] != VERSION {
            return Err(LoaderKeysError::Version(block[16]));
        }
        block[17] = self.count as u8;
        block[24..40].copy_from_slice(&self.cluster);
        block[40..].copy_from_slice(self.roots.as_flattened());
        Ok(())
    }
}

fn find(loader: &[u8]) -> Result<usize, LoaderKeysError> {
    let mut hits = loader
        .windows(LEN)
        .enumerate()
        .filter(|(_, w)| w.starts_with(&MARK));
    match (hits.next(), hits.count()) {
        (Some((at, _)), 0) => Ok(at),
        (None, _) => Err(LoaderKeysError::Marks(0)),
        (Some(_), more) => Err(LoaderKeysError::Marks(1 + more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patched_keys_are_read_back() {
        let mut loader = vec![0u8; 5000];
        loader[1234..1234 + LEN].copy_from_slice(&UNWRITTEN);
        let keys = LoaderKeys::new([3; 16], &[[1; 32], [2; 32]]).unwrap();
        keys.patch(&mut loader).unwrap();
        let block = loader[1234..1234 + LEN].try_into().unwrap();
        assert_eq!(LoaderKeys::parse(block), Ok(keys));
        assert_eq!(LoaderKeys::of_loader(&loader), Ok(keys));
        assert!(loader[1234 + LEN..].iter().all(|b| *b == 0));
    }

    #[test]
    fn other_files_and_unwritten_loaders_are_refused() {
        let keys = LoaderKeys::new([3; 16], &[[1; 32]]).unwrap();
        assert_eq!(keys.patch(&mut [0; 999]), Err(LoaderKeysError::Marks(0)));
        let mut twice = [UNWRITTEN, UNWRITTEN].concat();
        assert_eq!(keys.patch(&mut twice), Err(LoaderKeysError::Marks(2)));
        assert_eq!(
            LoaderKeys::parse(&UNWRITTEN),
            Err(LoaderKeysError::Roots(0))
        );
        assert_eq!(
            LoaderKeys::of_loader(&UNWRITTEN),
            Err(LoaderKeysError::Roots(0))
        );
        assert_eq!(
            LoaderKeys::new([0; 16], &[]),
            Err(LoaderKeysError::Roots(0))
        );
    }
}
