//! `FIFREEZE` and `FITHAW` (Linux: `include/uapi/linux/fs.h`) on `/var`.
#![allow(unsafe_code)]

use super::freeze::{Freezable, Frozen};
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

mod raw {
    nix::ioctl_readwrite!(freeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, libc::c_int);
}

/// The file system at `/var`.
#[derive(Clone, Copy)]
pub struct Var;

/// The same, open.
pub struct Opened(File);

impl Var {
    /// Opens it.
    pub fn open(self) -> io::Result<Opened> {
        File::open("/var").map(Opened)
    }
}

impl Freezable for Var {
    type Frozen = Opened;

    fn freeze(&self) -> io::Result<Option<Opened>> {
        let var = self.open()?;
        let mut unused = 0;
        // SAFETY: the descriptor is open, and the kernel reads nothing through the pointer.
        match unsafe { raw::freeze(var.0.as_raw_fd(), &raw mut unused) } {
            Ok(_) => Ok(Some(var)),
            // In memory, while there is no disk for it.
            Err(Errno::EOPNOTSUPP) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl Frozen for Opened {
    fn thaw(&self) -> io::Result<bool> {
        let mut unused = 0;
        // SAFETY: as above.
        match unsafe { raw::thaw(self.0.as_raw_fd(), &raw mut unused) } {
            Ok(_) => Ok(true),
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
