//! A small image, made of the same parts as the builder's, and seeds for it.
#![allow(dead_code)]

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use holdfast_core::cluster::ClusterId;
use holdfast_core::gpt::{self, Geometry, Part, Step};
use holdfast_core::guid::Guid;
use holdfast_core::header::{Encoding, SlotHeader, Watchdog, slot_digest};
use holdfast_core::keys::PrivateKey;
use holdfast_core::layout::{self, PAYLOAD_OFFSET, Role};
use holdfast_core::loader_keys::{LoaderKeys, UNWRITTEN};
use holdfast_core::releases::{ReleaseList, add_signature};
use holdfast_core::seed::Seed;
use holdfast_core::slots::{Record, Slot, fresh_partition};
use holdfast_core::text::Text;
use std::fs::File;
use std::io::{Cursor, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub const MIB: u64 = 1 << 20;
pub const CLUSTER: [u8; 16] = [7; 16];

pub fn root_key() -> PrivateKey {
    PrivateKey::from_bytes([1; 32])
}

/// Where a partition lies, and its length.
pub fn at(role: Role) -> (u64, u64) {
    let (extents, _) = layout::plan(layout::VAR_MIN);
    let e = extents.into_iter().find(|e| e.role == role).unwrap();
    (e.offset, e.len)
}

pub fn image_len() -> u64 {
    layout::plan(layout::VAR_MIN).1
}

/// Bytes that do not repeat.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend(x.to_le_bytes());
    }
    out.truncate(len);
    out
}

fn volume(len: u64, label: &[u8; 11], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    let options = FormatVolumeOptions::new()
        .volume_label(*label)
        .volume_id(77);
    fatfs::format_volume(Cursor::new(&mut bytes), options).unwrap();
    let fs = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new()).unwrap();
    for (path, content) in files {
        for (cut, _) in path.match_indices('/') {
            fs.root_dir().create_dir(&path[..cut]).unwrap();
        }
        fs.root_dir()
            .create_file(path)
            .unwrap()
            .write_all(content)
            .unwrap();
    }
    fs.unmount().unwrap();
    bytes
}

/// Writes an image for `board` and says where.
pub fn image(dir: &Path, board: &str) -> PathBuf {
    let path = dir.join(format!("holdfast-{board}-base-1.img"));
    let file = File::create(&path).unwrap();
    let (extents, len) = layout::plan(layout::VAR_MIN);
    file.set_len(len).unwrap();
    let put = |offset: u64, bytes: &[u8]| file.write_all_at(bytes, offset).unwrap();

    let parts: Vec<_> = extents
        .iter()
        .enumerate()
        .map(|(i, e)| Part {
            type_guid: e.role.type_guid(),
            guid: Guid::random([i as u8; 16]),
            name: e.role.name(),
            first: e.offset / 512,
            last: (e.offset + e.len) / 512 - 1,
        })
        .collect();
    let geometry = Geometry {
        block: 512,
        last_lba: len / 512 - 1,
    };
    for step in gpt::create(geometry, Guid::random([99; 16]), &parts) {
        if let Step::Write { lba, bytes } = step {
            put(lba * 512, &bytes);
        }
    }
    // As on a Raspberry Pi: the ESP is in the MBR, too.
    let (esp, esp_len) = at(Role::Esp);
    let entry = |kind: u8, first: u64, sectors: u64| {
        let mut entry = [0, 0, 2, 0, kind, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        entry[8..12].copy_from_slice(&(first as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(sectors as u32).to_le_bytes());
        entry
    };
    put(446, &entry(0xee, 1, esp / 512 - 1));
    put(446 + 16, &entry(0x0c, esp / 512, esp_len / 512));

    let root = root_key();
    let mut loader = noise(200_000, 5);
    loader.extend(UNWRITTEN);
    let keys = LoaderKeys::new(CLUSTER, &[root.public().0]).unwrap();
    keys.patch(&mut loader).unwrap();
    let files: [(&str, &[u8]); 1] = [("EFI/BOOT/BOOTX64.EFI", &loader)];
    put(esp, &volume(esp_len, b"ESP        ", &files));
    let (seed, seed_len) = at(Role::Seed);
    put(seed, &volume(seed_len, b"HOLDFAST   ", &[]));

    let release = PrivateKey::from_bytes([2; 32]);
    let mut list = ReleaseList::new(CLUSTER, 1, &[release.public().0])
        .unwrap()
        .encode();
    add_signature(&mut list, &root.public().0, |b| root.sign(b).0).unwrap();
    let payload = noise(3 * MIB as usize + 777, 9);
    let header = SlotHeader {
        encoding: Encoding::Raw,
        watchdog: Watchdog::None,
        watchdog_seconds: 0,
        generation: 1,
        stored_len: payload.len() as u64,
        decoded_len: payload.len() as u64,
        payload: [0; 32],
        board: Text::new(board),
        version: Text::new("1"),
    };
    let header = header.encode(&release.public().0, |b| release.sign(b).0);
    let (slots, _) = at(Role::Slots);
    let record = Record::factory(slot_digest(&header), 1);
    put(slots, &fresh_partition(record, &list));
    for role in [Role::Rescue, Role::Boot(Slot::A)] {
        put(at(role).0, &header);
        put(at(role).0 + PAYLOAD_OFFSET, &payload);
    }
    // Data, a long hole, data: the hole is a part of the file system.
    let (root_a, _) = at(Role::Root(Slot::A));
    put(root_a, &noise(2 * MIB as usize, 11));
    put(root_a + 9 * MIB, &noise(MIB as usize, 13));
    path
}

/// A seed for the image.
pub fn seed(token: u8, board: Option<&str>) -> Seed {
    let mut seed = Seed::parse(include_str!("../../../core/src/seed/example.toml")).unwrap();
    seed.token = PrivateKey::from_bytes([token; 32]);
    seed.cluster_id = ClusterId(CLUSTER);
    seed.roots = vec![root_key().public()];
    seed.board = board.map(str::to_owned);
    seed
}

/// Reads from a disk or file.
pub fn read(path: &Path, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    File::open(path)
        .unwrap()
        .read_exact_at(&mut bytes, offset)
        .unwrap();
    bytes
}

/// The `seed.toml` of a flashed disk.
pub fn seed_on(path: &Path) -> Option<String> {
    let (offset, len) = at(Role::Seed);
    let fs = FileSystem::new(Cursor::new(read(path, offset, len)), FsOptions::new()).unwrap();
    assert_eq!(fs.volume_label(), "HOLDFAST");
    let mut text = String::new();
    let root = fs.root_dir();
    root.open_file("seed.toml")
        .ok()?
        .read_to_string(&mut text)
        .unwrap();
    Some(text)
}

pub fn table_of(path: &Path, len: u64) -> gpt::Found {
    let geometry = Geometry {
        block: 512,
        last_lba: len / 512 - 1,
    };
    gpt::find(geometry, |lba, n| Some(read(path, lba * 512, n * 512))).unwrap()
}
