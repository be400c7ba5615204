//! A disk that was copied: two machines with one identity would take each other's place in the
//! mesh for ever. What the firmware calls the machine is stored beside the keys.
//!
//! ```text
//! the stored machine | joined | what it is             | what is done
//! none, or this one  |        | the node itself        | the machine is stored
//! another            | no     | a template that booted | new keys
//! another            | yes    | moved, or copied       | the lighthouse is asked
//! ```
//! It proves a copy when it has a later account of the node than this disk ever gave, or gets
//! another one while this machine gives none. Then the mesh stays down until a seed says `rejoin`.
//! Where nothing is proven the node goes on: one that only got a new mainboard must not be lost.

use super::{NETWORK_PATIENCE, follow, tell};
use crate::backoff::Backoff;
use crate::console::say;
use crate::lighthouse::{self, status};
use crate::node::{Node, event, remember};
use crate::{machine, network};
use anyhow::{Context as _, anyhow};
use holdfast_core::api::ApiErrorKind;
use holdfast_core::keys::hex;
use holdfast_core::signed::Signed;
use holdfast_core::state::StateDoc;
use std::time::Duration;
use tokio::sync::watch;

/// Longer than a node that runs takes between two accounts of itself.
const WATCH: Duration = Duration::from_secs(65);

/// What a stored identity is to this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Its own, or there is none.
    Own,
    /// Its own, made before machines were stored.
    Unbound,
    /// Another machine's, which never joined with it.
    Template,
    /// A joined node's: moved, or copied.
    Doubtful,
}

fn standing(doc: &StateDoc, machine: Option<&str>) -> Standing {
    let (Some(identity), Some(machine)) = (&doc.identity, machine) else {
        return Standing::Own;
    };
    match &identity.machine {
        None => Standing::Unbound,
        Some(stored) if stored == machine => Standing::Own,
        Some(_) if doc.admission.is_none() => Standing::Template,
        Some(_) => Standing::Doubtful,
    }
}

/// What the lighthouse showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Another machine gives accounts of this node.
    Copied,
    /// None does.
    Moved,
}

/// `held`: counters of the accounts that the lighthouse had, first and last; `given`: the highest
/// that this disk can have given.
fn proof(held: [Option<u64>; 2], given: u64) -> Proof {
    match held {
        [Some(first), Some(last)] if last > first => Proof::Copied,
        [_, Some(last)] if last > given => Proof::Copied,
        _ => Proof::Moved,
    }
}

/// Returns when this machine may use the identity on its disk, or has none yet.
pub async fn settle(node: &Node, uplinks: &mut watch::Receiver<network::Uplinks>) {
    let machine = machine::id();
    match standing(&node.store.get(), machine.as_deref()) {
        Standing::Own => {}
        Standing::Unbound => bind(node, machine).await,
        Standing::Template => {
            if renew(node).await {
                say("this disk was copied from another machine: it gets keys of its own");
            }
        }
        Standing::Doubtful => doubt(node, uplinks, machine).await,
    }
}

async fn bind(node: &Node, machine: Option<String>) {
    let stored = node.store.update(|d| {
        if let Some(identity) = &mut d.identity {
            identity.machine = machine;
        }
    });
    if let Err(e) = stored.await {
        tracing::warn!("the machine cannot be stored: {e:#}");
    }
}

/// Forgets who the disk's first machine was; `/var` stays.
async fn renew(node: &Node) -> bool {
    let fresh = || -> anyhow::Result<String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| anyhow!("no random bytes: {e}"))?;
        // A random (version 4) UUID, RFC 9562: machine-id(5).
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Ok(hex(&bytes))
    };
    let renewed = async {
        let id = fresh()?;
        let stored = id.clone();
        node.store
            .update(|d| {
                d.machine_id = Some(stored);
                d.identity = None;
                d.admission = None;
                d.documents = None;
                d.document_floors = [0; 3];
                d.members.clear();
                d.status_counter = 0;
                remember(
                    &mut d.history,
                    event("copied", "the disk came from another machine: new keys"),
                );
            })
            .await?;
        // The same file that /etc/machine-id shows.
        std::fs::write("/run/machine-id", format!("{id}\n")).context("/run/machine-id")
    };
    match renewed.await {
        Ok(()) => true,
        Err(e) => {
            say(&format!("the copied identity cannot be replaced: {e:#}"));
            false
        }
    }
}

