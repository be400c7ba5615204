//! `holdfast restart-agent NODE`.

use crate::app::App;
use crate::lighthouse::connect;
use crate::nodes::Which;
use anyhow::Result;
use holdfast_core::control::Request;

/// Options.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  holdfast restart-agent n1\n\nConnections through the mesh live on: the interface outlives the agent."
)]
pub struct Args {
    /// Which node
    node: Which,
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let connection = connect(app).await?;
    connection
        .target(&args.node)
        .await?
        .ask(&Request::RestartAgent)
        .await?
        .done()
        .await?;
    app.print(
        &serde_json::json!({ "name": args.node, "asked": "restart-agent" }),
        || format!("{} restarts its agent.", args.node),
    )
}
