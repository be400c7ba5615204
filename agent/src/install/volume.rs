//! FAT volumes: the installed disk's `hf-seed`, and another volume id for its copied `esp`.

use anyhow::Context as _;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use holdfast_core::layout::Role;
use holdfast_core::seed::FILE_NAME;
use std::io::{Cursor, Write as _};

/// Its label, padded as FAT has it.
const LABEL: [u8; 11] = *b"HOLDFAST   ";

/// A fresh seed volume with this seed on it.
pub fn seed_volume(id: u32, seed: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; Role::Seed.size() as usize];
    let format = FormatVolumeOptions::new().volume_id(id).volume_label(LABEL);
    fatfs::format_volume(Cursor::new(&mut bytes), format).context("format hf-seed")?;
    {
        let volume = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new())?;
        {
            let mut file = volume.root_dir().create_file(FILE_NAME)?;
            file.truncate()?;
            file.write_all(seed.as_bytes())?;
            file.flush()?;
        }
        volume.unmount()?;
    }
    Ok(bytes)
}

/// What gives a FAT volume with this first sector another id (Microsoft, FAT specification 1.03:
/// `BPB_FATSz16` at 22 tells FAT32, whose id is at 67 and which keeps a copy of the sector where
/// `BPB_BkBootSec`, at 50, says; the others have it at 39). Nothing for what is no FAT.
pub fn new_id(sector: &[u8], id: u32) -> Vec<(u64, Vec<u8>)> {
    let u16_at = |at: usize| Some(u16::from_le_bytes([*sector.get(at)?, *sector.get(at + 1)?]));
    if u16_at(510) != Some(0xaa55) || u16_at(11) != Some(512) {
        return vec![];
    }
    let bytes = id.to_le_bytes().to_vec();
    match (u16_at(22), u16_at(50)) {
        (Some(0), Some(copy)) => {
            let mut all = vec![(67, bytes.clone())];
            if (1..32).contains(&copy) {
                all.push((u64::from(copy) * 512 + 67, bytes));
            }
            all
        }
        _ => vec![(39, bytes)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn the_seed_is_on_the_volume() {
        let bytes = seed_volume(7, "hello").unwrap();
        let volume = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(
            (volume.volume_label().as_str(), volume.volume_id()),
            ("HOLDFAST", 7)
        );
        let mut text = String::new();
        volume
            .root_dir()
            .open_file(FILE_NAME)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn ids_are_changed_in_both_kinds() {
        for (kind, len) in [
            (fatfs::FatType::Fat16, 64 << 20),
            (fatfs::FatType::Fat32, 64 << 20),
        ] {
            let mut bytes = vec![0; len];
            let format = FormatVolumeOptions::new().volume_id(1).fat_type(kind);
            fatfs::format_volume(Cursor::new(&mut bytes), format).unwrap();
            for (at, patch) in new_id(&bytes[..512], 0xdead_beef) {
                bytes[at as usize..][..patch.len()].copy_from_slice(&patch);
            }
            let volume = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new()).unwrap();
            assert_eq!((volume.volume_id(), volume.fat_type()), (0xdead_beef, kind));
        }
        assert!(new_id(&[0; 512], 1).is_empty() && new_id(&[], 1).is_empty());
    }
}
