//! Images on files and, where the tests run as root and there are loop devices, on block devices;
//! checked with tools that are not ours where they are installed.

mod common;

use common::*;
use fatfs::{FileSystem, FsOptions};
use holdfast_core::gpt::Source;
use holdfast_core::layout::Role;
use holdfast_core::slots::Slot;
use holdfast_flash::device::{Needs, Obstacle, obstacle};
use holdfast_flash::image::Image;
use holdfast_flash::plan::Plan;
use holdfast_flash::write::{Disk, Done, Job, Place, Progress, find, flash};
use holdfast_flash::{Error, Result};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

struct Silent;
impl Progress for Silent {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: &str, _: u64) {}
    fn end(&self, _: &str, _: u64, _: Duration) {}
}

fn put(image: &Path, device: &Path, seed: Option<&str>) -> Result<Done> {
    let image = Image::inspect(image)?;
    let disk = Disk::open(device)?;
    let plan = Plan::new(&image, disk.len(), seed.map(str::as_bytes), getrandom::fill)?;
    let job = Job {
        target: &disk,
        path: device,
        progress: &Silent,
        stop: &AtomicBool::new(false),
        verify: true,
    };
    flash(&image.path, &plan, &job)
}

/// Old data where it would do harm: at both ends, and at both ends of each partition.
fn litter(path: &Path, len: u64) {
    let file = File::options().write(true).open(path).unwrap();
    let junk = vec![0xee; MIB as usize];
    let mut places = vec![0, image_len() - MIB, len / MIB * MIB - MIB];
    for role in Role::ALL {
        let (offset, len) = at(role);
        places.extend([offset, offset + len - MIB]);
    }
    for place in places {
        file.write_all_at(&junk, place).unwrap();
    }
    file.write_all_at(&junk[..(len % MIB) as usize], len / MIB * MIB)
        .unwrap();
}

fn old_disk(dir: &Path, name: &str, len: u64) -> PathBuf {
    let path = dir.join(name);
    File::create(&path).unwrap().set_len(len).unwrap();
    litter(&path, len);
    path
}

fn has(tool: &str) -> bool {
    let dirs = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = dirs.iter().any(|d| Path::new(d).join(tool).exists());
    if !found {
        eprintln!("{tool} is not installed: what it would say was not asked");
    }
    found
}

fn run(command: &str, args: &[&str]) -> (bool, String) {
    let out = Command::new(command).args(args).output().unwrap();
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.success(), text)
}

/// All that has to hold for a flashed disk of `len` bytes.
fn check(image: &Path, disk: &Path, len: u64) {
    let same = |role: Role, from: u64, to: u64| {
        let (offset, _) = at(role);
        assert!(
            read(image, offset + from, to - from) == read(disk, offset + from, to - from),
            "{} differs",
            role.name()
        );
    };
    same(Role::Slots, 0, at(Role::Slots).1);
    for copy in [0, 16 * MIB] {
        same(Role::State, copy, copy + MIB);
    }
    for role in [Role::Rescue, Role::Boot(Slot::A)] {
        same(role, 0, 4 * MIB + 777);
    }
    same(Role::Boot(Slot::B), 0, MIB);
    same(Role::Root(Slot::A), 0, 10 * MIB);
    same(Role::Var, 0, MIB);
    // Sector 0 is the image's, the table is not.
    assert_eq!(read(image, 0, 512), read(disk, 0, 512));
    let (old, new) = (table_of(image, image_len()), table_of(disk, len));
    assert_eq!(new.source, Source::Primary);
    assert_ne!(old.table.disk, new.table.disk);
    let guids: BTreeSet<_> = [&old, &new]
        .iter()
        .flat_map(|f| f.table.entries().map(|e| e.guid))
        .collect();
    assert_eq!(guids.len(), 2 * Role::ALL.len());
    // The backup agrees, and no old one is at the disk's end.
    let backup = table_of(disk, image_len());
    assert_eq!(backup.table, new.table);
    if len > image_len() {
        let end = read(disk, len - MIB, MIB);
        assert!(end.iter().all(|b| *b == 0));
    }
    let id = |path: &Path, role: Role| {
        let (offset, len) = at(role);
        let fs = FileSystem::new(Cursor::new(read(path, offset, len)), FsOptions::new());
        fs.unwrap().volume_id()
    };
    for role in [Role::Esp, Role::Seed] {
        assert_ne!(id(image, role), id(disk, role));
    }
    others_agree(image, disk, len);
}

