//! What a joined node does with its lighthouses: learns of members and documents, tells of itself,
//! keeps a way in for operators while the mesh is down.

mod counter;
pub mod documents;
mod kept;
pub mod known;
pub mod listed;
mod lost;
mod members;
mod pace;
mod posts;
pub mod refill;
mod standing;
pub mod status;

pub use posts::{Post, Posts};

use crate::node::{self, Node};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::state::StateDoc;
use holdfast_tls::Identity;
use kept::Keeper;
use posts::places;
use std::sync::Arc;

/// Clients for the lighthouses that are known now.
///
/// # Errors
/// When the node has no keys, or none can be made.
pub fn clients(doc: &StateDoc) -> anyhow::Result<Vec<Arc<LighthouseClient>>> {
    let tls = tls(doc)?;
    let named = node::trusted(doc)
        .map(|t| t.lighthouses.lighthouses)
        .unwrap_or_default();
    let made: Result<Vec<_>, ClientError> = places(doc, &named)
        .into_iter()
        .map(|p| LighthouseClient::new(p.addresses, p.key, Some(&tls)).map(Arc::new))
        .collect();
    Ok(made?)
}

fn tls(doc: &StateDoc) -> anyhow::Result<Identity> {
    let identity = doc
        .identity
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("this node has no keys"))?;
    Ok(Identity::from_key(&identity.signing)?)
}

/// Runs for ever.
pub async fn run(node: Arc<Node>) {
    tokio::join!(keep_to_each(&node, true), status::run(node.clone()));
}

/// As [`run`], on a machine that operators do not steer: no way in is kept for them.
pub async fn run_unsteered(node: Arc<Node>) {
    tokio::join!(keep_to_each(&node, false), status::run(node.clone()));
}

/// Keeps in touch with every lighthouse that the document names, as it changes.
async fn keep_to_each(node: &Arc<Node>, steered: bool) {
    let mut changes = node.store.subscribe();
    let mut moves = node.roamed.subscribe();
    let mut moved = false;
    let keeper = Arc::new(tokio::sync::Mutex::new(Keeper::default()));
    let mut running = FuturesUnordered::new();
    loop {
        let doc = changes.borrow_and_update().clone();
        match posts_of(node, &doc, moved) {
            Ok(posts) => {
                moved = false;
                let before = node.posts.all();
                let kept = |p: &Arc<Post>, of: &[Arc<Post>]| of.iter().any(|o| Arc::ptr_eq(o, p));
                let gone: Vec<_> = before.iter().filter(|p| !kept(p, &posts)).collect();
                let new: Vec<_> = posts.iter().filter(|p| !kept(p, &before)).collect();
                gone.iter().for_each(|post| post.give_up());
                for post in &new {
                    let (node, post) = (node.clone(), (*post).clone());
                    running.push(keep_to(node, post, keeper.clone(), steered));
                }
                if !gone.is_empty() || !new.is_empty() {
                    node.posts.set(node, posts);
                }
            }
            Err(e) => {
                let text = format!("no lighthouse can be asked: {e:#}");
                node.notes.set("lighthouse", text);
            }
        }
        loop {
            tokio::select! {
                Some(()) = running.next() => {}
                // Connections from another network lead nowhere, and would be missed for a minute
                // only, when they are silent for too long: all are begun anew.
                Ok(()) = moves.changed() => {
                    moved = true;
                    break;
                }
                changed = changes.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

/// The posts that `doc` makes; those that are there already stay what they are, unless this machine
/// `moved`.
fn posts_of(node: &Node, doc: &Arc<StateDoc>, moved: bool) -> anyhow::Result<Vec<Arc<Post>>> {
    let trusted = node.trusted_in(doc);
    let named = trusted.as_ref().map(|t| &t.lighthouses.lighthouses[..]);
    let before = node.posts.all();
    let mut posts = vec![];
    for place in places(doc, named.unwrap_or_default()) {
        let old = before.iter().find(|p| p.place == place);
        if let Some(old) = old.filter(|_| !moved) {
            posts.push(old.clone());
            continue;
        }
        let addresses = place.addresses.clone();
        let client = LighthouseClient::new(addresses, place.key, Some(&tls(doc)?))?;
        let client = Arc::new(client);
        posts.push(Arc::new(match old {
            Some(old) => old.renewed(client),
            None => Post::new(place, client),
        }));
    }
    Ok(posts)
}

/// Keeps in touch with one lighthouse until it is given up.
async fn keep_to(
    node: Arc<Node>,
    post: Arc<Post>,
    keeper: Arc<tokio::sync::Mutex<Keeper>>,
    steered: bool,
) {
    let beside = async {
        let way_in = async {
            // What the seed alone names is no operator's way.
            if steered && post.place.named.is_some() {
                standing::run(node.clone(), post.clone()).await;
            }
        };
        tokio::select! {
            () = post.gone() => {}
            _ = async { tokio::join!(refill::run(&node, &post), way_in) } => {}
        }
    };
    // What writes to the disk is never dropped halfway: it ends by itself.
    tokio::join!(members::run(&node, &post, &keeper), beside);
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
        let doc = doc();
        let named = node::trusted(&doc).unwrap().lighthouses.lighthouses;
        let all = places(&doc, &named);
        let addresses: Vec<_> = all.iter().map(|p| p.addresses.join(" ")).collect();
        assert_eq!(addresses, ["new:1 old:1", "other:1", "gone:1"]);
        let known: Vec<_> = all.iter().map(|p| p.named.is_some()).collect();
        assert_eq!(known, [true, true, false]);
        assert_eq!(places(&doc, &[]).len(), 2);
        // Not more than a node can bear.
        let many: Vec<_> = (0..9)
            .map(|n| Lighthouse {
                key: key(30 + n).public(),
                ..named[0].clone()
            })
            .collect();
        let all = places(&doc, &many);
        assert_eq!(all.iter().filter(|p| p.named.is_some()).count(), 4);
    }
}
