//! `holdfast lighthouse install`.

use super::LighthouseConfig;
use crate::app::{App, print_line};
use crate::exit::Exit;
use crate::files;
use anyhow::{Context as _, Result};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const UNIT: &str = "/etc/systemd/system/holdfast-lighthouse.service";

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo holdfast lighthouse install --dir /var/lib/holdfast-lighthouse
  holdfast lighthouse install --dir lighthouse --print

The unit runs as the folder's owner, writes nowhere else, and starts again when it ends.")]
pub struct Args {
    /// The lighthouse's folder, copied from CLUSTER/lighthouse
    #[arg(long, default_value = "/var/lib/holdfast-lighthouse", value_name = "DIR")]
    dir: PathBuf,
    /// Print the unit instead of writing it
    #[arg(long)]
    print: bool,
}

fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|t| !t.contains(['"', '\\', '\n', '%', '$']));
    let text = text.with_context(|| format!("{} holds characters that a systemd unit cannot", path.display()))?;
    Ok(format!("\"{text}\""))
}

/// The unit's text (systemd.service(5), systemd.exec(5)).
fn unit(program: &Path, dir: &Path, uid: u32, gid: u32, config: &LighthouseConfig) -> Result<String> {
    let low = config.https.iter().chain([&config.udp]).any(|a| a.port() < 1024);
    let capability = if low { "CAP_NET_BIND_SERVICE" } else { "" };
    let (program, dir) = (quoted(program)?, quoted(dir)?);
    Ok(format!(
        "\
[Unit]
Description=Holdfast lighthouse
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={program} lighthouse run --dir {dir}
User={uid}
Group={gid}
Restart=always
RestartSec=2
LimitNOFILE=65536
AmbientCapabilities={capability}
CapabilityBoundingSet={capability}
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={dir}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"
    ))
}

fn ports(config: &LighthouseConfig) -> String {
    let mut tcp: Vec<String> = config.https.iter().map(|a| a.port().to_string()).collect();
    tcp.dedup();
    format!("Open TCP {} (nodes and operators) and UDP {} (mesh) to everyone, in this machine's firewall and in its\nprovider's.", tcp.join(", "), config.udp.port())
}

/// Runs the verb.
pub fn run(app: &App, args: Args) -> Result<()> {
    let config = LighthouseConfig::read(&args.dir)?;
    let dir = std::fs::canonicalize(&args.dir).with_context(|| format!("cannot resolve {}", args.dir.display()))?;
    let meta = std::fs::metadata(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let text = unit(&program, &dir, meta.uid(), meta.gid(), &config)?;
    if meta.uid() == 0 {
        app.say(&format!(
            "warning: {} belongs to root, so the lighthouse will run as root; better give it a user of its own:\n  useradd --system holdfast-lighthouse && chown -R holdfast-lighthouse: {}",
            dir.display(),
            dir.display()
        ));
    }
    if args.print {
        print_line(text.trim_end())?;
        app.say(&ports(&config));
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Exit::Usage.error(format!("writing {UNIT} needs root: run this with sudo, or give --print")));
    }
    files::write_public(Path::new(UNIT), text.as_bytes())?;
    let next = "systemctl daemon-reload && systemctl enable --now holdfast-lighthouse";
    let json = serde_json::json!({
        "unit": UNIT,
        "tcp": config.https.iter().map(|a| a.port()).collect::<Vec<_>>(),
        "udp": config.udp.port(),
        "next": next,
    });
    app.print(&json, || format!("Wrote {UNIT}. Start it:\n  {next}\n{}", ports(&config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(port: u16) -> LighthouseConfig {
        LighthouseConfig {
            https: vec![([0, 0, 0, 0], port).into()],
            udp: ([0, 0, 0, 0], 51820).into(),
        }
    }

    #[test]
    fn the_unit_has_no_more_rights_than_its_ports_need() {
        let unit = |port| unit(Path::new("/usr/bin/holdfast"), Path::new("/srv/light house"), 7, 8, &config(port)).unwrap();
        let high = unit(8443);
        assert!(high.contains("ExecStart=\"/usr/bin/holdfast\" lighthouse run --dir \"/srv/light house\"\nUser=7\nGroup=8\n"));
        assert!(high.contains("AmbientCapabilities=\n"));
        assert!(unit(443).contains("AmbientCapabilities=CAP_NET_BIND_SERVICE\n"));
        assert!(super::unit(Path::new("/a%b"), Path::new("/d"), 0, 0, &config(1)).is_err());
    }
}
