//! The last partition reaches the disk's end: an image is small, the card it was flashed to is not.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use holdfast_core::gpt::{self, Geometry, Step};
use holdfast_core::layout::Role;

use crate::disk::Disk;
use crate::sys::block;

/// Writes what is missing of both tables and tells the kernel; `Ok(true)` where `/var` got larger.
pub fn last_partition(disk: &Disk) -> Result<bool> {
    let Some(var) = disk.partition(Role::Var) else {
        return Ok(false);
    };
    let node = &disk.node;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(node)
        .with_context(|| format!("open {}", node.display()))?;
    let geometry = geometry(&device).context("measure the disk")?;
    let block = u64::from(geometry.block);
    let read = |lba: u64, count: u64| read_blocks(&device, block, lba, count);
    let found = gpt::find(geometry, read).map_err(|[primary, backup]| {
        anyhow::anyhow!("primary table: {primary}; backup table: {backup}")
    })?;
    let steps = gpt::grow(geometry, &found, Role::Var.type_guid(), read);
    if steps.is_empty() {
        return Ok(false);
    }
    for step in &steps {
        match step {
            Step::Write { lba, bytes } => device.write_all_at(bytes, lba * block),
            Step::Flush => device.sync_all(),
        }
        .context("write the partition table")?;
    }
    let grown = gpt::find(geometry, read)
        .ok()
        .and_then(|f| f.table.role(Role::Var));
    let (Some(before), Some(after)) = (found.table.role(Role::Var), grown) else {
        return Ok(false);
    };
    if after.last == before.last {
        return Ok(false);
    }
    let (start, length) = (after.first * block, (after.last - after.first + 1) * block);
    block::resize_partition(&device, var.number, start, length)
        .context("tell the kernel of the new table")?;
    Ok(true)
}

fn geometry(device: &File) -> std::io::Result<Geometry> {
    let block = block::sector_size(device)?;
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let last_lba = (block::size(device)? / block.max(1))
        .checked_sub(1)
        .ok_or_else(invalid)?;
    Ok(Geometry {
        block: u32::try_from(block).map_err(|_| invalid())?,
        last_lba,
    })
}

fn read_blocks(device: &File, block: u64, lba: u64, count: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(count.checked_mul(block)?).ok()?];
    device
        .read_exact_at(&mut bytes, lba.checked_mul(block)?)
        .ok()?;
    Some(bytes)
}
