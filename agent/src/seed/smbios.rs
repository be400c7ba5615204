//! The serial number of the machine's SMBIOS (DMTF DSP0134, type 1), as the kernel shows it to
//! root: where it is a seed in short form, it is one.

use holdfast_core::seed::compact;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where the kernel shows it.
pub fn place() -> PathBuf {
    "/sys/class/dmi/id/product_serial".into()
}

/// Reads it; `None` when the machine has none, or one that is no seed.
pub fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    // Some more than is read of a seed, so that a longer one is refused and not cut.
    let line = super::read_file(path, compact::MAX_READ + 64)?;
    Ok(line.filter(|line| line.starts_with(compact::MAGIC.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_serial_number_is_no_seed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(read(Path::new("/nonexistent/serial")).unwrap().is_none());
        for (text, seed) in [("", false), ("CZC1234567\n", false), ("HFS1AAAA\n", true)] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(read(file.path()).unwrap().is_some(), seed, "{text}");
        }
    }
}
