//! `holdfast cluster`: make a cluster's directory, show it, hand its documents over, and get the
//! root back from paper.

mod backup;
pub mod new;

use crate::app::App;
use crate::cluster_dir::{ClusterDir, KeyFile};
use crate::exit::Exit;
use crate::{lighthouse, paper, table, words};
use anyhow::{Context as _, Result};
use holdfast_core::cluster::AddressPlan;
use serde::Serialize;
use std::io::{IsTerminal as _, Read as _};

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make a cluster: its keys, its id, its address plan, its first lighthouse's files
    New(new::Args),
    /// Show what was fixed for ever, and who may do what
    #[command(after_help = "Example:\n  holdfast cluster show --cluster home --output json")]
    Show,
    /// Hand the signed documents to the lighthouse once more
    #[command(
        after_help = "Example:\n  holdfast cluster push\n\nNeeded only when a revocation or an eviction could not reach the lighthouse at once."
    )]
    Push,
    /// Get a lost root key back from the printed one
    #[command(
        after_help = "Example:\n  holdfast cluster restore-root\n\nAsks for the 13 groups as printed, from the terminal or standard input; the key is then kept encrypted as keys/root.age. The printed one stays as good as before."
    )]
    RestoreRoot,
    /// Write the whole directory into one encrypted file
    Export(backup::ExportArgs),
    /// Make the directory again from such a file
    Import(backup::ImportArgs),
}

/// Runs the verb.
pub async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::New(args) => new::run(app, args),
        Verb::Show => show(app, &app.cluster()?),
        Verb::Push => push(app).await,
        Verb::RestoreRoot => restore_root(app, &app.cluster()?),
        Verb::Export(args) => backup::export(app, &args),
        Verb::Import(args) => backup::import(app, &args),
    }
}

/// The plan in words, for `new` and `show`.
pub fn plan_fields(plan: &AddressPlan) -> Vec<(&'static str, String)> {
    vec![
        ("mesh", format!("{} and {}", plan.mesh4, plan.mesh6)),
        ("pods", plan.pods.to_string()),
        ("services", plan.services.to_string()),
        (
            "dual stack",
            if plan.dual_stack {
                format!("yes, out of {}", plan.ula)
            } else {
                "no".into()
            },
        ),
    ]
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    id: String,
    roots: &'a [holdfast_core::keys::PublicKey],
    plan: AddressPlan,
    operators: holdfast_core::documents::Operators,
    lighthouses: holdfast_core::documents::Lighthouses,
    policy: holdfast_core::documents::Policy,
    release_keys: Vec<holdfast_core::keys::PublicKey>,
    image_generation: u64,
}

fn show(app: &App, cluster: &ClusterDir) -> Result<()> {
    let documents = cluster.documents()?;
    let shown = Shown {
        name: cluster.config.name.as_str(),
        id: cluster.config.id.to_string(),
        roots: &cluster.config.roots,
        plan: cluster.plan(),
        operators: documents.operators,
        lighthouses: documents.lighthouses,
        policy: documents.policy,
        release_keys: cluster.release_keys()?,
        image_generation: cluster.counters()?.generation,
    };
    app.print(&shown, || {
        let mut rows = vec![("name", shown.name.to_string()), ("id", shown.id.clone())];
        rows.extend(plan_fields(&shown.plan));
        rows.push((
            "operators",
            shown
                .operators
                .operators
                .iter()
                .map(|o| o.name.to_string())
                .collect::<Vec<_>>()
                .join(", "),
        ));
        for l in &shown.lighthouses.lighthouses {
            rows.push((
                "lighthouse",
                format!(
                    "{}: {} (TCP), {} (UDP)",
                    l.name,
                    l.https.join(" "),
                    l.udp.join(" ")
                ),
            ));
        }
        rows.push((
            "last image",
            if shown.image_generation == 0 {
                "none yet".into()
            } else {
                format!("generation {}", shown.image_generation)
            },
        ));
        rows.push((
            "policy",
            format!(
                "generation {}, {} evicted, {} grants revoked",
                shown.policy.generation,
                shown.policy.evicted.len(),
                shown.policy.revoked.len()
            ),
        ));
        table::fields(&rows)
    })
}

async fn push(app: &App) -> Result<()> {
    let connection = lighthouse::connect(app).await?;
    connection.push_documents(app).await?;
    let d = &connection.documents;
    #[derive(Serialize)]
    struct Pushed {
        operators: u64,
        lighthouses: u64,
        policy: u64,
    }
    let pushed = Pushed {
        operators: d.operators.generation,
        lighthouses: d.lighthouses.generation,
        policy: d.policy.generation,
    };
    app.print(&pushed, || {
        format!(
            "The lighthouse has operators {}, lighthouses {}, policy {}.",
            pushed.operators, pushed.lighthouses, pushed.policy
        )
    })
}

fn restore_root(app: &App, cluster: &ClusterDir) -> Result<()> {
    let text = if std::io::stdin().is_terminal() {
        rpassword::prompt_password("The printed root key, 13 groups (not shown): ")
            .context("reading the key")?
    } else {
        let mut text = String::new();
        std::io::stdin()
            .take(4096)
            .read_to_string(&mut text)
            .context("reading the key")?;
        text
    };
    let text = zeroize::Zeroizing::new(text);
    let key = paper::decode(&text).map_err(|e| Exit::Usage.error(e.to_string()))?;
    if !cluster.roots().contains(&key.public()) {
        return Err(Exit::Refused.error(format!(
            "this is a whole key, but no root of cluster {} ({})",
            cluster.config.name, cluster.config.id
        )));
    }
    settle_passphrase(app, cluster)?;
    let path = cluster.key(KeyFile::Root);
    if path.exists() {
        let kept = path.with_extension(format!("age.{}", words::now()));
        std::fs::rename(&path, &kept)
            .with_context(|| format!("cannot rename {}", path.display()))?;
        app.say(&format!(
            "The key that was there is kept as {}.",
            kept.display()
        ));
    }
    app.passphrase.seal(&path, &key)?;
    app.say(&format!(
        "{} holds the root key now, encrypted with the passphrase just given.",
        path.display()
    ));
    Ok(())
}

/// The passphrase of the cluster's other keys, so that one opens them all; a new one where there
/// are none.
fn settle_passphrase(app: &App, cluster: &ClusterDir) -> Result<()> {
    let operator = cluster.key(KeyFile::Operator);
    if !operator.exists() {
        return app.passphrase.choose();
    }
    app.passphrase.open(&operator).map(drop).with_context(|| {
        format!(
            "nothing was changed: give the passphrase of the cluster's other keys. If that one is lost, \
             so are they: move {} away, then choose a new one here",
            operator.display()
        )
    })
}
