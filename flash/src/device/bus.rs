//! How a disk is attached, from its place in sysfs.

use serde::Serialize;
use std::fmt;

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// USB: sticks, card readers, disks in a case.
    Usb,
    /// A card or eMMC at a controller of its own.
    Mmc,
    /// NVM Express.
    Nvme,
    /// SATA and parallel ATA.
    Ata,
    /// A virtual machine's.
    Virtio,
    /// SCSI, SAS, and what speaks it.
    Scsi,
    /// No hardware: a loop device.
    Virtual,
    /// Something else.
    Other,
}

impl Bus {
    /// Of a disk's resolved path below `/sys/devices`. The innermost attachment that tells counts:
    /// a USB disk's path also names a SCSI host.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let has = |start: &str, digits: bool| {
            path.split('/').any(|part| {
                part.strip_prefix(start)
                    .is_some_and(|rest| !digits || rest.starts_with(|c: char| c.is_ascii_digit()))
            })
        };
        if path.contains("/devices/virtual/") || path.starts_with("devices/virtual/") {
            Self::Virtual
        } else if has("usb", true) {
            Self::Usb
        } else if has("mmc_host", false) {
            Self::Mmc
        } else if has("nvme", true) {
            Self::Nvme
        } else if has("ata", true) {
            Self::Ata
        } else if has("virtio", true) {
            Self::Virtio
        } else if has("host", true) {
            Self::Scsi
        } else {
            Self::Other
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usb => "usb",
            Self::Mmc => "mmc",
            Self::Nvme => "nvme",
            Self::Ata => "ata",
            Self::Virtio => "virtio",
            Self::Scsi => "scsi",
            Self::Virtual => "virtual",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells() {
        for (path, bus) in [
            (
                "/sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb",
                Bus::Usb,
            ),
            (
                "/sys/devices/platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0",
                Bus::Mmc,
            ),
            (
                "/sys/devices/pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0/nvme0n1",
                Bus::Nvme,
            ),
            (
                "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda",
                Bus::Ata,
            ),
            (
                "/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda",
                Bus::Virtio,
            ),
            (
                "/sys/devices/pci0000:00/0000:00:05.0/host2/target2:0:0/2:0:0:0/block/sdc",
                Bus::Scsi,
            ),
            ("/sys/devices/virtual/block/loop0", Bus::Virtual),
            ("/sys/devices/pci0000:00/pmem0", Bus::Other),
            ("", Bus::Other),
        ] {
            assert_eq!(Bus::of_path(path), bus, "{path}");
        }
    }
}
