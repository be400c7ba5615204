//! `holdfast lighthouse install`.

use crate::app::{App, print_line};
use crate::exit::Exit;
use crate::files;
use anyhow::{Context as _, Result};
use holdfast_core::documents::{Lighthouse, accept};
use holdfast_lighthouse::LighthouseDir;
use holdfast_lighthouse::install::{OpenPort, UNIT_NAME, open_ports, systemd_unit};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const UNITS: &str = "/etc/systemd/system";

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo holdfast lighthouse install --dir /var/lib/holdfast-lighthouse --user holdfast
  holdfast lighthouse install --dir lighthouse --print

The unit writes nowhere but into the folder, and starts again when it ends.")]
pub struct Args {
    /// The lighthouse's folder, copied from the cluster's directory
    #[arg(
        long,
        default_value = "/var/lib/holdfast-lighthouse",
        value_name = "DIR"
    )]
    dir: PathBuf,
    /// The user it runs as [default: the folder's owner]
    #[arg(long)]
    user: Option<String>,
    /// Print the unit instead of writing it
    #[arg(long)]
    print: bool,
}

/// The entry of the lighthouse whose folder this is.
fn own_entry(dir: &Path) -> Result<Lighthouse> {
    let folder = LighthouseDir::open(dir)?;
    let (cluster, key) = (folder.cluster()?, folder.keys()?.identity().key);
    let documents = folder
        .documents()?
        .with_context(|| format!("{} holds no documents.json", dir.display()))?;
    let named = accept(&documents.lighthouses, &cluster.roots(), cluster.id, None)
        .context("documents.json")?;
    let own = named.lighthouses.into_iter().find(|l| l.key == key);
    own.with_context(|| {
        format!(
            "the lighthouses document names none with the key of {}",
            dir.display()
        )
    })
}

fn words(ports: &[OpenPort]) -> String {
    let lines: Vec<String> = ports
        .iter()
        .map(|p| format!("  {} {}  {}", p.protocol.to_uppercase(), p.port, p.why))
        .collect();
    format!(
        "Open these ports to everyone, in this machine's firewall and in its provider's:\n{}",
        lines.join("\n")
    )
}

/// Runs the verb.
pub fn run(app: &App, args: Args) -> Result<()> {
    let dir = std::fs::canonicalize(&args.dir).with_context(|| {
        format!(
            "there is no folder {}: copy CLUSTER/lighthouse (or CLUSTER/lighthouses/NAME) there, or give --dir",
            args.dir.display()
        )
    })?;
    let ports = open_ports(&own_entry(&dir)?);
    let owner = std::fs::metadata(&dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .uid();
    let user = args.user.unwrap_or_else(|| owner.to_string());
    if user.is_empty()
        || user
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '%')
    {
        return Err(Exit::Usage.error(format!("{user:?} is no user's name")));
    }
    if user == "0" || user == "root" {
        app.say(&format!(
            "warning: the lighthouse would run as root, which it never needs. Better:\n  useradd --system holdfast && chown -R holdfast: {0}\n  holdfast lighthouse install --dir {0}",
            dir.display()
        ));
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let unit = systemd_unit(&program, &dir, &user, &ports)?;
    if args.print {
        print_line(unit.trim_end())?;
        app.say(&words(&ports));
        return Ok(());
    }
    let path = Path::new(UNITS).join(UNIT_NAME);
    if !nix::unistd::geteuid().is_root() {
        return Err(Exit::Usage.error(format!(
            "writing {} needs root: run this with sudo, or give --print",
            path.display()
        )));
    }
    files::write_public(&path, unit.as_bytes())?;
    let next = format!("systemctl daemon-reload && systemctl enable --now {UNIT_NAME}");
    let made = serde_json::json!({ "unit": path, "ports": ports, "next": next });
    app.print(&made, || {
        format!(
            "Wrote {}. Start it:\n  {next}\n{}",
            path.display(),
            words(&ports)
        )
    })
}
