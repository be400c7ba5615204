//! Settings of the kernel's for an interface.

use super::plan::{Link, metric};
use std::path::Path;

/// Router advertisements count although the node forwards (kernel `ip-sysctl`: `accept_ra` 2).
pub fn accept_advertisements(name: &str) {
    let path = Path::new("/proc/sys/net/ipv6/conf")
        .join(name)
        .join("accept_ra");
    if path.exists()
        && let Err(e) = std::fs::write(&path, "2")
    {
        tracing::warn!("{}: {e}", path.display());
    }
}

/// Settings of an interface that may share its network with another one (kernel `ip-sysctl`).
pub fn stand_beside(link: &Link) {
    let set = |family: &str, setting: &str, value: &str| {
        let path = Path::new("/proc/sys/net")
            .join(family)
            .join("conf")
            .join(&link.name)
            .join(setting);
        if path.exists()
            && let Err(e) = std::fs::write(&path, value)
        {
            tracing::warn!("{}: {e}", path.display());
        }
    };
    // What leads over a cable that is out does not keep packets from the radio.
    set("ipv4", "ignore_routes_with_linkdown", "1");
    set("ipv6", "ignore_routes_with_linkdown", "1");
    // Each answers for its own addresses only.
    set("ipv4", "arp_ignore", "1");
    set("ipv4", "arp_announce", "2");
    if link.wireless {
        set("ipv6", "ra_defrtr_metric", &metric(link).to_string());
    }
}
