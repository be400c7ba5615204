//! A drive labelled `cidata` (cloud-init's `NoCloud`): an ISO 9660 or FAT volume whose `user-data`
//! is a seed, and whose `network-config` says what the seed leaves out. Read without mounting it.

pub mod iso;
pub mod network;
mod yaml;

use super::patience::{Counted, Turn};
use super::volume::read_file;
use crate::disk;
use anyhow::{Context as _, anyhow};
use fatfs::{FileSystem, FsOptions};
use holdfast_core::seed::MAX_LEN;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;
use zeroize::Zeroizing;

/// The volume's label, in whatever case.
const LABEL: &str = "cidata";
const USER_DATA: &str = "user-data";
const NETWORK_CONFIG: &str = "network-config";
/// How long the look at all drives may take: a worn disc is read again and again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether drives came or went.
const LOOK: Duration = Duration::from_millis(500);

static TURN: LazyLock<Turn> = LazyLock::new(|| Turn::new("a drive"));

/// What the drive held.
#[derive(Default)]
pub struct Content {
    /// The seed, or what stands in its place.
    pub user_data: Zeroizing<Vec<u8>>,
    /// As it was found.
    pub network_config: Option<Vec<u8>>,
}

/// Where drives are looked for.
#[derive(Debug, Clone)]
pub struct Drives {
    /// The kernel's list: `/sys/class/block`.
    pub list: PathBuf,
    /// Device nodes: `/dev`.
    pub devices: PathBuf,
    /// The disk that this system was started from, by its name there.
    pub own: Option<String>,
}

impl Drives {
    /// This machine's, without the disk at `own`.
    pub fn new(own: &str) -> Self {
        let name = Path::new(own).file_name();
        Self {
            list: "/sys/class/block".into(),
            devices: "/dev".into(),
            own: name.map(|n| n.to_string_lossy().into_owned()),
        }
    }

    /// The names of what may be such a drive: disks, partitions and CD drives, but for those of the
    /// node's own disk.
    fn names(&self) -> BTreeSet<String> {
        let Ok(entries) = std::fs::read_dir(&self.list) else {
            return BTreeSet::new();
        };
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter(|name| self.may_be(name)).collect()
    }

