//! What asking the lighthouses for their documents comes to; no IO.

use super::{GRACE, explain};
use crate::cluster_dir::Documents;
use crate::exit::{Exit, exit_of};
use anyhow::Result;
use holdfast_client::ClientError;
use holdfast_core::cluster::ClusterId;
use holdfast_core::documents::{DocumentSet, Lighthouse, Roots};
use holdfast_core::keys::PublicKey;

/// What all that were asked have said so far. `C` is what leads to one.
pub struct Round<C> {
    /// The newest documents known, verified.
    pub documents: Documents,
    reached: Vec<(Lighthouse, C)>,
    failed: Vec<Failed>,
}

/// A lighthouse that was asked in vain.
struct Failed {
    key: PublicKey,
    name: String,
    /// In one line.
    why: String,
    error: anyhow::Error,
}

/// A lighthouse that cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Its name.
    pub name: String,
    /// In one line.
    pub why: String,
    /// It answers, but not as this cluster's lighthouse does.
    pub astray: bool,
}

/// What it came to.
pub struct Reached<C> {
    /// The newest documents known, verified.
    pub documents: Documents,
    /// Those that can be used, at least one, in the document's order, by name. One that the documents
    /// name no more comes last: it serves as long as no other answers.
    pub clients: Vec<(String, C)>,
    /// The others that the documents name.
    pub missed: Vec<Missed>,
}

impl<C> Round<C> {
    /// Before anyone was asked.
    pub fn new(documents: Documents) -> Self {
        Self {
            documents,
            reached: vec![],
            failed: vec![],
        }
    }

    /// The lighthouses that have neither answered nor failed yet.
    pub fn unasked(&self) -> Vec<Lighthouse> {
        let new = |l: &&Lighthouse| {
            let reached = self.reached.iter().any(|(r, _)| r.key == l.key);
            !reached && self.failed.iter().all(|f| f.key != l.key)
        };
        let named = &self.documents.lighthouses.lighthouses;
        named.iter().filter(new).cloned().collect()
    }

    /// Takes in what one said; whether it held something newer. One that lies must not stop what is
    /// done at the others, its removal least of all: nothing that it serves counts.
    pub fn heard(
        &mut self,
        lighthouse: Lighthouse,
        client: C,
        found: Result<DocumentSet, ClientError>,
        (roots, cluster): (&Roots, ClusterId),
    ) -> bool {
        let mut with = self.documents.clone();
        let taken = match found {
            Ok(found) => with
                .take_newer(&found, roots, cluster)
                .map_err(|error| (error.to_string(), error)),
            Err(error) => Err((error.to_string(), explain(error))),
        };
        match taken {
            Ok(newer) => {
                self.documents = with;
                self.reached.push((lighthouse, client));
                newer
            }
            Err((why, error)) => {
                self.failed.push(Failed {
                    key: lighthouse.key,
                    name: lighthouse.name,
                    why,
                    error,
                });
                false
            }
        }
    }

    /// The sum of it.
    ///
    /// # Errors
    /// When none can be used.
    pub fn ended(mut self) -> Result<Reached<C>> {
        let named = &self.documents.lighthouses.lighthouses;
        let place = |key: &PublicKey| named.iter().position(|l| l.key == *key);
        let last = |key: &PublicKey| place(key).unwrap_or(usize::MAX);
        self.reached.sort_by_key(|(l, _)| last(&l.key));
        self.failed.sort_by_key(|f| last(&f.key));
        let lost = |l: &&Lighthouse| self.reached.iter().all(|(r, _)| r.key != l.key);
        let missed = named.iter().filter(lost).map(|l| {
            let failed = self.failed.iter().find(|f| f.key == l.key);
            Missed {
                name: l.name.clone(),
                why: failed.map_or_else(
                    || format!("no answer within {} s", GRACE.as_secs()),
                    |f| f.why.clone(),
                ),
                astray: failed.is_some_and(|f| exit_of(&f.error) != Exit::Unreachable),
            }
        });
        let missed = missed.collect();
        if self.reached.is_empty() {
            return Err(none_answers(self.failed));
        }
        let clients = self.reached.into_iter();
        Ok(Reached {
            documents: self.documents,
            clients: clients.map(|(l, client)| (l.name, client)).collect(),
            missed,
        })
    }
}

