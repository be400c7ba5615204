//! A lighthouse restored from an old backup, or without one, is handed what it lacks of others: a
//! member that is switched off cannot come itself.
//!
//! What it lacks says the difference between what this node holds and what it lists. Every other
//! node sees the same, so each waits for a random time, longer in large clusters; what the
//! lighthouse lists meanwhile is lacking no more. Each record is handed on once for each whole list:
//! one that was refused is not offered over and over.

use super::Post;
use super::listed::Listed;
use crate::node::Node;
use anyhow::Context as _;
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::{ApiErrorKind, REFILL_MOST, Refill};
use holdfast_core::keys::PublicKey;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Those who are there come themselves meanwhile.
const FIRST: Duration = Duration::from_secs(3);
/// The random time for each member, and its bound.
const SPREAD: Duration = Duration::from_millis(5);
const MOST: Duration = Duration::from_secs(120);
/// Between two calls.
const PAUSE: Duration = Duration::from_secs(2);
/// After a failure, or while others hand on.
const AGAIN: Duration = Duration::from_secs(20);

/// Documents are handed to a lighthouse that stays behind, whatever it was handed, this often.
const DOCUMENTS: Duration = Duration::from_secs(60);

/// What one lighthouse lacks.
#[derive(Debug, Default)]
struct Plan {
    members: BTreeSet<PublicKey>,
    /// When members are due.
    due: Option<Instant>,
    /// When documents are.
    documents: Option<Instant>,
    /// When they were handed on last.
    handed: Option<Instant>,
}

impl Plan {
    /// Notes what a list showed; `whole`: all that the lighthouse tells. `spread` is the random time
    /// to wait.
    fn listed(&mut self, list: &Listed, whole: bool, behind: bool, now: Instant, spread: Duration) {
        if whole {
            self.members.clear();
        }
        for key in &list.told {
            self.members.remove(key);
        }
        self.members.extend(&list.lacking);
        if self.members.is_empty() {
            self.due = None;
        } else {
            self.due.get_or_insert(now + FIRST + spread);
        }
        if behind {
            // An eviction that was forgotten is more urgent than a member.
            let due = self.not_too_often(now + spread / 8);
            self.documents.get_or_insert(due);
        } else {
            self.documents = None;
        }
    }

    fn not_too_often(&self, due: Instant) -> Instant {
        self.handed.map_or(due, |at| due.max(at + DOCUMENTS))
    }

    /// When something is due.
    fn due(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.documents).min()
    }

    /// Notes what another lighthouse told: this one tells of it too by then, or lacks it.
    fn offered(&mut self, news: &[PublicKey], documents: bool, now: Instant, spread: Duration) {
        let sooner =
            |held: Option<Instant>, due: Instant| Some(held.map_or(due, |held| due.min(held)));
        self.members.extend(news);
        if !news.is_empty() {
            self.due = sooner(self.due, now + FIRST + spread);
        }
        if documents {
            // A root signed them just now: no lighthouse causes that.
            self.documents = sooner(self.documents, now + spread / 8);
        }
    }

    /// What to hand on now.
    fn take(&mut self, now: Instant) -> Option<(Vec<PublicKey>, bool)> {
        self.due().filter(|due| *due <= now)?;
        let keys: Vec<_> = self.members.iter().take(REFILL_MOST).copied().collect();
        for key in &keys {
            self.members.remove(key);
        }
        let documents = self.documents.take_if(|due| *due <= now).is_some();
        if documents {
            self.handed = Some(now);
        }
        self.due = (!self.members.is_empty()).then(|| now + PAUSE);
        Some((keys, documents))
    }

    /// It did not get through: once more, later.
    fn again(&mut self, keys: Vec<PublicKey>, documents: bool, now: Instant, spread: Duration) {
        let due = now + AGAIN + spread;
        self.members.extend(keys);
        if !self.members.is_empty() {
            self.due = Some(due);
        }
        if documents {
            self.documents = Some(self.not_too_often(due));
        }
    }
}

