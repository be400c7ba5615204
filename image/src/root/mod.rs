//! The root: its content, its file system, its verity tree.

pub(crate) mod content;
pub(crate) mod squashfs;
pub(crate) mod tree;
pub mod verity;
