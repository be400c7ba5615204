//! The lighthouses that a node keeps in touch with, all at a time: when one is lost, nothing has to
//! be begun anew.

use super::refill::{Lacking, spread};
use crate::node::Node;
use holdfast_client::LighthouseClient;
use holdfast_core::documents::MOST_LIGHTHOUSES;
use holdfast_core::keys::{MeshKey, PublicKey};
use holdfast_core::state::StateDoc;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Where a lighthouse is, and what of it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `host:port`, tried in order.
    pub addresses: Vec<String>,
    /// Its TLS key.
    pub key: PublicKey,
    /// Name and WireGuard key in the *lighthouses* document; none: the seed alone names it. Such a
    /// one is asked while no other answers.
    pub named: Option<(String, MeshKey)>,
}

/// The lighthouses to ask, in order: those of the document, then those of the seed that it does
/// not name.
pub fn places(doc: &StateDoc, named: &[holdfast_core::documents::Lighthouse]) -> Vec<Place> {
    let of = |l: &holdfast_core::documents::Lighthouse| Place {
        addresses: l.https.clone(),
        key: l.key,
        named: Some((l.name.clone(), l.mesh_key)),
    };
    let mut out: Vec<Place> = named.iter().take(MOST_LIGHTHOUSES).map(of).collect();
    let seeded = doc.admission.iter().flat_map(|a| &a.lighthouses);
    for l in seeded {
        match out.iter_mut().find(|p| p.key == l.key) {
            Some(place) => {
                let held = &mut place.addresses;
                let more: Vec<_> = l.https.iter().filter(|a| !held.contains(a)).collect();
                held.extend(more.into_iter().cloned());
            }
            None if named.iter().any(|n| n.key == l.key) => {}
            None => out.push(Place {
                addresses: l.https.clone(),
                key: l.key,
                named: None,
            }),
        }
    }
    out.retain(|place| !place.addresses.is_empty());
    out.truncate(2 * MOST_LIGHTHOUSES);
    out
}

/// One lighthouse.
#[derive(Debug)]
pub struct Post {
    /// Where and who it is.
    pub place: Place,
    /// The way to it.
    pub client: Arc<LighthouseClient>,
    /// What it lacks.
    pub lacking: Arc<Lacking>,
    /// The revision of its list that is held: after an interruption, or its restart, it tells the
    /// difference only.
    told: Mutex<Option<u64>>,
    answers: watch::Sender<bool>,
    trouble: Mutex<Option<String>>,
    gone: watch::Sender<bool>,
}

impl Post {
    /// One that was not asked yet.
    pub fn new(place: Place, client: Arc<LighthouseClient>) -> Self {
        Self {
            place,
            client,
            lacking: Arc::default(),
            told: Mutex::default(),
            answers: watch::Sender::new(false),
            trouble: Mutex::default(),
            gone: watch::Sender::new(false),
        }
    }

    /// The same lighthouse over new connections.
    pub fn renewed(&self, client: Arc<LighthouseClient>) -> Self {
        let post = Self {
            lacking: self.lacking.clone(),
            ..Self::new(self.place.clone(), client)
        };
        post.hold(self.told());
        post
    }

    /// What operators call it; its key where the seed alone names it.
    pub fn name(&self) -> String {
        match &self.place.named {
            Some((name, _)) => name.clone(),
            None => self.place.key.to_string(),
        }
    }

    /// The revision of its list that is held.
    pub fn told(&self) -> Option<u64> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this one is.
    pub fn hold(&self, revision: Option<u64>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = revision;
    }

    /// Whether it answered when it was asked last.
    pub fn answers(&self) -> bool {
        *self.answers.borrow()
    }

