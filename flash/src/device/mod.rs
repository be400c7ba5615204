//! The disks of this computer: what they are, what uses them, and which may be overwritten.
//!
//! [`snapshot`] reads `/sys` and `/proc` once; everything after that is a function of the value.

mod bus;
pub mod content;
mod mounts;
pub mod snapshot;
mod usable;

pub use bus::Bus;
pub use mounts::{Mount, parse_mounts, parse_swaps};
pub use snapshot::Snapshot;
pub use usable::{Needs, Obstacle, Use, obstacle};

use serde::Serialize;
use snapshot::RawBlock;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// Major and minor number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevNumber {
    /// The driver's number.
    pub major: u32,
    /// The device's.
    pub minor: u32,
}

impl fmt::Display for DevNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl std::str::FromStr for DevNumber {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no device number");
        let (major, minor) = text.trim().split_once(':').ok_or_else(wrong)?;
        Ok(Self {
            major: major.parse().map_err(|_| wrong())?,
            minor: minor.parse().map_err(|_| wrong())?,
        })
    }
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The kernel's name, such as `sdb`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Its number.
    #[serde(skip)]
    pub number: DevNumber,
    /// Size in bytes; 0 without a medium.
    pub bytes: u64,
    /// Logical sector size in bytes.
    pub sector: u32,
    /// How it is attached.
    pub bus: Bus,
    /// Made to be taken out: a card, a stick, anything on USB.
    pub removable: bool,
    /// Takes no writes.
    pub read_only: bool,
    /// Maker and model, as far as it says.
    pub model: String,
    /// Serial number, as far as it says.
    pub serial: String,
    /// Names of its partitions.
    pub partitions: Vec<String>,
    /// What this computer does with it now.
    pub uses: Vec<Use>,
}

/// Drivers whose devices nobody flashes: memory, floppies, CDs, and what is built of
/// other disks.
const NO_DISKS: [&str; 8] = ["ram", "zram", "fd", "sr", "dm-", "md", "nbd", "mtdblock"];

/// eMMC's boot and replay-protected areas are disks of their own to the kernel.
fn is_mmc_area(name: &str) -> bool {
    name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"))
}

/// The disks of a snapshot, by name.
#[must_use]
pub fn devices(snapshot: &Snapshot) -> Vec<Device> {
    let mut found: Vec<_> = snapshot
        .blocks
        .iter()
        .filter(|b| !b.hidden && !is_mmc_area(&b.name))
        .filter(|b| !NO_DISKS.iter().any(|p| b.name.starts_with(p)))
        .filter(|b| b.backing_file.is_some() || !b.name.starts_with("loop"))
        .map(|b| device(snapshot, b))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The disk of this number, or the disk that has a partition of this number and its name.
#[must_use]
pub fn by_number(snapshot: &Snapshot, number: DevNumber) -> Option<(Device, Option<String>)> {
    let block = snapshot
        .blocks
        .iter()
        .find(|b| b.number == number || b.partitions.iter().any(|p| p.number == number))?;
    let part = block.partitions.iter().find(|p| p.number == number);
    Some((device(snapshot, block), part.map(|p| p.name.clone())))
}

fn device(snapshot: &Snapshot, block: &RawBlock) -> Device {
    let bus = Bus::of_path(&block.path);
    // An SD card in a slot of the board says "removable 0"; its type tells it from eMMC.
    let card = block.card_type.as_deref() == Some("SD");
    let model = [&block.vendor, &block.model]
        .into_iter()
        .map(|t| t.trim())
        .filter(|t| !t.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    Device {
        name: block.name.clone(),
        path: PathBuf::from("/dev").join(block.name.replace('!', "/")),
        number: block.number,
        bytes: block.sectors.saturating_mul(512),
        sector: block.sector,
        bus,
        removable: block.removable || card || bus == Bus::Usb,
        read_only: block.read_only,
        model: block.backing_file.clone().unwrap_or(model),
        serial: block.serial.trim().to_owned(),
        partitions: block.partitions.iter().map(|p| p.name.clone()).collect(),
        uses: uses(snapshot, block),
    }
}

/// A name and number that a mount or swap may be on.
type Node<'a> = (&'a str, DevNumber);

/// What the disk is used for: itself, its partitions, and whatever is built on them.
fn uses(snapshot: &Snapshot, block: &RawBlock) -> Vec<Use> {
    let mut nodes: Vec<Node<'_>> = vec![(&block.name, block.number)];
    nodes.extend(block.partitions.iter().map(|p| (&*p.name, p.number)));
    let mut todo: Vec<&str> = block.holders.iter().map(String::as_str).collect();
    todo.extend(
        block
            .partitions
            .iter()
            .flat_map(|p| p.holders.iter().map(String::as_str)),
    );
    let mut seen = BTreeSet::new();
    let mut held = Vec::new();
    while let Some(name) = todo.pop() {
        if !seen.insert(name) {
            continue;
        }
        let Some(holder) = snapshot.blocks.iter().find(|b| b.name == name) else {
            held.push(Use::Held(name.to_owned()));
            continue;
        };
        held.push(Use::Held(match &holder.dm_name {
            Some(dm) => format!("{name} ({dm})"),
            None => name.to_owned(),
        }));
        nodes.push((&holder.name, holder.number));
        nodes.extend(holder.partitions.iter().map(|p| (&*p.name, p.number)));
        todo.extend(holder.holders.iter().map(String::as_str));
        let parts = &holder.partitions;
        todo.extend(
            parts
                .iter()
                .flat_map(|p| p.holders.iter().map(String::as_str)),
        );
    }
    let mut uses: Vec<Use> = snapshot
        .mounts
        .iter()
        .filter(|m| nodes.iter().any(|n| m.is_of(n.0, n.1)))
        .map(|m| Use::Mounted(m.target.clone()))
        .collect();
    uses.extend(
        snapshot
            .swaps
            .iter()
            .filter(|s| nodes.iter().any(|n| n.0 == s.as_str()))
            .map(|s| Use::Swap(s.clone())),
    );
    uses.extend(held);
    uses
}

#[cfg(test)]
mod tests;
