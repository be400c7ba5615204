//! `holdfast client new`.

use super::qr;
use super::wireguard::Configuration;
use crate::app::App;
use crate::commands::token::{GrantArgs, mint};
use crate::exit::Exit;
use crate::files;
use crate::lighthouse::{Connection, connect, explain};
use crate::nodes::Which;
use crate::secrets::new_key;
use anyhow::{Context as _, Result};
use holdfast_core::access::connects;
use holdfast_core::api::OfferRequest;
use holdfast_core::grant::{Grant, Member, MemberRecord, VerifiedMember, verify};
use holdfast_core::names::{GroupName, NodeName};
use holdfast_core::signed::Signed;
use holdfast_mesh::MeshPrivateKey;
use serde::Serialize;
use std::io::IsTerminal as _;
use std::path::PathBuf;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast client new --wireguard ada-phone --node n1
  holdfast client new --wireguard ada-phone --node n1 --group people --qr
  holdfast client new --wireguard laptop --node n1 --save laptop.conf

The client's one peer is NODE. Its datagrams go to the lighthouse's UDP port, which passes them on to \
that node and its answers back, without being able to read them. It reaches NODE and, through it, the \
other nodes, as far as the policy lets its groups. The private key is shown once and kept nowhere: \
whoever has the configuration is the client, until `holdfast evict NAME`. When NODE joins anew, it has \
another key, and the client needs another configuration.")]
pub struct Args {
    /// As a configuration for any WireGuard program
    #[arg(long, required = true)]
    wireguard: bool,
    /// The client's name in the cluster
    name: NodeName,
    /// The node that is its peer [default: the only one]
    #[arg(long, value_name = "NODE")]
    node: Option<Which>,
    /// Group that the policy's rules name; may be repeated
    #[arg(short = 'g', long = "group", value_name = "GROUP")]
    groups: Vec<GroupName>,
    /// Write the configuration here, readable by you only, instead of printing it
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Overwrite FILE
    #[arg(long, requires = "save")]
    force: bool,
    /// Show the QR code, which holds the private key [default: at a terminal, without --save]
    #[arg(long, conflicts_with = "no_qr")]
    qr: bool,
    /// Show no QR code
    #[arg(long)]
    no_qr: bool,
}

#[derive(Serialize)]
struct Made<'a> {
    name: &'a NodeName,
    node: &'a NodeName,
    address: std::net::Ipv4Addr,
    address6: std::net::Ipv6Addr,
    endpoint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<&'a str>,
}

/// The node that is to be the client's peer.
async fn node(connection: &Connection, wanted: Option<&Which>) -> Result<VerifiedMember> {
    let node = match wanted {
        Some(which) => connection.node(which).await?,
        None => {
            let entries = connection.entries().await?;
            let judge = connection.judge();
            let mut nodes: Vec<_> = entries
                .iter()
                .filter_map(|e| judge.member(e).ok())
                .filter(|m| m.record.via.is_none())
                .collect();
            if nodes.len() > 1 {
                let names: Vec<_> = nodes.iter().map(|m| m.record.name.as_str()).collect();
                let text = format!("--node says whose peer it is: one of {}", names.join(", "));
                return Err(Exit::Usage.error(text));
            }
            nodes
                .pop()
                .ok_or_else(|| Exit::Failed.error("no node has joined yet"))?
        }
    };
    if node.record.via.is_some() {
        let text = format!("{} is a client itself, and no node", node.record.name);
        return Err(Exit::Usage.error(text));
    }
    Ok(node)
}

/// Joins in the client's place; its signing key is needed for nothing else and forgotten.
async fn join(
    connection: &Connection,
    grant: &Grant,
    token: &holdfast_core::keys::PrivateKey,
    args: &Args,
    node: &VerifiedMember,
    mesh: &MeshPrivateKey,
) -> Result<MemberRecord> {
    let signing = new_key()?;
    let client = connection.as_member(&signing)?;
    let request = OfferRequest {
        grant: grant.id.clone(),
        signing_key: signing.public(),
    };
    let offer = client.offer(&request).await.map_err(explain)?;
    let record = MemberRecord {
        cluster: grant.cluster,
        grant: grant.id.clone(),
        name: args.name.clone(),
        index: offer.index,
        mesh_key: mesh.public(),
        signing_key: signing.public(),
        counter: crate::words::now(),
        via: Some(node.record.mesh_key),
        own: None,
    };
    // A phone shows its record to no lighthouse that lost it: its node does.
    let record = record.owned(&signing);
    let member = Member {
        record: Signed::sign(&record, token).context("signing the record")?,
        grant: offer.grant,
    };
    let documents = &connection.documents;
    verify(
        &member,
        grant.cluster,
        &documents.operators,
        &documents.policy,
    )
    .map_err(|e| Exit::Refused.error(format!("no node would accept the client: {e}")))?;
    client.join(member).await.map_err(explain)?;
    Ok(record)
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    if let Some(file) = &args.save {
        if !args.force && file.exists() {
            let text = format!("{} exists; --force overwrites it", file.display());
            return Err(Exit::Usage.error(text));
        }
        files::can_write(file)?;
    }
    let connection = connect(app).await?;
    let node = node(&connection, args.node.as_ref()).await?;
    let name = &node.record.name;
    if !connects(
        &connection.documents.policy.rules,
        &args.groups,
        &node.grant.groups,
    ) {
        return Err(Exit::Refused.error(format!(
            "the policy has no rule between the client's groups and those of {name}: choose another --node or --group"
        )));
    }
    let lighthouses = &connection.documents.lighthouses.lighthouses;
    let endpoint = lighthouses
        .iter()
        .find(|l| l.key == connection.client.key())
        .and_then(|l| l.udp.first())
        .context("the lighthouses document names no UDP address")?
        .clone();
    let minted = mint(app, &GrantArgs::once(&args.name, &args.groups), false).await?;
    let mesh = MeshPrivateKey::generate().context("no random bytes")?;
    let record = join(
        &connection,
        &minted.grant,
        &minted.token,
        &args,
        &node,
        &mesh,
    )
    .await?;
    let plan = connection.cluster.plan();
    let text = Configuration {
        key: &mesh,
        index: record.index,
        plan: &plan,
        node: node.record.mesh_key,
        endpoint: &endpoint,
    }
    .text();
    if let Some(file) = &args.save {
        files::write_secret(file, text.as_bytes())?;
    }
    let at_terminal = args.save.is_none() && std::io::stdout().is_terminal();
    let code = if args.qr || (at_terminal && !args.no_qr && !app.json()) {
        Some(qr::code(&text)?)
    } else {
        None
    };
    let made = Made {
        name: &args.name,
        node: name,
        address: plan.address4(record.index),
        address6: plan.address6(record.index),
        endpoint: &endpoint,
        file: args.save.as_ref(),
        configuration: args.save.is_none().then_some(text.as_str()),
    };
    if app.json()
        && let Some(code) = &code
    {
        app.say(code);
    }
    app.say(&format!(
        "{} is a member behind {name}; `holdfast evict {}` puts it out.",
        args.name, args.name
    ));
    app.print(&made, || {
        let file = made
            .file
            .map(|f| format!("{}: {}", f.display(), made.address));
        let text = made.configuration.map(str::to_owned).or(file);
        let parts = [text, code];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    })
}
