//! `holdfast status NODE`.

use crate::app::App;
use crate::lighthouse::connect;
use crate::nodes::NodeView;
use crate::nodes::Which;
use crate::table::{fields, table};
use crate::words::roughly;
use anyhow::Result;
use holdfast_core::status::SystemMemory;

/// Options.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast status n1\n  holdfast status n1 --output json\n\nAsks the node itself, through the lighthouse: an answer proves that control works."
)]
pub struct Args {
    /// Which node
    node: Which,
}

fn memory(used: SystemMemory) -> String {
    let mib = |kib: u64| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024);
    format!("init {}, agent {}", mib(used.init_kib), mib(used.agent_kib))
}

fn text(view: &NodeView) -> String {
    let text = |value: Option<String>| value.unwrap_or_default();
    let rows = [
        ("name", view.name.to_string()),
        ("role", text(view.role.map(|r| r.to_string()))),
        (
            "mesh",
            format!(
                "{} {}",
                text(view.mesh_address.map(|a| a.to_string())),
                text(view.mesh_address6.map(|a| a.to_string()))
            ),
        ),
        ("slot", view.slot_words()),
        (
            "version",
            format!(
                "{} (generation {})",
                text(view.version.clone()),
                view.generation.unwrap_or(0)
            ),
        ),
        (
            "k3s",
            format!("{} {}", view.k3s_words(), text(view.k3s_version.clone()))
                .trim()
                .to_string(),
        ),
        ("last boot", text(view.reason.clone())),
        ("boot id", text(view.boot_id.clone())),
        ("up", text(view.uptime.map(roughly))),
        (
            "handshake",
            text(view.handshake_age.map(|s| format!("{} ago", roughly(s)))),
        ),
        ("memory", text(view.memory.map(memory))),
        ("notes", view.notes.join("; ")),
    ];
    let slots = table(
        ["slot", "state", "generation", "tries left", "why"],
        view.slots.iter().map(|s| {
            [
                s.slot.to_string(),
                s.state.clone(),
                s.generation.to_string(),
                s.tries_left.to_string(),
                s.reason.clone(),
            ]
        }),
    );
    format!("{}\n\n{slots}", fields(&rows))
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let connection = connect(app).await?;
    let status = connection.target(&args.node).await?.status().await?;
    let view = connection.judge().view_of(status);
    app.print(&view, || text(&view))
}
