//! The disk this system was started from: the one whose slot record holds the loader's random id,
//! whatever labels and GUIDs say. A clone of it in the same machine has another id.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_core::ipc::Devices;
use holdfast_core::layout::Role;
use holdfast_core::slots::BootId;

use crate::record::RecordStore;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its node, e.g. `/dev/vda3`.
    pub node: PathBuf,
    /// Its number in the table, from 1.
    pub number: u32,
}

/// A whole disk and its partitions by name in the GPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its node, e.g. `/dev/vda`.
    pub node: PathBuf,
    /// By name.
    pub partitions: BTreeMap<String, Partition>,
}

impl Disk {
    /// The partition of this role.
    pub fn partition(&self, role: Role) -> Option<&Partition> {
        self.partitions.get(role.name())
    }

    /// Whether every partition of a node's disk is there.
    fn is_complete(&self) -> bool {
        Role::ALL.iter().all(|role| self.partition(*role).is_some())
    }

    /// As the agent is told.
    pub fn devices(&self) -> Devices {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Devices {
            disk: text(&self.node),
            partitions: self
                .partitions
                .iter()
                .map(|(name, p)| (name.clone(), text(&p.node)))
                .collect(),
        }
    }
}

/// How long the kernel may take to show the rest of a table whose first partitions it shows.
const SETTLE: Duration = Duration::from_secs(3);

/// Looks for the disk until it is there with all its partitions or `limit` is over, calling
/// `meanwhile` in between. The kernel shows partitions one by one: a disk that misses some is taken
/// only when no more come.
pub fn find(
    boot_id: &BootId,
    limit: Duration,
    mut meanwhile: impl FnMut(),
) -> Option<(Disk, RecordStore)> {
    let began = Instant::now();
    let mut seen = Vec::new();
    let mut incomplete: Option<Instant> = None;
    loop {
        let names = block_devices();
        // Disks come up one by one; a list that did not change holds nothing new.
        if names != seen || incomplete.is_some() {
            let found = names
                .iter()
                .filter_map(|name| read_disk(Path::new("/sys/block"), name))
                .find_map(|disk| {
                    let slots = disk.partition(Role::Slots)?;
                    let store = RecordStore::open(&slots.node, boot_id).ok().flatten()?;
                    Some((disk, store))
                });
            seen = names;
            if let Some((disk, store)) = found {
                let since = *incomplete.get_or_insert_with(Instant::now);
                if disk.is_complete() || since.elapsed() > SETTLE {
                    return Some((disk, store));
                }
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
        }
        if began.elapsed() > limit {
            return None;
        }
        meanwhile();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every disk and partition that the kernel has, as `disk` or `disk/partition`.
fn block_devices() -> Vec<String> {
    let list = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    };
    let root = Path::new("/sys/block");
    let with_partitions = |disk: String| {
        let parts: Vec<_> = list(&root.join(&disk))
            .into_iter()
            .filter(|p| p.starts_with(&disk))
            .collect();
        std::iter::once(disk.clone())
            .chain(parts.into_iter().map(move |p| format!("{disk}/{p}")))
            .collect::<Vec<_>>()
    };
    list(root).into_iter().flat_map(with_partitions).collect()
}

/// A disk and its partitions, from sysfs; `None` for a partition's own name or a disk without any.
fn read_disk(sys_block: &Path, name: &str) -> Option<Disk> {
    if name.contains('/') {
        return None;
    }
    let mut partitions = BTreeMap::new();
    for entry in std::fs::read_dir(sys_block.join(name)).ok()?.flatten() {
        let Ok(uevent) = std::fs::read_to_string(entry.path().join("uevent")) else {
            continue;
        };
        if let Some((label, partition)) = parse_uevent(&uevent) {
            // Of two of one name the first counts: a disk that says so is not ours to trust further.
            partitions.entry(label).or_insert(partition);
        }
    }
    (!partitions.is_empty()).then(|| Disk {
        node: Path::new("/dev").join(name),
        partitions,
    })
}

/// A partition's `uevent` file: `KEY=value` lines (Linux `block/partitions/core.c`).
fn parse_uevent(text: &str) -> Option<(String, Partition)> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    if value("DEVTYPE") != Some("partition") {
        return None;
    }
    let number = value("PARTN")?.parse().ok()?;
    let node = Path::new("/dev").join(value("DEVNAME")?);
    Some((value("PARTNAME")?.to_owned(), Partition { node, number }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_from_their_uevents() {
        let text = "MAJOR=254\nMINOR=2\nDEVNAME=vda2\nDEVTYPE=partition\nDISKSEQ=1\nPARTN=2\nPARTNAME=hf-slots\n";
        let partition = Partition {
            node: "/dev/vda2".into(),
            number: 2,
        };
        assert_eq!(parse_uevent(text), Some(("hf-slots".into(), partition)));
        assert_eq!(parse_uevent("DEVNAME=vda\nDEVTYPE=disk\n"), None);
        assert_eq!(parse_uevent("DEVTYPE=partition\nPARTN=x\n"), None);
    }

    #[test]
    fn a_disk_is_a_directory_of_partitions() {
        let sys = tempfile::tempdir().unwrap();
        let part = sys.path().join("vda/vda2");
        std::fs::create_dir_all(&part).unwrap();
        std::fs::write(
            part.join("uevent"),
            "DEVNAME=vda2\nDEVTYPE=partition\nPARTN=2\nPARTNAME=hf-slots\n",
        )
        .unwrap();
        std::fs::create_dir_all(sys.path().join("vdb")).unwrap();
        let disk = read_disk(sys.path(), "vda").unwrap();
        assert_eq!(
            disk.partition(Role::Slots).unwrap().node,
            Path::new("/dev/vda2")
        );
        assert_eq!(disk.devices().partitions["hf-slots"], "/dev/vda2");
        assert!(!disk.is_complete());
        for (i, role) in Role::ALL.iter().enumerate() {
            let part = sys.path().join(format!("vda/vda{}", i + 1));
            std::fs::create_dir_all(&part).unwrap();
            let text = format!(
                "DEVNAME=vda{0}\nDEVTYPE=partition\nPARTN={0}\nPARTNAME={1}\n",
                i + 1,
                role.name()
            );
            std::fs::write(part.join("uevent"), text).unwrap();
        }
        assert!(read_disk(sys.path(), "vda").unwrap().is_complete());
        assert_eq!(read_disk(sys.path(), "vdb"), None);
    }
}
