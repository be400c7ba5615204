//! `holdfast token`: grants, from making to revoking.

mod revoke;

pub use revoke::users;

use crate::app::App;
use crate::cluster_dir::{ClusterDir, Documents, KeyFile};
use crate::exit::Exit;
use crate::lighthouse::{connect, connect_as};
use crate::secrets::{new_key, random};
use crate::table::table;
use crate::{files, series, words};
use anyhow::{Context as _, Result};
use holdfast_core::api::GrantStatus;
use holdfast_core::documents::Right;
use holdfast_core::grant::Grant;
use holdfast_core::keys::PrivateKey;
use holdfast_core::names::{GrantId, GroupName, NodeName, Role};
use holdfast_core::signed::Signed;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make a grant and print its token, for a seed of your own making
    New(NewArgs),
    /// List the grants that the lighthouse holds, and their uses
    #[command(after_help = "Example:\n  holdfast token list --output json")]
    List,
    /// Hand over the grants that were made with --offline
    Push(PushArgs),
    /// Take no new node with a grant; those that joined with it stay
    Revoke(revoke::Args),
}

/// Options of `token new`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast token new --role agent --uses 3\n  holdfast token new --role bare --name n1 --offline --output json"
)]
pub struct NewArgs {
    #[command(flatten)]
    grant: GrantArgs,
    /// Keep the grant here for now: `holdfast token push` hands it over
    #[arg(long)]
    offline: bool,
}

/// Options of `token push`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast token push\n  holdfast token push --again     to a restored lighthouse, once nodes are back"
)]
pub struct PushArgs {
    /// Also those that a lighthouse had before, if it was lost with them, and their time is not over
    #[arg(long)]
    again: bool,
}

/// What a grant allows.
#[derive(Debug, Clone, clap::Args)]
pub struct GrantArgs {
    /// What the node is to be: server (k3s), agent (k3s in a later version; in this one mesh and
    /// control only), bare (mesh and control only)
    #[arg(long)]
    pub role: Role,
    /// The one name that it may take [default: any free one, made from its key]
    #[arg(long, conflicts_with = "uses")]
    pub name: Option<NodeName>,
    /// What the nodes' names begin with, a number follows: shelf-01, shelf-02, ...
    #[arg(long, value_name = "PREFIX", conflicts_with = "name")]
    name_prefix: Option<NodeName>,
    /// The first number [default: after the last grant with this prefix, else 1]
    #[arg(long, value_name = "N", requires = "name_prefix")]
    first_number: Option<u32>,
    /// How many nodes may use it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16361))]
    uses: u32,
    /// How long it may be used for the first time: 90s, 30m, 24h, 7d
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = words::parse_duration)]
    expires: Duration,
    /// Group that the policy's rules name; may be repeated
    #[arg(short = 'g', long = "group", value_name = "GROUP")]
    groups: Vec<GroupName>,
}

impl GrantArgs {
    /// A grant for one name that is used at once.
    pub fn once(name: &NodeName, groups: &[GroupName]) -> Self {
        Self {
            role: Role::Bare,
            name: Some(name.clone()),
            name_prefix: None,
            first_number: None,
            uses: 1,
            expires: Duration::from_secs(600),
            groups: groups.to_vec(),
        }
    }
}

/// A grant as made.
pub struct Minted {
    /// The cluster.
    pub cluster: ClusterDir,
    /// Its documents, the newest known.
    pub documents: Documents,
    /// The token's private half.
    pub token: PrivateKey,
    /// What it allows.
    pub grant: Grant,
    /// Whether the lighthouse has it.
    pub pushed: bool,
}

/// 26 characters of Crockford's base 32 in small letters: 130 random bits.
fn new_id() -> Result<GrantId> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let text: String = random::<26>()?
        .iter()
        .map(|b| char::from(ALPHABET[usize::from(b % 32)]))
        .collect();
    Ok(GrantId::new(text)?)
}

/// Makes a grant, signs it with the operator's key, and hands it over unless `offline`.
pub async fn mint(app: &App, args: &GrantArgs, offline: bool) -> Result<Minted> {
    let cluster = app.cluster()?;
    let operator = app.key(&cluster, KeyFile::Operator)?;
    let held = cluster.documents()?;
    if !held.operators.allows(&operator.public(), Right::All) {
        return Err(Exit::Refused.error("this operator's key has no right to admit nodes"));
    }
    // Asked first: an unreachable lighthouse must not cost an index.
    let connection = if offline {
        None
    } else {
        let found = connect_as(app.cluster()?, operator.clone()).await;
        Some(found.context("no grant was made; --offline makes one to be handed over later")?)
    };
    let names = match (&args.name_prefix, &connection) {
        (None, _) => None,
        (Some(prefix), connection) => {
            let held = match connection {
                Some(connection) => connection.grants().await?,
                None => vec![],
            };
            Some(series::after(&held, prefix, args.first_number, args.uses)?)
        }
    };
    let (first, last) = {
        let _lock = cluster.lock()?;
        let mut counters = cluster.counters()?;
        let range = counters.take_indexes(args.uses, cluster.config.id)?;
        cluster.save_counters(&counters)?;
        range
    };
    let token = new_key()?;
    let grant = Grant {
        cluster: cluster.config.id,
        id: new_id()?,
        token: token.public(),
        role: args.role,
        groups: args.groups.clone(),
        name: args.name.clone(),
        names,
        first,
        last,
        uses: args.uses,
        not_after: words::now().saturating_add(args.expires.as_secs()),
    };
    let signed = Signed::sign(&grant, &operator).context("signing the grant")?;
    let (documents, pushed) = match connection {
        Some(connection) => {
            connection.put_grant(app, &grant.id, &signed).await?;
            cluster.keep_pushed(grant.id.as_str(), &serde_json::to_vec_pretty(&signed)?)?;
            (connection.documents, true)
        }
        None => {
            let path = cluster.pending_grant(grant.id.as_str());
            files::write_public(&path, &serde_json::to_vec_pretty(&signed)?)?;
            (held, false)
        }
    };
    Ok(Minted {
        cluster,
        documents,
        token,
        grant,
        pushed,
    })
}

