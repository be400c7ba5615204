//! What an image is: its table, its system, whose it is. Checked before anything is overwritten.

use super::qcow2::Qcow2;
use super::{Source, fat, open};
use crate::error::{Error, Result};
use crate::plan::{Area, areas};
use holdfast_core::bytes::{BLOCK as HEADER, Block};
use holdfast_core::gpt::{self, Entry, Geometry, Table};
use holdfast_core::header::{HeaderError, SlotHeader};
use holdfast_core::layout::{ALIGN, HEADER_OFFSET, RELEASE_COPIES, Role};
use holdfast_core::loader_keys::LoaderKeys;
use holdfast_core::releases::ReleaseList;
use holdfast_core::slots::Slot;
use std::path::{Path, PathBuf};

/// Sectors in an image file.
pub(crate) const SECTOR: u64 = 512;
/// Longer images are none: no disk is so large, and sums of offsets stay far from what a number holds.
const LEN_MAX: u64 = 1 << 50;
/// Longer FAT partitions are not read into memory.
const FAT_MAX: u64 = 512 << 20;
/// Where firmware looks for the loader (UEFI 2.10, 3.5.1.1).
const LOADERS: [(&str, &str); 2] = [
    ("EFI/BOOT/BOOTX64.EFI", "x86_64"),
    ("EFI/BOOT/BOOTAA64.EFI", "aarch64"),
];

/// An image that was looked into.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its file.
    pub path: PathBuf,
    /// How large the disk is that it was made for, in bytes.
    pub len: u64,
    /// The board it is for.
    pub board: String,
    /// The architecture of its loader: `x86_64` or `aarch64`.
    pub arch: &'static str,
    /// Its version, for people.
    pub version: String,
    /// Its generation.
    pub generation: u64,
    /// Whose it is: the cluster and the root keys.
    pub keys: LoaderKeys,
    pub(crate) table: Table,
    pub(crate) areas: Vec<Area>,
    /// The first MiB.
    pub(crate) front: Vec<u8>,
    /// Where the ids of its FAT volumes stand.
    pub(crate) volume_ids: Vec<u64>,
    /// Where `hf-seed` begins, and all of it.
    pub(crate) seed: (u64, Vec<u8>),
}

impl Image {
    /// Looks into the file.
    ///
    /// # Errors
    /// When it cannot be read, is something else than an image of ours, is incomplete, or does
    /// not hold together: header, release list and loader are checked against each other.
    pub fn inspect(path: &Path) -> Result<Self> {
        Self::inspect_source(path, open(path)?)
    }

    /// As [`Self::inspect`], of an image in QEMU's format, which is not flashed.
    ///
    /// # Errors
    /// As [`Self::inspect`].
    pub fn inspect_qcow2(path: &Path) -> Result<Self> {
        Self::inspect_source(path, Box::new(Qcow2::open(path)?))
    }

