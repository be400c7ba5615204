//! Settings of the kernel's for an interface (its `ip-sysctl`).

use super::plan::{Link, metric};
use std::path::Path;

/// Sets one, where the kernel has it.
fn set(name: &str, family: &str, setting: &str, value: &str) {
    let path = Path::new("/proc/sys/net")
        .join(family)
        .join("conf")
        .join(name)
        .join(setting);
    if path.exists()
        && let Err(e) = std::fs::write(&path, value)
    {
        tracing::warn!("{}: {e}", path.display());
    }
}

/// Router advertisements count although the node forwards (`accept_ra` 2).
pub fn accept_advertisements(name: &str) {
    set(name, "ipv6", "accept_ra", "2");
}

/// Settings of an interface that may share its network with another one.
pub fn stand_beside(link: &Link) {
    let name = &link.name;
    // What leads over a cable that is out does not keep packets from the radio.
    set(name, "ipv4", "ignore_routes_with_linkdown", "1");
    set(name, "ipv6", "ignore_routes_with_linkdown", "1");
    // Each answers for its own addresses only.
    set(name, "ipv4", "arp_ignore", "1");
    set(name, "ipv4", "arp_announce", "2");
    if link.wireless {
        set(name, "ipv6", "ra_defrtr_metric", &metric(link).to_string());
    }
}
