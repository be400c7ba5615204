//! The boot payload: initramfs and unified kernel image.

pub(crate) mod cpio;
pub(crate) mod initramfs;
pub(crate) mod uki;
