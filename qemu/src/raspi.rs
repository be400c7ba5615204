//! The part of a Raspberry Pi's firmware that QEMU has none of: the boot ROM finds the first FAT
//! partition in the MBR, the GPU's firmware reads `config.txt` there, and puts kernel (here U-Boot)
//! and device tree into memory.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Error, Result, io};
use crate::platform::Platform;

/// What `-kernel` and `-dtb` get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub kernel: PathBuf,
    pub device_tree: PathBuf,
}

/// Nodes of Debian's tree that QEMU's `raspi4b` has no hardware for; the kernel waits for them, or
/// stops.
const ABSENT: [&str; 7] = [
    "/soc/interrupt-controller@7ef00100",
    "/soc/i2c@7ef04500",
    "/soc/i2c@7ef09500",
    "/soc/hdmi@7ef00700",
    "/soc/hdmi@7ef05700",
    "/soc/clock@7ef00000",
    "/emmc2bus/mmc@7e340000",
];

/// Where QEMU has the card of a `raspi4b`; on the board a Wi-Fi chip is soldered there.
const CARD: &str = "/soc/mmc@7e300000";

/// Reads what the firmware would from the card, into `home`.
pub(crate) fn load(platform: Platform, card: &Disk, home: &Path) -> Result<Loaded> {
    let bad = |what: &str| Error::NotBootable(card.path().to_owned(), what.to_owned());
    let (at, len) = first_fat(&card.read_at(0, 512)?)
        .ok_or_else(|| bad("its MBR names no FAT partition: no boot ROM would find it"))?;
    let volume = card.read_at(at, len)?;
    let volume = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new())
        .map_err(|e| bad(&format!("its first FAT partition is none: {e}")))?;
    let file = |name: &str| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        volume
            .root_dir()
            .open_file(name)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|e| bad(&format!("{name}: {e}")))?;
        Ok(bytes)
    };
    let config = String::from_utf8_lossy(&file("config.txt")?).into_owned();
    let kernel = setting(&config, "kernel").unwrap_or("kernel8.img");
    let tree = match platform {
        Platform::Raspi4b => "bcm2711-rpi-4-b.dtb",
        _ => "bcm2837-rpi-3-b.dtb",
    };
    let loaded = Loaded {
        kernel: home.join("kernel.bin"),
        device_tree: home.join(tree),
    };
    for (path, bytes) in [
        (&loaded.kernel, file(kernel)?),
        (&loaded.device_tree, file(tree)?),
    ] {
        std::fs::write(path, bytes).map_err(io("write", path))?;
    }
    if platform == Platform::Raspi4b {
        fit_raspi4b(&loaded.device_tree)?;
    }
    Ok(loaded)
}

/// Offset and length in bytes of the first FAT partition in an MBR.
fn first_fat(mbr: &[u8]) -> Option<(u64, usize)> {
    let entry = (446..510)
        .step_by(16)
        .filter_map(|at| mbr.get(at..at + 16))
        .find(|e| matches!(e[4], 0x0b | 0x0c | 0x0e))?;
    let word = |at: usize| {
        let bytes = entry.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_le_bytes(bytes)))
    };
    Some((word(8)? * 512, usize::try_from(word(12)? * 512).ok()?))
}

fn setting<'t>(config: &'t str, name: &str) -> Option<&'t str> {
    config.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Makes the tree say what QEMU's machine has. It gets a name of its own in front, so that the
/// stub of a UKI does not put the board's tree in its place.
fn fit_raspi4b(tree: &Path) -> Result<()> {
    for node in ABSENT {
        put(tree, &["-t", "s"], &[node, "status", "disabled"])?;
    }
    for property in ["mmc-pwrseq", "non-removable", "pinctrl-0", "pinctrl-names"] {
        put(tree, &["-d"], &[CARD, property])?;
    }
    put(tree, &["-r"], &[&format!("{CARD}/wifi@1")])?;
    put(
        tree,
        &["-t", "s"],
        &["/chosen", "stdout-path", "serial0:115200n8"],
    )?;
    put(tree, &["-r"], &["/soc/serial@7e201000/bluetooth"])?;
    put(
        tree,
        &["-t", "s"],
        &["/soc/serial@7e215040", "status", "disabled"],
    )?;
    let names = ["qemu,raspi4b", "raspberrypi,4-model-b", "brcm,bcm2711"];
    put(
        tree,
        &["-t", "s"],
        &["/", "compatible", names[0], names[1], names[2]],
    )
}

fn put(tree: &Path, options: &[&str], words: &[&str]) -> Result<()> {
    let tree = crate::disk::text(tree)?;
    let args: Vec<&str> = options
        .iter()
        .copied()
        .chain([tree])
        .chain(words.iter().copied())
        .collect();
    crate::disk::run("fdtput", &args).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_rom_takes_the_first_fat_partition() {
        let mut mbr = vec![0; 512];
        mbr[446 + 4] = 0xee;
        mbr[462 + 4] = 0x0c;
        mbr[462 + 8..462 + 12].copy_from_slice(&2048u32.to_le_bytes());
        mbr[462 + 12..462 + 16].copy_from_slice(&8u32.to_le_bytes());
        assert_eq!(first_fat(&mbr), Some((1 << 20, 4096)));
        assert_eq!(first_fat(&[0; 512]), None);
        assert_eq!(first_fat(&[]), None);
    }

    #[test]
    fn settings_are_read_from_config_txt() {
        let config = "arm_64bit=1\n# kernel=no\nkernel = u-boot.bin \n";
        assert_eq!(setting(config, "kernel"), Some("u-boot.bin"));
        assert_eq!(setting(config, "initramfs"), None);
    }
}
