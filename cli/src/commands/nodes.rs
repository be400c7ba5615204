//! `holdfast nodes`.

use crate::app::App;
use crate::lighthouse::connect;
use crate::nodes::NodeView;
use crate::table::table;
use crate::words::{plain, roughly};
use anyhow::Result;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast nodes
  holdfast nodes --output json

Everything but SEEN is signed by the nodes and checked here. SEEN is how long ago the lighthouse \
heard the node's account of itself; from two minutes on K3S says that it is old.")]
pub struct Args {}

fn text(views: &[NodeView]) -> String {
    if views.is_empty() {
        return "No node has joined yet.".into();
    }
    let mut text = table(
        [
            "name",
            "role",
            "mesh address",
            "slot",
            "version",
            "k3s",
            "last boot",
            "seen",
        ],
        views.iter().map(|v| {
            [
                v.name.to_string(),
                match v.client {
                    true => "client".into(),
                    false => v.role.map(|r| r.to_string()).unwrap_or_default(),
                },
                v.mesh_address.map(|a| a.to_string()).unwrap_or_default(),
                v.slot_words(),
                v.version.clone().unwrap_or_default(),
                v.k3s_words(),
                v.reason.clone().unwrap_or_default(),
                v.seen
                    .map(|s| format!("{} ago", roughly(s)))
                    .unwrap_or_else(|| "never".into()),
            ]
        }),
    );
    for view in views {
        let namesakes = views.iter().filter(|v| v.name == view.name).count();
        if let (2.., Some(key)) = (namesakes, &view.key) {
            text += &format!(
                "\n{} at {}: {namesakes} members have this name; this one's key is {key}, which commands take in its place",
                view.name,
                view.mesh_address.map(|a| a.to_string()).unwrap_or_default(),
            );
        }
        for note in view.notes.iter().chain(&view.problem) {
            text += &format!("\n{}: {}", view.name, plain(note));
        }
    }
    text
}

/// Runs the verb.
pub async fn run(app: &App, _: Args) -> Result<()> {
    let connection = connect(app).await?;
    let entries = connection.entries().await?;
    let judge = connection.judge();
    let views: Vec<NodeView> = entries.iter().map(|e| judge.view(e)).collect();
    app.print(&views, || text(&views))
}
