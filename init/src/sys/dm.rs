//! Device-mapper's control ioctls (`linux/dm-ioctl.h`, interface version 4).
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Size of `struct dm_ioctl`.
const HEADER: usize = 312;
/// Size of `struct dm_target_spec`.
const TARGET: usize = 40;
/// Room for what the kernel answers.
const BUFFER: usize = 4096;
const VERSION: [u32; 3] = [4, 0, 0];
const READONLY: u32 = 1;
const NAME_AT: usize = 48;

/// `_IOWR(0xfd, number, struct dm_ioctl)`.
const fn request(number: u32) -> u32 {
    (3 << 30) | ((HEADER as u32) << 16) | (0xfd << 8) | number
}

const DEV_CREATE: u32 = request(3);
const DEV_REMOVE: u32 = request(4);
const DEV_SUSPEND: u32 = request(6);
const TABLE_LOAD: u32 = request(9);
const TABLE_STATUS: u32 = request(12);

/// One target that covers a whole device.
pub struct Target<'a> {
    /// Its type, e.g. `verity`.
    pub kind: &'a str,
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// Its parameters, as text.
    pub parameters: &'a str,
}

/// An open control device.
pub struct Control(File);

fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in buffer.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

fn u32_at(buffer: &[u8], at: usize) -> u32 {
    buffer
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn u64_at(buffer: &[u8], at: usize) -> u64 {
    u64::from(u32_at(buffer, at)) | (u64::from(u32_at(buffer, at + 4)) << 32)
}

impl Control {
    /// Opens `/dev/mapper/control`; it is there once the module is.
    pub fn open() -> io::Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/mapper/control")
            .map(Self)
    }

    /// Makes a read-only device of one target and returns its node.
    pub fn create_readonly(&self, name: &str, target: &Target<'_>) -> io::Result<PathBuf> {
        self.call(DEV_CREATE, name, 0, None)?;
        let made = self
            .call(TABLE_LOAD, name, READONLY, Some(target))
            // SUSPEND without its flag is resume: it makes the loaded table the live one.
            .and_then(|_| self.call(DEV_SUSPEND, name, 0, None));
        match made {
            Ok(answer) => {
                // `huge_encode_dev`: minor's low byte, 12 bits of major, minor's rest.
                let dev = u64_at(&answer, 40);
                let minor = (dev & 0xff) | ((dev >> 12) & 0xfff00);
                Ok(PathBuf::from(format!("/dev/dm-{minor}")))
            }
            Err(error) => {
                let _ = self.call(DEV_REMOVE, name, 0, None);
                Err(error)
            }
        }
    }

    /// The status text of a device's only target.
    pub fn status(&self, name: &str) -> io::Result<String> {
        let answer = self.call(TABLE_STATUS, name, 0, None)?;
        let start = u32_at(&answer, 16) as usize + TARGET;
        let text = answer.get(start..).unwrap_or_default();
        let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    fn call(
        &self,
        request: u32,
        name: &str,
        flags: u32,
        target: Option<&Target<'_>>,
    ) -> io::Result<Vec<u8>> {
        let needed = target.map_or(0, |t| TARGET + t.parameters.len() + 1);
        if name.len() > 127 || HEADER + needed > BUFFER {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let mut buffer = vec![0_u8; BUFFER];
        for (i, part) in VERSION.iter().enumerate() {
            put(&mut buffer, i * 4, &part.to_le_bytes());
        }
        put(&mut buffer, 12, &(BUFFER as u32).to_le_bytes());
        put(&mut buffer, 16, &(HEADER as u32).to_le_bytes());
        put(&mut buffer, 20, &u32::from(target.is_some()).to_le_bytes());
        put(&mut buffer, 28, &flags.to_le_bytes());
        put(&mut buffer, NAME_AT, name.as_bytes());
        if let Some(target) = target {
            put(&mut buffer, HEADER + 8, &target.sectors.to_le_bytes());
            put(&mut buffer, HEADER + 24, target.kind.as_bytes());
            put(&mut buffer, HEADER + TARGET, target.parameters.as_bytes());
        }
        // SAFETY: the kernel reads and writes at most `data_size` (= BUFFER, set above) bytes of the
        // buffer, which is that long and lives until after the call; the descriptor is open.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, buffer.as_mut_ptr()) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(buffer)
        }
    }
}
