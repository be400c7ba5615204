//! `holdfast join` and `holdfast leave`: this Linux machine as a member.

use crate::app::App;
use crate::exit::Exit;
use crate::{files, seed_file};
use anyhow::{Context as _, Result};
use holdfast_agent::member::{self, Joined};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Folders that the unit hides from its program (`ProtectHome`, `PrivateTmp`).
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
/// The unit's file name.
const UNIT: &str = "holdfast-member.service";
const UNITS: &str = "/etc/systemd/system";
/// systemd runs (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
const TUN: &str = "/dev/net/tun";
/// How long the service may take to have its mesh.
const START: Duration = Duration::from_secs(20);

/// Where the member's state is.
#[derive(Debug, Clone, clap::Args)]
pub struct Dir {
    /// The folder of this machine's keys and membership
    #[arg(long, default_value = member::DIR, value_name = "DIR")]
    pub dir: PathBuf,
}

/// Options of `join`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo holdfast join laptop.seed.toml
  sudo holdfast join laptop.seed.toml --foreground
  holdfast seed new --role bare --name laptop --out -      the seed, on an operator's computer

This machine makes its own keys, joins with the seed as a node does, and runs as a service, \
holdfast-member.service. It gets the interface hf0 and reaches what its groups may, by the names \
NODE.CLUSTER.internal too where systemd-resolved runs. Operators do not steer it. `holdfast mesh status` shows its peers, `holdfast mesh down` takes interface and routes away, \
`holdfast leave` undoes the join.")]
pub struct JoinArgs {
    /// The seed; it is spent afterwards, and may be deleted
    #[arg(value_name = "FILE")]
    seed: PathBuf,
    /// Run here until interrupted, and write no unit
    #[arg(long)]
    foreground: bool,
    #[command(flatten)]
    dir: Dir,
}

/// Options of `leave`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sudo holdfast leave

The service ends, and this machine's keys are deleted. Its name and address become free when an \
operator runs `holdfast evict NAME`.")]
pub struct LeaveArgs {
    #[command(flatten)]
    dir: Dir,
}

/// What everything here needs.
pub fn needs_root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Exit::Usage.error(format!("{what} needs root: run it with sudo")))
}

fn needs_tun() -> Result<()> {
    if Path::new(TUN).exists() {
        return Ok(());
    }
    Err(Exit::Failed.error(format!(
        "there is no {TUN}: `modprobe tun`, or let the container have it"
    )))
}

fn systemctl(args: &[&str]) -> Result<()> {
    let line = format!("systemctl {}", args.join(" "));
    let done = Command::new("systemctl").args(args).output();
    let done = done.with_context(|| line.clone())?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(Exit::Failed.error(format!("{line}: {}", said.trim())));
    }
    Ok(())
}

/// The unit that runs the member; `program` and `dir` have no characters that systemd would read.
fn unit(program: &Path, dir: &Path) -> Result<String> {
    let plain = |path: &Path| -> Result<String> {
        let text = path.to_str().unwrap_or_default();
        let fits = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
        if text.starts_with('/') && text.chars().all(fits) {
            return Ok(text.to_owned());
        }
        Err(Exit::Usage.error(format!(
            "{} cannot stand in a systemd unit: use letters, digits and /._-+@",
            path.display()
        )))
    };
    for path in [program, dir] {
        if let Some(hidden) = HIDDEN.iter().find(|at| path.starts_with(at)) {
            return Err(Exit::Usage.error(format!(
                "{} is not seen by the service, which has no {hidden}: copy the program to \
                 /usr/local/bin, and let --dir name a folder elsewhere",
                path.display()
            )));
        }
    }
    Ok(format!(
        "# Written by `holdfast join`.\n\
         [Unit]\n\
         Description=Holdfast member\n\
         After=network-online.target systemd-resolved.service\n\
         Wants=network-online.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart={} mesh up --dir {}\n\
         Restart=always\n\
         RestartSec=2\n\
         CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=strict\n\
         ReadWritePaths={}\n\
         ProtectHome=yes\n\
         PrivateTmp=yes\n\
         DevicePolicy=closed\n\
         DeviceAllow={TUN} rw\n\
         ProtectKernelModules=yes\n\
         ProtectControlGroups=yes\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK\n\
         RestrictNamespaces=yes\n\
         LockPersonality=yes\n\
         SystemCallArchitectures=native\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        plain(program)?,
        plain(dir)?,
        plain(dir)?
    ))
}

fn unit_path() -> PathBuf {
    Path::new(UNITS).join(UNIT)
}

/// Whether `unit` runs the member of this folder: another folder's is another membership's.
fn is_of(unit: &str, dir: &Path) -> bool {
    unit.contains(&format!("--dir {}\n", dir.display()))
}

