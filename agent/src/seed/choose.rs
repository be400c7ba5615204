//! Which seed counts: the first that is there, good or bad; for a node that has joined, the first
//! that makes it join anew.

use super::cidata::{Content, network};
use holdfast_core::seed::{Seed, SeedError, SeedNetwork, compact};
use std::fmt;
use zeroize::Zeroizing;

/// Where a seed was found, in the order in which they count (decision 13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The FAT volume `hf-seed`.
    Volume,
    /// QEMU's `fw_cfg`.
    FwCfg,
    /// The serial number of the machine's SMBIOS.
    Smbios,
    /// A drive labelled `cidata`.
    Cidata,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volume => "seed.toml on the volume HOLDFAST (hf-seed)",
            Self::FwCfg => "fw_cfg opt/holdfast/seed",
            Self::Smbios => "the serial number in SMBIOS",
            Self::Cidata => "user-data on the drive labelled cidata",
        })
    }
}

/// What a place held.
pub enum Held {
    /// A file's bytes.
    File(Zeroizing<Vec<u8>>),
    /// A line of SMBIOS.
    Line(Zeroizing<Vec<u8>>),
    /// A cidata drive.
    Drive(Content),
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::File(bytes) | Self::Line(bytes) => bytes,
            Self::Drive(content) => &content.user_data,
        }
    }

    /// The seed as it stands there.
    fn seed(&self) -> Result<Seed, SeedError> {
        let bytes = match self {
            Self::Line(line) => {
                let text =
                    std::str::from_utf8(line).map_err(|e| SeedError::NotText(e.valid_up_to()))?;
                let none = || Err(SeedError::Compact("it is none".into()));
                return Seed::parse(&compact::unpack(text).unwrap_or_else(none)?);
            }
            other => other.bytes(),
        };
        Seed::from_bytes(bytes)
    }
}

/// What a place held: its content, nothing, or why it could not be read.
pub struct Found {
    /// Where.
    pub source: Source,
    /// What.
    pub content: Result<Option<Held>, String>,
}

/// A usable seed.
#[derive(Debug)]
pub struct Good {
    /// Where it is.
    pub source: Source,
    /// What it says; on a cidata drive, with what its `network-config` adds.
    pub seed: Box<Seed>,
    /// Its TOML text as it stood there: what another is compared with.
    own: Zeroizing<String>,
    /// The interface that `network-config` means, where it says addresses.
    pub interface: Option<network::Interface>,
    /// Later places that hold a different one.
    pub differs: Vec<Source>,
    /// What of `network-config` was not understood.
    pub notes: Option<String>,
}

/// A seed that is not usable.
#[derive(Debug)]
pub struct Bad {
    /// Where it is.
    pub source: Source,
    /// What is wrong.
    pub why: String,
    /// What a person can do.
    pub advice: String,
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
    Bad(Bad),
    /// The first one.
    Good(Good),
}

const MEND: &str =
    "Mend the seed, or make a new one with holdfast seed new; the node goes on looking";

/// How to hand over the seed itself where cloud-init's user-data was.
fn not_cloud_init(source: Source) -> &'static str {
    match source {
        Source::Cidata => {
            "Hand over the seed itself: as the drive of holdfast proxmox create, or with qm set VMID --cicustom user=local:snippets/SEED; the node goes on looking"
        }
        Source::FwCfg => {
            "Hand over the seed itself: holdfast vm run --seed SEED, or QEMU's -fw_cfg name=opt/holdfast/seed,file=SEED; the node goes on looking"
        }
        Source::Smbios => {
            "Hand over the seed itself: as the serial number that holdfast seed pack SEED --smbios prints; the node goes on looking"
        }
        Source::Volume => {
            "Put the seed itself on the volume HOLDFAST, as seed.toml; the node goes on looking"
        }
    }
}

/// Chooses among what was found, in order, for an image of `board`.
pub fn choose(found: Vec<Found>, board: &str) -> Finding {
    let mut unreadable = vec![];
    let mut held: Vec<(Source, Held)> = vec![];
    for Found { source, content } in found {
        match content {
            Ok(None) => {}
            Ok(Some(content)) => held.push((source, content)),
            Err(why) => unreadable.push(format!("{source}: {why}")),
        }
    }
    let mut held = held.into_iter();
    let Some((source, first)) = held.next() else {
        return Finding::Nothing { unreadable };
    };
    let mut good = match good(source, &first, board) {
        Ok(good) => good,
        Err(bad) => return Finding::Bad(bad),
    };
    good.differs = held
        .filter(|(_, other)| good.differs_from(other))
        .map(|(source, _)| source)
        .collect();
    Finding::Good(good)
}