/// What is to be handed on to one lighthouse.
#[derive(Debug, Default)]
pub struct Lacking {
    plan: Mutex<Plan>,
    changed: Notify,
}

impl Lacking {
    fn with<T>(&self, work: impl FnOnce(&mut Plan) -> T) -> T {
        let out = work(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
        out
    }

    /// It takes nothing.
    fn forget(&self) {
        self.with(|plan| *plan = Plan::default());
    }

    /// Another lighthouse told of these, and of newer documents.
    pub fn offer(&self, news: &[PublicKey], documents: bool, spread: Duration) {
        if !news.is_empty() || documents {
            self.with(|plan| plan.offered(news, documents, Instant::now(), spread));
        }
    }

    /// A list was taken; `behind`: one of the lighthouse's documents is older than this node's.
    pub fn listed(&self, list: &Listed, whole: bool, behind: bool) {
        let spread = spread(list.members.len());
        self.with(|plan| plan.listed(list, whole, behind, Instant::now(), spread));
    }
}

/// A random time, in a cluster of so many members.
pub fn spread(members: usize) -> Duration {
    let most = SPREAD
        .saturating_mul(u32::try_from(members).unwrap_or(u32::MAX))
        .min(MOST);
    let mut random = [0; 2];
    // Without random bytes nobody waits for others.
    let _ = getrandom::fill(&mut random);
    most * u32::from(u16::from_le_bytes(random)) / u32::from(u16::MAX)
}

/// Fills one lighthouse, for ever.
pub async fn run(node: &Node, post: &Post) {
    let (lacking, client) = (&post.lacking, &post.client);
    loop {
        let due = lacking
            .plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .due();
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => {}
            () = lacking.changed.notified() => continue,
        }
        post.until_it_answers().await;
        let taken = lacking.with(|plan| plan.take(Instant::now()));
        let Some((keys, documents)) = taken else {
            continue;
        };
        let mut unfinished = Unfinished {
            lacking,
            left: Some((keys.clone(), documents)),
        };
        let done = hand_on(node, client, &keys, documents).await;
        unfinished.left = None;
        if let Err(e) = done {
            tracing::debug!("a lighthouse is not handed what it lacks: {e:#}");
            let known = e.downcast_ref::<ClientError>().and_then(ClientError::kind);
            if known == Some(ApiErrorKind::NotFound) {
                // One from before this call.
                lacking.forget();
            } else {
                let spread = spread(node.store.get().members.len());
                lacking.with(|plan| plan.again(keys, documents, Instant::now(), spread));
            }
        }
    }
}

/// What is being handed on: lacking still, when that is broken off by a move.
struct Unfinished<'l> {
    lacking: &'l Lacking,
    left: Option<(Vec<PublicKey>, bool)>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some((keys, documents)) = self.left.take() {
            let now = Instant::now();
            self.lacking
                .with(|plan| plan.again(keys, documents, now, Duration::ZERO));
        }
    }
}

