//! `hf-seed` of a machine's disk, read as a laptop would read the card.

use anyhow::{Context as _, Result};
use holdfast_core::layout::{self, Role};
use holdfast_qemu::Disk;
use std::io::{Cursor, Read as _};

/// The partition's bytes.
///
/// # Errors
/// The disk cannot be read.
pub fn partition(disk: &Disk, role: Role) -> Result<Vec<u8>> {
    let (extents, _) = layout::plan(layout::VAR_MIN);
    let extent = extents
        .iter()
        .find(|e| e.role == role)
        .context("no such partition")?;
    Ok(disk.read_at(extent.offset, usize::try_from(extent.len)?)?)
}

/// A file of the seed volume; none when it is not there.
///
/// # Errors
/// No FAT, or an unreadable one.
pub fn file(disk: &Disk, name: &str) -> Result<Option<String>> {
    let volume = fatfs::FileSystem::new(
        Cursor::new(partition(disk, Role::Seed)?),
        fatfs::FsOptions::new(),
    )?;
    let root = volume.root_dir();
    if !root
        .iter()
        .filter_map(Result::ok)
        .any(|e| e.file_name().eq_ignore_ascii_case(name))
    {
        return Ok(None);
    }
    let mut text = String::new();
    root.open_file(name)?.read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Puts a file on the seed volume, as a laptop would.
///
/// # Errors
/// No FAT, or the disk cannot be written.
pub fn put(disk: &Disk, name: &str, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let (extents, _) = layout::plan(layout::VAR_MIN);
    let extent = extents
        .iter()
        .find(|e| e.role == Role::Seed)
        .context("no hf-seed")?;
    let mut bytes = partition(disk, Role::Seed)?;
    {
        let volume = fatfs::FileSystem::new(Cursor::new(&mut bytes), fatfs::FsOptions::new())?;
        let mut file = volume.root_dir().create_file(name)?;
        file.truncate()?;
        file.write_all(content)?;
        file.flush()?;
    }
    Ok(disk.write_at(extent.offset, &bytes)?)
}
