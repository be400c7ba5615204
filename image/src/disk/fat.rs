//! FAT volumes (ESP and seed) with fixed times and ids.

use std::io::{Cursor, Write};

use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use crate::error::{Error, Result};

/// The time of every file on these volumes: it says nothing, and so never differs.
#[derive(Debug)]
struct Fixed;

const DATE: Date = Date {
    year: 2026,
    month: 1,
    day: 1,
};

impl TimeProvider for Fixed {
    fn get_current_date(&self) -> Date {
        DATE
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime {
            date: DATE,
            time: Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

/// Which FAT a volume has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Firmware of PCs and boot ROMs know it best (UEFI 2.10, 13.3).
    Fat32,
    /// What suits a small volume.
    Fat16,
}

/// A volume of `len` bytes with these files (path with `/`, content).
///
/// # Errors
/// When the files do not fit.
pub(crate) fn volume(
    kind: Kind,
    len: u64,
    label: &str,
    id: u32,
    files: &[(&str, &[u8])],
) -> Result<Vec<u8>> {
    let bad = |e: std::io::Error| Error::build(format!("FAT volume {label}"), e);
    let mut bytes = vec![0; len as usize];
    let mut padded = [b' '; 11];
    for (to, from) in padded.iter_mut().zip(label.bytes()) {
        *to = from;
    }
    let format = FormatVolumeOptions::new()
        .volume_id(id)
        .volume_label(padded);
    let format = match kind {
        // With clusters of one sector 64 MiB have as many as FAT32 needs at least (65,525).
        Kind::Fat32 => format
            .fat_type(fatfs::FatType::Fat32)
            .bytes_per_cluster(512),
        Kind::Fat16 => format,
    };
    fatfs::format_volume(Cursor::new(&mut bytes), format).map_err(bad)?;
    {
        let options = FsOptions::new()
            .time_provider(&Fixed)
            .update_accessed_date(false);
        let fs = FileSystem::new(Cursor::new(&mut bytes), options).map_err(bad)?;
        for (path, content) in files {
            for (at, _) in path.match_indices('/') {
                // Another file's folder, or a new one: both are well.
                fs.root_dir().create_dir(&path[..at]).map_err(bad)?;
            }
            let mut file = fs.root_dir().create_file(path).map_err(bad)?;
            file.truncate().map_err(bad)?;
            file.write_all(content).map_err(bad)?;
        }
        fs.unmount().map_err(bad)?;
    }
    super::fat_mend::mend(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn files_are_read_back_and_bytes_repeat() {
        let make = || {
            volume(
                Kind::Fat16,
                16 << 20,
                "HOLDFAST",
                7,
                &[("EFI/BOOT/BOOTX64.EFI", &[5; 70_000]), ("a.txt", b"x")],
            )
            .unwrap()
        };
        let bytes = make();
        assert_eq!(bytes, make());
        let fs = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(fs.volume_label(), "HOLDFAST");
        let mut content = Vec::new();
        fs.root_dir()
            .open_file("EFI/BOOT/BOOTX64.EFI")
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        assert_eq!(content, [5; 70_000]);
        assert!(volume(Kind::Fat16, 1 << 20, "X", 0, &[("a", &[0; 2 << 20])]).is_err());
    }
}
