//! Powering on, and waiting for the node inside.

use super::connect::explain;
use super::work::Work;
use crate::exit::Exit;
use crate::table::table;
use anyhow::Result;
use holdfast_proxmox::answers;
use holdfast_proxmox::calls;
use holdfast_proxmox::names::{MachineName, Node, VmId, Volume};
use serde::Serialize;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const AGAIN: Duration = Duration::from_secs(2);

/// Whether, and how long.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// Power it on
    #[arg(long)]
    pub start: bool,
    /// Wait until its guest agent tells its addresses
    #[arg(long, requires = "start")]
    wait: bool,
    /// With --wait: how long at most
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = crate::words::parse_duration)]
    timeout: Duration,
}

/// A machine that was made.
#[derive(Debug, Serialize)]
pub struct Row {
    pub vmid: VmId,
    pub node: Node,
    pub name: MachineName,
    pub template: bool,
    pub running: bool,
    pub drive: Option<Volume>,
    pub image: Option<Volume>,
    pub addresses: Vec<IpAddr>,
}

/// A table for people.
pub fn rows(rows: &[Row]) -> String {
    table(
        ["vmid", "name", "node", "state", "addresses", "drive"],
        rows.iter().map(|r| {
            let addresses: Vec<String> = r.addresses.iter().map(IpAddr::to_string).collect();
            let state = match (r.template, r.running) {
                (true, _) => "template",
                (false, true) => "running",
                (false, false) => "off",
            };
            [
                r.vmid.to_string(),
                r.name.to_string(),
                r.node.to_string(),
                state.into(),
                addresses.join(" "),
                r.drive.as_ref().map(Volume::to_string).unwrap_or_default(),
            ]
        }),
    )
}

impl StartArgs {
    /// Powers the machines on. They are whole: what fails here removes nothing.
    pub async fn carry_out(&self, work: &mut Work<'_>, made: &mut [Row]) -> Result<()> {
        if !self.start {
            return Ok(());
        }
        for row in &mut *made {
            let step = format!("start {}", row.name);
            let started = work.run(&step, &calls::start(&row.node, row.vmid)).await;
            started.map_err(|e| {
                e.context(format!(
                    "VM {0} is made and does not start; `holdfast proxmox destroy {0}` removes it",
                    row.vmid
                ))
            })?;
            row.running = true;
        }
        if self.wait {
            let deadline = Instant::now() + self.timeout;
            for row in made {
                wait(work, row, deadline).await?;
            }
        }
        Ok(())
    }
}

async fn wait(work: &mut Work<'_>, row: &mut Row, deadline: Instant) -> Result<()> {
    let step = format!("wait for {}", row.name);
    work.steps.start(&step, None);
    let call = calls::guest_interfaces(&row.node, row.vmid);
    let mut last;
    loop {
        match work.client.call(&call).await {
            Ok(data) => {
                row.addresses = answers::guest_addresses(&data)?;
                if !row.addresses.is_empty() {
                    work.steps.done(&step, "its guest agent answers");
                    return Ok(());
                }
                last = "it has no address yet".to_owned();
            }
            // The agent of a machine that starts is not running yet: status 500.
            Err(e) if e.refusal().is_some_and(|r| r.status >= 500) => last = e.to_string(),
            Err(e) => return Err(explain(work.client, e)),
        }
        if Instant::now() > deadline {
            return Err(Exit::TimedOut.error(format!(
                "VM {} ({}) runs and its guest agent has told no address in time: {last}\n  its console: `qm terminal {}` on the host",
                row.vmid, row.name, row.vmid
            )));
        }
        work.patiently(async {
            tokio::time::sleep(AGAIN).await;
            Ok(())
        })
        .await?;
    }
}
