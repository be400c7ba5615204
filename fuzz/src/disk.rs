//! What lies on a disk, as rot or somebody's program may have left it: behind checksums that hold,
//! which a fuzzer would never guess.

use holdfast_core::bytes::BLOCK;
use holdfast_core::gpt::{self, Geometry, Part, Step};
use holdfast_core::guid::Guid;
use holdfast_core::header::SlotHeader;
use holdfast_core::layout::Role;
use holdfast_core::releases::ReleaseList;
use holdfast_core::slots::{Copies, Excluded, Record};

/// The checksum of a block is in its last bytes.
const CRC_AT: usize = BLOCK - 4;

/// Changes bytes: each change is a place (2 bytes) and what is flipped there.
fn flip(bytes: &mut [u8], changes: &[u8]) {
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change[2];
        }
    }
}

/// A slot record: what the loader makes of it starts something or says so, each time in the same way.
pub fn record(data: &[u8]) {
    let mut block = Record::factory([7; 32], 3).encode();
    flip(&mut block[..CRC_AT], data);
    let crc = crc32fast::hash(&block[..CRC_AT]);
    block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    let _ = SlotHeader::parse(&block);
    let _ = ReleaseList::parse(&block);
    let Ok(record) = Record::decode(&block) else {
        return;
    };
    let again = Record::decode(&record.encode()).expect("what was read can be written");
    assert_eq!(again.encode(), record.encode());
    let Ok((mut copies, _)) = Copies::read([&block, &[0; BLOCK]]) else {
        panic!("a record that counts alone does not count beside none");
    };
    let mut excluded = Excluded::default();
    for boot in 0..4 {
        let mut again = copies.record().clone();
        let start = copies.record_mut().choose_start([boot; 16], excluded);
        assert_eq!(again.choose_start([boot; 16], excluded), start);
        let (_, written) = copies.next_write();
        let read = Record::decode(&written).expect("what is written can be read");
        assert_eq!(read.encode(), copies.record().encode());
        match start {
            Some(start) => excluded.add(start.target),
            None => return,
        }
    }
    panic!("four starts, though there are three systems");
}

const DISK: Geometry = Geometry {
    block: 512,
    last_lba: 8191,
};

fn apply(disk: &mut [u8], step: &Step) {
    if let Step::Write { lba, bytes } = step {
        let at = *lba as usize * 512;
        disk[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn read(disk: &[u8]) -> impl FnMut(u64, u64) -> Option<Vec<u8>> {
    |lba, blocks| {
        let at = usize::try_from(lba).ok()?.checked_mul(512)?;
        let len = usize::try_from(blocks).ok()?.checked_mul(512)?;
        Some(disk.get(at..at.checked_add(len)?)?.to_vec())
    }
}

/// A partition table, of which either copy's header and entries are changed: what is found is mended
/// and grown, and after each write still found.
pub fn table(data: &[u8]) {
    let [which, data @ ..] = data else { return };
    let part = |name, first, last| Part {
        type_guid: Role::Var.type_guid(),
        guid: Guid([first as u8; 16]),
        name,
        first,
        last,
    };
    let parts = [part("hf-state", 2048, 3000), part("hf-var", 3001, 4000)];
    let small = Geometry {
        last_lba: 5000,
        ..DISK
    };
    let mut disk = vec![0; 8192 * 512];
    let steps = gpt::create(small, Guid([1; 16]), &parts);
    steps.iter().for_each(|step| apply(&mut disk, step));
    let (head, entries) = match which % 2 {
        0 => (512, 1024),
        _ => (5000 * 512, (5000 - 32) * 512),
    };
    let (first, second) = data.split_at(data.len() / 2);
    flip(&mut disk[entries..entries + 128 * 128], second);
    let sum = crc32fast::hash(&disk[entries..entries + 128 * 128]);
    disk[head + 88..head + 92].copy_from_slice(&sum.to_le_bytes());
    flip(&mut disk[head..head + 92], first);
    disk[head + 16..head + 20].fill(0);
    let sum = crc32fast::hash(&disk[head..head + 92]);
    disk[head + 16..head + 20].copy_from_slice(&sum.to_le_bytes());
    // Without the other copy, the changed one is all there is.
    if which & 2 != 0 {
        let other = if which % 2 == 0 { 5000 * 512 } else { 512 };
        disk[other..other + 512].fill(0);
    }
    let Ok(found) = gpt::find(DISK, read(&disk)) else {
        return;
    };
    let places = |table: &gpt::Table| table.entries().map(|e| e.first).collect::<Vec<_>>();
    let before = places(&found.table);
    for step in gpt::grow(DISK, &found, Role::Var.type_guid(), read(&disk)) {
        apply(&mut disk, &step);
        let found = gpt::find(DISK, read(&disk)).expect("a table after each write");
        assert_eq!(places(&found.table), before);
    }
    let _ = gpt::rewrite(DISK, &found.table);
}