    fn may_be(&self, name: &str) -> bool {
        // Made by this system itself; `fd`: a floppy drive that is not there takes seconds to say so.
        const NOT: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "nbd", "fd", "mtd"];
        if NOT.iter().any(|kind| name.starts_with(kind)) {
            return false;
        }
        let Some(own) = &self.own else { return true };
        let place = self.list.join(name);
        // A partition's directory lies in its disk's.
        let of_own = std::fs::canonicalize(&place).is_ok_and(|path| {
            path.parent()
                .and_then(Path::file_name)
                .is_some_and(|disk| disk.to_string_lossy() == *own)
        });
        let empty = std::fs::read_to_string(place.join("size")).is_ok_and(|s| s.trim() == "0");
        name != own && !of_own && !empty
    }

    /// Returns once other drives are there than `known`, which is set to them.
    pub async fn changed(&self, known: &mut BTreeSet<String>) {
        loop {
            let now = self.names();
            if now != *known {
                *known = now;
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reads the first drive of that label; `None` when there is none, or it has no `user-data`.
    pub async fn read(&self) -> Result<Option<Content>, String> {
        let drives = self.clone();
        let work = move || {
            let mut unreadable = None;
            for name in drives.names() {
                match read(&drives.devices.join(&name)) {
                    Ok(Some(content)) => return Ok(Some(content)),
                    Ok(None) => {}
                    Err(e) => unreadable = Some(e.context(name)),
                }
            }
            unreadable.map_or(Ok(None), Err)
        };
        let read = TURN.take(PATIENCE, work).await;
        read.map_err(|e| format!("{e:#}"))
    }
}

/// Reads one device. One that cannot be read at all (an empty CD drive) is none.
fn read(device: &Path) -> anyhow::Result<Option<Content>> {
    let Ok(file) = std::fs::File::open(device) else {
        return Ok(None);
    };
    let at = |offset, len| disk::read_at(&file, offset, len).map_err(|e| e.to_string());
    let Ok(boot) = at(0, 512) else {
        return Ok(None);
    };
    // A disk that gives errors there, or ends before, is no volume of ours.
    if let Ok(Some(volume)) = iso::open(&at) {
        if !volume.label.eq_ignore_ascii_case(LABEL) {
            return Ok(None);
        }
        let read = |name| volume.file(&at, name, MAX_LEN + 1).map_err(|e| anyhow!(e));
        let Some(user_data) = read(USER_DATA)?.filter(|text| !blank(text)) else {
            return Ok(None);
        };
        return Ok(Some(Content {
            user_data: Zeroizing::new(user_data),
            network_config: read(NETWORK_CONFIG)?,
        }));
    }
    if !may_be_fat(&boot) {
        return Ok(None);
    }
    let Ok(volume) = FileSystem::new(
        Counted::new(&file),
        FsOptions::new().update_accessed_date(false),
    ) else {
        return Ok(None);
    };
    let in_root = volume.read_volume_label_from_root_dir().ok().flatten();
    let label = in_root.unwrap_or_else(|| volume.volume_label());
    if !label.trim_end().eq_ignore_ascii_case(LABEL) {
        return Ok(None);
    }
    let read = |name| read_file(&volume, name).context(name);
    let Some(user_data) = read(USER_DATA)?.filter(|text| !blank(text)) else {
        return Ok(None);
    };
    Ok(Some(Content {
        user_data,
        network_config: read(NETWORK_CONFIG)?.map(|text| text.to_vec()),
    }))
}

fn blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}

/// Whether a boot sector is a FAT volume's that may be called so: fatgen103 has the label at 43 (FAT12
/// and 16) or 71 (FAT32); some systems write it into the root directory only.
fn may_be_fat(boot: &[u8]) -> bool {
    let label = |kind: usize, at: usize| {
        let kind_fits = boot.get(kind..kind + 3) == Some(b"FAT");
        let label = boot.get(at..at + 11).unwrap_or_default();
        kind_fits
            && (label.starts_with(b"NO NAME")
                || label
                    .trim_ascii_end()
                    .eq_ignore_ascii_case(LABEL.as_bytes()))
    };
    boot.get(510..512) == Some(&[0x55, 0xaa]) && (label(54, 43) || label(82, 71))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use fatfs::FormatVolumeOptions;
    use proptest::prelude::*;
    use std::io::{Cursor, Write as _};

    fn fat(label: [u8; 11]) -> Vec<u8> {
        let mut bytes = vec![0; 2 << 20];
        let options = FormatVolumeOptions::new().volume_label(label);
        fatfs::format_volume(Cursor::new(&mut bytes), options).unwrap();
        let volume = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new()).unwrap();
        for (name, content) in [
            ("user-data", "version = 1\n"),
            ("network-config", "version: 2\n"),
        ] {
            let mut file = volume.root_dir().create_file(name).unwrap();
            file.write_all(content.as_bytes()).unwrap();
        }
        drop(volume);
        bytes
    }

    /// Drives as the kernel would list them, by name and content.
    pub fn machine(drives: &[(&str, &[u8])]) -> (tempfile::TempDir, Drives) {
        let dir = tempfile::tempdir().unwrap();
        let all = Drives {
            list: dir.path().join("list"),
            devices: dir.path().join("dev"),
            own: Some("vda".into()),
        };
        for (name, content) in drives {
            std::fs::create_dir_all(all.list.join(name)).unwrap();
            std::fs::create_dir_all(&all.devices).unwrap();
            std::fs::write(all.devices.join(name), content).unwrap();
        }
        (dir, all)
    }

    fn found(content: Option<Content>) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        content.map(|c| (c.user_data.to_vec(), c.network_config))
    }

    #[tokio::test]
    async fn iso_and_fat_of_any_case_are_read_and_others_left_alone() {
        let good = |network: &str| Some((b"version = 1\n".to_vec(), Some(network.into())));
        for (drive, wanted) in [
            (iso::tests::image(), good("version: 1\n")),
            (fat(*b"CIDATA     "), good("version: 2\n")),
            (fat(*b"cidata     "), good("version: 2\n")),
            (fat(*b"OTHER      "), None),
            (
                holdfast_proxmox::iso::image("other", &[("user-data", b"x")]).unwrap(),
                None,
            ),
            (
                holdfast_proxmox::cidata::iso(&[("meta-data", b"x")]).unwrap(),
                None,
            ),
            (
                holdfast_proxmox::cidata::iso(&[("user-data", b" \n")]).unwrap(),
                None,
            ),
            (vec![0; 100], None),
            (vec![0x55; 1 << 20], None),
        ] {
            let (_dir, drives) = machine(&[("sda", &[0; 4096]), ("sr0", &drive)]);
            assert_eq!(found(drives.read().await.unwrap()), wanted);
        }
    }

    #[tokio::test]
    async fn the_own_disk_and_what_the_system_made_are_no_drives() {
        let image = iso::tests::image();
        let names = ["vda", "loop0", "dm-0", "zram0"];
        let all: Vec<_> = names.iter().map(|n| (*n, image.as_slice())).collect();
        let (_dir, drives) = machine(&all);
        assert!(drives.names().is_empty());
        assert!(drives.read().await.unwrap().is_none());
        let mut known = BTreeSet::new();
        std::fs::create_dir(drives.list.join("sr0")).unwrap();
        drives.changed(&mut known).await;
        assert_eq!(known, BTreeSet::from(["sr0".to_owned()]));
    }

    proptest! {
        #![proptest_config(crate::seed::fuzz::cases())]
        #[test]
        fn damaged_fat_drives_are_read_without_a_panic_or_an_end(
            changes in proptest::collection::vec((0usize..32_768, any::<u8>()), 1..30),
        ) {
            static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| fat(*b"CIDATA     "));
            let mut bytes = GOOD.clone();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            // As the agent does it: a panic of the library ends as an error.
            let path = file.path().to_owned();
            let read = std::panic::catch_unwind(|| read(&path));
            if let Ok(Ok(Some(content))) = read {
                prop_assert!(content.user_data.len() <= MAX_LEN + 1);
            }
        }
    }
}
