//! A seed's file, read as a node would read it.

use crate::exit::Exit;
use anyhow::{Context as _, Result};
use holdfast_core::seed::{MAX_LEN, Seed, SeedError};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use zeroize::Zeroizing;

/// A seed that a node would take.
pub struct SeedFile {
    /// As it stands in the file.
    pub text: Zeroizing<String>,
    /// What it says.
    pub seed: Seed,
}

/// The file's bytes, no more of them than one too many for a seed.
///
/// # Errors
/// [`Exit::Usage`] when it is not there; it cannot be read.
pub fn bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let what = || format!("cannot read the seed {}", path.display());
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Exit::Usage.error(format!(
                "there is no seed {}: `holdfast seed new` makes one",
                path.display()
            )));
        }
        file => file.with_context(what)?,
    };
    // Room for all of it: a buffer that grows leaves copies of the token behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN + 64));
    file.take(MAX_LEN as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(what)?;
    Ok(bytes)
}

/// Whether a line of the text gives a token, as every seed's does.
fn has_token(bytes: &[u8]) -> bool {
    let begins = |line: &[u8]| line.trim_ascii_start().starts_with(b"token");
    bytes.split(|b| *b == b'\n').any(begins)
}

/// Reads the seed at `path`.
///
/// # Errors
/// [`Exit::Usage`] when it is not there, or a node would refuse it; it cannot be read.
pub fn read(path: &Path) -> Result<SeedFile> {
    let bytes = bytes(path)?;
    let wrong = |e: SeedError| {
        let is_none = !matches!(e, SeedError::CloudInit(_)) && !has_token(&bytes);
        let hint = match is_none {
            true => " (this is no seed: `holdfast seed new` makes one)",
            false => "",
        };
        Exit::Usage.error(format!("{}: {e}{hint}", path.display()))
    };
    let seed = Seed::from_bytes(&bytes).map_err(wrong)?;
    let text = std::str::from_utf8(&bytes).with_context(|| path.display().to_string())?;
    Ok(SeedFile {
        text: Zeroizing::new(text.to_owned()),
        seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::code_of;

    #[test]
    fn what_is_no_seed_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.toml");
        let error = read(&path).err().unwrap();
        assert_eq!(code_of(&error), 2);
        assert!(error.to_string().contains("holdfast seed new"), "{error}");
        for (text, words) in [
            ("colour = 1\n", "s.toml: line 1"),
            ("colour = 1\n", "no seed: `holdfast seed new`"),
            ("#cloud-config\n", "cloud-init"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).err().unwrap();
            assert_eq!(code_of(&error), 2);
            assert!(error.to_string().contains(words), "{error}");
        }
        std::fs::write(&path, vec![b'#'; MAX_LEN + 9]).unwrap();
        let error = read(&path).err().unwrap().to_string();
        assert!(error.contains("too long"), "{error}");
    }
}
