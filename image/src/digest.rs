//! SHA-256 of files and of a stage's inputs.

use std::{fs::File, io::Read, path::Path};

pub use holdfast_core::keys::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::{IoContext, Result};

/// The digest of a file's content.
///
/// # Errors
/// When the file cannot be read.
pub fn of_file(path: &Path) -> Result<Digest> {
    let mut file = File::open(path).at("open", path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).at("read", path)? {
            0 => return Ok(Digest(hash.finalize().into())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Collects what a stage depends on into one digest; lengths keep neighbours apart.
pub(crate) struct Inputs(Sha256);

impl Inputs {
    /// `stage` carries a version: raise it when the code that makes the stage changes.
    pub(crate) fn of(stage: &str) -> Self {
        Self(Sha256::new()).with(stage)
    }

    pub(crate) fn with(mut self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.0.update((value.len() as u64).to_le_bytes());
        self.0.update(value);
        self
    }

    pub(crate) fn key(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}
