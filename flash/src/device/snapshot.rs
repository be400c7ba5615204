//! What `/sys/block` and `/proc` say at one moment. A file that is missing or odd reads as "does
//! not say": a kernel without an attribute, or a card that went away meanwhile, is no error.

use super::{DevNumber, Mount, parse_mounts, parse_swaps};
use crate::error::{IoContext as _, Result};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// Everything that decisions about disks are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All whole block devices.
    pub blocks: Vec<RawBlock>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Kernel names of what is swapped to.
    pub swaps: Vec<String>,
}

/// A block device as sysfs describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawBlock {
    /// The kernel's name; a slash in it stands as `!`.
    pub name: String,
    /// Its resolved path.
    pub path: String,
    /// Its number.
    pub number: DevNumber,
    /// Size in units of 512 bytes, whatever its sectors.
    pub sectors: u64,
    /// Logical sector size in bytes.
    pub sector: u32,
    /// Says that its medium can be taken out.
    pub removable: bool,
    /// Takes no writes.
    pub read_only: bool,
    /// Not for use (a path of a multipath disk).
    pub hidden: bool,
    /// The maker.
    pub vendor: String,
    /// The model; a card's name.
    pub model: String,
    /// The serial number.
    pub serial: String,
    /// A card's type: `SD`, or `MMC` for eMMC.
    pub card_type: Option<String>,
    /// A loop device's file.
    pub backing_file: Option<String>,
    /// A device-mapper device's name.
    pub dm_name: Option<String>,
    /// Devices that are built on it.
    pub holders: Vec<String>,
    /// Its partitions.
    pub partitions: Vec<RawPartition>,
}

/// A partition as sysfs describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawPartition {
    /// The kernel's name.
    pub name: String,
    /// Its number.
    pub number: DevNumber,
    /// Devices that are built on it.
    pub holders: Vec<String>,
}

impl Snapshot {
    /// Of this computer.
    ///
    /// # Errors
    /// When `/sys/block` or the list of mounts cannot be read.
    pub fn take() -> Result<Self> {
        Self::of_root(Path::new("/"))
    }

    /// Of the `sys`, `proc` and `dev` below `root`.
    ///
    /// # Errors
    /// When `/sys/block` or the list of mounts cannot be read: without them nothing is known to be
    /// free.
    pub fn of_root(root: &Path) -> Result<Self> {
        let dir = root.join("sys/block");
        let mut blocks: Vec<_> = fs::read_dir(&dir)
            .at("read", &dir)?
            .filter_map(|e| block(&e.ok()?.path()))
            .collect();
        blocks.sort_by(|a, b| a.name.cmp(&b.name));
        let path = root.join("proc/self/mountinfo");
        let mut mounts = parse_mounts(&fs::read_to_string(&path).at("read", &path)?);
        for mount in &mut mounts {
            for source in &mut mount.sources {
                *source = kernel_name(root, source);
            }
        }
        let swaps = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
        Ok(Self {
            blocks,
            mounts,
            swaps: parse_swaps(&swaps)
                .iter()
                .map(|s| kernel_name(root, s))
                .collect(),
        })
    }
}

/// `dm-0` of `/dev/mapper/vg-root`: the name of the file that the path leads to.
fn kernel_name(root: &Path, path: &str) -> String {
    let full = root.join(path.trim_start_matches('/'));
    let resolved = fs::canonicalize(&full).unwrap_or(full);
    text_of(resolved.file_name())
}

fn text_of(name: Option<&OsStr>) -> String {
    name.unwrap_or_default().to_string_lossy().into_owned()
}

fn attribute(dir: &Path, name: &str) -> Option<String> {
    let text = fs::read(dir.join(name)).ok()?;
    Some(String::from_utf8_lossy(&text).trim_end().to_owned())
}

fn number_at<T: std::str::FromStr>(dir: &Path, name: &str) -> Option<T> {
    attribute(dir, name)?.trim().parse().ok()
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|e| Some(text_of(Some(&e.ok()?.file_name()))))
        .collect();
    names.sort();
    names
}

fn block(dir: &Path) -> Option<RawBlock> {
    let number: DevNumber = number_at(dir, "dev")?;
    let flag = |name: &str| number_at::<u8>(dir, name).is_some_and(|n| n != 0);
    let text = |name: &str| attribute(dir, name).unwrap_or_default();
    let name = text_of(dir.file_name());
    let partitions = names_in(dir)
        .into_iter()
        .filter_map(|part| {
            let at = dir.join(&part);
            number_at::<u32>(&at, "partition")?;
            Some(RawPartition {
                number: number_at(&at, "dev")?,
                holders: names_in(&at.join("holders")),
                name: part,
            })
        })
        .collect();
    Some(RawBlock {
        path: fs::canonicalize(dir)
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default(),
        number,
        sectors: number_at(dir, "size").unwrap_or(0),
        sector: number_at(dir, "queue/logical_block_size").unwrap_or(512),
        removable: flag("removable"),
        read_only: flag("ro"),
        hidden: flag("hidden"),
        vendor: text("device/vendor"),
        // A card has a name where a disk has a model.
        model: attribute(dir, "device/model").unwrap_or_else(|| text("device/name")),
        serial: attribute(dir, "device/serial").unwrap_or_else(|| text("serial")),
        card_type: attribute(dir, "device/type").filter(|_| name.starts_with("mmcblk")),
        backing_file: attribute(dir, "loop/backing_file"),
        dm_name: attribute(dir, "dm/name"),
        holders: names_in(&dir.join("holders")),
        partitions,
        name,
    })
}
