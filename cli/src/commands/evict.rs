//! `holdfast evict NODE`.

use super::token::users;
use crate::app::App;
use crate::lighthouse::connect;
use crate::nodes::{Judge, Which, not_believed};
use anyhow::Result;
use holdfast_core::api::{GrantStatus, NodeEntry};
use holdfast_core::documents::RevokedGrant;
use holdfast_core::grant::VerifiedMember;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::NodeName;
use serde::Serialize;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast evict n3
  holdfast evict KEY      where two members have one name; `holdfast nodes` shows their keys

The root signs a policy that names the node's key: members drop it as soon as they have that policy, \
the lighthouse takes no request of its any more, and its name and address become free. There is no \
way back for this key; the machine can join again with another seed. Its own seed is of no use any \
more: where a grant has uses left, it is revoked but for the other nodes that joined with it.")]
pub struct Args {
    /// Which node, by its name or its signing key
    node: Which,
}

#[derive(Serialize)]
struct Evicted {
    name: NodeName,
    key: String,
    policy: u64,
    /// The grant that would have let it in again, revoked.
    revoked: Option<RevokedGrant>,
}

/// Whom to put out: a member that an operator let in, whatever policy says of it by now. Less
/// would let a hostile lighthouse choose whom the root evicts.
fn member_of(judge: &Judge<'_>, entry: &NodeEntry) -> Result<VerifiedMember> {
    judge
        .member_in_or_out(entry)
        .map_err(|why| not_believed(&entry.name, &why))
}

/// The revocation that keeps a machine with its old token out: whoever kept that makes itself a new
/// key. Nothing where all uses are others' already. A grant for one node is revoked always, and one
/// that has ended too: a lighthouse that its members fill again counts uses anew.
fn revocation(
    member: &VerifiedMember,
    grants: &[GrantStatus],
    joined: &[PublicKey],
) -> Option<RevokedGrant> {
    let grant = &member.grant;
    let mut of = grants.iter().filter_map(|status| {
        let (opened, _) = status.grant.open_self().ok()?;
        (opened.id == grant.id).then_some(status)
    });
    let used_by = users(of.next()?, joined);
    let open = used_by.len() < grant.uses as usize || grant.uses == 1;
    open.then(|| RevokedGrant {
        id: grant.id.clone(),
        except: used_by
            .into_iter()
            .filter(|key| *key != member.record.signing_key)
            .collect(),
    })
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let mut connection = connect(app).await?;
    let entries = connection.entries().await?;
    let entry = connection.judge().find(&entries, &args.node)?;
    let member = member_of(&connection.judge(), entry)?;
    let joined = connection.judge().joined_with(&entries, &member.grant.id);
    let key = member.record.signing_key;
    let grants = connection.grants().await?;
    let held = &connection.documents.policy;
    let revoked = revocation(&member, &grants, &joined)
        .filter(|new| !held.revoked.iter().any(|old| old.id == new.id));
    if held.evicted.contains(&key) && revoked.is_none() {
        connection.push_documents(app).await?;
    } else {
        let revoked = revoked.clone();
        connection
            .change_policy(app, |policy| {
                if !policy.evicted.contains(&key) {
                    policy.evicted.push(key);
                }
                policy.revoked.extend(revoked);
                Ok(true)
            })
            .await?;
    }
    let name = entry.name.clone();
    connection.forget(app, &name).await;
    let evicted = Evicted {
        name,
        key: key.to_string(),
        policy: connection.documents.policy.generation,
        revoked,
    };
    app.print(&evicted, || {
        let out = format!("{} is out (policy {}).", evicted.name, evicted.policy);
        match &evicted.revoked {
            None => out,
            Some(grant) => format!(
                "{out}\nIts grant {} lets nobody in any more; {} other node(s) that joined with it stay.",
                grant.id,
                grant.except.len()
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::tests::{ID, documents, entry, key};
    use holdfast_core::cluster::AddressPlan;
    use holdfast_core::documents::RevokedGrant;
    use holdfast_core::signed::Signed;

    #[test]
    fn only_whom_an_operator_let_in_is_put_out() {
        let mut documents = documents();
        // Out already: evicting once more is no error.
        documents.policy.evicted.push(key(3).public());
        documents.policy.revoked.push(RevokedGrant {
            id: "g".parse().unwrap(),
            except: vec![],
        });
        let judge = Judge {
            id: ID,
            plan: AddressPlan::new(ID, false),
            documents: &documents,
        };
        assert_eq!(
            member_of(&judge, &entry(3, 1)).unwrap().record.signing_key,
            key(3).public()
        );

        // A lighthouse that names an innocent key `n1`, with a token of its own making.
        let mut forged = entry(3, 8);
        let (mut record, _) = forged.member.record.open_self().unwrap();
        record.signing_key = key(7).public();
        forged.member.record = Signed::sign(&record, &key(2)).unwrap();
        let error = member_of(&judge, &forged).unwrap_err();
        assert_eq!(crate::exit::code_of(&error), 4);
        assert!(error.to_string().contains("not to be believed"), "{error}");

        // Another member's true record under this name.
        let mut renamed = entry(3, 1);
        renamed.name = "n2".parse().unwrap();
        assert!(member_of(&judge, &renamed).is_err());
    }

    #[test]
    fn a_kept_token_lets_nobody_in_and_the_others_stay() {
        let documents = documents();
        let judge = Judge {
            id: ID,
            plan: AddressPlan::new(ID, false),
            documents: &documents,
        };
        let mut member = member_of(&judge, &entry(3, 1)).unwrap();
        let mut status = |uses, used_by: &[u8], joined: &[PublicKey]| {
            member.grant.uses = uses;
            let status = GrantStatus {
                grant: Signed::sign(&member.grant, &key(1)).unwrap(),
                used_by: used_by.iter().map(|n| key(*n).public()).collect(),
                revoked: false,
            };
            revocation(&member, &[status], joined).map(|revoked| revoked.except)
        };
        assert_eq!(status(5, &[3, 4], &[]), Some(vec![key(4).public()]));
        assert_eq!(status(1, &[3], &[]), Some(vec![]));
        assert_eq!(status(2, &[3, 4], &[]), None);
        // One that joined where no lighthouse answers now stays: its record says so.
        let joined = [3, 4, 5].map(|n| key(n).public());
        let stay = vec![key(4).public(), key(5).public()];
        assert_eq!(status(5, &[3, 4], &joined), Some(stay));
        // Nobody may vouch for the others: none of them is put out.
        assert_eq!(revocation(&member, &[], &[]), None);
    }
}