/// What to say when all failed: the gravest error (that of the first of such), and each other's in a
/// line.
fn none_answers(failed: Vec<Failed>) -> anyhow::Error {
    let lines: Vec<_> = failed
        .iter()
        .map(|f| format!("{}: {}", f.name, f.why))
        .collect();
    let gravity = |f: &Failed| match exit_of(&f.error) {
        Exit::Refused => 0,
        Exit::Unreachable => 2,
        _ => 1,
    };
    match failed.into_iter().min_by_key(gravity) {
        None => Exit::Unreachable.error("documents.json names no lighthouse"),
        Some(gravest) if lines.len() > 1 => gravest.error.context(format!(
            "none of the lighthouses can be used:\n  {}",
            lines.join("\n  ")
        )),
        Some(only) => only.error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::code_of;
    use crate::nodes::tests::{ID, documents, key};
    use holdfast_core::cluster::MeshIndex;
    use holdfast_core::documents::Policy;
    use holdfast_core::keys::MeshKey;
    use holdfast_core::signed::Signed;

    fn lighthouse(n: u8) -> Lighthouse {
        Lighthouse {
            name: format!("l{n}"),
            https: vec![format!("l{n}:443")],
            udp: vec![],
            key: key(n).public(),
            mesh_key: MeshKey([n; 32]),
            index: MeshIndex::LIGHTHOUSE,
        }
    }

    /// Documents of this generation that name these lighthouses, signed by the root (9) or another.
    fn set(generation: u64, named: &[u8], root: u8) -> DocumentSet {
        let mut list = documents().lighthouses;
        list.generation = generation;
        list.lighthouses = named.iter().copied().map(lighthouse).collect();
        let policy = Policy {
            generation,
            ..documents().policy
        };
        DocumentSet {
            lighthouses: Signed::sign(&list, &key(9)).unwrap(),
            policy: Signed::sign(&policy, &key(root)).unwrap(),
            ..documents().set
        }
    }

    struct Play(Round<u8>);

    impl Play {
        fn new(named: &[u8]) -> Self {
            let mut held = documents();
            held.take_newer(&set(2, named, 9), &Roots(vec![key(9).public()]), ID)
                .unwrap();
            Self(Round::new(held))
        }

        fn heard(&mut self, n: u8, found: Result<DocumentSet, ClientError>) -> bool {
            let roots = Roots(vec![key(9).public()]);
            self.0.heard(lighthouse(n), n, found, (&roots, ID))
        }

        fn unasked(&self) -> Vec<String> {
            self.0.unasked().into_iter().map(|l| l.name).collect()
        }
    }

    fn away() -> Result<DocumentSet, ClientError> {
        Err(ClientError::Unreachable(vec![]))
    }

    #[test]
    fn one_that_lies_is_left_out_with_all_that_it_says() {
        let mut play = Play::new(&[1, 2, 3]);
        // Its lighthouses are newer and signed, its policy is not.
        assert!(!play.heard(1, Ok(set(5, &[1], 8))));
        assert!(!play.heard(3, away()));
        assert!(!play.heard(2, Ok(set(2, &[1, 2, 3], 9))));
        assert_eq!(play.0.documents.lighthouses.generation, 2);
        let done = play.0.ended().unwrap();
        assert_eq!(done.clients, [("l2".to_owned(), 2)]);
        let missed: Vec<_> = done.missed.iter().map(|m| (&*m.name, m.astray)).collect();
        assert_eq!(missed, [("l1", true), ("l3", false)]);
        assert!(done.missed[0].why.contains("no root"), "{:?}", done.missed);
    }

    #[test]
    fn newer_documents_lead_on_and_their_order_counts() {
        let mut play = Play::new(&[1, 2]);
        assert_eq!(play.unasked(), ["l1", "l2"]);
        assert!(play.heard(1, Ok(set(3, &[4, 3, 2], 9))));
        // The second is late: it is asked once more.
        assert_eq!(play.unasked(), ["l4", "l3", "l2"]);
        assert!(!play.heard(3, Ok(set(3, &[4, 3, 2], 9))));
        assert!(!play.heard(4, Ok(set(2, &[1, 2], 9))));
        let done = play.0.ended().unwrap();
        let names: Vec<_> = done.clients.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["l4", "l3", "l1"]);
        assert_eq!(done.missed[0].why, "no answer within 2 s");
    }

    #[test]
    fn the_gravest_failure_decides_whatever_the_order() {
        for first in [1, 2] {
            let mut play = Play::new(&[1, 2]);
            for n in [first, 3 - first] {
                let found = if n == 2 { Ok(set(3, &[], 8)) } else { away() };
                play.heard(n, found);
            }
            let error = play.0.ended().err().unwrap();
            assert_eq!(code_of(&error), 4);
            let text = format!("{error}");
            assert!(text.find("l1: ") < text.find("l2: "), "{text}");
        }
        let none = Play::new(&[]).0.ended().err().unwrap();
        assert_eq!(code_of(&none), 3);
    }
}
