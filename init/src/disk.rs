//! The disk this system was started from: the one whose slot record holds the loader's random id,
//! whatever labels and GUIDs say. A clone of it in the same machine has another id.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use holdfast_core::ipc::Devices;
use holdfast_core::layout::Role;
use holdfast_core::slots::BootId;
use nix::sys::signal::SigSet;

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
    meanwhile: impl FnMut(),
) -> Option<(Disk, RecordStore)> {
    let id = *boot_id;
    let open = move |slots: &Path| RecordStore::open(slots, &id).ok().flatten();
    find_among(Path::new("/sys/block"), open, limit, meanwhile)
}

/// As [`find`]: `open` has the record of a disk of this boot, by the node of its `hf-slots`.
fn find_among<T: Send + 'static>(
    sys_block: &Path,
    open: impl Fn(&Path) -> Option<T> + Clone + Send + 'static,
    limit: Duration,
    mut meanwhile: impl FnMut(),
) -> Option<(Disk, T)> {
    let began = Instant::now();
    let mut seen = Vec::new();
    let mut asked: BTreeMap<String, Receiver<Option<T>>> = BTreeMap::new();
    let mut found: Option<(String, T, Instant)> = None;
    loop {
        let names = block_devices(sys_block);
        // Disks come up one by one; a list that did not change holds nothing new.
        if names != seen && found.is_none() {
            for disk in &names {
                let slots = read_disk(sys_block, disk)
                    .and_then(|d| d.partition(Role::Slots).map(|p| p.node.clone()));
                if let Some(slots) = slots.filter(|_| !asked.contains_key(disk)) {
                    asked.insert(disk.clone(), ask(slots, open.clone()));
                }
            }
            seen = names;
        }
        asked.retain(|disk, answer| match answer.try_recv() {
            Ok(Some(store)) => {
                found.get_or_insert((disk.clone(), store, Instant::now()));
                false
            }
            Err(TryRecvError::Empty) => true,
            Ok(None) | Err(TryRecvError::Disconnected) => false,
        });
        if let Some((name, _, since)) = &found {
            match read_disk(sys_block, name) {
                Some(disk) if disk.is_complete() || since.elapsed() > SETTLE => {
                    return found.map(|(_, store, _)| (disk, store));
                }
                Some(_) => {}
                // It went away, and may come again.
                None => (found, seen) = (None, Vec::new()),
            }
        } else if began.elapsed() > limit {
            return None;
        } else {
            meanwhile();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads a disk's record on a thread of its own: one that hangs over a worn or hostile stick must not
/// keep this system from its own disk, nor from feeding the watchdog.
fn ask<T: Send + 'static>(
    slots: PathBuf,
    open: impl Fn(&Path) -> Option<T> + Send + 'static,
) -> Receiver<Option<T>> {
    let (tell, answer) = channel();
    let told = std::thread::Builder::new()
        .name("disk".into())
        .spawn(move || {
            // PID 1 reads its signals from a descriptor.
            let _ = SigSet::all().thread_block();
            let _ = tell.send(open(&slots));
        });
    if let Err(error) = told {
        crate::kmsg::error(format_args!("look at a disk: {error}"));
    }
    answer
}

/// Every disk and partition that the kernel has, as `disk` or `disk/partition`.
fn block_devices(root: &Path) -> Vec<String> {
    let list = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    };
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

    /// A disk of these roles in a sysfs of its own.
    fn add(sys: &Path, name: &str, roles: &[Role]) {
        for (i, role) in roles.iter().enumerate() {
            let part = sys.join(format!("{name}/{name}{}", i + 1));
            std::fs::create_dir_all(&part).unwrap();
            let text = format!(
                "DEVNAME={name}{0}\nDEVTYPE=partition\nPARTN={0}\nPARTNAME={1}\n",
                i + 1,
                role.name()
            );
            std::fs::write(part.join("uevent"), text).unwrap();
        }
    }

    #[test]
    fn a_disk_that_hangs_does_not_keep_another_from_being_found() {
        let sys = tempfile::tempdir().unwrap();
        add(sys.path(), "sda", &[Role::Slots]);
        let (hangs, never) = channel::<()>();
        let never = std::sync::Arc::new(std::sync::Mutex::new(never));
        let open = move |slots: &Path| {
            let slots = slots.to_string_lossy().into_owned();
            if slots.starts_with("/dev/sda") {
                let _ = never.lock().unwrap().recv();
            }
            slots.starts_with("/dev/sdc").then_some(slots)
        };
        let mut turns = 0;
        let found = find_among(sys.path(), open, Duration::from_secs(60), || {
            turns += 1;
            match turns {
                1 => add(sys.path(), "sdb", &[Role::Slots]),
                // Its partitions come one by one.
                2 => add(sys.path(), "sdc", &Role::ALL[..4]),
                _ => add(sys.path(), "sdc", &Role::ALL),
            }
        });
        let (disk, slots) = found.unwrap();
        assert_eq!(disk.node, Path::new("/dev/sdc"));
        assert!(disk.partition(Role::Slots).is_some() && slots.starts_with("/dev/sdc"));
        drop(hangs);
        let none = find_among(sys.path(), |_| None::<()>, Duration::from_millis(20), || ());
        assert_eq!(none, None);
    }
}
