//! Whole disks through Block IO, the one this loader came from first.

use super::raw::{self, Pages};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use holdfast_core::gpt::Geometry;
use uefi::boot::{self, ScopedProtocol, SearchType};
use uefi::proto::device_path::DevicePath;
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::block::BlockIO;
use uefi::{Handle, Result, Status};

/// Large enough for full speed, small enough for every driver.
const READ_MAX: usize = 8 * 1024 * 1024;

/// A whole disk.
pub struct Disk {
    io: ScopedProtocol<BlockIO>,
    /// Its measures.
    pub geometry: Geometry,
    media: u32,
    name: String,
}

/// The disks with a medium that are not in `seen` yet, the one this loader came from first.
pub fn find(seen: &mut Vec<Handle>) -> Vec<Disk> {
    let origin = origin();
    let mut disks = Vec::new();
    for handle in boot::find_handles::<BlockIO>().unwrap_or_default() {
        let Some(disk) = Disk::open(handle).filter(|_| !seen.contains(&handle)) else {
            continue;
        };
        let mine = origin.is_some_and(|part| handle == part || is_on(part, handle));
        disks.push((!mine, handle, disk));
    }
    disks.sort_by_key(|(other, ..)| *other);
    let name = |(other, handle, disk)| {
        seen.push(handle);
        let from = if other { "" } else { " (the loader's)" };
        let name = format!("disk {}{from}", seen.len());
        Disk { name, ..disk }
    };
    disks.into_iter().map(name).collect()
}

/// Has the firmware's drivers look at every device, so that [`find`] finds all disks.
pub fn connect_all() {
    let handles = boot::locate_handle_buffer(SearchType::AllHandles);
    for handle in handles.iter().flat_map(|buffer| buffer.iter()) {
        // Most handles are no controllers: an error here is the rule.
        let _ = boot::connect_controller(*handle, &[], None, true);
    }
}

fn origin() -> Option<Handle> {
    raw::open::<LoadedImage>(boot::image_handle())
        .ok()?
        .device()
}

/// A partition's device path is its disk's path and one node more.
fn is_on(part: Handle, disk: Handle) -> bool {
    let (Ok(part), Ok(disk)) = (raw::open::<DevicePath>(part), raw::open::<DevicePath>(disk))
    else {
        return false;
    };
    let mut nodes = part.node_iter();
    disk.node_iter().all(|node| nodes.next() == Some(node))
}

impl Disk {
    fn open(handle: Handle) -> Option<Self> {
        let io = raw::open::<BlockIO>(handle).ok()?;
        let media = io.media();
        let block = media.block_size();
        // Optical drives have blocks of 2048 bytes and no GPT of ours.
        if media.is_logical_partition() || !media.is_media_present() || !matches!(block, 512 | 4096)
        {
            return None;
        }
        let geometry = Geometry {
            block,
            last_lba: media.last_block(),
        };
        let media = media.media_id();
        Some(Self {
            io,
            geometry,
            media,
            name: String::new(),
        })
    }

    /// What to call it on the console.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn blocks(&self, len: usize) -> usize {
        len.div_ceil(self.geometry.block as usize)
    }

    /// Reads `len` bytes from a block on, into memory of its own: page-aligned, which satisfies
    /// every driver's `io_align`.
    ///
    /// # Errors
    /// The firmware's.
    pub fn read(&mut self, mut lba: u64, len: usize) -> Result<Pages> {
        let block = self.geometry.block as usize;
        let mut pages = Pages::new(self.blocks(len) * block)?;
        for chunk in pages.chunks_mut(READ_MAX) {
            self.io.read_blocks(self.media, lba, chunk)?;
            lba += (chunk.len() / block) as u64;
        }
        pages.shorten(len);
        Ok(pages)
    }

    /// Writes whole blocks and waits until they are on the medium.
    ///
    /// # Errors
    /// The firmware's, or a length that is not whole blocks.
    pub fn write(&mut self, lba: u64, bytes: &[u8]) -> Result<()> {
        if !bytes.len().is_multiple_of(self.geometry.block as usize) {
            return Err(Status::BAD_BUFFER_SIZE.into());
        }
        let mut pages = Pages::new(bytes.len())?;
        pages.copy_from_slice(bytes);
        self.io.write_blocks(self.media, lba, &pages)?;
        self.io.flush_blocks()
    }
}
