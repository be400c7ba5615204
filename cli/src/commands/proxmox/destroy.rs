//! `holdfast proxmox destroy`.

use super::connect::{HostArgs, explain};
use super::place;
use super::work;
use crate::app::App;
use crate::exit::Exit;
use crate::progress::Steps;
use anyhow::{Context as _, Result};
use holdfast_proxmox::Client;
use holdfast_proxmox::answers::{Config, MachineEntry};
use holdfast_proxmox::calls;
use holdfast_proxmox::machine::{TAG, drive_of};
use holdfast_proxmox::names::{Node, VmId, Volume};
use serde::Serialize;
use std::io::IsTerminal as _;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast proxmox destroy n1
  holdfast proxmox destroy 101 102 --yes

A machine without the tag `holdfast` is refused unless --force is given. The machine is powered off at \
once and removed with its disks; the drive that its description names is removed too. The node stays a \
member of the cluster until `holdfast evict NODE`.")]
pub struct Args {
    #[command(flatten)]
    host: HostArgs,
    /// Which machines, by number or name
    #[arg(required = true)]
    machines: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Also machines that Holdfast did not make
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Gone {
    vmid: VmId,
    name: String,
    node: Node,
    drive: Option<Volume>,
}

fn confirmed(victims: &[MachineEntry]) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Exit::Usage
            .error("this removes machines with their disks: --yes says that you mean it"));
    }
    for m in victims {
        let on = if m.running { ", running" } else { "" };
        eprintln!(
            "  {} {} on {}{on}",
            m.id,
            crate::words::plain(&m.name),
            m.node
        );
    }
    eprint!("Remove with all disks? Type yes: ");
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .context("reading the answer")?;
    if line.trim() == "yes" {
        Ok(())
    } else {
        Err(Exit::Failed.error("nothing was removed"))
    }
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let client = args.host.client()?;
    let all = place::machines(&client).await?;
    let mut victims: Vec<MachineEntry> = vec![];
    for text in &args.machines {
        let found = place::find(&all, text)?;
        if !victims.contains(found) {
            victims.push(found.clone());
        }
    }
    let mut drives = vec![];
    for m in &victims {
        let config = Config::read(&place::ask(&client, &calls::config(&m.node, m.id)).await?)?;
        if !args.force && !config.tags().iter().any(|t| t == TAG) {
            return Err(Exit::Refused.error(format!(
                "VM {} ({}) has no tag `{TAG}`: Holdfast did not make it. --force removes it all the same; \
                 nothing was removed",
                m.id, m.name
            )));
        }
        let drive = config.get("description").and_then(|d| drive_of(m.id, d));
        drives.push(drive.map(|d| (m.node.clone(), d)));
    }
    if !args.yes {
        confirmed(&victims)?;
    }
    let steps = Steps::new();
    let mut gone = vec![];
    for (m, drive) in victims.into_iter().zip(drives) {
        let step = format!("remove {}", m.id);
        steps.start(&step, None);
        if let Err(e) = work::destroy(&client, &m.node, m.id).await {
            steps.clear();
            return Err(explain(&client, e).context(format!(
                "VM {} is not removed{}",
                m.id,
                before(&gone)
            )));
        }
        let removed = Gone {
            vmid: m.id,
            name: m.name,
            node: m.node,
            drive: remove_drive(&client, &steps, drive).await,
        };
        gone.push(removed);
        steps.done(&step, "done");
    }
    app.print(&gone, || {
        let lines = gone.iter().map(|g| {
            format!(
                "VM {} ({}) is gone. If it was a node: `holdfast evict {}`.",
                g.vmid, g.name, g.name
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}

fn before(gone: &[Gone]) -> String {
    let ids: Vec<String> = gone.iter().map(|g| g.vmid.to_string()).collect();
    if ids.is_empty() {
        String::new()
    } else {
        format!("; these are gone: {}", ids.join(", "))
    }
}

/// Removes a drive; one that stays is no failure, and told.
async fn remove_drive(
    client: &Client,
    steps: &Steps,
    drive: Option<(Node, Volume)>,
) -> Option<Volume> {
    let (node, volume) = drive?;
    match client.run(&calls::remove_volume(&node, &volume)).await {
        Ok(_) => Some(volume),
        Err(e) => {
            steps.line(&format!(
                "note: the drive stays: `pvesm free {volume}` on the host removes it\n  because: {}",
                explain(client, e)
            ));
            None
        }
    }
}
