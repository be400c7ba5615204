//! What is installed: the running slot, checked against the signed header before a byte is written.

use crate::disk::{open_read, read_at};
use crate::releases;
use anyhow::{Context as _, bail, ensure};
use holdfast_core::bytes::{BLOCK, Block};
use holdfast_core::header::SlotHeader;
use holdfast_core::keys::unhex;
use holdfast_core::layout::{HEADER_OFFSET, RELEASE_COPIES};
use holdfast_core::releases::ReleaseList;
use holdfast_core::seed::Seed;
use std::path::Path;

/// The running root, as the kernel's command line has it: dm-verity version 1, SHA-256, blocks of
/// 4096 bytes, the tree behind the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSpec {
    /// The root hash.
    pub hash: [u8; 32],
    /// Goes before each block.
    pub salt: Vec<u8>,
    /// Bytes of file system.
    pub len: u64,
}

/// The signed facts about the running system.
#[derive(Debug, Clone)]
pub struct Source {
    /// The slot's header block.
    pub header: Block,
    /// The same, read.
    pub facts: SlotHeader,
    /// The release list that its key is in.
    pub list: Block,
    /// The root.
    pub root: RootSpec,
}

/// Reads and checks them. The seed's roots and cluster id take the place of the loader's.
pub fn read(hf_slots: &Path, hf_boot: &Path, seed: &Seed, cmdline: &str) -> anyhow::Result<Source> {
    let trusted = releases::trusted(seed.cluster_id, &seed.roots())?;
    let slots = open_read(hf_slots)?;
    let copies = [
        read_at(&slots, RELEASE_COPIES[0], BLOCK)?,
        read_at(&slots, RELEASE_COPIES[1], BLOCK)?,
    ];
    let [a, b] = &copies;
    let releases = ReleaseList::newest([a, b], &trusted)
        .context("the image on the stick is not of the seed's cluster")?;
    let [first, second] = &copies;
    let of_newest = |c: &&Vec<u8>| ReleaseList::verify(c, &trusted).is_ok_and(|l| l == releases);
    let list = [first, second].into_iter().find(of_newest);
    let list = list.context("no copy of the release list reads")?;
    let header = read_at(&open_read(hf_boot)?, HEADER_OFFSET, BLOCK)?;
    let header = Block::try_from(header.as_slice()).context("the slot's header cannot be read")?;
    Ok(Source {
        facts: SlotHeader::verify(&header, &releases)?,
        header,
        list: Block::try_from(list.as_slice())?,
        root: root_spec(cmdline)?,
    })
}

/// The root's words on the kernel's command line; the last of equal ones counts, as init has it.
pub fn root_spec(cmdline: &str) -> anyhow::Result<RootSpec> {
    let word = |key: &str| {
        let mut words = cmdline.split_ascii_whitespace().rev();
        words.find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
    };
    let hash = word("holdfast.roothash").context("this system has no verity root to install")?;
    let Some(hash) = unhex(hash).and_then(|h| <[u8; 32]>::try_from(h).ok()) else {
        bail!("holdfast.roothash={hash} is no SHA-256");
    };
    let len: u64 = word("holdfast.rootlen")
        .and_then(|l| l.parse().ok())
        .context("holdfast.rootlen is missing or no number")?;
    ensure!(
        len > 0 && len.is_multiple_of(BLOCK as u64),
        "holdfast.rootlen={len} is not whole blocks"
    );
    let salt = match word("holdfast.rootsalt") {
        None | Some("" | "-") => vec![],
        Some(salt) => unhex(salt).context("holdfast.rootsalt is not hexadecimal")?,
    };
    Ok(RootSpec { hash, salt, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_read_from_the_command_line() {
        let hash = "0f".repeat(32);
        let line = format!(
            "console=ttyS0 holdfast.roothash={hash} holdfast.rootlen=8192 holdfast.boot=aa\n"
        );
        let spec = root_spec(&line).unwrap();
        assert_eq!((spec.hash, spec.len, spec.salt.len()), ([15; 32], 8192, 0));
        let salted = root_spec(&format!("{line} holdfast.rootsalt=00ff")).unwrap();
        assert_eq!(salted.salt, [0, 255]);
        for bad in [
            "",
            "holdfast.roothash=zz holdfast.rootlen=4096",
            &line.replace("8192", "5"),
            &format!("{line} holdfast.rootsalt=x"),
        ] {
            assert!(root_spec(bad).is_err(), "{bad}");
        }
    }
}
