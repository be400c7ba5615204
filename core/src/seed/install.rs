//! Installing from a stick: the seed's rules for the disk to install on.

use serde::{Deserialize, Serialize};

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// NVM Express.
    Nvme,
    /// SATA and parallel ATA.
    Ata,
    /// SCSI and SAS, with the controllers that speak it.
    Scsi,
    /// virtio-blk, and virtio-scsi's disks.
    Virtio,
    /// eMMC and SD.
    Mmc,
    /// USB; only ever taken where a rule names it.
    Usb,
}

/// What to do where several disks fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choose {
    /// Refuse: only one may fit.
    #[default]
    Only,
    /// The smallest.
    Smallest,
    /// The largest.
    Largest,
}

/// The `[install]` table: all rules must hold for a disk to be taken. With none, the one internal
/// disk that is large enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: [install]")]
pub struct SeedInstall {
    /// How it may be attached; empty: anything but USB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bus: Vec<Bus>,
    /// Part of its model's name, whatever case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its whole serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// At least this many GB (10^9 bytes, as sellers count).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_gb: Option<u64>,
    /// At most this many GB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_gb: Option<u64>,
    /// Where several fit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub choose: Choose,
    /// Erase the disk although it holds data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erase: bool,
    /// Keep the stick an installer, for the next machine; otherwise it is spent after one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuse: bool,
}

fn is_default(choose: &Choose) -> bool {
    *choose == Choose::default()
}
