//! `holdfast token revoke`.

use crate::app::App;
use crate::exit::Exit;
use crate::lighthouse::connect;
use anyhow::Result;
use holdfast_core::api::GrantStatus;
use holdfast_core::documents::RevokedGrant;
use holdfast_core::grant::Grant;
use holdfast_core::keys::PublicKey;

/// Options.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast token revoke 3kq0x8w1f5v9t2b7m4c6d8z0ya\n  holdfast token revoke n1        the grants that were made for the name n1\n\nNodes that joined with it stay in; `holdfast evict NODE` puts one out."
)]
pub struct Args {
    /// The grant's id, or the node name that it was made for
    grant: String,
}

/// Who joined with a grant: those that a lighthouse counted, and those whose records say so.
pub fn users(status: &GrantStatus, joined: &[PublicKey]) -> Vec<PublicKey> {
    let mut keys = status.used_by.clone();
    let new = joined.iter().filter(|key| !status.used_by.contains(key));
    keys.extend(new);
    keys
}

/// Runs the verb.
pub async fn run(app: &App, args: &Args) -> Result<()> {
    let which = args.grant.as_str();
    let mut connection = connect(app).await?;
    let entries = connection.entries().await?;
    let found: Vec<(Grant, RevokedGrant)> = connection
        .grants()
        .await?
        .iter()
        .filter_map(|status| {
            let (grant, _) = status.grant.open_self().ok()?;
            let fits = grant.id.as_str() == which
                || grant.name.as_ref().is_some_and(|n| n.as_str() == which);
            let revoked = RevokedGrant {
                id: grant.id.clone(),
                except: users(status, &connection.judge().joined_with(&entries, &grant.id)),
            };
            fits.then_some((grant, revoked))
        })
        .collect();
    if found.is_empty() {
        return Err(Exit::Failed.error(format!("no grant has the id, or was made for the name, {which:?}: `holdfast token list` shows all")));
    }
    let held = &connection.documents.policy.revoked;
    let new: Vec<RevokedGrant> = found
        .iter()
        .map(|(_, r)| r.clone())
        .filter(|r| !held.iter().any(|h| h.id == r.id))
        .collect();
    if !new.is_empty() {
        let added = new.clone();
        connection
            .change_policy(app, |policy| {
                policy.revoked.extend(added);
                Ok(true)
            })
            .await?;
    }
    let ids: Vec<String> = new.iter().map(|r| r.id.to_string()).collect();
    app.print(&ids, || match ids.len() {
        0 => "Revoked before.".into(),
        _ => format!(
            "Revoked {}; {} node(s) that joined with it stay.",
            ids.join(", "),
            new.iter().map(|r| r.except.len()).sum::<usize>()
        ),
    })
}
