//! The machine's disks, as the kernel shows them in sysfs (Linux `Documentation/ABI/stable/sysfs-block`
//! and the drivers' own files).

use super::content::{self, Content, LOOK};
use crate::disk::{open_read, read_at};
use holdfast_core::seed::Bus;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name of it in this boot, e.g. `nvme0n1`.
    pub name: String,
    /// How it is attached.
    pub bus: Bus,
    /// Its model's name; may be empty.
    pub model: String,
    /// Its serial number; may be empty.
    pub serial: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes a logical block.
    pub block: u32,
    /// It takes no writes.
    pub read_only: bool,
    /// Who uses it, e.g. `dm-0`.
    pub holders: Vec<String>,
    /// What is on it, or why that cannot be told.
    pub content: Result<Content, String>,
}

impl Disk {
    /// Its device node.
    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.name, word(self.bus))?;
        for (what, text) in [("", &self.model), ("serial ", &self.serial)] {
            if !text.is_empty() {
                write!(f, ", {what}{text}")?;
            }
        }
        write!(f, ", {} GB)", gb(self.bytes))
    }
}

/// As seeds write it.
pub const fn word(bus: Bus) -> &'static str {
    match bus {
        Bus::Nvme => "nvme",
        Bus::Ata => "ata",
        Bus::Scsi => "scsi",
        Bus::Virtio => "virtio",
        Bus::Mmc => "mmc",
        Bus::Usb => "usb",
    }
}