/// Chooses for a node that has joined: the first seed that `wanted` accepts, whatever the others
/// are, for those that cannot be overwritten stay where they are.
pub fn choose_again(
    found: Vec<Found>,
    board: &str,
    wanted: impl Fn(&Seed) -> bool,
) -> (Option<Good>, Vec<Source>) {
    let mut ignored = vec![];
    for Found { source, content } in found {
        let Ok(Some(held)) = content else { continue };
        match good(source, &held, board) {
            Ok(good) if wanted(&good.seed) => return (Some(good), ignored),
            _ => ignored.push(source),
        }
    }
    (None, ignored)
}

fn good(source: Source, held: &Held, board: &str) -> Result<Good, Bad> {
    let bad = |why: String, advice: &str| Bad {
        source,
        why,
        advice: advice.into(),
    };
    let seed = held.seed().map_err(|e| match e {
        SeedError::CloudInit(_) => bad(e.to_string(), not_cloud_init(source)),
        other => bad(other.to_string(), MEND),
    })?;
    if let Some(wanted) = seed.board.as_deref().filter(|b| *b != board) {
        let (why, advice) = other_board(wanted, board);
        return Err(bad(why, &advice));
    }
    let own = Zeroizing::new(seed.to_toml().map_err(|e| bad(e.to_string(), MEND))?);
    let mut good = Good {
        source,
        own,
        interface: None,
        differs: vec![],
        notes: None,
        seed: Box::new(seed),
    };
    if let Held::Drive(Content {
        network_config: Some(config),
        ..
    }) = held
    {
        good.complete(config);
    }
    Ok(good)
}

fn other_board(wanted: &str, board: &str) -> (String, String) {
    let is = match board {
        "" => "this image does not say which it is for".into(),
        board => format!("this image is for {board}"),
    };
    (
        format!("the seed is for board {wanted:?}, and {is}"),
        format!(
            "Flash an image made with holdfast build --board {wanted}, or make a seed for this board with holdfast seed new; the node goes on looking"
        ),
    )
}

fn differ(own: &str, other: &Held) -> bool {
    match other.seed() {
        Ok(seed) => seed.to_toml().is_ok_and(|text| text != own),
        Err(SeedError::CloudInit(_)) => false,
        Err(_) => true,
    }
}

impl Good {
    /// Whether another place contradicts it. What is no seed at all does not: Proxmox writes
    /// cloud-init's user-data where nobody gave another.
    fn differs_from(&self, other: &Held) -> bool {
        differ(&self.own, other)
    }