    fn inspect_source(path: &Path, mut source: Box<dyn Source>) -> Result<Self> {
        let bad = |reason: String| Error::Image {
            path: path.to_owned(),
            reason,
        };
        let mut read = |offset: u64, len: u64| -> Result<Vec<u8>> {
            let mut bytes = vec![0; len as usize];
            let mut at = offset;
            // Holes are zero already.
            while let Some(data) = source.next_data(at)?.filter(|d| d.start < offset + len) {
                let (from, to) = (data.start.max(at), data.end.min(offset + len));
                source.read_at(
                    from,
                    &mut bytes[(from - offset) as usize..(to - offset) as usize],
                )?;
                at = to;
                if at >= offset + len {
                    break;
                }
            }
            Ok(bytes)
        };
        let front = read(0, ALIGN)?;
        let table = table(&front).ok_or_else(|| {
            bad(
                "it is no disk image of Holdfast (no partition table of the kind at its start); \
                 `holdfast build` makes one"
                    .into(),
            )
        })?;
        let len = (table.alternate() + 1) * SECTOR;
        if len > LEN_MAX {
            return Err(bad(format!("its partition table is for {len} bytes")));
        }
        check_length(path, len)?;
        let parts: Vec<Entry> = table.entries().collect();
        // Before anything is read where the table says: a packed image may be short and say anything.
        areas(len, &parts, |_| None).map_err(bad)?;
        let at = |role: Role| {
            table
                .role(role)
                .map(|e| (e.first * SECTOR, (e.last - e.first + 1) * SECTOR))
                .ok_or_else(|| {
                    bad(format!(
                        "it has no partition {}: it is no image of Holdfast",
                        role.name()
                    ))
                })
        };
        // In the order of the disk: a packed image is read only forwards.
        let (esp_at, esp_len) = at(Role::Esp)?;
        let too_long = |name: &str, len: u64| match len > FAT_MAX {
            true => Err(bad(format!(
                "its {name} is of {} MiB, which is odd",
                len >> 20
            ))),
            false => Ok(()),
        };
        too_long("EFI system partition", esp_len)?;
        let mut esp = read(esp_at, esp_len)?;
        let loader = LOADERS
            .iter()
            .find_map(|(path, arch)| Some((fat::read_file(&mut esp, path)?, *arch)));
        let (loader, arch) =
            loader.ok_or_else(|| bad("its EFI system partition holds no loader".into()))?;
        let keys = LoaderKeys::of_loader(&loader)
            .map_err(|e| bad(format!("its loader does not say whose it is: {e}")))?;
        let (slots_at, _) = at(Role::Slots)?;
        let mut lists = Vec::new();
        for copy in RELEASE_COPIES {
            lists.push(read(slots_at + copy, HEADER as u64)?);
        }
        let list = ReleaseList::newest([&lists[0], &lists[1]], &keys)
            .map_err(|e| bad(format!("its release list is damaged or foreign: {e}")))?;
        let (seed_at, seed_len) = at(Role::Seed)?;
        too_long("seed volume", seed_len)?;
        let seed = read(seed_at, seed_len)?;
        let mut headers = Vec::new();
        for role in [Role::Rescue, Role::Boot(Slot::A), Role::Boot(Slot::B)] {
            let block = read(at(role)?.0 + HEADER_OFFSET, HEADER as u64)?;
            let block: Block = block.try_into().unwrap_or([0; HEADER]);
            match SlotHeader::verify(&block, &list) {
                Ok(header) => headers.push((role, header)),
                Err(HeaderError::Absent) if role != Role::Boot(Slot::A) => {}
                Err(e) => return Err(bad(format!("{}: {e}", role.name()))),
            }
        }
        let system = headers
            .iter()
            .find(|(role, _)| *role == Role::Boot(Slot::A))
            .map(|(_, h)| *h)
            .ok_or_else(|| bad("it holds no system in slot A".into()))?;
        let used = (fat::used_end(&esp), fat::used_end(&seed));
        let areas = areas(len, &parts, |role| match role {
            Role::Esp => used.0,
            Role::Seed => used.1,
            role => {
                let header = headers.iter().find(|(r, _)| *r == role);
                header.map(|(_, h)| h.stored_len)
            }
        })
        .map_err(bad)?;
        let volume_ids = fat::id_places(&esp).into_iter().map(|at| esp_at + at);
        Ok(Self {
            path: path.to_owned(),
            len,
            board: system.board.as_str().to_owned(),
            arch,
            version: system.version.as_str().to_owned(),
            generation: system.generation,
            keys,
            table,
            areas,
            front,
            volume_ids: volume_ids.collect(),
            seed: (seed_at, seed),
        })
    }
}

/// The primary table; a backup is not looked for: an image is whole or not used.
fn table(front: &[u8]) -> Option<Table> {
    let geometry = Geometry {
        block: SECTOR as u32,
        last_lba: u64::MAX / SECTOR - 1,
    };
    let found = gpt::find(geometry, |lba, count| {
        let from = usize::try_from(lba.checked_mul(SECTOR)?).ok()?;
        let len = usize::try_from(count.checked_mul(SECTOR)?).ok()?;
        front.get(from..from.checked_add(len)?).map(<[u8]>::to_vec)
    })
    .ok()?;
    let sound = found.source == gpt::Source::Primary
        && found.table.alternate() > found.table.last_usable
        && found.table.alternate() < u64::MAX / SECTOR;
    sound.then_some(found.table)
}

/// A raw file that is shorter than its table says was not copied whole. Of a packed one the end
/// tells while it is written, before the table makes the card start.
fn check_length(path: &Path, len: u64) -> Result<()> {
    if super::kind(path)? != super::Kind::Raw {
        return Ok(());
    }
    let has = std::fs::metadata(path).map_or(0, |m| m.len());
    if has < len {
        return Err(Error::Image {
            path: path.to_owned(),
            reason: format!(
                "it is incomplete: it has {has} bytes, its partition table says {len}; copy or build it again"
            ),
        });
    }
    Ok(())
}
