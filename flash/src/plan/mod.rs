//! What has to be on the medium when all is done, and in which order it gets there.
//!
//! ```text
//! clear    both ends of the medium, and where the image's backup table goes: what was on it
//!          starts no more, and nothing half-written ever does
//! stream   everything between the two tables, in the order of the disk
//! forget   (where the device can) tell it that the rest is not needed
//! tables   the backup, then sectors 1 to 2047, flushed; sector 0 and 1 last
//! ```
//!
//! A zero block of the image is left out only where what lay on the medium before can do no harm
//! ([`Area`]); everywhere else zeros are written.

mod area;
mod blocks;

pub(crate) use area::{Area, areas, zeros_between};
pub(crate) use blocks::{is_zero, runs};

use crate::error::{Error, Result};
use crate::image::{Image, id_places, with_file};
use crate::{BLOCK, Range};
use holdfast_core::gpt::{Geometry, Step, rewrite};
use holdfast_core::guid::Guid;
use holdfast_core::layout::ALIGN;
use holdfast_core::seed::FILE_NAME;

const SECTOR: u64 = crate::image::SECTOR;

/// Bytes that take the place of the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Patch {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// Lays the patch over a stretch that begins at `offset`.
    pub(crate) fn apply(&self, offset: u64, buffer: &mut [u8]) {
        let from = self.offset.max(offset);
        let to = self.end().min(offset + buffer.len() as u64);
        if from < to {
            let bytes = &self.bytes[(from - self.offset) as usize..(to - self.offset) as usize];
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(bytes);
        }
    }
}

/// How one medium is to be written.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The image's length, and the medium's, in bytes.
    pub(crate) len: u64,
    pub(crate) device_len: u64,
    pub(crate) areas: Vec<Area>,
    /// Sorted and apart.
    pub(crate) patches: Vec<Patch>,
    /// What is zeroed before anything else.
    pub(crate) clear: Vec<Range>,
    /// The first MiB, and the last one of the image.
    pub(crate) front: Vec<u8>,
    pub(crate) back: Vec<u8>,
    /// The new disk's identity.
    disk: Guid,
}

impl Plan {
    /// For a medium of `device_len` bytes, with `seed` as the text of its seed. GUIDs and volume
    /// ids are made of what `random` fills.
    ///
    /// # Errors
    /// When there is no randomness, or the image's seed volume takes no file.
    pub fn new(
        image: &Image,
        device_len: u64,
        seed: Option<&[u8]>,
        mut random: impl FnMut(&mut [u8]) -> Result<(), getrandom::Error>,
    ) -> Result<Self> {
        let mut fresh = [0; 16 * 129];
        random(&mut fresh).map_err(Error::Random)?;
        let mut guids = fresh.chunks_exact(16).map(|b| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(b);
            Guid::random(bytes)
        });
        let table = image.table.renewed(|| guids.next().unwrap_or(Guid::NIL));
        let geometry = Geometry {
            block: SECTOR as u32,
            last_lba: image.len / SECTOR - 1,
        };
        let back_at = image.len - ALIGN;
        let mut front = image.front.clone();
        let mut back = vec![0; ALIGN as usize];
        for step in rewrite(geometry, &table) {
            if let Step::Write { lba, bytes } = step {
                let patch = Patch {
                    offset: lba * SECTOR,
                    bytes,
                };
                patch.apply(0, &mut front);
                patch.apply(back_at, &mut back);
            }
        }
        Ok(Self {
            len: image.len,
            device_len,
            areas: image.areas.clone(),
            patches: patches(image, seed, &mut random)?,
            clear: clear(image.len, device_len),
            front,
            back,
            disk: table.disk,
        })
    }

    /// A plan for tests of the writer: tables that are no tables.
    #[cfg(test)]
    pub(crate) fn made(len: u64, device_len: u64, areas: Vec<Area>, patches: Vec<Patch>) -> Self {
        Self {
            len,
            device_len,
            areas,
            patches,
            clear: clear(len, device_len),
            front: vec![0xf0; ALIGN as usize],
            back: vec![0xba; ALIGN as usize],
            disk: Guid::NIL,
        }
    }

    /// The GUID of the disk that the medium becomes.
    #[must_use]
    pub fn disk(&self) -> Guid {
        self.disk
    }

    /// Where the backup table's MiB goes.
    pub(crate) fn back_at(&self) -> u64 {
        self.len - ALIGN
    }

    /// What lies between the tables.
    pub(crate) fn stream(&self) -> Range {
        ALIGN..self.back_at()
    }

    /// The part of the medium that the image does not reach, without what is cleared.
    pub(crate) fn beyond(&self) -> Range {
        self.len..tail(self.len, self.device_len)
    }
}

