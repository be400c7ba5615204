//! A fresh disk: GPT, ESP, slot record and release list, seed, slot A, rescue.

use std::path::Path;

use holdfast_core::{
    bytes::Block,
    gpt::{self, Geometry, Part, Step},
    guid::Guid,
    header::slot_digest,
    keys::Digest,
    layout::{self, HEADER_OFFSET, PAYLOAD_OFFSET, Role},
    slots::{Record, Slot, fresh_partition},
};

use super::{
    fat,
    piece::{Piece, PieceData},
};
use crate::{
    digest::Inputs,
    error::{Error, Result},
};

/// Sectors are of 512 bytes in an image file.
const SECTOR: u64 = 512;
/// Room beside the loader for its successor: a new loader is written here and read back before
/// the directory sector that names both is written.
const SPARE_LOADER: usize = 1 << 20;
/// Label of the partition that people put `seed.toml` on.
const SEED_LABEL: &str = "HOLDFAST";
/// `hf-var` in an image; it grows on the first boot.
const VAR: u64 = layout::VAR_MIN;

/// What goes on the disk.
pub(crate) struct Contents<'a> {
    /// Where the firmware looks for the loader on the ESP.
    pub(crate) loader_path: &'a str,
    pub(crate) loader: &'a [u8],
    /// What lies beside it: path, bytes.
    pub(crate) esp_files: &'a [(String, Vec<u8>)],
    /// Whether the MBR names the FAT volumes.
    pub(crate) hybrid_mbr: bool,
    pub(crate) release_list: &'a Block,
    pub(crate) header: &'a Block,
    pub(crate) generation: u64,
    pub(crate) uki: &'a [u8],
    /// File system and verity tree.
    pub(crate) root: &'a Path,
    /// GUIDs and volume ids are made from it; flashing makes others.
    pub(crate) seed: Digest,
}

/// The pieces of the disk, and its length in bytes.
///
/// # Errors
/// When something does not fit into its partition.
pub(crate) fn pieces(contents: &Contents<'_>) -> Result<(Vec<Piece>, u64)> {
    let (extents, disk) = layout::plan(VAR);
    let at = |role: Role| {
        extents
            .iter()
            .find(|e| e.role == role)
            .map_or(0, |e| e.offset)
    };
    let bytes = |offset: u64, bytes: Vec<u8>| Piece {
        offset,
        data: PieceData::Bytes(bytes),
    };
    check_sizes(contents)?;

    let mut pieces = table(&extents, disk, contents);
    pieces.push(bytes(at(Role::Esp), esp(contents)?));
    // Slot A is good from the factory.
    let record = Record::factory(slot_digest(contents.header), contents.generation);
    pieces.push(bytes(
        at(Role::Slots),
        fresh_partition(record, contents.release_list),
    ));
    let seed_id = volume_id(&contents.seed, "seed");
    pieces.push(bytes(
        at(Role::Seed),
        fat::volume(
            fat::Kind::Fat16,
            Role::Seed.size(),
            SEED_LABEL,
            seed_id,
            &[],
        )?,
    ));
    for role in [Role::Rescue, Role::Boot(Slot::A)] {
        pieces.push(bytes(at(role) + HEADER_OFFSET, contents.header.to_vec()));
        pieces.push(bytes(at(role) + PAYLOAD_OFFSET, contents.uki.to_vec()));
    }
    let root = PieceData::File(contents.root.to_owned());
    pieces.push(Piece {
        offset: at(Role::Root(Slot::A)),
        data: root,
    });
    pieces.sort_by_key(|p| p.offset);
    Ok((pieces, disk))
}

fn check_sizes(contents: &Contents<'_>) -> Result<()> {
    let root = std::fs::metadata(contents.root).map_or(0, |m| m.len());
    let too_large = |what: &str, len: u64, max: u64| {
        Err(Error::build(
            what,
            format!(
                "is {} MiB, its partition holds {} MiB",
                len >> 20,
                max >> 20
            ),
        ))
    };
    if contents.uki.len() as u64 > layout::PAYLOAD_MAX {
        return too_large(
            "the unified kernel image",
            contents.uki.len() as u64,
            layout::PAYLOAD_MAX,
        );
    }
    let max = Role::Root(Slot::A).size();
    if root > max {
        return too_large("the root", root, max);
    }
    Ok(())
}

fn table(extents: &[layout::Extent], disk: u64, contents: &Contents<'_>) -> Vec<Piece> {
    let seed = &contents.seed;
    let parts: Vec<Part<'_>> = extents
        .iter()
        .map(|e| Part {
            type_guid: e.role.type_guid(),
            guid: guid(seed, e.role.name()),
            name: e.role.name(),
            first: e.offset / SECTOR,
            last: (e.offset + e.len) / SECTOR - 1,
        })
        .collect();
    let geometry = Geometry {
        block: SECTOR as u32,
        last_lba: disk / SECTOR - 1,
    };
    // One piece for each end of the disk: pieces are aligned, table writes are not.
    let (mut front, mut back) = (
        vec![0; layout::ALIGN as usize],
        vec![0; layout::ALIGN as usize],
    );
    let back_at = disk - layout::ALIGN;
    for step in gpt::create(geometry, guid(seed, "disk"), &parts) {
        if let Step::Write { lba, bytes } = step {
            let offset = lba * SECTOR;
            let (end, from) = if offset < back_at {
                (&mut front, offset)
            } else {
                (&mut back, offset - back_at)
            };
            let from = from as usize;
            end[from..from + bytes.len()].copy_from_slice(&bytes);
        }
    }
    if contents.hybrid_mbr {
        let mbr = gpt::hybrid(geometry, &gpt::fat_parts(geometry, extents));
        front[..mbr.len()].copy_from_slice(&mbr);
    }
    vec![
        Piece {
            offset: 0,
            data: PieceData::Bytes(front),
        },
        Piece {
            offset: back_at,
            data: PieceData::Bytes(back),
        },
    ]
}

fn esp(contents: &Contents<'_>) -> Result<Vec<u8>> {
    let spare = match contents.loader_path.rsplit_once('/') {
        Some((dir, _)) => format!("{dir}/LOADER.NEW"),
        None => "LOADER.NEW".to_owned(),
    };
    let mut files = vec![
        (contents.loader_path, contents.loader),
        (&*spare, &[0; SPARE_LOADER][..]),
    ];
    let more = contents.esp_files.iter();
    files.extend(more.map(|(path, bytes)| (path.as_str(), &bytes[..])));
    fat::volume(
        fat::Kind::Fat32,
        Role::Esp.size(),
        "ESP",
        volume_id(&contents.seed, "esp"),
        &files,
    )
}

fn guid(seed: &Digest, name: &str) -> Guid {
    let digest = Inputs::of("guid/1").with(seed.0).with(name).key().0;
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Guid::random(bytes)
}

fn volume_id(seed: &Digest, name: &str) -> u32 {
    let d = Inputs::of("volume/1").with(seed.0).with(name).key().0;
    u32::from_le_bytes([d[0], d[1], d[2], d[3]])
}