/// Runs `join`.
pub async fn join(app: &App, args: JoinArgs) -> Result<()> {
    needs_root("holdfast join")?;
    needs_tun()?;
    let dir = &args.dir.dir;
    // What would stop the service is found before the seed is spent.
    let service = if args.foreground {
        None
    } else if Path::new(BOOTED).exists() {
        let program = std::env::current_exe().context("cannot find this program")?;
        let unit = unit(&program, dir)?;
        let there = std::fs::read_to_string(unit_path()).unwrap_or_default();
        if !there.is_empty() && !is_of(&there, dir) {
            return Err(Exit::Failed.error(format!(
                "{} runs another membership of this machine: `holdfast leave` with its --dir first",
                unit_path().display()
            )));
        }
        Some(unit)
    } else {
        let text = "systemd does not run here: --foreground runs the member itself";
        return Err(Exit::Usage.error(text));
    };
    let seed = seed_file::read(&args.seed)?.seed;
    let version = env!("CARGO_PKG_VERSION");
    let joined = member::join(dir, &seed, version).await?;
    if let Some(unit) = &service {
        files::write_public(&unit_path(), unit.as_bytes())?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "--now", UNIT])?;
        came_up(dir).await?;
    }
    tell(app, &joined, service.is_some())?;
    if service.is_none() {
        member::run(dir, version).await?;
    }
    Ok(())
}

/// systemd has started a service once its program runs; whether that goes on is another matter.
async fn came_up(dir: &Path) -> Result<()> {
    let end = Instant::now() + START;
    while !matches!(member::status(dir).await, Ok(Some(_))) {
        if Instant::now() > end {
            return Err(Exit::Failed.error(format!(
                "this machine has joined, but its service has no mesh after {} s: \
                 `journalctl -u {UNIT}` says why; `holdfast leave` undoes the join",
                START.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// How this machine gets the cluster's names.
fn names(joined: &Joined, resolved: bool) -> String {
    let (zone, at) = (joined.zone(), joined.address);
    if resolved {
        return format!(
            "systemd-resolved asks it for names like {}.{zone}.",
            joined.name
        );
    }
    format!(
        "Names like {}.{zone} are answered at {at}, port 53. systemd-resolved does not run here, so \
         have this machine's resolver ask there, for {zone} alone; dnsmasq: server=/{zone}/{at}",
        joined.name
    )
}

fn tell(app: &App, joined: &Joined, service: bool) -> Result<()> {
    app.print(joined, || {
        let running = if service { UNIT } else { "in the foreground" };
        format!(
            "{} is a member of {}: {}, {} ({running}).\n{}",
            joined.name,
            joined.cluster,
            joined.address,
            joined.address6,
            names(joined, member::resolved_runs())
        )
    })
}

/// Runs `leave`.
pub async fn leave(app: &App, args: LeaveArgs) -> Result<()> {
    needs_root("holdfast leave")?;
    let dir = &args.dir.dir;
    let Some(was) = member::joined(dir).await? else {
        return Err(Exit::Failed.error(format!(
            "no membership in {}: --dir names the folder that `holdfast join` was given",
            dir.display()
        )));
    };
    down(dir).await?;
    let unit = std::fs::read_to_string(unit_path()).unwrap_or_default();
    if is_of(&unit, dir) {
        std::fs::remove_file(unit_path()).with_context(|| unit_path().display().to_string())?;
        systemctl(&["daemon-reload"])?;
    }
    member::forget(dir)?;
    app.print(&was, || {
        format!(
            "{} has left {}; `holdfast evict {}` frees its name.",
            was.name, was.cluster, was.name
        )
    })
}

/// Ends the service, where there is one, and the member; true when it ran.
pub async fn down(dir: &Path) -> Result<bool> {
    let own = std::fs::read_to_string(unit_path()).unwrap_or_default();
    let mut ran = false;
    if is_of(&own, dir) && Path::new(BOOTED).exists() {
        ran = systemctl(&["is-active", "--quiet", UNIT]).is_ok();
        systemctl(&["disable", "--now", UNIT])?;
    }
    ran |= member::down(dir).await?;
    member::clean(dir).await?;
    Ok(ran)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_names_program_and_folder_and_nothing_that_systemd_would_read() {
        let unit = unit(
            Path::new("/usr/local/bin/holdfast"),
            Path::new("/var/lib/holdfast"),
        );
        let unit = unit.unwrap();
        assert!(
            unit.contains("\nExecStart=/usr/local/bin/holdfast mesh up --dir /var/lib/holdfast\n")
        );
        // Port 53 of its mesh address.
        assert!(unit.contains("CAP_NET_BIND_SERVICE"), "{unit}");
        assert!(is_of(&unit, Path::new("/var/lib/holdfast")));
        // A folder whose name begins so, or a typing error.
        for other in ["/var/lib/holdfas", "/var/lib/holdfast2", "/tmp/tset"] {
            assert!(!is_of(&unit, Path::new(other)), "{other}");
        }
        let hidden = ["/home/ada/holdfast", "/root/holdfast", "/tmp/holdfast"];
        for bad in ["relative", "/with space", "/50%", "/a\nb"]
            .iter()
            .chain(&hidden)
        {
            assert!(
                super::unit(Path::new(bad), Path::new("/d")).is_err(),
                "{bad}"
            );
        }
    }
}