    /// Returns while it answers.
    pub async fn until_it_answers(&self) {
        if self.answers.subscribe().wait_for(|a| *a).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// It is kept in touch with no more.
    pub fn give_up(&self) {
        self.gone.send_replace(true);
    }

    /// Whether it is given up.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Returns once it is given up.
    pub async fn gone(&self) {
        if self.gone.subscribe().wait_for(|g| *g).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// All of them, in the document's order.
#[derive(Debug, Default)]
pub struct Posts(watch::Sender<Vec<Arc<Post>>>);

impl Posts {
    /// All, also those that do not answer.
    pub fn all(&self) -> Vec<Arc<Post>> {
        self.0.borrow().clone()
    }

    /// Those that answered last, in order.
    pub fn answering(&self) -> Vec<Arc<Post>> {
        let all = self.0.borrow();
        all.iter().filter(|p| p.answers()).cloned().collect()
    }

    /// Hears of others, and of one that begins or ceases to answer.
    pub fn subscribe(&self) -> watch::Receiver<Vec<Arc<Post>>> {
        self.0.subscribe()
    }

    /// From now on it is these.
    pub fn set(&self, node: &Node, posts: Vec<Arc<Post>>) {
        // Before it has answered: connections of the client before may lead nowhere.
        node.lighthouse.send_if_modified(|current| {
            let same = |p: &&Arc<Post>| {
                let held = current.as_ref();
                held.is_some_and(|c| c.key() == p.client.key() && !Arc::ptr_eq(c, &p.client))
            };
            let renewed = posts.iter().find(same).map(|p| p.client.clone());
            let some = renewed.is_some();
            *current = renewed.or(current.take());
            some
        });
        let named: Vec<_> = posts.iter().map(|p| p.name()).collect();
        node.notes.keep_of(&named);
        self.0.send_replace(posts);
        self.tell(node);
    }

    /// Whether `post` is the first that answers: where members are now is its to say.
    pub fn leads(&self, post: &Arc<Post>) -> bool {
        let first = self.answering().into_iter().next();
        first.is_none_or(|first| Arc::ptr_eq(&first, post))
    }

    /// `post` answered.
    pub fn answered(&self, node: &Node, post: &Post) {
        let trouble = post.trouble.lock();
        let mended = trouble
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .is_some();
        if !post.answers.send_replace(true) || mended {
            self.tell(node);
        }
    }

    /// `post` does not answer; `why` is for operators.
    pub fn failed(&self, node: &Node, post: &Post, why: Option<String>) {
        let before = {
            let mut trouble = post.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *trouble, why.clone())
        };
        if post.answers.send_replace(false) || before != why {
            self.tell(node);
        }
    }

    /// Tells who waits, and notes for operators which does not answer.
    fn tell(&self, node: &Node) {
        let all = self.all();
        let troubles: Vec<String> = all.iter().filter_map(|p| trouble(p, all.len())).collect();
        if troubles.is_empty() {
            node.notes.clear("lighthouse");
        } else {
            node.notes.set("lighthouse", troubles.join("; "));
        }
        if let Some(first) = self.answering().first() {
            node.lighthouse.send_if_modified(|current| {
                let same = current
                    .as_ref()
                    .is_some_and(|c| Arc::ptr_eq(c, &first.client));
                *current = Some(first.client.clone());
                !same
            });
        }
        self.0.send_modify(|_| {});
    }

    /// What the lighthouse of `from` told is news: the others may lack it.
    pub fn hand_on(&self, from: &Arc<Post>, news: &[PublicKey], documents: bool, members: usize) {
        for post in self.all() {
            if !Arc::ptr_eq(&post, from) && post.place.named.is_some() {
                post.lacking.offer(news, documents, spread(members));
            }
        }
    }
}

fn trouble(post: &Post, of: usize) -> Option<String> {
    let trouble = post.trouble.lock();
    let why = trouble.unwrap_or_else(PoisonError::into_inner).clone()?;
    match &post.place.named {
        Some((name, _)) if of > 1 => Some(format!("{name}: {why}")),
        _ => Some(why),
    }
}
