//! A made `/sys` and `/proc`, with the disks that people have.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A computer whose `/sys`, `/proc` and `/dev` are folders.
struct Computer(tempfile::TempDir);

impl Computer {
    fn new() -> Self {
        let me = Self(tempfile::tempdir().unwrap());
        me.file(
            "proc/self/mountinfo",
            "22 27 0:21 / /proc rw - proc proc rw\n",
        );
        fs::create_dir_all(me.0.path().join("sys/block")).unwrap();
        fs::create_dir_all(me.0.path().join("dev/mapper")).unwrap();
        me
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A disk at `place` below `/sys/devices`, with attributes.
    fn disk(&self, place: &str, number: &str, sectors: u64, attributes: &[(&str, &str)]) {
        let dir = format!("sys/devices/{place}");
        let name = Path::new(place).file_name().unwrap().to_str().unwrap();
        let size = sectors.to_string();
        for (attribute, text) in [
            ("dev", number),
            ("size", &size),
            ("ro", "0"),
            ("removable", "0"),
        ]
        .iter()
        .chain(attributes)
        {
            self.file(&format!("{dir}/{attribute}"), &format!("{text}\n"));
        }
        let link = self.0.path().join("sys/block").join(name);
        symlink(Path::new("../devices").join(place), link).unwrap();
        self.file(&format!("dev/{name}"), "");
    }

    fn partition(&self, place: &str, number: &str, holders: &[&str]) {
        let dir = format!("sys/devices/{place}");
        self.file(&format!("{dir}/dev"), number);
        self.file(&format!("{dir}/partition"), "1");
        for holder in holders {
            self.file(&format!("{dir}/holders/{holder}"), "");
        }
        let name = Path::new(place).file_name().unwrap().to_str().unwrap();
        self.file(&format!("dev/{name}"), "");
    }

    fn mount(&self, line: &str) {
        let path = self.0.path().join("proc/self/mountinfo");
        let text = fs::read_to_string(&path).unwrap() + line + "\n";
        fs::write(path, text).unwrap();
    }

    fn device(&self, name: &str) -> Device {
        let snapshot = Snapshot::of_root(self.0.path()).unwrap();
        let mut all = devices(&snapshot);
        let at = all.iter().position(|d| d.name == name);
        all.remove(at.unwrap_or_else(|| panic!("{name} is not listed")))
    }

    fn obstacle(&self, name: &str) -> Option<Obstacle> {
        let needs = Needs {
            bytes: Some(GIB),
            internal: false,
        };
        obstacle(&self.device(name), needs)
    }
}

const GIB: u64 = 1 << 30;
const STICK: &str = "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb";
const INSIDE: &str = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda";
const LARGE: u64 = 62_333_952;

#[test]
fn a_stick_a_card_and_a_reader_are_told_from_what_is_inside() {
    let pc = Computer::new();
    pc.disk(
        STICK,
        "8:16",
        LARGE,
        &[
            ("removable", "1"),
            ("device/vendor", "SanDisk "),
            ("device/model", "Ultra           "),
        ],
    );
    // Cards in a slot of the board, and what is soldered beside it.
    let slot = "platform/soc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0";
    pc.disk(
        slot,
        "179:0",
        LARGE,
        &[("device/type", "SD"), ("device/name", "SC32G")],
    );
    let soldered = "platform/soc/mmc_host/mmc1/mmc1:0001/block/mmcblk1";
    pc.disk(soldered, "179:8", LARGE, &[("device/type", "MMC")]);
    pc.disk(&format!("{soldered}boot0"), "179:16", 8192, &[]);
    pc.disk(INSIDE, "8:0", LARGE, &[("device/model", "INTEL SSD")]);
    pc.disk("virtual/block/zram0", "252:0", 8192, &[]);
    pc.disk("virtual/block/loop3", "7:3", 0, &[]);
    let names: Vec<_> = devices(&Snapshot::of_root(pc.0.path()).unwrap())
        .into_iter()
        .map(|d| d.name)
        .collect();
    assert_eq!(names, ["mmcblk0", "mmcblk1", "sda", "sdb"]);
    let stick = pc.device("sdb");
    assert_eq!(
        (stick.model.as_str(), stick.bus),
        ("SanDisk Ultra", Bus::Usb)
    );
    assert_eq!(stick.bytes, LARGE * 512);
    assert_eq!(stick.path, Path::new("/dev/sdb"));
    assert_eq!(pc.obstacle("sdb"), None);
    assert_eq!(pc.obstacle("mmcblk0"), None);
    assert_eq!(pc.device("mmcblk0").model, "SC32G");
    assert_eq!(pc.obstacle("mmcblk1"), Some(Obstacle::Internal(Bus::Mmc)));
    assert_eq!(pc.obstacle("sda"), Some(Obstacle::Internal(Bus::Ata)));
    let needs = Needs {
        bytes: None,
        internal: true,
    };
    assert_eq!(obstacle(&pc.device("sda"), needs), None);
}

#[test]
fn sizes_locks_and_empty_readers() {
    let pc = Computer::new();
    let reader = |n: u32| {
        format!(
            "pci0/usb1/1-1/host7/target7:0:{n}/7:0:{n}:0/block/sd{}",
            ["x", "y", "z", "w"][n as usize]
        )
    };
    pc.disk(&reader(0), "8:32", 0, &[("removable", "1")]);
    pc.disk(&reader(1), "8:48", 1024, &[("removable", "1")]);
    pc.disk(&reader(2), "8:64", LARGE, &[("ro", "1")]);
    pc.disk(
        &reader(3),
        "8:80",
        LARGE,
        &[("queue/logical_block_size", "4096")],
    );
    assert_eq!(pc.obstacle("sdx"), Some(Obstacle::NoMedium));
    let small = pc.obstacle("sdy").unwrap();
    assert!(
        small.to_string().contains("524288 bytes (0.0 GiB)"),
        "{small}"
    );
    assert!(
        small.to_string().contains("1073741824 (1.0 GiB)"),
        "{small}"
    );
    assert_eq!(pc.obstacle("sdz"), Some(Obstacle::ReadOnly));
    assert_eq!(pc.obstacle("sdw"), Some(Obstacle::Sectors(4096)));
}

#[test]
fn what_is_in_use_is_found_through_all_that_is_built_on_it() {
    let stick = |pc: &Computer, holders: &[&str]| {
        pc.disk(STICK, "8:16", LARGE, &[("removable", "1")]);
        pc.partition(&format!("{STICK}/sdb1"), "8:17", holders);
    };
    let pc = Computer::new();
    stick(&pc, &[]);
    pc.mount("40 27 8:17 / /media/me/PHOTOS rw - vfat /dev/sdb1 rw");
    let mounted = pc.obstacle("sdb").unwrap();
    assert!(
        mounted.to_string().contains("/media/me/PHOTOS"),
        "{mounted}"
    );

    // btrfs has numbers of its own: only the source's name tells.
    let pc = Computer::new();
    stick(&pc, &[]);
    pc.mount("40 27 0:44 /@ / rw - btrfs /dev/sdb1 rw");
    assert_eq!(pc.obstacle("sdb"), Some(Obstacle::System("/".into())));

    // A volume group on an opened LUKS volume on a partition.
    let pc = Computer::new();
    stick(&pc, &["dm-0"]);
    pc.disk(
        "virtual/block/dm-0",
        "254:0",
        LARGE,
        &[("dm/name", "crypt")],
    );
    pc.file("sys/devices/virtual/block/dm-0/holders/dm-1", "");
    pc.disk(
        "virtual/block/dm-1",
        "254:1",
        LARGE,
        &[("dm/name", "vg-home")],
    );
    let held = pc.obstacle("sdb").unwrap();
    assert!(
        matches!(&held, Obstacle::Held(by) if by == "dm-0 (crypt)"),
        "{held}"
    );
    symlink("../dm-1", pc.0.path().join("dev/mapper/vg-home")).unwrap();
    pc.file(
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/mapper/vg-home partition 1 0 -2\n",
    );
    assert_eq!(pc.obstacle("sdb"), Some(Obstacle::Swap("dm-1".into())));
    pc.mount("40 27 254:1 / /srv rw - ext4 /dev/mapper/vg-home rw");
    assert_eq!(
        pc.obstacle("sdb"),
        Some(Obstacle::Mounted(vec!["/srv".into()]))
    );

    // RAID members that hold each other in a circle, and a holder that sysfs does not describe.
    let pc = Computer::new();
    stick(&pc, &["md0", "bcache7"]);
    pc.disk("virtual/block/md0", "9:0", LARGE, &[]);
    pc.file("sys/devices/virtual/block/md0/holders/md0", "");
    assert_eq!(pc.device("sdb").uses.len(), 2);
}

#[test]
fn a_partition_is_found_by_its_number() {
    let pc = Computer::new();
    pc.disk(STICK, "8:16", LARGE, &[("removable", "1")]);
    pc.partition(&format!("{STICK}/sdb1"), "8:17", &[]);
    let snapshot = Snapshot::of_root(pc.0.path()).unwrap();
    let number = |minor| DevNumber { major: 8, minor };
    let (whole, part) = by_number(&snapshot, number(16)).unwrap();
    assert_eq!((whole.name.as_str(), part), ("sdb", None));
    assert_eq!(whole.partitions, ["sdb1"]);
    let (whole, part) = by_number(&snapshot, number(17)).unwrap();
    assert_eq!(
        (whole.name.as_str(), part.as_deref()),
        ("sdb", Some("sdb1"))
    );
    assert!(by_number(&snapshot, number(18)).is_none());
}

#[test]
fn this_computer_can_be_looked_at() {
    let snapshot = Snapshot::take().unwrap();
    for device in devices(&snapshot) {
        let _ = obstacle(&device, Needs::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_attribute_breaks_the_reader(
        texts in prop::collection::vec("(?s)[0-9: é\\n-]{0,24}", 12),
        name in "[a-z!]{1,8}",
    ) {
        let pc = Computer::new();
        let names = [
            "size", "ro", "removable", "hidden", "queue/logical_block_size", "device/vendor",
            "device/model", "device/type", "loop/backing_file", "sdb1/partition", "sdb1/dev",
        ];
        let attributes: Vec<_> = names.iter().copied().zip(texts.iter().map(String::as_str)).collect();
        pc.disk(&format!("pci0/usb1/{name}"), &texts[11], LARGE, &attributes);
        pc.disk("pci0/usb1/sdq", "8:16", LARGE, &attributes);
        let snapshot = Snapshot::of_root(pc.0.path()).unwrap();
        for device in devices(&snapshot) {
            let _ = obstacle(&device, Needs::default()).map(|o| o.to_string());
        }
    }
}