/// What `fsck.vfat` finds in a partition, and whether that is nothing.
fn fsck(disk: &Path, role: Role) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(role.name());
    let (offset, len) = at(role);
    std::fs::write(&path, read(disk, offset, len)).unwrap();
    let path = path.to_str().unwrap();
    let (good, said) = run("fsck.vfat", &["-n", "-v", path]);
    (good, said.replace(path, ""))
}

fn others_agree(image: &Path, disk: &Path, len: u64) {
    if has("sgdisk") && len == image_len() {
        let (_, said) = run("sgdisk", &["-v", disk.to_str().unwrap()]);
        assert!(said.contains("No problems found"), "{said}");
    }
    if has("fsck.vfat") {
        let (good, said) = fsck(disk, Role::Seed);
        assert!(good, "{said}");
        // fatfs gives "." and ".." long names, which fsck does not like: nothing may come to that.
        assert_eq!(fsck(disk, Role::Esp), fsck(image, Role::Esp));
    }
}

#[test]
fn a_file_with_old_data_becomes_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), "x86-64");
    let seed = seed(3, None).to_toml().unwrap();
    // As large as the image; larger, with an odd end.
    for (name, spare) in [("exact", 0), ("larger", 70 * MIB + 3 * 4096)] {
        let len = image_len() + spare;
        let disk = old_disk(dir.path(), name, len);
        let done = put(&image, &disk, Some(&seed)).unwrap();
        assert!(
            done.written < 40 * MIB && done.left_out > 2000 * MIB,
            "{done:?}"
        );
        check(&image, &disk, len);
        assert_eq!(seed_on(&disk).unwrap(), seed);
    }
}

#[test]
fn two_disks_from_one_image_differ_and_a_packed_image_does_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), "x86-64");
    let packed = dir.path().join("image.img.zst");
    let file = File::create(&packed).unwrap();
    zstd::stream::copy_encode(File::open(&image).unwrap(), &file, 1).unwrap();
    let disks = ["one", "two"].map(|n| old_disk(dir.path(), n, image_len()));
    for (disk, from) in disks.iter().zip([&image, &packed]) {
        put(from, disk, None).unwrap();
        check(&image, disk, image_len());
        assert_eq!(seed_on(disk), None);
    }
    let [one, two] = disks.map(|d| table_of(&d, image_len()).table);
    assert_ne!(one.disk, two.disk);

    // A download that broke off: nothing on the disk starts.
    let whole = std::fs::read(&packed).unwrap();
    std::fs::write(&packed, &whole[..whole.len() - 1000]).unwrap();
    let disk = old_disk(dir.path(), "three", image_len());
    let error = put(&packed, &disk, None).unwrap_err();
    assert!(error.to_string().contains("incomplete"), "{error}");
    assert!(read(&disk, 0, MIB).iter().all(|b| *b == 0));
}

#[test]
fn other_files_and_damaged_images_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let said = |path: &Path| Image::inspect(path).unwrap_err().to_string();
    let file = dir.path().join("f");
    for (bytes, words) in [
        (&b"QFI\xfb\0\0\0\x03"[..], "qcow2"),
        (b"HFBUNDL1....", "update bundle"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"hello", "no disk image of Holdfast"),
        (b"", "no disk image of Holdfast"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        assert!(said(&file).contains(words), "{}", said(&file));
    }
    assert!(matches!(
        Image::inspect(&dir.path().join("none")),
        Err(Error::NoImage(_))
    ));
    let good = image(dir.path(), "rpi4");
    let seen = Image::inspect(&good).unwrap();
    assert_eq!((seen.board.as_str(), seen.len), ("rpi4", image_len()));
    assert_eq!(seen.keys.cluster, CLUSTER);
    // Cut off.
    let open = File::options().write(true).open(&good).unwrap();
    open.set_len(image_len() - MIB).unwrap();
    assert!(said(&good).contains("incomplete"), "{}", said(&good));
    open.set_len(image_len()).unwrap();
    // A bit of the header, of the release list, of the loader's keys.
    for (offset, words) in [
        (at(Role::Boot(Slot::A)).0 + 100, "hf-boot-a"),
        (at(Role::Rescue).0 + 100, "hf-rescue"),
        (513, "partition table"),
    ] {
        let mut byte = read(&good, offset, 1);
        byte[0] ^= 1;
        open.write_all_at(&byte, offset).unwrap();
        assert!(said(&good).contains(words), "{}", said(&good));
        byte[0] ^= 1;
        open.write_all_at(&byte, offset).unwrap();
    }
    Image::inspect(&good).unwrap();
}

