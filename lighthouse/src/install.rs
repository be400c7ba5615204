//! Running as a service: the systemd unit, and the ports that must be open.

use holdfast_core::documents::Lighthouse;
use std::path::Path;

/// The unit's file name.
pub const UNIT_NAME: &str = "holdfast-lighthouse.service";

/// A port that must be reachable from everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct OpenPort {
    /// The number.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// For people.
    pub why: &'static str,
}

/// The ports that the lighthouses document promises.
#[must_use]
pub fn open_ports(lighthouse: &Lighthouse) -> Vec<OpenPort> {
    let port = |text: &String| text.rsplit_once(':').and_then(|(_, p)| p.parse().ok());
    let tcp = lighthouse
        .https
        .iter()
        .filter_map(port)
        .map(|port| OpenPort {
            port,
            protocol: "tcp",
            why: "joins, documents, bundles, control streams (HTTPS)",
        });
    let udp = lighthouse.udp.iter().filter_map(port).map(|port| OpenPort {
        port,
        protocol: "udp",
        why: "the mesh (WireGuard)",
    });
    let mut all: Vec<_> = tcp.chain(udp).collect();
    all.sort();
    all.dedup();
    all
}

/// Why no unit is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot stand in a systemd unit: an absolute path of UTF-8 text without line breaks is needed"
)]
pub struct UnfitPath(String);

/// The unit that runs `binary lighthouse run --dir DIR` as `user`.
///
/// # Errors
/// [`UnfitPath`].
pub fn systemd_unit(
    binary: &Path,
    dir: &Path,
    user: &str,
    ports: &[OpenPort],
) -> Result<String, UnfitPath> {
    let (binary, dir) = (quoted(binary)?, quoted(dir)?);
    let low = ports.iter().any(|p| p.port < 1024);
    let capability = if low { "CAP_NET_BIND_SERVICE" } else { "" };
    Ok(format!(
        "# Written by `holdfast lighthouse install`.\n\
         [Unit]\n\
         Description=Holdfast lighthouse\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         ExecStart={binary} lighthouse run --dir {dir}\n\
         User={user}\n\
         Restart=always\n\
         RestartSec=2\n\
         LimitNOFILE=65536\n\
         AmbientCapabilities={capability}\n\
         CapabilityBoundingSet={capability}\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=strict\n\
         ReadWritePaths={dir}\n\
         ProtectHome=read-only\n\
         PrivateTmp=yes\n\
         PrivateDevices=yes\n\
         ProtectKernelTunables=yes\n\
         ProtectKernelModules=yes\n\
         ProtectControlGroups=yes\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK\n\
         RestrictNamespaces=yes\n\
         LockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\n\
         SystemCallArchitectures=native\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

/// As systemd wants a path: quoted, with its own special characters escaped (systemd.syntax(7),
/// "Quoting"; `%` is a specifier).
fn quoted(path: &Path) -> Result<String, UnfitPath> {
    let unfit = || UnfitPath(path.display().to_string());
    let text = path.to_str().ok_or_else(unfit)?;
    if !path.is_absolute() || text.chars().any(char::is_control) {
        return Err(unfit());
    }
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{identity, lighthouses};

    #[test]
    fn ports_come_from_the_document_once_each() {
        let mut own = lighthouses(1, &identity(), 443, 51820)
            .lighthouses
            .remove(0);
        own.https.push("[2001:db8::1]:443".into());
        let ports = open_ports(&own);
        let short: Vec<_> = ports.iter().map(|p| (p.port, p.protocol)).collect();
        assert_eq!(short, [(443, "tcp"), (51820, "udp")]);
    }

    #[test]
    fn the_unit_runs_the_lighthouse_without_more_rights_than_it_needs() {
        let ports = |port| {
            vec![OpenPort {
                port,
                protocol: "tcp",
                why: "",
            }]
        };
        let dir = Path::new("/srv/50% \"x\"");
        let unit =
            systemd_unit(Path::new("/usr/bin/holdfast"), dir, "holdfast", &ports(443)).unwrap();
        let start = r#"ExecStart="/usr/bin/holdfast" lighthouse run --dir "/srv/50%% \"x\"""#;
        assert!(unit.lines().any(|l| l == start), "{unit}");
        assert!(unit.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE\n"));
        let unit = systemd_unit(Path::new("/a"), Path::new("/b"), "u", &ports(8443)).unwrap();
        assert!(unit.contains("CapabilityBoundingSet=\n"));
        for bad in ["relative", "/a\nUser=root"] {
            assert!(
                systemd_unit(Path::new("/a"), Path::new(bad), "u", &[]).is_err(),
                "{bad}"
            );
        }
    }
}
