//! `hf-rescue` follows the system that proved itself: a copy of the UKI of a slot that runs, is good and
//! did last ([`BootStatus::may_go_back`]), its header written last. A copy that a power cut leaves half
//! has no header: the loader starts no rescue system for a while, the slots do what they did, and the
//! next look writes it anew.

use crate::disk;
use crate::node::{Node, slot_event};
use anyhow::{Context as _, bail, ensure};
use holdfast_core::bytes::{BLOCK, Block};
use holdfast_core::header::SlotHeader;
use holdfast_core::layout::PAYLOAD_OFFSET;
use holdfast_core::status::{BootStatus, SlotName};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often it looks whether the running system may be copied.
const LOOK: Duration = Duration::from_secs(15);
/// What cannot be written is tried again this much later.
const AGAIN: Duration = Duration::from_secs(24 * 3600);
/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refresh {
    /// It is this system's, and whole.
    Nothing,
    /// It is another's, or not whole.
    Copy,
}

/// Whether this system may be anybody's last resort.
fn may_be_copied(boot: &BootStatus) -> bool {
    let good = boot
        .slots
        .iter()
        .any(|s| s.slot == boot.slot && s.state == "good");
    boot.slot != SlotName::Rescue && good && !boot.may_go_back()
}

/// Keeps it, for as long as the agent runs.
pub async fn run(node: Arc<Node>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(now) = node.init.boot().await else {
            continue;
        };
        if !may_be_copied(&now.boot) {
            continue;
        }
        match refresh(&node, now.boot.slot).await {
            Ok(Refresh::Nothing) => {
                node.notes.clear("rescue");
                return std::future::pending().await;
            }
            // It looks again: what was written is read as a start would read it.
            Ok(Refresh::Copy) => {
                tracing::info!(
                    version = node.image.version,
                    "the rescue system is this one"
                );
                let version = Some(node.image.version.clone());
                let words = "the rescue system is a copy of this one";
                node.remember(slot_event("rescue", SlotName::Rescue, version, words))
                    .await;
            }
            Err(e) => {
                node.notes
                    .set("rescue", format!("the rescue system is not renewed: {e:#}"));
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn refresh(node: &Node, slot: SlotName) -> anyhow::Result<Refresh> {
    let here = node
        .partition(&format!("hf-boot-{slot}"))
        .context("no partition of the running slot")?;
    let rescue = node
        .partition("hf-rescue")
        .context("this disk has no hf-rescue")?;
    let (from, to) = (disk::open_read(&here)?, disk::open_write(&rescue)?);
    let (from, to) = (Arc::new(from), Arc::new(to));
    let (one, other) = (from.clone(), to.clone());
    let plan = disk::blocking(move || plan(&one, &other)).await?;
    if plan == Refresh::Copy {
        // Not beside an upgrade: it may change what runs next.
        let _writing = node.writing.lock().await;
        disk::blocking(move || copy(&from, &to, length(&to, &rescue)?)).await?;
    }
    Ok(plan)
}

fn length(file: &File, path: &Path) -> anyhow::Result<u64> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = file;
    // A block device's metadata says nothing of its length.
    file.seek(SeekFrom::End(0))
        .with_context(|| path.display().to_string())
}

fn block(file: &File) -> anyhow::Result<Block> {
    let bytes = disk::read_at(file, 0, BLOCK)?;
    Block::try_from(bytes.as_slice())
        .ok()
        .context("a partition without a header block")
}

/// Nothing where the headers are the same and the payload is what the header says.
fn plan(from: &File, to: &File) -> anyhow::Result<Refresh> {
    let header = block(from)?;
    let same = block(to).is_ok_and(|there| there == header);
    if !same {
        return Ok(Refresh::Copy);
    }
    let info = SlotHeader::parse(&header)?;
    // A sector that gives an error is mended by writing it.
    let whole = digest(to, info.stored_len).is_ok_and(|found| found == info.payload);
    Ok(if whole {
        Refresh::Nothing
    } else {
        Refresh::Copy
    })
}

fn digest(file: &File, len: u64) -> anyhow::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    each_chunk(file, len, |_, bytes| {
        hash.update(bytes);
        Ok(())
    })?;
    Ok(hash.finalize().into())
}

fn each_chunk(
    file: &File,
    len: u64,
    mut each: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut done = 0;
    while done < len {
        let n = usize::try_from(len - done).unwrap_or(CHUNK).min(CHUNK);
        let bytes = disk::read_at(file, PAYLOAD_OFFSET + done, n)?;
        ensure!(bytes.len() == n, "the partition ends within the payload");
        each(PAYLOAD_OFFSET + done, &bytes)?;
        done += n as u64;
    }
    Ok(())
}

/// Header away, payload, header: each on the disk before the next.
fn copy(from: &File, to: &File, limit: u64) -> anyhow::Result<()> {
    let header = block(from)?;
    let info = SlotHeader::parse(&header)?;
    ensure!(
        PAYLOAD_OFFSET + info.stored_len <= limit,
        "the system is longer than hf-rescue"
    );
    // Read whole before anything is given up for it.
    if digest(from, info.stored_len)? != info.payload {
        bail!("the running slot's own copy is damaged");
    }
    disk::write_flushed(to, 0, &[0; BLOCK])?;
    each_chunk(from, info.stored_len, |at, bytes| {
        Ok(to.write_all_at(bytes, at)?)
    })?;
    to.sync_data()?;
    disk::forget_cached(to);
    ensure!(
        digest(to, info.stored_len)? == info.payload,
        "hf-rescue does not keep what is written to it"
    );
    disk::write_flushed(to, 0, &header)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::header::{Encoding, Watchdog};
    use holdfast_core::status::SlotStatus;
    use holdfast_core::text::Text;

    fn partition(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    fn header(payload: &[u8]) -> Block {
        let header = SlotHeader {
            encoding: Encoding::Raw,
            watchdog: Watchdog::None,
            watchdog_seconds: 0,
            generation: 1,
            stored_len: payload.len() as u64,
            decoded_len: payload.len() as u64,
            payload: Sha256::digest(payload).into(),
            board: Text::new("test"),
            version: Text::new("1"),
        };
        header.encode(&[1; 32], |_| [2; 64])
    }

    fn slot(payload: &[u8]) -> File {
        let file = partition(4 << 20);
        file.write_all_at(&header(payload), 0).unwrap();
        file.write_all_at(payload, PAYLOAD_OFFSET).unwrap();
        file
    }

    #[test]
    fn an_older_or_damaged_rescue_is_replaced_and_a_sound_one_left_alone() {
        let (here, rescue) = (slot(&[7; 70_000]), slot(&[1; 50_000]));
        assert_eq!(plan(&here, &rescue).unwrap(), Refresh::Copy);
        copy(&here, &rescue, 4 << 20).unwrap();
        assert_eq!(plan(&here, &rescue).unwrap(), Refresh::Nothing);
        rescue.write_all_at(&[0], PAYLOAD_OFFSET + 60_000).unwrap();
        assert_eq!(plan(&here, &rescue).unwrap(), Refresh::Copy);
        let blank = partition(4 << 20);
        assert_eq!(plan(&here, &blank).unwrap(), Refresh::Copy);
    }

    #[test]
    fn what_cannot_be_copied_whole_leaves_the_old_one() {
        let (here, rescue) = (slot(&[7; 70_000]), slot(&[1; 50_000]));
        here.write_all_at(&[0], PAYLOAD_OFFSET + 5).unwrap();
        assert!(copy(&here, &rescue, 4 << 20).is_err());
        assert!(copy(&slot(&[7; 70_000]), &rescue, 1 << 20).is_err());
        let old = SlotHeader::parse(&block(&rescue).unwrap()).unwrap();
        assert_eq!(digest(&rescue, old.stored_len).unwrap(), old.payload);
    }

    #[test]
    fn only_a_good_slot_that_lasted_is_copied() {
        let boot = |slot, state: &str, probation, on_trial| BootStatus {
            boot_id: "x".into(),
            slot,
            version: "1".into(),
            generation: 1,
            on_trial,
            reason: String::new(),
            slots: vec![SlotStatus {
                slot: SlotName::A,
                state: state.into(),
                generation: 1,
                tries_left: 0,
                reason: String::new(),
                probation,
            }],
        };
        assert!(may_be_copied(&boot(SlotName::A, "good", false, false)));
        for other in [
            boot(SlotName::A, "good", true, false),
            boot(SlotName::A, "trial", false, true),
            boot(SlotName::A, "bad", false, false),
            boot(SlotName::B, "good", false, false),
            boot(SlotName::Rescue, "good", false, false),
        ] {
            assert!(!may_be_copied(&other), "{other:?}");
        }
    }
}
