//! `holdfast history NODE`.

use crate::app::App;
use crate::lighthouse::connect;
use crate::nodes::Which;
use crate::table::table;
use crate::words::utc;
use anyhow::Result;
use holdfast_core::control::{Reply, Request};

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  holdfast history n1\n  holdfast history n1 --output json")]
pub struct Args {
    /// Which node
    node: Which,
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let connection = connect(app).await?;
    let mut stream = connection
        .target(&args.node)
        .await?
        .ask(&Request::History)
        .await?;
    let entries = match stream.next().await? {
        Some(Reply::History(entries)) => entries,
        other => return Err(stream.odd(other.as_ref())),
    };
    app.print(&entries, || {
        table(
            ["when", "what", "version", "slot", "by", "why"],
            entries.iter().map(|e| {
                [
                    utc(e.at),
                    e.event.clone(),
                    e.version.clone().unwrap_or_default(),
                    e.slot.map(|s| s.to_string()).unwrap_or_default(),
                    e.operator.clone().unwrap_or_default(),
                    e.detail.clone(),
                ]
            }),
        )
    })
}
