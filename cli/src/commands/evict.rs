//! `holdfast evict NODE`.

use crate::app::App;
use crate::exit::Exit;
use crate::lighthouse::{connect, explain};
use crate::nodes::{Judge, not_believed};
use anyhow::Result;
use holdfast_core::api::NodeEntry;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::NodeName;
use serde::Serialize;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  holdfast evict n3

The root signs a policy that names the node's key: members drop it as soon as they have that policy, \
the lighthouse takes no request of its any more, and its name and address become free. There is no \
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

/// The key to put out: of a member that an operator let in, whatever policy says of it by now. Less
/// would let a hostile lighthouse choose whom the root evicts.
fn key_of(judge: &Judge<'_>, entry: &NodeEntry) -> Result<PublicKey> {
    let member = judge
        .member_in_or_out(entry)
        .map_err(|why| not_believed(&entry.name, &why))?;
    Ok(member.record.signing_key)
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
    let key = key_of(&connection.judge(), &entry)?;
    if !connection.documents.policy.evicted.contains(&key) {
        connection
            .change_policy(app, |policy| {
                policy.evicted.push(key);
                Ok(true)
            })
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
        assert_eq!(key_of(&judge, &entry(3, 1)).unwrap(), key(3).public());

        // A lighthouse that names an innocent key `n1`, with a token of its own making.
        let mut forged = entry(3, 8);
        let (mut record, _) = forged.member.record.open_self().unwrap();
        record.signing_key = key(7).public();
        forged.member.record = Signed::sign(&record, &key(2)).unwrap();
        let error = key_of(&judge, &forged).unwrap_err();
        assert_eq!(crate::exit::code_of(&error), 4);
        assert!(error.to_string().contains("not to be believed"), "{error}");

        // Another member's true record under this name.
        let mut renamed = entry(3, 1);
        renamed.name = "n2".parse().unwrap();
        assert!(key_of(&judge, &renamed).is_err());
    }
}
