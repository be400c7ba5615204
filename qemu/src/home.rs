//! A machine's directory, and the disks in it.

use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Result, io};
use crate::spec::MachineSpec;

/// The directory with a machine's disk, firmware variables and logs.
#[derive(Debug)]
pub enum Home {
    /// Named by the machine's description, or kept for a look after a failed test.
    Kept(PathBuf),
    /// Gone with the machine.
    Temporary(Option<tempfile::TempDir>),
}

impl Home {
    /// Makes `dir`, or one that is gone with the machine.
    pub fn make(dir: Option<&Path>) -> Result<Self> {
        if let Some(dir) = dir {
            std::fs::create_dir_all(dir).map_err(io("make", dir))?;
            return Ok(Self::Kept(dir.to_owned()));
        }
        let made = tempfile::Builder::new().prefix("hf-vm-").tempdir();
        let made = made.map_err(io("make a directory in", std::env::temp_dir()))?;
        Ok(Self::Temporary(Some(made)))
    }

    /// It stays when the machine is gone.
    pub fn keep(&mut self) {
        if let Self::Temporary(dir) = self
            && let Some(dir) = dir.take()
        {
            *self = Self::Kept(dir.keep());
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.as_ref().map_or(Path::new("/"), tempfile::TempDir::path),
        }
    }
}

/// The disk that a machine boots from, made or found again in `home`.
pub fn first_disk(spec: &MachineSpec, home: &Path) -> Result<Option<Disk>> {
    let Some(image) = &spec.image else {
        return match spec.disk_bytes {
            Some(bytes) => blank_disk(&home.join("disk.img"), bytes).map(Some),
            None => Ok(None),
        };
    };
    let path = home.join("disk.qcow2");
    if path.exists() {
        Disk::open(&path).map(Some)
    } else {
        let bytes = match spec.platform.is_raspi() {
            true => Some(card_bytes(image, spec.disk_bytes)?),
            false => spec.disk_bytes,
        };
        Disk::overlay(image, &path, bytes).map(Some)
    }
}

/// QEMU's SD card has a power of two of bytes.
fn card_bytes(image: &Path, asked: Option<u64>) -> Result<u64> {
    let len = std::fs::metadata(image).map_err(io("read", image))?.len();
    Ok(asked.unwrap_or(len).max(len).next_power_of_two())
}

/// The empty disk at `path`, or what a machine made of it before.
pub fn blank_disk(path: &Path, bytes: u64) -> Result<Disk> {
    if path.exists() {
        Disk::open(path)
    } else {
        Disk::blank(path, bytes)
    }
}
