//! The seed that QEMU hands over (kernel: `Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg`).

use holdfast_core::seed::{FW_CFG_NAME, MAX_LEN};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where the kernel shows the item.
pub fn place() -> PathBuf {
    Path::new("/sys/firmware/qemu_fw_cfg/by_name")
        .join(FW_CFG_NAME)
        .join("raw")
}

/// Reads it; `None` when there is none.
pub fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    // One more than allowed, so that the reader sees that it is too long.
    super::read_file(path, MAX_LEN + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::seed::Seed;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::seed::fuzz::cases())]
        #[test]
        fn any_bytes_are_read_and_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..4096),
            changes in proptest::collection::vec((0usize..2000, any::<u8>()), 1..10),
        ) {
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut good = crate::seed::fuzz::seed().to_toml().unwrap().into_bytes();
            for (at, byte) in changes {
                let at = at % good.len();
                good[at] = byte;
            }
            for content in [&bytes, &good] {
                std::fs::write(file.path(), content).unwrap();
                let read = read(file.path()).unwrap().unwrap();
                prop_assert_eq!(&*read, content);
                let _ = Seed::from_bytes(&read);
            }
        }
    }

    #[test]
    fn what_is_too_long_is_not_read_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 30).unwrap();
        let read = read(file.path()).unwrap().unwrap();
        assert_eq!(read.len(), MAX_LEN + 1);
        assert!(Seed::from_bytes(&read).is_err());
    }
}
