//! `FIFREEZE` and `FITHAW` (Linux: `include/uapi/linux/fs.h`) on `/var`.
#![allow(unsafe_code)]

use super::freeze::Freezable;
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

impl Freezable for Var {
    fn freeze(&self) -> io::Result<bool> {
        let directory = File::open("/var")?;
        let mut unused = 0;
        // SAFETY: the descriptor is open, and the kernel reads nothing through the pointer.
        match unsafe { raw::freeze(directory.as_raw_fd(), &raw mut unused) } {
            Ok(_) => Ok(true),
            // In memory, while there is no disk for it.
            Err(Errno::EOPNOTSUPP) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn thaw(&self) -> io::Result<bool> {
        let directory = File::open("/var")?;
        let mut unused = 0;
        // SAFETY: as above.
        match unsafe { raw::thaw(directory.as_raw_fd(), &raw mut unused) } {
            Ok(_) => Ok(true),
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
