//! An entry of the firmware's boot menu for the installed disk (UEFI 2.10, 3.1.3 and 10.3), where it
//! can be had. Nothing depends on it: a disk's `\EFI\BOOT` is found without one.
//!
//! Linux keeps variables that it does not know from being removed by mistake (the immutable flag);
//! `Boot####` and `BootOrder` are on its list of known ones and carry no such flag.

use super::content::{BLOCK, geometry};
use anyhow::{Context as _, ensure};
use holdfast_core::gpt;
use holdfast_core::guid::Guid;
use holdfast_core::layout::Role;
use nix::mount::{MsFlags, mount, umount};
use std::io::Write as _;
use std::path::Path;

/// The name people see.
const DESCRIPTION: &str = "Holdfast";
/// EFI_GLOBAL_VARIABLE.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept, for boot services, at run time.
const ATTRIBUTES: u32 = 7;
const EFIVARFS: &str = "/sys/firmware/efi/efivars";

/// Where the firmware looks for a loader on a disk without an entry.
#[cfg(target_arch = "x86_64")]
const LOADER: &str = "\\EFI\\BOOT\\BOOTX64.EFI";
/// Where the firmware looks for a loader on a disk without an entry.
#[cfg(not(target_arch = "x86_64"))]
const LOADER: &str = "\\EFI\\BOOT\\BOOTAA64.EFI";

/// The ESP of the installed disk, in blocks.
#[derive(Debug, Clone, Copy)]
pub struct Esp {
    /// Number in the table, from 1.
    pub number: u32,
    /// First block.
    pub first: u64,
    /// Blocks.
    pub blocks: u64,
    /// Its GUID.
    pub guid: Guid,
}

/// The ESP of a disk of so many bytes that begins with `first`.
pub fn esp(bytes: u64, first: &[u8]) -> Option<Esp> {
    let found = gpt::find(geometry(bytes), |lba, blocks| {
        let at = usize::try_from(lba).ok()?.checked_mul(BLOCK)?;
        let len = usize::try_from(blocks).ok()?.checked_mul(BLOCK)?;
        Some(first.get(at..at.checked_add(len)?)?.to_vec())
    });
    let esp = found.ok()?.table.role(Role::Esp)?;
    Some(Esp {
        number: u32::try_from(esp.index).ok()? + 1,
        first: esp.first,
        blocks: esp.last - esp.first + 1,
        guid: esp.guid,
    })
}

/// Puts an entry for the ESP first; the entry's name.
///
/// # Errors
/// When the firmware keeps no variables, or takes none.
pub fn add_entry(esp: Esp) -> anyhow::Result<String> {
    let dir = Path::new(EFIVARFS);
    ensure!(dir.is_dir(), "the firmware shows no variables");
    let none: Option<&str> = None;
    mount(
        Some("efivarfs"),
        dir,
        Some("efivarfs"),
        MsFlags::MS_NOSUID,
        none,
    )
    .context("efivarfs cannot be mounted")?;
    let added = add_in(dir, esp);
    let _ = umount(dir);
    added
}

fn add_in(dir: &Path, esp: Esp) -> anyhow::Result<String> {
    let option = load_option(esp);
    let read = |name: &str| {
        let bytes = std::fs::read(dir.join(format!("{name}-{GLOBAL}"))).ok()?;
        Some(bytes.get(4..)?.to_vec())
    };
    let entry = |n: u16| format!("Boot{n:04X}");
    let numbers = 0..=0x0fff;
    let same = numbers
        .clone()
        .find(|n| read(&entry(*n)).as_ref() == Some(&option));
    let free = || numbers.clone().find(|n| read(&entry(*n)).is_none());
    let number = same
        .or_else(free)
        .context("the firmware has no free entry")?;
    write(dir, &entry(number), &option)?;
    let order = read("BootOrder").unwrap_or_default();
    write(dir, "BootOrder", &first_in(&order, number))?;
    Ok(entry(number))
}

/// In one write, as efivarfs wants it, over what is there.
fn write(dir: &Path, name: &str, data: &[u8]) -> anyhow::Result<()> {
    let bytes = [&ATTRIBUTES.to_le_bytes()[..], data].concat();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(format!("{name}-{GLOBAL}")))
        .with_context(|| name.to_owned())?;
    file.write_all(&bytes).with_context(|| name.to_owned())
}

/// `BootOrder` with this entry first.
fn first_in(order: &[u8], number: u16) -> Vec<u8> {
    let number = number.to_le_bytes();
    let rest = order.chunks_exact(2).filter(|n| *n != number);
    std::iter::once(&number[..])
        .chain(rest)
        .flatten()
        .copied()
        .collect()
}

/// `EFI_LOAD_OPTION`: active, description, device path of the loader on the partition.
fn load_option(esp: Esp) -> Vec<u8> {
    let ucs2 = |text: &str| -> Vec<u8> {
        text.encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect()
    };
    let node = |kind: u8, sub: u8, data: &[u8]| {
        let len = (data.len() + 4) as u16;
        [&[kind, sub], &len.to_le_bytes()[..], data].concat()
    };
    let mut disk = esp.number.to_le_bytes().to_vec();
    disk.extend(esp.first.to_le_bytes());
    disk.extend(esp.blocks.to_le_bytes());
    disk.extend(esp.guid.0);
    // Partitions of a GPT, told by GUID.
    disk.extend([2, 2]);
    let path = [
        node(4, 1, &disk),
        node(4, 4, &ucs2(LOADER)),
        node(0x7f, 0xff, &[]),
    ]
    .concat();
    let mut option = 1u32.to_le_bytes().to_vec();
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(ucs2(DESCRIPTION));
    option.extend(path);
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESP: Esp = Esp {
        number: 1,
        first: 2048,
        blocks: 131_072,
        guid: Guid([9; 16]),
    };

    fn variable(dir: &Path, name: &str) -> Vec<u8> {
        std::fs::read(dir.join(format!("{name}-{GLOBAL}"))).unwrap()
    }

    #[test]
    fn the_entry_goes_first_and_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "Boot0000", b"other").unwrap();
        write(dir.path(), "BootOrder", &[0, 0, 5, 0]).unwrap();
        assert_eq!(add_in(dir.path(), ESP).unwrap(), "Boot0001");
        assert_eq!(add_in(dir.path(), ESP).unwrap(), "Boot0001");
        assert_eq!(
            variable(dir.path(), "BootOrder"),
            [7, 0, 0, 0, 1, 0, 0, 0, 5, 0]
        );
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(add_in(empty.path(), ESP).unwrap(), "Boot0000");
        assert_eq!(variable(empty.path(), "BootOrder"), [7, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_load_option_has_the_specifications_layout() {
        let option = load_option(ESP);
        assert_eq!(option[..4], [1, 0, 0, 0]);
        let path_len = usize::from(u16::from_le_bytes([option[4], option[5]]));
        assert_eq!(option.len(), 6 + 2 * (DESCRIPTION.len() + 1) + path_len);
        let path = &option[option.len() - path_len..];
        assert_eq!(path[..8], [4, 1, 42, 0, 1, 0, 0, 0]);
        assert_eq!(path[24..42], [[9; 16].as_slice(), &[2, 2]].concat());
        assert_eq!(path[42..44], [4, 4]);
        assert_eq!(path[path.len() - 4..], [0x7f, 0xff, 4, 0]);
    }
}