/// Runs the verb.
pub async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::New(args) => new(app, args).await,
        Verb::List => list(app).await,
        Verb::Push(args) => push(app, &args).await,
        Verb::Revoke(args) => revoke::run(app, &args).await,
    }
}

async fn new(app: &App, args: NewArgs) -> Result<()> {
    #[derive(Serialize)]
    struct Made<'a> {
        grant: &'a GrantId,
        token: &'a PrivateKey,
        not_after: u64,
        pushed: bool,
    }
    let minted = mint(app, &args.grant, args.offline).await?;
    let made = Made {
        grant: &minted.grant.id,
        token: &minted.token,
        not_after: minted.grant.not_after,
        pushed: minted.pushed,
    };
    app.print(&made, || {
        format!(
            "grant = \"{}\"\ntoken = \"{}\"",
            made.grant,
            made.token.to_text()
        )
    })
}

/// A grant as `list` shows it.
#[derive(Debug, Serialize)]
struct Row {
    id: GrantId,
    role: Option<Role>,
    name: Option<String>,
    groups: Vec<GroupName>,
    uses: u32,
    used: usize,
    not_after: u64,
    state: &'static str,
    signed_by: String,
}

fn row(status: &GrantStatus, documents: &Documents, now: u64) -> Option<Row> {
    let (grant, signer) = status.grant.open_self().ok()?;
    let operators = &documents.operators;
    let used = status.used_by.len();
    let state = if !operators.honours(&signer, &grant.id) {
        "not by an operator"
    } else if documents.policy.revoked.iter().any(|r| r.id == grant.id) {
        "revoked"
    } else if used > grant.uses as usize {
        // At several lighthouses, before they heard of each other's uses.
        "used too often"
    } else if used == grant.uses as usize {
        "used up"
    } else if grant.not_after < now {
        "expired"
    } else {
        "open"
    };
    Some(Row {
        name: words::names(&grant),
        id: grant.id,
        role: Some(grant.role),
        groups: grant.groups,
        uses: grant.uses,
        used,
        not_after: grant.not_after,
        state,
        signed_by: operators
            .by_key(&signer)
            .map_or_else(|| signer.to_string(), |o| o.name.to_string()),
    })
}

async fn list(app: &App) -> Result<()> {
    let connection = connect(app).await?;
    let now = words::now();
    let mut rows: Vec<Row> = connection
        .grants()
        .await?
        .iter()
        .filter_map(|g| row(g, &connection.documents, now))
        .collect();
    rows.sort_by(|a, b| (a.not_after, &a.id).cmp(&(b.not_after, &b.id)));
    app.print(&rows, || {
        table(
            ["grant", "role", "name", "used", "good until", "state", "by"],
            rows.iter().map(|r| {
                [
                    r.id.to_string(),
                    r.role.map(|r| r.to_string()).unwrap_or_default(),
                    r.name.clone().unwrap_or_default(),
                    format!("{} of {}", r.used, r.uses),
                    words::utc(r.not_after),
                    r.state.into(),
                    r.signed_by.clone(),
                ]
            }),
        )
    })
}

/// The grants in a folder; none when there is no such folder.
fn grants_in(dir: &Path) -> Result<Vec<(PathBuf, Signed<Grant>, Grant)>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", dir.display())),
    };
    let mut found = vec![];
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let damaged = || format!("{} is damaged", path.display());
        let signed: Signed<Grant> = serde_json::from_slice(&bytes).with_context(damaged)?;
        let (grant, _) = signed.open_self().with_context(damaged)?;
        found.push((path, signed, grant));
    }
    Ok(found)
}

async fn push(app: &App, args: &PushArgs) -> Result<()> {
    let connection = connect(app).await?;
    let put = async |grant: &Grant, signed: &Signed<Grant>| {
        connection.put_grant(app, &grant.id, signed).await
    };
    let cluster = &connection.cluster;
    let mut pushed = vec![];
    if args.again {
        for (path, signed, grant) in grants_in(&cluster.pushed_grants())? {
            if grant.not_after <= words::now() {
                // Of no use any more.
                let _ = std::fs::remove_file(&path);
                continue;
            }
            put(&grant, &signed).await?;
            pushed.push(grant.id);
        }
    }
    for (path, signed, grant) in grants_in(&cluster.pending_grants())? {
        put(&grant, &signed).await?;
        cluster.keep_pushed(grant.id.as_str(), &serde_json::to_vec_pretty(&signed)?)?;
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        pushed.push(grant.id);
    }
    app.print(&pushed, || {
        format!("{} grant(s) handed over.", pushed.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fit_and_differ() {
        let (a, b) = (new_id().unwrap(), new_id().unwrap());
        assert_eq!(a.as_str().len(), 26);
        assert_ne!(a, b);
    }
}
