//! An upgrade of a machine that has no network: slot B is written into its disk while it is off,
//! in the order that the agent keeps (`core::slots`).

use crate::seedvolume::partition;
use anyhow::{Context as _, Result};
use holdfast_core::header::slot_digest;
use holdfast_core::layout::{self, RECORD_COPIES, Role};
use holdfast_core::slots::{Copies, Slot};
use holdfast_qemu::Disk;
use std::path::Path;

/// How often the trial may be started.
const TRIES: u8 = 1;

fn offset(role: Role) -> u64 {
    let (extents, _) = layout::plan(layout::VAR_MIN);
    extents
        .iter()
        .find(|e| e.role == role)
        .map_or(0, |e| e.offset)
}

/// Writes the system of slot A of the raw image at `image` into slot B of `disk` and puts it on
/// trial.
///
/// # Errors
/// The record does not read, or refuses; the disk cannot be written.
pub fn upgrade(disk: &Disk, image: &Path, generation: u64) -> Result<()> {
    let slots = partition(disk, Role::Slots)?;
    let copy = |at: u64| &slots[usize::try_from(at).unwrap_or(0)..][..4096];
    let (mut copies, _) =
        Copies::read(RECORD_COPIES.map(copy)).map_err(|e| anyhow::anyhow!("slot record: {e:?}"))?;
    let boot = *copies.record().boot_id();
    copies.record_mut().begin_write(&boot, Slot::B)?;
    write_record(disk, &mut copies)?;

    let image = Disk::open(image)?;
    for (from, to) in [
        (Role::Root(Slot::A), Role::Root(Slot::B)),
        (Role::Boot(Slot::A), Role::Boot(Slot::B)),
    ] {
        disk.write_at(offset(to), &partition(&image, from)?)?;
    }
    let boot_b = partition(disk, Role::Boot(Slot::B))?;
    let header = boot_b[..4096].try_into().context("no header")?;
    copies
        .record_mut()
        .install(&boot, Slot::B, slot_digest(&header), generation, TRIES)?;
    write_record(disk, &mut copies)
}

fn write_record(disk: &Disk, copies: &mut Copies) -> Result<()> {
    let (at, block) = copies.next_write();
    Ok(disk.write_at(offset(Role::Slots) + at, &block)?)
}
