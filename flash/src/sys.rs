//! Requests to block devices that have no safe wrapper. Nothing here decides.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `_IO(0x12, n)` and relatives of `linux/fs.h`.
const BLKRRPART: u32 = 0x125f;
const BLKFLSBUF: u32 = 0x1261;
const BLKDISCARD: u32 = 0x1277;
const BLKZEROOUT: u32 = 0x127f;
/// `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: u32 = (2 << 30) | (8 << 16) | (0x12 << 8) | 114;
/// `CDROMEJECT` of `linux/cdrom.h`; the SCSI disk driver answers it with "stop and eject".
const CDROMEJECT: u32 = 0x5309;
/// `SCSI_IOCTL_DOORUNLOCK` of `scsi/scsi_ioctl.h`: an open device forbids taking its medium out.
const DOORUNLOCK: u32 = 0x5381;

fn told(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A request that takes no argument.
fn plain(device: &File, request: u32) -> io::Result<()> {
    // SAFETY: these requests neither read nor write memory of this process.
    told(unsafe { libc::ioctl(device.as_raw_fd(), request as _, 0) })
}

/// A request on a stretch, in bytes.
fn stretch(device: &File, request: u32, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: both requests read two u64 through the pointer, which points to two.
    told(unsafe { libc::ioctl(device.as_raw_fd(), request as _, range.as_ptr()) })
}

/// Size of a block device, in bytes.
pub fn size(device: &File) -> io::Result<u64> {
    let mut bytes = 0_u64;
    // SAFETY: BLKGETSIZE64 writes one u64 through the pointer, which points to one.
    told(unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64 as _, &raw mut bytes) })?;
    Ok(bytes)
}

/// Writes zeros; the device's own way where it has one, else the kernel sends them.
pub fn zero(device: &File, offset: u64, len: u64) -> io::Result<()> {
    stretch(device, BLKZEROOUT, offset, len)
}

/// Tells the device that nobody needs what lies there. What reads back is undefined.
pub fn discard(device: &File, offset: u64, len: u64) -> io::Result<()> {
    stretch(device, BLKDISCARD, offset, len)
}

/// Empties the kernel's cache of the device.
pub fn flush_cache(device: &File) -> io::Result<()> {
    plain(device, BLKFLSBUF)
}

/// Has the kernel read the partition table anew.
pub fn reread_table(device: &File) -> io::Result<()> {
    plain(device, BLKRRPART)
}

/// Ejects the medium of a SCSI (USB) disk.
pub fn eject(device: &File) -> io::Result<()> {
    // What cannot be locked cannot be unlocked either; the eject tells.
    let _ = plain(device, DOORUNLOCK);
    plain(device, CDROMEJECT)
}
