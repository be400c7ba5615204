//! Which machine this is, as far as its firmware tells: a disk that was copied to another shows by
//! it.

use std::path::Path;

/// SMBIOS' UUID (DMTF DSP0134, type 1), as the kernel shows it to root. Proxmox gives each clone one.
const SMBIOS: &str = "/sys/class/dmi/id/product_uuid";
/// A board without SMBIOS: its serial number in the device tree.
const DEVICE_TREE: &str = "/sys/firmware/devicetree/base/serial-number";
/// The UUID of boards whose maker left it as it came (AMI's example firmware).
const NOT_SET: &str = "03000200-0400-0500-0006-000700080009";

/// This machine's own number; none where the firmware has none.
pub fn id() -> Option<String> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let from = |kind: &str, path| Some(format!("{kind}:{}", usable(&read(path)?)?));
    from("smbios", SMBIOS).or_else(|| from("board", DEVICE_TREE))
}

/// The number in small letters, unless every machine of its kind may have the same.
fn usable(text: &str) -> Option<String> {
    let text = text.trim_matches(['\0', '\n', ' ']).to_ascii_lowercase();
    let digits: Vec<char> = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let first = digits.first()?;
    (text != NOT_SET && !digits.iter().all(|d| d == first)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_tell_nothing_are_none() {
        let uuid = "6D2A2C0E-3D52-4E6B-9A53-0F6A1F3C9B77\n";
        assert_eq!(usable(uuid), Some(uuid.trim().to_ascii_lowercase()));
        assert_eq!(
            usable("10000000abcdef01\0"),
            Some("10000000abcdef01".into())
        );
        for none in [
            "",
            "\n",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            NOT_SET,
        ] {
            assert_eq!(usable(none), None, "{none}");
        }
    }
}
