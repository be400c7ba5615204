//! `holdfast rollback NODE`.

use crate::app::App;
use crate::lighthouse::connect;
use crate::nodes::Which;
use crate::waiting::{Before, wait};
use crate::words::parse_duration;
use anyhow::Result;
use holdfast_core::control::Request;
use std::time::Duration;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  holdfast rollback n1 --wait

The other slot is tried like an upgrade: if it does not prove itself, the node comes back to this one \
(exit code 5).")]
pub struct Args {
    /// Which node
    node: Which,
    /// Wait until the other slot is committed, or given up
    #[arg(long)]
    wait: bool,
    /// With --wait: how long at most
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = parse_duration)]
    timeout: Duration,
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let connection = connect(app).await?;
    let target = connection.target(&args.node).await?;
    let before = Before::of(&target.status().await?);
    target.ask(&Request::Rollback).await?.done().await?;
    if !args.wait {
        return app.print(
            &serde_json::json!({ "name": args.node, "asked": "rollback" }),
            || format!("{} reboots into its other slot.", args.node),
        );
    }
    let status = wait(
        &target,
        &format!("{} rolls back", args.node),
        args.timeout,
        |s| before.other_slot(s),
    )
    .await?;
    let view = connection.judge().view_of(status);
    app.print(&view, || {
        format!(
            "{} runs {} in slot {}.",
            view.name,
            view.version.clone().unwrap_or_default(),
            view.slot_words()
        )
    })
}
