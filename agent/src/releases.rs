//! The release list in `hf-slots`: whose slot headers and bundles count.
//!
//! The loader starts nothing that this list does not name, rescue included. A newer list that leaves
//! out the key of something that lies on the disk therefore waits until that is replaced: bundles are
//! judged by the newest list at once ([`judging`]), the loader's follows.

use crate::disk;
use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use holdfast_core::bytes::{BLOCK, Block};
use holdfast_core::cluster::ClusterId;
use holdfast_core::documents::Roots;
use holdfast_core::header::SlotHeader;
use holdfast_core::layout::RELEASE_COPIES;
use holdfast_core::loader_keys::LoaderKeys;
use holdfast_core::releases::ReleaseList;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What became of a list that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It is stored.
    Stored,
    /// The disk has one that is as new.
    Known,
    /// It waits: the header on this partition would not count any more.
    Waits {
        /// Generation of the list that waits.
        generation: u64,
        /// The partition whose system the loader would refuse.
        partition: &'static str,
    },
}

/// Partitions that begin with a header which the loader checks.
pub const HEADERS: [&str; 3] = ["hf-boot-a", "hf-boot-b", "hf-rescue"];

/// The first of these headers, by its partition's name, that counts under `held` and would not under
/// `newer`.
fn in_use(
    held: &ReleaseList,
    newer: &ReleaseList,
    headers: &[(&'static str, Block)],
) -> Option<&'static str> {
    let counts = |block: &Block, list: &ReleaseList| SlotHeader::verify(block, list).is_ok();
    let lost = |(_, block): &&(_, Block)| counts(block, held) && !counts(block, newer);
    headers.iter().find(lost).map(|(name, _)| *name)
}

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

/// The list that a bundle has to pass: the keys that are in the loader's and in the newest that a root
/// signed, which the documents carry (base64).
///
/// # Errors
/// When the disk holds none, or both have no key in common.
pub fn judging(
    hf_slots: &Path,
    trusted: &LoaderKeys,
    newest: Option<&str>,
) -> anyhow::Result<ReleaseList> {
    let held = read(hf_slots, trusted)?;
    let newest = newest.and_then(|list| open(trusted, list).ok());
    let Some((newest, _)) = newest.filter(|(list, _)| list.generation > held.generation) else {
        return Ok(held);
    };
    held.common(&newest).with_context(|| {
        format!(
            "the release list of generation {} has no key of the one that this node's loader reads \
             (generation {}): publish a list with both keys first",
            newest.generation, held.generation
        )
    })
}

/// Stores the list that documents carry (base64) when it is newer than what the disk has, and all
/// that the loader may start counts under it too. The older copy is replaced. `partitions`: those of
/// [`HEADERS`] that this disk has.
///
/// # Errors
/// When it does not verify, or the disk refuses.
pub fn bring_forward(
    hf_slots: &Path,
    trusted: &LoaderKeys,
    offered: &str,
    partitions: &[(&'static str, PathBuf)],
) -> anyhow::Result<Offered> {
    let (list, block) = open(trusted, offered)?;
    let file = disk::open_write(hf_slots)?;
    let [a, b] = copies(&file)?;
    if let Ok(held) = ReleaseList::newest([&a, &b], trusted) {
        if held.generation >= list.generation {
            return Ok(Offered::Known);
        }
        let mut headers = vec![];
        for (name, path) in partitions {
            let block = disk::read_at(&disk::open_read(path)?, 0, BLOCK)?;
            headers.push((*name, Block::try_from(block.as_slice())?));
        }
        if let Some(partition) = in_use(&held, &list, &headers) {
            return Ok(Offered::Waits {
                generation: list.generation,
                partition,
            });
        }
    }
    let at = RELEASE_COPIES[ReleaseList::copy_to_replace([&a, &b], trusted)];
    disk::write_flushed(&file, at, &block)?;
    if disk::read_at(&file, at, BLOCK)? != block {
        bail!("hf-slots does not keep what is written to it");
    }
    Ok(Offered::Stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::header::{Encoding, Watchdog};
    use holdfast_core::keys::PrivateKey;
    use holdfast_core::releases::add_signature;
    use holdfast_core::text::Text;

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
            let offered = list(generation, &root);
            let done = bring_forward(disk.path(), &keys, &offered, &[]).unwrap();
            assert_eq!(done == Offered::Stored, stored);
        }
        assert_eq!(read(disk.path(), &keys).unwrap().generation, 5);
        let stranger = PrivateKey::from_bytes([8; 32]);
        assert!(bring_forward(disk.path(), &keys, &list(9, &stranger), &[]).is_err());
    }

    /// A partition that begins with a header signed by `release`.
    fn boot_partition(release: &PrivateKey) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let header = SlotHeader {
            encoding: Encoding::Raw,
            watchdog: Watchdog::None,
            watchdog_seconds: 0,
            generation: 1,
            stored_len: 4096,
            decoded_len: 4096,
            payload: [1; 32],
            board: Text::new("x"),
            version: Text::new("1"),
        };
        let block = header.encode(&release.public().0, |m| release.sign(m).0);
        std::fs::write(file.path(), block).unwrap();
        file
    }

    #[test]
    fn a_list_without_the_key_of_what_lies_on_the_disk_waits_and_judges() {
        let [root, old, new] = [7, 1, 2].map(|n| PrivateKey::from_bytes([n; 32]));
        let keys = trusted(ClusterId([9; 16]), &Roots(vec![root.public()])).unwrap();
        let list = |generation, of: &[&PrivateKey]| {
            let of: Vec<_> = of.iter().map(|k| k.public().0).collect();
            let mut block = ReleaseList::new([9; 16], generation, &of).unwrap().encode();
            add_signature(&mut block, &root.public().0, |m| root.sign(m).0).unwrap();
            B64.encode(block)
        };
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(2 << 20).unwrap();
        let (slot, rescue) = (boot_partition(&old), boot_partition(&old));
        let partitions = [
            ("hf-boot-a", slot.path().to_path_buf()),
            ("hf-rescue", rescue.path().to_path_buf()),
        ];
        let offer = |l: &str| bring_forward(disk.path(), &keys, l, &partitions).unwrap();
        assert_eq!(offer(&list(1, &[&old])), Offered::Stored);
        // Without the key of both systems: nothing would start any more.
        let alone = list(2, &[&new]);
        let waits = |generation, partition| Offered::Waits {
            generation,
            partition,
        };
        assert_eq!(offer(&alone), waits(2, "hf-boot-a"));
        assert_eq!(read(disk.path(), &keys).unwrap().generation, 1);
        let refused = judging(disk.path(), &keys, Some(&alone)).unwrap_err();
        assert!(refused.to_string().contains("both keys"), "{refused}");
        // Both keys, then new systems, then the new key alone.
        let both = list(3, &[&old, &new]);
        assert_eq!(offer(&both), Offered::Stored);
        let last = list(4, &[&new]);
        assert_eq!(offer(&last), waits(4, "hf-boot-a"));
        // Bundles that the key left out signed are refused from now on.
        let judges = judging(disk.path(), &keys, Some(&last)).unwrap();
        assert_eq!(
            (judges.generation, judges.keys()),
            (4, &[new.public().0][..])
        );
        std::fs::copy(boot_partition(&new).path(), slot.path()).unwrap();
        assert_eq!(offer(&last), waits(4, "hf-rescue"));
        std::fs::copy(boot_partition(&new).path(), rescue.path()).unwrap();
        assert_eq!(offer(&last), Offered::Stored);
        assert_eq!(offer(&last), Offered::Known);
    }
}