fn patches(
    image: &Image,
    seed: Option<&[u8]>,
    random: &mut impl FnMut(&mut [u8]) -> Result<(), getrandom::Error>,
) -> Result<Vec<Patch>> {
    let mut id = [0; 4];
    random(&mut id).map_err(Error::Random)?;
    let mut patches: Vec<_> = image
        .volume_ids
        .iter()
        .map(|at| Patch {
            offset: *at,
            bytes: id.to_vec(),
        })
        .collect();
    let (offset, mut volume) = image.seed.clone();
    random(&mut id).map_err(Error::Random)?;
    for at in id_places(&volume) {
        Patch {
            offset: at,
            bytes: id.to_vec(),
        }
        .apply(0, &mut volume);
    }
    if let Some(seed) = seed {
        with_file(&mut volume, FILE_NAME, seed).map_err(|e| Error::Image {
            path: image.path.clone(),
            reason: format!("its seed volume takes no seed ({e})"),
        })?;
    }
    let blocks = volume.chunks(BLOCK as usize);
    for (i, (new, old)) in blocks.zip(image.seed.1.chunks(BLOCK as usize)).enumerate() {
        if new != old {
            patches.push(Patch {
                offset: offset + i as u64 * BLOCK,
                bytes: new.to_vec(),
            });
        }
    }
    patches.sort_by_key(|p| p.offset);
    Ok(patches)
}

/// Where the last MiB of the medium begins, in a whole block, behind the image.
fn tail(len: u64, device_len: u64) -> u64 {
    ((device_len - ALIGN) / BLOCK * BLOCK).max(len)
}

/// Where tables are, or may be from before.
fn clear(len: u64, device_len: u64) -> Vec<Range> {
    let mut all = vec![0..ALIGN, len - ALIGN..len];
    if len < device_len {
        all.push(tail(len, device_len)..device_len);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_reach_over_the_edges_of_a_buffer() {
        let patch = Patch {
            offset: 8,
            bytes: vec![1, 2, 3, 4],
        };
        let mut buffer = [0; 4];
        patch.apply(6, &mut buffer);
        assert_eq!(buffer, [0, 0, 1, 2]);
        patch.apply(10, &mut buffer);
        assert_eq!(buffer, [3, 4, 1, 2]);
        patch.apply(12, &mut buffer);
        patch.apply(4, &mut buffer);
        assert_eq!(buffer, [3, 4, 1, 2]);
    }

    #[test]
    fn both_ends_and_the_old_backup_are_cleared() {
        const MIB: u64 = 1 << 20;
        assert_eq!(clear(8 * MIB, 8 * MIB), [0..MIB, 7 * MIB..8 * MIB]);
        assert_eq!(
            clear(8 * MIB, 20 * MIB + 512),
            [0..MIB, 7 * MIB..8 * MIB, 19 * MIB..20 * MIB + 512]
        );
        assert_eq!(
            clear(8 * MIB, 8 * MIB + 512),
            [0..MIB, 7 * MIB..8 * MIB, 8 * MIB..8 * MIB + 512]
        );
    }
}
