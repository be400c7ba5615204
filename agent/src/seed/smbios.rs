//! The serial number of the machine's SMBIOS (DMTF DSP0134, type 1), as the kernel shows it to
//! root: where it is a seed in short form, it is one.

use holdfast_core::seed::compact;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where the kernel shows it.
pub fn place() -> PathBuf {
    "/sys/class/dmi/id/product_serial".into()
}

/// Reads it; `None` when the machine has none, or one that is no seed.
pub fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    // One more than is read of a seed, so that a longer one is refused and not cut.
    file.take(compact::MAX_READ as u64 + 64)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    Ok(bytes
        .starts_with(compact::MAGIC.as_bytes())
        .then_some(bytes))
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
