//! Files that appear whole or not at all.

use crate::exit::Exit;
use anyhow::{Context as _, Result};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Finds out whether a file can be written at `path`, without writing it.
pub fn can_write(path: &Path) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    if path.is_dir() {
        return Err(Exit::Usage.error(format!("{}: it is a folder; give a file", what())));
    }
    tempfile::Builder::new()
        .prefix(".holdfast-")
        .tempfile_in(folder(path))
        .map(drop)
        .with_context(what)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new()
        .prefix(".holdfast-")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder(path))
        .with_context(what)?;
    file.write_all(bytes).with_context(what)?;
    // The umask may have taken bits away, never added any.
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .with_context(what)?;
    file.as_file().sync_all().with_context(what)?;
    file.persist(path).with_context(what)?;
    Ok(())
}

/// Writes a file that only its owner may read.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, 0o600)
}

/// Writes a file that anyone may read.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, 0o644)
}

/// Makes a directory that only its owner may enter.
pub fn make_private_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_can_be_written_is_known_before() {
        let tmp = tempfile::tempdir().unwrap();
        can_write(&tmp.path().join("new")).unwrap();
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
        assert!(can_write(tmp.path()).is_err());
        assert!(can_write(&tmp.path().join("missing/new")).is_err());
    }
}
