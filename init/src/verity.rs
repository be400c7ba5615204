//! The dm-verity table of a root: text only; `sys::dm` hands it to the kernel.
//!
//! Format: Linux `Documentation/admin-guide/device-mapper/verity.rst`. The partition holds the file
//! system, then the hash tree without a superblock (`veritysetup --no-superblock`).

use crate::cmdline::{RootSpec, VERITY_BLOCK};

/// Sectors of 512 bytes that the device has.
pub fn sectors(root: &RootSpec) -> u64 {
    root.len / 512
}

/// The parameters of target `verity` for the block device `device` (`MAJOR:MINOR`).
///
/// A block whose digest is wrong gives EIO to whoever reads it: init and agent, in memory, live on
/// and report it, where a restart would lose the reason.
pub fn table(root: &RootSpec, device: &str) -> String {
    let blocks = root.len / VERITY_BLOCK;
    let RootSpec { hash, salt, .. } = root;
    format!(
        "1 {device} {device} {VERITY_BLOCK} {VERITY_BLOCK} {blocks} {blocks} sha256 {hash} {salt}"
    )
}

/// Whether the kernel's status line of the target says that it met a wrong block.
pub fn is_corrupt(status: &str) -> bool {
    status.trim_start().starts_with('C')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_follows_the_data() {
        let root = RootSpec {
            hash: "aa".repeat(32),
            salt: "-".into(),
            len: 3 * 4096,
            fs: "erofs".into(),
        };
        let hash = "aa".repeat(32);
        assert_eq!(
            table(&root, "254:8"),
            format!("1 254:8 254:8 4096 4096 3 3 sha256 {hash} -")
        );
        assert_eq!(sectors(&root), 24);
        assert!(is_corrupt("C") && !is_corrupt("V"));
    }
}
