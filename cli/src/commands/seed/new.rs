//! `holdfast seed new`.

use super::tables::{InstallArgs, NetworkArgs, WifiArgs};
use crate::app::{App, print_line};
use crate::cluster_dir::{ClusterDir, Documents};
use crate::commands::token::{GrantArgs, Minted, mint};
use crate::exit::Exit;
use crate::secrets::new_key;
use crate::{files, find, words};
use anyhow::{Context as _, Result};
use holdfast_core::keys::PrivateKey;
use holdfast_core::names::GrantId;
use holdfast_core::seed::{Seed, SeedK3s, SeedLighthouse, SeedWifi, VERSION};
use serde::Serialize;
use std::path::PathBuf;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast seed new --role server --name n1 --out n1.seed.toml
  holdfast seed new --role agent --uses 5 --expires 7d --out shelf.seed.toml
      agents join the mesh; in this version they do not run k3s yet
  holdfast seed new --role bare --uses 10 --name-prefix shelf --out shelf.seed.toml
      ten machines that have the same seed become shelf-01 to shelf-10
  holdfast seed new --role bare --name pi --board rpi4 --wifi home --country DE --out pi.seed.toml
  holdfast seed new --role bare --name n2 --install --install-bus nvme --out stick.seed.toml
  holdfast seed new --role bare --name gate --address 192.168.1.9/24 --gateway 192.168.1.1 \\
      --dns 192.168.1.1 --out gate.seed.toml

The file holds the token's private half: it is as good as a key until it is used up or expires. Put \
it on a card with `holdfast flash --seed`, on the image's HOLDFAST volume as seed.toml, or hand it \
to `holdfast proxmox create --seed` or `holdfast vm run --seed`.")]
pub struct Args {
    #[command(flatten)]
    grant: GrantArgs,
    /// Write the seed here, readable by you only ('-': standard output)
    #[arg(short = 'o', long, value_name = "FILE")]
    out: PathBuf,
    /// Overwrite FILE
    #[arg(long)]
    force: bool,
    /// Keep the grant here for now: `holdfast token push` hands it over
    #[arg(long)]
    offline: bool,
    /// Make a node that has joined join anew
    #[arg(long)]
    rejoin: bool,
    /// The board that it is for, a name in boards/ or a file; a node with another board's image
    /// refuses it
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Kubernetes label of the node; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, help_heading = "Kubernetes")]
    labels: Vec<String>,
    /// Kubernetes taint of the node; may be repeated
    #[arg(long = "taint", value_name = "KEY=VALUE:EFFECT", value_parser = taint, help_heading = "Kubernetes")]
    taints: Vec<String>,
    #[command(flatten)]
    wifi: WifiArgs,
    #[command(flatten)]
    install: InstallArgs,
}

fn label(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.into()),
        _ => Err(format!("{text:?} is no KEY=VALUE")),
    }
}

fn taint(text: &str) -> Result<String, String> {
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    match text.rsplit_once(':') {
        Some((key, effect)) if !key.is_empty() && effects.contains(&effect) => Ok(text.into()),
        _ => Err(format!(
            "{text:?} is no KEY=VALUE:EFFECT with one of {}",
            effects.join(", ")
        )),
    }
}

#[derive(Serialize)]
struct Made {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    grant: String,
    role: holdfast_core::names::Role,
    name: Option<String>,
    uses: u32,
    not_after: u64,
    pushed: bool,
}

/// The seed's text, of which a node takes every word.
fn text_of(
    args: &Args,
    cluster: &ClusterDir,
    documents: &Documents,
    wifi: Option<&SeedWifi>,
    (grant, token): (GrantId, PrivateKey),
) -> Result<String> {
    let seed = Seed {
        version: VERSION,
        cluster: cluster.config.name.clone(),
        cluster_id: cluster.config.id,
        dual_stack: cluster.config.dual_stack,
        name: args.grant.name.clone(),
        role: args.grant.role,
        issued: words::now(),
        grant,
        token,
        roots: cluster.config.roots.clone(),
        lighthouses: documents
            .lighthouses
            .lighthouses
            .iter()
            .map(|l| SeedLighthouse {
                https: l.https.clone(),
                key: l.key,
            })
            .collect(),
        network: args.network.table(),
        k3s: SeedK3s {
            labels: args.labels.clone(),
            taints: args.taints.clone(),
        },
        rejoin: args.rejoin,
        board: args.board.clone(),
        wifi: wifi.cloned(),
        install: args.install.table(),
    };
    let text = seed.to_toml().context("writing the seed")?;
    // What a node would refuse must not leave this machine.
    Seed::from_bytes(text.as_bytes()).context("the seed would be refused by the node")?;
    Ok(text)
}

/// Runs the verb.
pub async fn run(app: &App, mut args: Args) -> Result<()> {
    let to_stdout = args.out.as_os_str() == "-";
    if to_stdout && app.json() {
        return Err(
            Exit::Usage.error("--out - and --output json both want standard output: give a file")
        );
    }
    if !to_stdout && !args.force && args.out.exists() {
        return Err(Exit::Usage.error(format!(
            "{} exists; it may hold a token not used yet. --force overwrites it",
            args.out.display()
        )));
    }
    args.board = args.board.as_deref().map(find::board_name).transpose()?;
    // Whatever can be wrong is found before a grant is handed over: it could not be taken back.
    let cluster = app.cluster()?;
    let stand_in = (GrantId::new("grant")?, new_key()?);
    let wifi = args.wifi.table()?;
    text_of(
        &args,
        &cluster,
        &cluster.documents()?,
        wifi.as_ref(),
        stand_in,
    )?;
    if !to_stdout {
        files::can_write(&args.out)?;
    }
    let Minted {
        cluster,
        documents,
        token,
        grant,
        pushed,
    } = mint(app, &args.grant, args.offline).await?;
    let drawn = (grant.id.clone(), token);
    let text = text_of(&args, &cluster, &documents, wifi.as_ref(), drawn)?;
    if to_stdout {
        return print_line(text.trim_end()).map(|_| ());
    }
    files::write_secret(&args.out, text.as_bytes())?;
    let made = Made {
        file: Some(args.out),
        grant: grant.id.to_string(),
        role: grant.role,
        name: words::names(&grant),
        uses: grant.uses,
        not_after: grant.not_after,
        pushed,
    };
    app.print(&made, || {
        let file = made.file.as_deref().unwrap_or(std::path::Path::new("-"));
        let hand = if pushed { "the lighthouse has the grant" } else { "the grant waits here: run `holdfast token push` before the node starts" };
        format!(
            "{}: role {}{}, {} use(s), good until {}; {hand}.\nWhoever has the file can join in its place until then.",
            file.display(),
            made.role,
            made.name.as_ref().map_or(String::new(), |n| format!(", {n}")),
            made.uses,
            words::utc(made.not_after)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints() {
        assert!(label("a=b").is_ok() && label("a=").is_ok());
        assert!(label("a").is_err() && label("=b").is_err());
        assert!(taint("k=v:NoExecute").is_ok() && taint("k:NoSchedule").is_ok());
        assert!(taint("k=v").is_err() && taint("k=v:Never").is_err());
    }
}
