//! The release list in `hf-slots`: whose slot headers and bundles count.

use crate::disk;
use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use holdfast_core::cluster::ClusterId;
use holdfast_core::documents::Roots;
use holdfast_core::layout::RELEASE_COPIES;
use holdfast_core::loader_keys::LoaderKeys;
use holdfast_core::releases::ReleaseList;
use std::fs::File;
use std::path::Path;

const BLOCK: usize = 4096;

/// Roots and cluster in the form that the loader knows them.
///
/// # Errors
/// When there are none or too many roots.
pub fn trusted(cluster: ClusterId, roots: &Roots) -> anyhow::Result<LoaderKeys> {
    let keys: Vec<[u8; 32]> = roots.0.iter().map(|k| k.0).collect();
    Ok(LoaderKeys::new(cluster.0, &keys)?)
}

fn copies(file: &File) -> std::io::Result<[Vec<u8>; 2]> {
    let read = |at| disk::read_at(file, at, BLOCK);
    Ok([read(RELEASE_COPIES[0])?, read(RELEASE_COPIES[1])?])
}

/// The list that counts on this disk.
///
/// # Errors
/// When no copy verifies.
pub fn read(hf_slots: &Path, trusted: &LoaderKeys) -> anyhow::Result<ReleaseList> {
    let [a, b] = copies(&disk::open_read(hf_slots)?)?;
    ReleaseList::newest([&a, &b], trusted).context("hf-slots holds no release list that counts")
}

/// Reads the list that documents carry (base64).
///
/// # Errors
/// When it is no list, or no root signed it.
pub fn open(trusted: &LoaderKeys, offered: &str) -> anyhow::Result<(ReleaseList, Vec<u8>)> {
    let block = B64
        .decode(offered)
        .context("the release list is no base64")?;
    Ok((ReleaseList::verify(&block, trusted)?, block))
}

/// Stores the list that documents carry (base64) when it is newer than what the disk has; true
/// when it was stored. The older copy is replaced.
///
/// # Errors
/// When it does not verify, or the disk refuses.
pub fn bring_forward(hf_slots: &Path, trusted: &LoaderKeys, offered: &str) -> anyhow::Result<bool> {
    let (list, block) = open(trusted, offered)?;
    let file = disk::open_write(hf_slots)?;
    let [a, b] = copies(&file)?;
    if ReleaseList::newest([&a, &b], trusted).is_ok_and(|held| held.generation >= list.generation) {
        return Ok(false);
    }
    let at = RELEASE_COPIES[ReleaseList::copy_to_replace([&a, &b], trusted)];
    disk::write_flushed(&file, at, &block)?;
    if disk::read_at(&file, at, BLOCK)? != block {
        bail!("hf-slots does not keep what is written to it");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::keys::PrivateKey;
    use holdfast_core::releases::add_signature;

    fn list(generation: u64, root: &PrivateKey) -> String {
        let mut block = ReleaseList::new([9; 16], generation, &[[1; 32]])
            .unwrap()
            .encode();
        add_signature(&mut block, &root.public().0, |m| root.sign(m).0).unwrap();
        B64.encode(block)
    }

    #[test]
    fn a_newer_list_replaces_the_older_copy() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(2 << 20).unwrap();
        let root = PrivateKey::from_bytes([7; 32]);
        let keys = trusted(ClusterId([9; 16]), &Roots(vec![root.public()])).unwrap();
        assert!(read(disk.path(), &keys).is_err());
        for (generation, stored) in [(3, true), (3, false), (2, false), (4, true), (5, true)] {
            assert_eq!(
                bring_forward(disk.path(), &keys, &list(generation, &root)).unwrap(),
                stored
            );
        }
        assert_eq!(read(disk.path(), &keys).unwrap().generation, 5);
        let stranger = PrivateKey::from_bytes([8; 32]);
        assert!(bring_forward(disk.path(), &keys, &list(9, &stranger)).is_err());
    }
}
