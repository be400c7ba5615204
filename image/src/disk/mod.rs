//! The disk image: partitions, what lies in them, and the files it is written to.

pub(crate) mod fat;
mod fat_mend;
pub(crate) mod image;
pub(crate) mod piece;
pub(crate) mod qcow2;
pub(crate) mod u_boot_env;
