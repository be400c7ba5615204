//! `holdfast reboot NODE`.

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
Examples:
  holdfast reboot n1 --wait
  holdfast reboot n1 --rescue

--wait ends when the node answers from another boot and, if k3s was Ready before, is Ready again; with \
--rescue, when it answers from the rescue system. Another system than was asked for: exit code 5.")]
pub struct Args {
    /// Which node
    node: Which,
    /// Into the rescue system
    #[arg(long)]
    rescue: bool,
    /// Wait until it is back
    #[arg(long)]
    wait: bool,
    /// With --wait: how long at most
    #[arg(long, default_value = "15m", value_name = "TIME", value_parser = parse_duration)]
    timeout: Duration,
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let connection = connect(app).await?;
    let target = connection.target(&args.node).await?;
    let before = if args.wait {
        Some(Before::of(&target.status().await?))
    } else {
        None
    };
    target
        .ask(&Request::Reboot {
            rescue: args.rescue,
        })
        .await?
        .done()
        .await?;
    let Some(before) = before else {
        return app.print(
            &serde_json::json!({ "name": args.node, "asked": "reboot" }),
            || format!("{} reboots.", args.node),
        );
    };
    let status = wait(
        &target,
        &format!("{} reboots", args.node),
        args.timeout,
        |s| {
            if args.rescue {
                before.rescued(s)
            } else {
                before.rebooted(s)
            }
        },
    )
    .await?;
    let view = connection.judge().view_of(status);
    app.print(&view, || {
        format!(
            "{} is back: slot {}, {}.",
            view.name,
            view.slot_words(),
            view.version.clone().unwrap_or_default()
        )
    })
}