    /// The same question, to be asked when this one is gone.
    pub fn comparison(&self) -> impl Fn(&Held) -> bool + Send + 'static {
        let own = self.own.clone();
        move |other| differ(&own, other)
    }

    /// Takes from `network-config` what the seed does not say.
    fn complete(&mut self, config: &[u8]) {
        if self.seed.network != SeedNetwork::default() || config.iter().all(u8::is_ascii_whitespace)
        {
            return;
        }
        let text = String::from_utf8_lossy(config);
        match network::parse(&text) {
            Ok(config) => {
                self.seed.network = config.network;
                self.interface = config.interface;
                if !config.ignored.is_empty() {
                    self.notes = Some(format!(
                        "network-config on the drive labelled cidata: not used: {}",
                        config.ignored.join("; ")
                    ));
                }
            }
            Err(e) => {
                self.notes = Some(format!(
                    "network-config on the drive labelled cidata is not understood, DHCP is used: {e}"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fuzz;

    fn text(change: impl FnOnce(&mut Seed)) -> Zeroizing<Vec<u8>> {
        let mut seed = fuzz::seed();
        change(&mut seed);
        Zeroizing::new(seed.to_toml().unwrap().into_bytes())
    }

    fn named(name: &str) -> Zeroizing<Vec<u8>> {
        text(|s| s.name = Some(name.parse().unwrap()))
    }

    fn at(source: Source, bytes: Zeroizing<Vec<u8>>) -> Found {
        let held = match source {
            Source::Smbios => Held::Line(bytes),
            Source::Cidata => Held::Drive(Content {
                user_data: bytes,
                network_config: None,
            }),
            _ => Held::File(bytes),
        };
        Found {
            source,
            content: Ok(Some(held)),
        }
    }

    fn line(name: &str) -> Zeroizing<Vec<u8>> {
        let seed = Seed::from_bytes(&named(name)).unwrap();
        Zeroizing::new(compact::pack(&seed).unwrap().as_bytes().to_vec())
    }

    fn is_good(found: Vec<Found>) -> Good {
        match choose(found, "x86-64") {
            Finding::Good(good) => good,
            other => panic!("{other:?}"),
        }
    }

    fn is_bad(found: Vec<Found>) -> (Source, String, String) {
        match choose(found, "x86-64") {
            Finding::Bad(bad) => (bad.source, bad.why, bad.advice),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_wins_and_others_that_differ_are_told() {
        let good = is_good(vec![
            at(Source::Volume, named("a")),
            at(Source::FwCfg, named("b")),
            at(Source::Smbios, line("a")),
            at(Source::Cidata, named("c")),
        ]);
        assert_eq!(good.source, Source::Volume);
        assert_eq!(good.seed.name.as_ref().unwrap().as_str(), "a");
        assert_eq!(good.differs, [Source::FwCfg, Source::Cidata]);
        let cloud = Zeroizing::new(b"#cloud-config\nhostname: a\n".to_vec());
        let same = is_good(vec![
            at(Source::Smbios, line("a")),
            at(Source::Cidata, cloud),
        ]);
        assert!(same.differs.is_empty());
    }

    #[test]
    fn a_bad_first_one_is_not_passed_over() {
        let bad = Zeroizing::new(b"hello".to_vec());
        let found = is_bad(vec![at(Source::Volume, bad), at(Source::FwCfg, named("b"))]);
        assert_eq!(found.0, Source::Volume);
        let mut cut = line("a");
        cut.truncate(100);
        let (source, why, _) = is_bad(vec![at(Source::Smbios, cut)]);
        assert_eq!(source, Source::Smbios);
        assert!(why.contains("cut"), "{why}");
    }

    #[test]
    fn cloud_inits_user_data_and_other_boards_are_told_with_what_to_do() {
        let cloud = Zeroizing::new(b"#cloud-config\nhostname: a\n".to_vec());
        let (_, why, advice) = is_bad(vec![at(Source::Cidata, cloud.clone())]);
        assert!(why.contains("cloud-init") && advice.contains("--cicustom"));
        let (_, _, advice) = is_bad(vec![at(Source::FwCfg, cloud)]);
        assert!(
            advice.contains("vm run") && !advice.contains("qm set"),
            "{advice}"
        );
        let other = text(|s| s.board = Some("rpi4".into()));
        let (_, why, advice) = is_bad(vec![at(Source::FwCfg, other)]);
        assert!(why.contains("\"rpi4\"") && why.contains("x86-64"), "{why}");
        assert!(advice.contains("--board rpi4"), "{advice}");
        let own = text(|s| s.board = Some("x86-64".into()));
        assert_eq!(is_good(vec![at(Source::FwCfg, own)]).source, Source::FwCfg);
    }

    #[test]
    fn an_unreadable_place_is_named_when_no_other_has_a_seed() {
        let broken = || Found {
            source: Source::Volume,
            content: Err("no FAT".into()),
        };
        let none = Found {
            source: Source::FwCfg,
            content: Ok(None),
        };
        let found = choose(vec![broken(), none], "x86-64");
        assert!(
            matches!(&found, Finding::Nothing { unreadable } if unreadable[0].contains("no FAT"))
        );
        let good = is_good(vec![broken(), at(Source::FwCfg, named("b"))]);
        assert_eq!(good.source, Source::FwCfg);
    }

    #[test]
    fn a_joined_node_heeds_one_seed_whatever_stands_before_it() {
        let again = || {
            text(|s| {
                s.rejoin = true;
                s.grant = "new".parse().unwrap();
            })
        };
        for last in [Source::FwCfg, Source::Cidata] {
            let found = vec![
                at(Source::Volume, Zeroizing::new(b"hello".to_vec())),
                at(Source::Smbios, line("spent")),
                at(last, again()),
            ];
            let (good, ignored) = choose_again(found, "x86-64", |s| s.rejoin);
            assert_eq!(good.unwrap().source, last);
            assert_eq!(ignored, [Source::Volume, Source::Smbios]);
        }
        let (none, ignored) = choose_again(vec![at(Source::FwCfg, named("a"))], "x", |s| s.rejoin);
        assert!(none.is_none() && ignored == [Source::FwCfg]);
    }

    #[test]
    fn network_config_says_what_the_seed_leaves_out() {
        let drive = |seed, config: &str| {
            vec![Found {
                source: Source::Cidata,
                content: Ok(Some(Held::Drive(Content {
                    user_data: seed,
                    network_config: Some(config.as_bytes().to_vec()),
                }))),
            }]
        };
        const V2: &str =
            "version: 2\nethernets:\n  eth0:\n    addresses: [10.1.1.2/24]\n    mtu: 9\n";
        let good = is_good(drive(named("a"), V2));
        assert_eq!(
            good.seed.network.addresses,
            ["10.1.1.2/24".parse().unwrap()]
        );
        assert!(good.notes.unwrap().contains("eth0.mtu"));
        let own = text(|s| s.network.dns = vec!["9.9.9.9".parse().unwrap()]);
        let good = is_good(drive(own, V2));
        assert!(good.seed.network.addresses.is_empty() && good.notes.is_none());
        let good = is_good(drive(named("a"), "nonsense"));
        assert!(good.notes.unwrap().contains("DHCP"));
        assert!(is_good(drive(named("a"), "\n")).notes.is_none());
    }
}
