//! Interfaces by what a drive calls them.

use crate::seed::cidata::network::Interface;
use std::path::Path;

/// The interface that a drive's `network-config` means: the one with the hardware address, else the
/// one of that name.
pub fn interface_of(wanted: &Interface) -> Option<String> {
    let all = std::fs::read_dir("/sys/class/net").ok()?;
    let names: Vec<String> = all
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| name != "lo")
        .collect();
    let address = |name: &str| {
        let path = Path::new("/sys/class/net").join(name).join("address");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().to_ascii_lowercase()
    };
    let by_mac = wanted
        .mac
        .as_ref()
        .and_then(|mac| names.iter().find(|name| address(name) == *mac));
    let by_name = || {
        names
            .iter()
            .find(|name| wanted.name.as_ref() == Some(*name))
    };
    by_mac.or_else(by_name).cloned()
}