/// 10^9 bytes, as sellers count, with one digit.
pub fn gb(bytes: u64) -> String {
    let tenths = bytes / 100_000_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The names of all disks now.
pub fn names(sys: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(sys.join("block")).into_iter().flatten();
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// All disks that could ever be installed on, with what is on them.
pub fn survey(sys: &Path) -> Vec<Disk> {
    let mut disks: Vec<Disk> = names(sys).iter().filter_map(|n| read(sys, n)).collect();
    for disk in &mut disks {
        disk.content = match open_read(&disk.node()) {
            Ok(file) => ends(&file, disk.bytes),
            Err(e) => Err(e.to_string()),
        };
    }
    disks
}

/// Whether `disk` is still what its name leads to, now that `file` holds it: names go from one disk to
/// another when disks come and go, as long as nobody has them open.
///
/// # Errors
/// What it is now.
pub fn still(sys: &Path, disk: &Disk, file: &File) -> anyhow::Result<()> {
    let mut now = read(sys, &disk.name);
    if let Some(now) = &mut now {
        now.content = ends(file, now.bytes);
    }
    match now {
        Some(now) if now == *disk => Ok(()),
        Some(now) => anyhow::bail!("another disk than was looked at bears this name now: {now}"),
        None => anyhow::bail!("the disk is gone"),
    }
}

fn ends(file: &File, bytes: u64) -> Result<Content, String> {
    let look = LOOK.min(usize::try_from(bytes).unwrap_or(LOOK));
    let read = |at| {
        let end = read_at(file, at, look).map_err(|e| e.to_string())?;
        let whole = end.len() == look;
        whole
            .then_some(end)
            .ok_or_else(|| "it ends before its size".to_owned())
    };
    let last = read(bytes - look as u64)?;
    Ok(content::look(bytes, &read(0)?, &last))
}

/// A file of sysfs as a line of text: at most 200 characters, without control characters.
fn attribute(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let clean: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(clean.trim().to_owned())
}

fn number(path: &Path) -> Option<u64> {
    attribute(path)?.parse().ok()
}

/// A disk by its name, without its content; `None` for what is no disk, or one without a medium.
fn read(sys: &Path, name: &str) -> Option<Disk> {
    let dir = std::fs::canonicalize(sys.join("block").join(name)).ok()?;
    let device = dir.join("device");
    // Loop devices, RAM disks, device mapper and RAID have no device of their own.
    let hidden = number(&dir.join("hidden")) == Some(1);
    if !device.exists() || hidden || is_part_of_a_card(name) || !is_disk(&device) {
        return None;
    }
    let bytes = number(&dir.join("size"))?
        .checked_mul(512)
        .filter(|b| *b > 0)?;
    let block = number(&dir.join("queue/logical_block_size")).and_then(|n| n.try_into().ok());
    let text = |names: [PathBuf; 2]| {
        let mut all = names.iter().filter_map(|p| attribute(p));
        all.find(|t| !t.is_empty()).unwrap_or_default()
    };
    let serial = text([dir.join("serial"), device.join("serial")]);
    Some(Disk {
        name: name.to_owned(),
        bus: bus(name, &dir),
        model: text([device.join("model"), device.join("name")]),
        serial: match serial.is_empty() {
            true => scsi_serial(&device)
                .or_else(|| usb_serial(&dir))
                .unwrap_or_default(),
            false => serial,
        },
        bytes,
        block: block.unwrap_or(512),
        read_only: number(&dir.join("ro")) != Some(0),
        holders: holders(&dir, name),
        content: Err("not looked at".into()),
    })
}

/// eMMC shows its boot areas as disks of their own.
fn is_part_of_a_card(name: &str) -> bool {
    name.strip_prefix("mmcblk")
        .is_some_and(|rest| rest.contains(|c: char| !c.is_ascii_digit()))
}

/// SCSI's device types (SPC-4, table 144): disks, simple disks, zoned disks; others are CD drives,
/// tapes, enclosures. What has no type is no SCSI device.
fn is_disk(device: &Path) -> bool {
    attribute(&device.join("type")).is_none_or(|t| {
        // An MMC device's type is a word.
        t.parse::<u8>()
            .map_or(t != "SDIO", |n| matches!(n, 0 | 0x0e | 0x14))
    })
}

/// From where the device hangs in the tree.
fn bus(name: &str, dir: &Path) -> Bus {
    let mut above = dir.components().filter_map(|c| c.as_os_str().to_str());
    let numbered = |part: &str, stem: &str| {
        part.strip_prefix(stem)
            .is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
    };
    // A bridge chip speaks SCSI or SATA behind it: what comes first counts.
    let first = above.find_map(|part| match part {
        p if numbered(p, "usb") => Some(Bus::Usb),
        p if numbered(p, "ata") => Some(Bus::Ata),
        p if numbered(p, "virtio") => Some(Bus::Virtio),
        p if numbered(p, "nvme") => Some(Bus::Nvme),
        p if numbered(p, "mmc") => Some(Bus::Mmc),
        _ => None,
    });
    first.unwrap_or(match name {
        n if n.starts_with("nvme") => Bus::Nvme,
        n if n.starts_with("mmcblk") => Bus::Mmc,
        _ => Bus::Scsi,
    })
}

/// The unit serial number page (SPC-4, 7.8.16): four bytes with the length, then text.
fn scsi_serial(device: &Path) -> Option<String> {
    let page = std::fs::read(device.join("vpd_pg80")).ok()?;
    let len = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let text = String::from_utf8_lossy(page.get(4..)?.get(..len)?);
    let clean: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(clean.trim().to_owned()).filter(|t| !t.is_empty())
}

/// The serial number of the USB device that a disk hangs below.
fn usb_serial(dir: &Path) -> Option<String> {
    dir.ancestors()
        .find(|d| d.join("idVendor").exists())
        .and_then(|usb| attribute(&usb.join("serial")))
}

fn holders(dir: &Path, name: &str) -> Vec<String> {
    let list = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .filter_map(|e| e.file_name().into_string().ok())
            .collect()
    };
    let mut all = list(&dir.join("holders"));
    let parts = list(dir).into_iter().filter(|n| n.starts_with(name));
    all.extend(parts.flat_map(|part| list(&dir.join(part).join("holders"))));
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A disk's directory as the kernel lays it out, and the link to it.
    fn disk(sys: &Path, place: &str, files: &[(&str, &[u8])]) {
        let dir = sys.join("devices").join(place);
        for (name, bytes) in files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::create_dir_all(sys.join("block")).unwrap();
        let name = dir.file_name().unwrap();
        std::os::unix::fs::symlink(&dir, sys.join("block").join(name)).unwrap();
    }

    const SIZE: (&str, &[u8]) = ("size", b"8388608\n");
    const RW: (&str, &[u8]) = ("ro", b"0\n");

    #[test]
    fn disks_of_each_kind_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let page = |text: &str| [&[0, 0x80, 0, text.len() as u8], text.as_bytes()].concat();
        disk(
            sys,
            "pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1",
            &[
                SIZE,
                RW,
                ("device/model", b"Fast Disk   \n"),
                ("device/serial", b"S1 \n"),
            ],
        );
        disk(
            sys,
            "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda",
            &[
                SIZE,
                RW,
                ("device/type", b"0\n"),
                ("device/vpd_pg80", &page("  WD-7 ")),
                ("sda1/holders/dm-0/x", b""),
            ],
        );
        disk(
            sys,
            "pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host1/target1:0:0/1:0:0:0/block/sdb",
            &[SIZE, ("ro", b"1\n"), ("device/type", b"0\n")],
        );
        std::fs::write(
            sys.join("devices/pci0000:00/0000:00:14.0/usb1/1-1/idVendor"),
            "1",
        )
        .unwrap();
        std::fs::write(
            sys.join("devices/pci0000:00/0000:00:14.0/usb1/1-1/serial"),
            "U9\n",
        )
        .unwrap();
        disk(
            sys,
            "pci0/virtio1/block/vda",
            &[SIZE, RW, ("serial", b"v\n"), ("device/x", b"")],
        );
        disk(
            sys,
            "platform/mmc_host/mmc0/mmc0:0001/block/mmcblk0",
            &[
                SIZE,
                RW,
                ("device/name", b"SD32G"),
                ("device/type", b"MMC\n"),
            ],
        );
        disk(
            sys,
            "platform/mmc_host/mmc0/mmc0:0001/block/mmcblk0boot0",
            &[SIZE, RW, ("device/x", b"")],
        );
        disk(sys, "virtual/block/loop0", &[SIZE, RW]);
        disk(
            sys,
            "pci0/ata2/host2/block/sr0",
            &[SIZE, RW, ("device/type", b"5\n")],
        );
        disk(
            sys,
            "pci0/usb2/block/sdc",
            &[("size", b"0\n"), RW, ("device/type", b"0")],
        );
        disk(
            sys,
            "pci0/host5/block/sdd",
            &[
                SIZE,
                RW,
                ("device/type", b"0"),
                ("queue/logical_block_size", b"4096\n"),
            ],
        );

        let all: Vec<Disk> = names(sys).iter().filter_map(|n| read(sys, n)).collect();
        let short: Vec<_> = all
            .iter()
            .map(|d| (d.name.as_str(), d.bus, d.model.as_str(), d.serial.as_str()))
            .collect();
        assert_eq!(
            short,
            [
                ("mmcblk0", Bus::Mmc, "SD32G", ""),
                ("nvme0n1", Bus::Nvme, "Fast Disk", "S1"),
                ("sda", Bus::Ata, "", "WD-7"),
                ("sdb", Bus::Usb, "", "U9"),
                ("sdd", Bus::Scsi, "", ""),
                ("vda", Bus::Virtio, "", "v"),
            ]
        );
        assert_eq!(
            (all[2].holders.as_slice(), all[3].read_only),
            (&["dm-0".to_owned()][..], true)
        );
        assert_eq!((all[1].bytes, all[4].block), (4 << 30, 4096));
        assert_eq!(
            all[1].to_string(),
            "nvme0n1 (nvme, Fast Disk, serial S1, 4.2 GB)"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn whatever_stands_in_the_files(
            files in prop::collection::vec((0usize..9, prop::collection::vec(any::<u8>(), 0..300)), 0..9),
            name in "[a-z]{1,6}[0-9a-z]{0,5}",
        ) {
            const NAMES: [&str; 9] = [
                "size", "ro", "hidden", "serial", "device/model", "device/type", "device/vpd_pg80",
                "queue/logical_block_size", "device/serial",
            ];
            let dir = tempfile::tempdir().unwrap();
            let mut all: Vec<(&str, &[u8])> = vec![("device/x", b""), SIZE];
            all.extend(files.iter().map(|(n, bytes)| (NAMES[*n], bytes.as_slice())));
            disk(dir.path(), &format!("usb1/block/{name}"), &all);
            if let Some(disk) = read(dir.path(), &name) {
                prop_assert!(!disk.to_string().contains(char::is_control));
                prop_assert!(disk.bytes > 0);
            }
        }
    }

    #[test]
    fn a_name_that_went_to_another_disk_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let place = "pci0000:00/0000:00:01.0/virtio1/block/vdb";
        disk(
            sys,
            place,
            &[SIZE, RW, ("serial", b"one\n"), ("device/type", b"0\n")],
        );
        let medium = tempfile::NamedTempFile::new().unwrap();
        medium.as_file().set_len(8_388_608 * 512).unwrap();
        let mut seen = read(sys, "vdb").unwrap();
        seen.content = ends(medium.as_file(), seen.bytes);
        assert_eq!(seen.content, Ok(Content::Blank));
        still(sys, &seen, medium.as_file()).unwrap();
        let files = sys.join("devices").join(place);
        std::fs::write(files.join("serial"), "two\n").unwrap();
        let error = still(sys, &seen, medium.as_file()).unwrap_err().to_string();
        assert!(
            error.contains("another disk") && error.contains("serial two"),
            "{error}"
        );
        std::fs::write(files.join("serial"), "one\n").unwrap();
        std::fs::write(medium.path(), b"LUKS\xba\xbe").unwrap();
        medium.as_file().set_len(8_388_608 * 512).unwrap();
        assert!(still(sys, &seen, medium.as_file()).is_err());
        std::fs::remove_dir_all(files).unwrap();
        let error = still(sys, &seen, medium.as_file()).unwrap_err().to_string();
        assert!(error.contains("gone"), "{error}");
    }
}
