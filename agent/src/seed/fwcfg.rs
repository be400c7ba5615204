//! The seed that QEMU hands over (kernel: `Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg`).

use holdfast_core::seed::{FW_CFG_NAME, MAX_LEN};
use std::io::Read as _;
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
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    // One more than allowed, so that the reader sees that it is too long.
    file.take(MAX_LEN as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    Ok(Some(bytes))
}
