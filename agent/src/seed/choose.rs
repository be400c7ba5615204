//! Which seed counts: the first that is there, good or bad.

use holdfast_core::seed::Seed;
use std::fmt;
use zeroize::Zeroizing;

/// Where a seed was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The FAT volume `hf-seed`.
    Volume,
    /// QEMU's `fw_cfg`.
    FwCfg,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volume => "seed.toml on the volume HOLDFAST (hf-seed)",
            Self::FwCfg => "fw_cfg opt/holdfast/seed",
        })
    }
}

/// What a place held: its bytes, nothing, or why it could not be read.
pub struct Found {
    /// Where.
    pub source: Source,
    /// What.
    pub content: Result<Option<Zeroizing<Vec<u8>>>, String>,
}

/// What came of looking.
#[derive(Debug)]
pub enum Finding {
    /// No place holds a seed; with the places that could not be read.
    Nothing {
        /// Place and reason.
        unreadable: Vec<String>,
    },
    /// The first one is not usable.
    Bad {
        /// Where it is.
        source: Source,
        /// What is wrong.
        why: String,
    },
    /// The first one.
    Good {
        /// Where it is.
        source: Source,
        /// What it says.
        seed: Box<Seed>,
        /// A later place holds a different one.
        differs: Option<Source>,
    },
}

/// Chooses among what was found, in order.
pub fn choose(found: Vec<Found>) -> Finding {
    let mut unreadable = vec![];
    let mut first: Option<(Source, Zeroizing<Vec<u8>>)> = None;
    let mut differs = None;
    for Found { source, content } in found {
        match (content, &first) {
            (Ok(None), _) => {}
            (Ok(Some(bytes)), None) => first = Some((source, bytes)),
            (Ok(Some(bytes)), Some((_, kept))) => {
                if **kept != *bytes && differs.is_none() {
                    differs = Some(source);
                }
            }
            (Err(why), _) => unreadable.push(format!("{source}: {why}")),
        }
    }
    let Some((source, bytes)) = first else {
        return Finding::Nothing { unreadable };
    };
    match Seed::from_bytes(&bytes) {
        Ok(seed) => Finding::Good {
            source,
            seed: Box::new(seed),
            differs,
        },
        Err(e) => Finding::Bad {
            source,
            why: e.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::keys::PrivateKey;
    use holdfast_core::seed::{SeedLighthouse, SeedNetwork};

    fn seed(name: &str) -> Zeroizing<Vec<u8>> {
        let key = PrivateKey::from_bytes([1; 32]);
        let seed = Seed {
            version: 1,
            cluster: "demo".parse().unwrap(),
            cluster_id: holdfast_core::cluster::ClusterId([1; 16]),
            dual_stack: false,
            name: Some(name.parse().unwrap()),
            role: holdfast_core::names::Role::Bare,
            issued: 1,
            grant: "g1".parse().unwrap(),
            token: key.clone(),
            roots: vec![key.public()],
            lighthouses: vec![SeedLighthouse {
                https: vec!["l:1".into()],
                key: key.public(),
            }],
            network: SeedNetwork::default(),
            k3s: Default::default(),
            rejoin: false,
            board: None,
            wifi: None,
            install: None,
        };
        Zeroizing::new(seed.to_toml().unwrap().into_bytes())
    }

    fn at(source: Source, content: Option<Zeroizing<Vec<u8>>>) -> Found {
        Found {
            source,
            content: Ok(content),
        }
    }

    #[test]
    fn the_first_wins_and_a_second_that_differs_is_told() {
        let found = choose(vec![
            at(Source::Volume, Some(seed("a"))),
            at(Source::FwCfg, Some(seed("b"))),
        ]);
        let Finding::Good {
            source: Source::Volume,
            seed: kept,
            differs,
            ..
        } = found
        else {
            panic!("{found:?}")
        };
        assert_eq!(kept.name.unwrap().as_str(), "a");
        assert_eq!(differs, Some(Source::FwCfg));
        let same = choose(vec![
            at(Source::Volume, Some(seed("a"))),
            at(Source::FwCfg, Some(seed("a"))),
        ]);
        assert!(matches!(same, Finding::Good { differs: None, .. }));
    }

    #[test]
    fn a_bad_first_one_is_not_passed_over() {
        let bad = Zeroizing::new(b"hello".to_vec());
        let found = choose(vec![
            at(Source::Volume, Some(bad)),
            at(Source::FwCfg, Some(seed("b"))),
        ]);
        assert!(matches!(
            found,
            Finding::Bad {
                source: Source::Volume,
                ..
            }
        ));
    }

    #[test]
    fn an_unreadable_place_is_named_when_no_other_has_a_seed() {
        let broken = || Found {
            source: Source::Volume,
            content: Err("no FAT".into()),
        };
        let found = choose(vec![broken(), at(Source::FwCfg, None)]);
        assert!(
            matches!(&found, Finding::Nothing { unreadable } if unreadable[0].contains("no FAT"))
        );
        let found = choose(vec![broken(), at(Source::FwCfg, Some(seed("b")))]);
        assert!(matches!(
            found,
            Finding::Good {
                source: Source::FwCfg,
                ..
            }
        ));
    }
}
