//! What a joined node does with its lighthouses: learns of members and documents, tells of itself,
//! keeps a way in for operators while the mesh is down.

pub mod documents;
mod kept;
pub mod known;
pub mod listed;
mod lost;
mod members;
pub mod refill;
mod standing;
pub mod status;

use crate::node::{self, Node};
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::keys::PublicKey;
use holdfast_core::state::StateDoc;
use holdfast_tls::Identity;
use std::sync::Arc;

/// A lighthouse's addresses and key.
pub type Place = (Vec<String>, PublicKey);

/// The lighthouses to ask, in order: those of the document, then those of the seed that it does
/// not name.
pub fn places(doc: &StateDoc) -> Vec<Place> {
    let mut out: Vec<Place> = node::trusted(doc)
        .map(|t| {
            t.lighthouses
                .lighthouses
                .into_iter()
                .map(|l| (l.https, l.key))
                .collect()
        })
        .unwrap_or_default();
    let seeded = doc.admission.iter().flat_map(|a| &a.lighthouses);
    for l in seeded {
        match out.iter_mut().find(|(_, key)| *key == l.key) {
            Some((addresses, _)) => {
                let more = l
                    .https
                    .iter()
                    .filter(|a| !addresses.contains(a))
                    .cloned()
                    .collect::<Vec<_>>();
                addresses.extend(more);
            }
            None => out.push((l.https.clone(), l.key)),
        }
    }
    out.retain(|(addresses, _)| !addresses.is_empty());
    out
}

/// Clients for the lighthouses that are known now.
///
/// # Errors
/// When the node has no keys, or none can be made.
pub fn clients(doc: &StateDoc) -> anyhow::Result<Vec<Arc<LighthouseClient>>> {
    let identity = doc
        .identity
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("this node has no keys"))?;
    let tls = Identity::from_key(&identity.signing)?;
    let made: Result<Vec<_>, ClientError> = places(doc)
        .into_iter()
        .map(|(addresses, key)| LighthouseClient::new(addresses, key, Some(&tls)).map(Arc::new))
        .collect();
    Ok(made?)
}

/// Runs for ever.
pub async fn run(node: Arc<Node>) {
    tokio::join!(
        members::run(node.clone()),
        refill::run(node.clone()),
        status::run(node.clone()),
        standing::run(node)
    );
}

/// As [`run`], on a machine that operators do not steer: no way in is kept for them.
pub async fn run_unsteered(node: Arc<Node>) {
    tokio::join!(
        members::run(node.clone()),
        refill::run(node.clone()),
        status::run(node)
    );
}

/// The lighthouse that answered last; waits until there is one.
async fn active(node: &Node) -> Arc<LighthouseClient> {
    let mut current = node.lighthouse.subscribe();
    loop {
        if let Some(client) = current.borrow_and_update().clone() {
            return client;
        }
        if current.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::documents::tests::{CLUSTER, key};
    use holdfast_core::cluster::MeshIndex;
    use holdfast_core::documents::{Lighthouse, Lighthouses};
    use holdfast_core::grant::{Grant, Member, MemberRecord};
    use holdfast_core::keys::MeshKey;
    use holdfast_core::names::Role;
    use holdfast_core::seed::SeedLighthouse;
    use holdfast_core::signed::Signed;
    use holdfast_core::state::Admission;

    /// A node that has joined.
    pub fn doc() -> StateDoc {
        let mut set = crate::documents::tests::set(1, 7);
        let lighthouse = |n: u8, at: &str| Lighthouse {
            name: format!("l{n}"),
            https: vec![at.into()],
            udp: vec![],
            key: key(n).public(),
            mesh_key: MeshKey([n; 32]),
            index: MeshIndex::LIGHTHOUSE,
        };
        let list = Lighthouses {
            cluster: CLUSTER,
            generation: 1,
            lighthouses: vec![lighthouse(20, "new:1"), lighthouse(21, "other:1")],
        };
        set.lighthouses = Signed::sign(&list, &key(7)).unwrap();
        let grant = Grant {
            cluster: CLUSTER,
            id: "g1".parse().unwrap(),
            token: key(2).public(),
            role: Role::Bare,
            groups: vec![],
            name: None,
            names: None,
            first: MeshIndex::FIRST_NODE,
            last: MeshIndex::LAST,
            uses: 1,
            not_after: 0,
        };
        let record = MemberRecord {
            cluster: CLUSTER,
            grant: grant.id.clone(),
            name: "n1".parse().unwrap(),
            index: MeshIndex::FIRST_NODE,
            mesh_key: MeshKey([4; 32]),
            signing_key: key(3).public(),
            counter: 1,
            via: None,
            own: None,
        };
        let admission = Admission {
            cluster: "demo".parse().unwrap(),
            cluster_id: CLUSTER,
            dual_stack: false,
            roots: vec![key(7).public()],
            name: "n1".parse().unwrap(),
            role: Role::Bare,
            index: MeshIndex::FIRST_NODE,
            member: Member {
                record: Signed::sign(&record, &key(2)).unwrap(),
                grant: Signed::sign(&grant, &key(1)).unwrap(),
            },
            lighthouses: vec![
                (&SeedLighthouse {
                    https: vec!["old:1".into()],
                    key: key(20).public(),
                })
                    .into(),
                (&SeedLighthouse {
                    https: vec!["gone:1".into()],
                    key: key(22).public(),
                })
                    .into(),
            ],
            network: Default::default(),
            wifi: None,
            k3s: Default::default(),
            seed_scrubbed: true,
            other: Default::default(),
        };
        StateDoc {
            admission: Some(admission),
            documents: Some(set),
            ..StateDoc::default()
        }
    }

    #[test]
    fn the_document_comes_first_and_the_seed_adds_what_it_lacks() {
        let all = places(&doc());
        let addresses: Vec<_> = all.iter().map(|(a, _)| a.join(" ")).collect();
        assert_eq!(addresses, ["new:1 old:1", "other:1", "gone:1"]);
        let broken = StateDoc {
            documents: None,
            ..doc()
        };
        assert_eq!(places(&broken).len(), 2);
    }
}