#[test]
fn a_file_that_someone_writes_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let _first = Disk::open(&path).unwrap();
    assert!(matches!(Disk::open(&path), Err(Error::Busy(_))));
    assert!(matches!(
        find(Path::new("/dev/null")),
        Err(Error::NoDisk(_))
    ));
    assert!(matches!(
        find(&dir.path().join("x")),
        Err(Error::NoDevice(_))
    ));
}

/// A loop device, if there can be one.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !has("losetup") {
            eprintln!("not root, or no losetup: nothing was tried on block devices");
            return None;
        }
        let (good, said) = run("losetup", &["-f", "--show", file.to_str().unwrap()]);
        if !good {
            eprintln!(
                "no loop device ({}): nothing was tried on block devices",
                said.trim()
            );
            return None;
        }
        Some(Self(said.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["-d", self.0.to_str().unwrap()]);
    }
}

#[test]
fn a_block_device_is_written_and_not_while_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let len = image_len() + 5 * MIB + 512;
    let back = old_disk(dir.path(), "back", len);
    let Some(device) = Loop::over(&back) else {
        return;
    };
    let image = image(dir.path(), "x86-64");
    let seed = seed(4, Some("x86-64")).to_toml().unwrap();
    put(&image, &device.0, Some(&seed)).unwrap();
    check(&image, &device.0, len);
    assert_eq!(seed_on(&device.0).unwrap(), seed);

    let Place::File(_) = find(&back).unwrap() else {
        panic!("a file")
    };
    let free = |needs| match find(&device.0).unwrap() {
        Place::Disk(d) => obstacle(&d, needs),
        Place::File(_) => panic!("a device"),
    };
    assert_eq!(free(Needs::default()), None);
    let needs = Needs {
        bytes: Some(len + 1),
        internal: false,
    };
    assert_eq!(
        free(needs),
        Some(Obstacle::TooSmall {
            has: len,
            needs: len + 1
        })
    );
    if !has("mkfs.ext4") {
        return;
    }
    let path = device.0.to_str().unwrap();
    let (good, said) = run("mkfs.ext4", &["-q", "-F", path, "64M"]);
    assert!(good, "{said}");
    let mount = dir.path().join("mount point");
    std::fs::create_dir(&mount).unwrap();
    let (good, said) = run("mount", &[path, mount.to_str().unwrap()]);
    assert!(good, "{said}");
    let obstacle = free(Needs::default());
    let opened = Disk::open(&device.0);
    let (unmounted, said) = run("umount", &[mount.to_str().unwrap()]);
    assert!(unmounted, "{said}");
    let Some(Obstacle::Mounted(at)) = obstacle else {
        panic!("{obstacle:?}")
    };
    assert_eq!(at, [mount.to_str().unwrap()]);
    assert!(matches!(opened, Err(Error::Busy(_))));
}

/// The backing file's file system is full after a while: the device gives errors.
#[test]
fn a_device_that_fails_starts_nothing_and_says_how_far_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: no device was made to fail");
        return;
    }
    let mounted = run(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=8m",
            "none",
            small.to_str().unwrap(),
        ],
    );
    if !mounted.0 {
        eprintln!("no tmpfs ({}): no device was made to fail", mounted.1);
        return;
    }
    let result = {
        let back = small.join("back");
        File::create(&back).unwrap().set_len(image_len()).unwrap();
        let device = Loop::over(&back);
        let image = image(dir.path(), "x86-64");
        device.map(|d| (put(&image, &d.0, None), read(&d.0, 0, MIB)))
    };
    run("umount", &[small.to_str().unwrap()]);
    let Some((result, front)) = result else {
        return;
    };
    let error = result.unwrap_err();
    let Error::Write { done, total, .. } = &error else {
        panic!("{error}")
    };
    assert!(*done > 0 && *total == image_len() / MIB, "{error}");
    assert!(error.to_string().contains("does not start"), "{error}");
    assert!(front.iter().all(|b| *b == 0));
}
