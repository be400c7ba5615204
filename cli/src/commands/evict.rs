//! `holdfast evict NODE`.

use crate::app::App;
use crate::exit::Exit;
use crate::lighthouse::{connect, explain};
use anyhow::Result;
use holdfast_core::names::NodeName;
use serde::Serialize;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  holdfast evict n3

The root signs a policy that names the node's key: members drop it as soon as they have that policy,
the lighthouse takes no request of its any more, and its name and address become free. There is no
way back for this key; the machine can join again with another seed.")]
pub struct Args {
    /// Which node
    node: NodeName,
}

#[derive(Serialize)]
struct Evicted {
    name: NodeName,
    key: String,
    policy: u64,
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let mut connection = connect(app).await?;
    let entries = connection.entries().await?;
    let Some(entry) = entries.into_iter().find(|e| e.name == args.node) else {
        return Err(Exit::Failed.error(format!(
            "no node is called {}: `holdfast nodes` lists them",
            args.node
        )));
    };
    // Signed by its token, whatever policy and operators say of it by now.
    let (record, _) = entry.member.record.open_self().map_err(|e| {
        Exit::Refused.error(format!(
            "what the lighthouse says of {} is not to be believed: {e}",
            args.node
        ))
    })?;
    if record.name != args.node {
        return Err(Exit::Refused.error(format!(
            "the lighthouse calls {} what names itself {}",
            args.node, record.name
        )));
    }
    let key = record.signing_key;
    if !connection.documents.policy.evicted.contains(&key) {
        connection
            .change_policy(app, |policy| policy.evicted.push(key))
            .await?;
    } else {
        connection.push_documents().await?;
    }
    connection
        .client
        .forget(&args.node)
        .await
        .map_err(explain)?;
    let evicted = Evicted {
        name: args.node,
        key: key.to_string(),
        policy: connection.documents.policy.generation,
    };
    app.print(&evicted, || {
        format!("{} is out (policy {}).", evicted.name, evicted.policy)
    })
}