async fn hand_on(
    node: &Node,
    client: &LighthouseClient,
    keys: &[PublicKey],
    documents: bool,
) -> anyhow::Result<()> {
    let doc = node.store.get();
    let mut refill = Refill::default();
    if documents {
        let held = doc.documents.clone().context("no documents")?;
        refill.documents = Some(Box::new(held));
    }
    let members = doc.members.iter().filter_map(|m| {
        let opened = node.known.open(&m.member).ok()?;
        keys.contains(&opened.record.signing_key)
            .then(|| (opened.record.grant.clone(), m.member.clone()))
    });
    let mut members: Vec<_> = members.collect();
    // Uses of one grant are counted together: nobody comes between.
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    refill.members = members.into_iter().map(|(_, member)| member).collect();
    if refill.members.is_empty() && refill.documents.is_none() {
        return Ok(());
    }
    let filled = client.refill(&refill).await?;
    tracing::info!(taken = filled.taken, refused = ?filled.refused, "a lighthouse was handed what it lacked");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::key;

    fn keys(of: std::ops::Range<u8>) -> Vec<PublicKey> {
        of.map(|n| key(n).public()).collect()
    }

    fn list(told: std::ops::Range<u8>, lacking: std::ops::Range<u8>) -> Listed {
        Listed {
            members: vec![],
            lacking: keys(lacking),
            told: keys(told),
            news: vec![],
            unvouched: None,
        }
    }

    #[test]
    fn what_another_lighthouse_told_is_handed_on_unless_this_one_tells_it_too() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        let spread = Duration::from_secs(8);
        plan.offered(&keys(0..2), false, now, spread);
        plan.listed(&list(0..1, 0..0), false, false, now, spread);
        assert!(plan.take(now + FIRST).is_none());
        let soon = now + FIRST + spread;
        assert_eq!(plan.take(soon), Some((keys(1..2), false)));
        assert!(plan.due.is_none());
        // Who is out is told sooner.
        plan.offered(&keys(3..4), false, now, spread);
        plan.offered(&[], true, now, spread);
        assert_eq!(plan.take(now + spread / 8), Some((keys(3..4), true)));
    }

    #[test]
    fn what_is_listed_meanwhile_is_not_handed_on_and_nothing_twice() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        let spread = Duration::from_secs(8);
        plan.listed(&list(0..2, 2..5), true, false, now, spread);
        assert!(plan.take(now + spread).is_none());
        // Another node was faster with one of them.
        plan.listed(&list(2..3, 0..0), false, false, now, spread);
        let (given, documents) = plan.take(now + FIRST + spread).unwrap();
        let mut wanted = keys(3..5);
        wanted.sort();
        assert_eq!((given, documents), (wanted.clone(), false));
        assert!(plan.take(now + AGAIN * 9).is_none());
        plan.again(wanted.clone(), false, now, spread);
        assert!(plan.take(now + AGAIN).is_none());
        assert_eq!(plan.take(now + AGAIN + spread).unwrap().0, wanted);
        // A whole list shows anew what is lacking.
        plan.listed(&list(0..5, 0..0), true, false, now, spread);
        assert!(plan.due.is_none());
    }

    #[test]
    fn a_lighthouse_that_stays_behind_gets_documents_once_a_minute() {
        let (mut plan, begin) = (Plan::default(), Instant::now());
        let (mut now, mut handed) = (begin, 0);
        while now < begin + 10 * DOCUMENTS - DOCUMENTS / 2 {
            plan.listed(&list(0..0, 0..0), false, true, now, Duration::from_secs(8));
            if let Some((_, true)) = plan.take(now) {
                handed += 1;
                // Whether it takes them or not.
                plan.again(vec![], handed % 2 == 0, now, Duration::ZERO);
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(handed, 10);
        // Members wait for none of that, nor what a root signed meanwhile.
        plan.listed(&list(0..0, 0..1), false, true, now, Duration::ZERO);
        assert_eq!(plan.take(now + FIRST), Some((keys(0..1), false)));
        plan.offered(&[], true, now, Duration::ZERO);
        assert_eq!(plan.take(now), Some((vec![], true)));
    }

    #[test]
    fn many_go_in_pieces_and_documents_at_once() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        plan.listed(&list(0..0, 0..200), true, true, now, Duration::ZERO);
        let (mut seen, mut at) = (BTreeSet::new(), now);
        let (given, documents) = plan.take(at).unwrap();
        assert!(documents && given.len() == REFILL_MOST);
        seen.extend(given);
        while plan.due.is_some() {
            assert!(plan.take(at).is_none());
            at += PAUSE;
            let (given, documents) = plan.take(at).unwrap();
            assert!(!documents && given.len() <= REFILL_MOST);
            seen.extend(given);
        }
        assert_eq!((seen.len(), at), (200, now + PAUSE * 3));
        for n in [0, 1, 100_000] {
            assert!(super::spread(n) <= MOST.min(SPREAD * n as u32));
        }
    }
}
