//! Which disks may be overwritten: one rule after the other, the worst first.

use super::{Bus, Device};
use serde::Serialize;

/// What this computer does with a disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Mounted here.
    Mounted(String),
    /// Swapped to.
    Swap(String),
    /// Part of something else: LVM, RAID, an opened LUKS volume.
    Held(String),
}

/// What is asked of a disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    /// How large the image is, where that is known.
    pub bytes: Option<u64>,
    /// Whether internal disks are meant, too.
    pub internal: bool,
}

/// Why a disk is not overwritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// An empty reader.
    #[error("there is no card or disk in it")]
    NoMedium,
    /// This computer runs from it.
    #[error("this computer runs from it ({0} is on it); it is never overwritten")]
    System(String),
    /// Mounted.
    #[error("it is mounted at {}: unmount it first", .0.join(", "))]
    Mounted(Vec<String>),
    /// Swapped to.
    #[error("it is in use as swap ({0}): `swapoff` it first")]
    Swap(String),
    /// Part of something else.
    #[error("it is part of {0} (LVM, RAID or an opened LUKS volume): close that first")]
    Held(String),
    /// A partition.
    #[error("it is a partition; the image has partitions of its own and needs the whole {0}")]
    Partition(String),
    /// Takes no writes.
    #[error("it is read-only: look for the card's lock switch")]
    ReadOnly,
    /// Sectors that the image's table is not made for.
    #[error("its sectors are of {0} bytes; images are made for 512")]
    Sectors(u32),
    /// Too small.
    #[error(
        "it is too small: it has {has} bytes ({:.1} GiB), the image needs {needs} ({:.1} GiB); take a larger one",
        gib(*.has), gib(*.needs)
    )]
    TooSmall {
        /// Its size.
        has: u64,
        /// The image's.
        needs: u64,
    },
    /// Not made to be taken out.
    #[error("it is an internal disk ({0}); if it is really meant, say so with --allow-internal")]
    Internal(Bus),
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// Mount points that only the running system has.
const SYSTEM: [&str; 12] = [
    "/",
    "/boot",
    "/boot/efi",
    "/boot/firmware",
    "/efi",
    "/usr",
    "/var",
    "/etc",
    "/home",
    "/opt",
    "/nix",
    "/run/live/medium",
];

/// Why `device` must not be overwritten; none: it may.
#[must_use]
pub fn obstacle(device: &Device, needs: Needs) -> Option<Obstacle> {
    let mounted: Vec<&str> = device
        .uses
        .iter()
        .filter_map(|u| match u {
            Use::Mounted(at) => Some(at.as_str()),
            _ => None,
        })
        .collect();
    if let Some(at) = mounted.iter().find(|at| SYSTEM.contains(at)) {
        return Some(Obstacle::System((*at).to_owned()));
    }
    if !mounted.is_empty() {
        let all = mounted.into_iter().map(str::to_owned).collect();
        return Some(Obstacle::Mounted(all));
    }
    for one in &device.uses {
        match one {
            Use::Swap(by) => return Some(Obstacle::Swap(by.clone())),
            Use::Held(by) => return Some(Obstacle::Held(by.clone())),
            Use::Mounted(_) => {}
        }
    }
    if device.bytes == 0 {
        return Some(Obstacle::NoMedium);
    }
    if device.read_only {
        return Some(Obstacle::ReadOnly);
    }
    if !device.removable && device.bus != Bus::Virtual && !needs.internal {
        return Some(Obstacle::Internal(device.bus));
    }
    if device.sector != 512 {
        return Some(Obstacle::Sectors(device.sector));
    }
    if let Some(bytes) = needs.bytes.filter(|n| *n > device.bytes) {
        return Some(Obstacle::TooSmall {
            has: device.bytes,
            needs: bytes,
        });
    }
    None
}