async fn doubt(
    node: &Node,
    uplinks: &mut watch::Receiver<network::Uplinks>,
    machine: Option<String>,
) {
    say(
        "this disk has joined in another machine: the lighthouse is asked whether that one still runs",
    );
    let up = uplinks.wait_for(|u| u.values().any(|u| !u.addresses.is_empty()));
    let _ = tokio::time::timeout(NETWORK_PATIENCE, up).await;
    match ask(node).await {
        Ok(Proof::Moved) => {
            say("no other machine uses this node's keys: it goes on here");
            let moved = event("moved", "the disk is in another machine now");
            node.remember(moved).await;
            bind(node, machine).await;
        }
        Ok(Proof::Copied) => wait_for_a_seed(node, uplinks).await,
        Err(e) => {
            node.notes.set(
                "machine",
                format!(
                    "this disk has joined in another machine, and no lighthouse could say whether that one still runs: asked again at the next start ({e:#})"
                ),
            );
        }
    }
}

/// Asks what account the lighthouse has of this node, twice.
async fn ask(node: &Node) -> anyhow::Result<Proof> {
    let first = held(node).await?;
    tokio::time::sleep(WATCH).await;
    let last = held(node).await?;
    Ok(proof([first, last], node.store.get().status_counter))
}

/// The counter of the account that a lighthouse has: offered one that is older than any, it refuses
/// and names its own. `None` when it had none.
async fn held(node: &Node) -> anyhow::Result<Option<u64>> {
    let doc = node.store.get();
    let identity = doc.identity.as_ref().context("this node has no keys")?;
    let account = Signed::sign(&status::account(node, 0).await?, &identity.signing)?;
    let mut last = anyhow!("it knows no lighthouse");
    for client in lighthouse::clients(&doc)? {
        let error = match client.put_status(&account).await {
            Ok(()) => return Ok(None),
            Err(error) => error,
        };
        match error.held() {
            Some(held) if error.kind() == Some(ApiErrorKind::Older) => return Ok(Some(held)),
            _ => last = error.into(),
        }
    }
    Err(last)
}

/// A copy: no mesh, until a seed makes another node of it.
async fn wait_for_a_seed(node: &Node, uplinks: &mut watch::Receiver<network::Uplinks>) {
    let mut pauses = Backoff::secs(5, 60);
    let mut renewed = false;
    let name = |doc: &StateDoc| doc.admission.as_ref().map(|a| a.name.to_string());
    let name = name(&node.store.get()).unwrap_or_default();
    loop {
        let doc = node.store.get();
        if let (Some(good), _) = node
            .places
            .look_again(true, |s| super::wants_rejoin(s, &doc))
            .await
        {
            renewed = renewed || renew(node).await;
            if renewed && follow(node, uplinks, good).await {
                return;
            }
        } else {
            tell(
                node,
                "copy",
                None,
                format!("this disk is a copy of node {name}'s, which runs on another machine: the mesh stays down here"),
                "Give this machine a seed of its own made with holdfast seed new --rejoin, or flash it anew; the node goes on looking",
            )
            .await;
        }
        tokio::time::sleep(pauses.pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::key;
    use holdfast_core::state::Identity;

    #[test]
    fn only_a_joined_node_on_another_machine_is_in_doubt() {
        let mut doc = StateDoc::default();
        assert_eq!(standing(&doc, Some("smbios:a")), Standing::Own);
        let made_on = |machine: Option<&str>| {
            Some(Identity {
                signing: key(1),
                mesh: key(2),
                machine: machine.map(Into::into),
                other: Default::default(),
            })
        };
        doc.identity = made_on(None);
        assert_eq!(standing(&doc, Some("smbios:a")), Standing::Unbound);
        doc.identity = made_on(Some("smbios:a"));
        assert_eq!(standing(&doc, Some("smbios:a")), Standing::Own);
        assert_eq!(standing(&doc, Some("smbios:b")), Standing::Template);
        // Firmware that says nothing proves nothing.
        assert_eq!(standing(&doc, None), Standing::Own);
        doc.admission = crate::lighthouse::tests::doc().admission;
        assert_eq!(standing(&doc, Some("smbios:b")), Standing::Doubtful);
        assert_eq!(standing(&doc, Some("smbios:a")), Standing::Own);
    }

    #[test]
    fn a_copy_is_proven_by_accounts_that_this_disk_did_not_give() {
        for (held, given, wanted) in [
            ([None, None], 1000, Proof::Moved),
            ([Some(7), Some(7)], 1000, Proof::Moved),
            // Its own last one, up to what was reserved.
            ([Some(1000), Some(1000)], 1000, Proof::Moved),
            ([Some(1001), Some(1001)], 1000, Proof::Copied),
            ([Some(7), Some(8)], 1000, Proof::Copied),
            ([None, Some(3)], 1000, Proof::Moved),
        ] {
            assert_eq!(proof(held, given), wanted, "{held:?}");
        }
    }
}
