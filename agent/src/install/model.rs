//! The whole installation with the power cut between any two steps, as often as it likes: in the end
//! the machine runs from its disk, and the stick is what it should be.

use super::choose::{Choice, choose};
use super::content::{self, LOOK};
use super::disks::Disk;
use super::plan::{self, Inputs, Step};
use super::source::{RootSpec, Source};
use holdfast_core::gpt;
use holdfast_core::guid::Guid;
use holdfast_core::header::{Encoding, SlotHeader, Watchdog, slot_digest};
use holdfast_core::layout::Role;
use holdfast_core::seed::{Bus, SeedInstall};
use holdfast_core::slots::{Excluded, Record, Slot, State, Target};
use holdfast_core::state::Installed;
use holdfast_core::text::Text;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A disk of 4 GiB, in bytes.
const BYTES: u64 = 4 << 30;
const DATA: u8 = 0x77;

/// The target: the two ends as bytes, and which steps' content it holds.
struct Far {
    first: Vec<u8>,
    last: Vec<u8>,
    content: BTreeMap<u64, u64>,
    record: Option<Record>,
}

struct Stick {
    journal: Vec<Installed>,
    seed: bool,
    record: Record,
    headers: BTreeMap<&'static str, bool>,
    reported: bool,
}

struct World {
    stick: Stick,
    disk: Far,
    rules: SeedInstall,
    boots: u8,
    guids: u8,
}

/// What a boot came to.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// The power was cut.
    Cut,
    /// A reboot was asked for.
    Restarted,
    /// The machine is off, the stick said so.
    Off,
    /// The disk's system runs.
    Runs,
}

fn source() -> Source {
    let facts = SlotHeader {
        encoding: Encoding::Raw,
        watchdog: Watchdog::None,
        watchdog_seconds: 0,
        generation: 1,
        stored_len: 1000,
        decoded_len: 1000,
        payload: [3; 32],
        board: Text::new("x"),
        version: Text::new("1"),
    };
    Source {
        header: facts.encode(&[1; 32], |_| [2; 64]),
        facts,
        list: [5; 4096],
        root: RootSpec {
            hash: [4; 32],
            salt: vec![],
            len: 4096,
        },
    }
}

fn install_plan(guid: Guid, salt: u8) -> Vec<Step> {
    let source = source();
    let inputs = Inputs {
        source: &source,
        boot: Role::Boot(Slot::A),
        root: Role::Root(Slot::A),
        bytes: BYTES,
        disk: guid,
        hybrid_mbr: salt % 2 == 1,
        guids: std::array::from_fn(|i| Guid::random([salt ^ i as u8; 16])),
        esp_patches: vec![],
        seed_volume: vec![9; 512],
    };
    plan::install(&inputs).unwrap()
}

impl World {
    fn new(reuse: bool, data: bool) -> Self {
        let mut disk = Far {
            first: vec![0; LOOK],
            last: vec![0; LOOK],
            content: BTreeMap::new(),
            record: None,
        };
        if data {
            disk.first[1000] = DATA;
        }
        Self {
            stick: Stick {
                journal: vec![],
                seed: true,
                record: Record::factory(slot_digest(&source().header), 1),
                headers: BTreeMap::from([
                    ("hf-boot-a", true),
                    ("hf-boot-b", false),
                    ("hf-rescue", true),
                ]),
                reported: false,
            },
            disk,
            rules: SeedInstall {
                reuse,
                erase: data,
                ..Default::default()
            },
            boots: 0,
            guids: 0,
        }
    }

    fn target(&self) -> Disk {
        Disk {
            name: "nvme0n1".into(),
            bus: Bus::Nvme,
            model: String::new(),
            serial: String::new(),
            bytes: BYTES,
            block: 512,
            read_only: false,
            holders: vec![],
            content: Ok(content::look(BYTES, &self.disk.first, &self.disk.last)),
        }
    }

    /// Whether the loader finds a table of ours, in either place.
    fn has_table(&self) -> bool {
        let at_end = BYTES - LOOK as u64;
        gpt::find(content::geometry(BYTES), |lba, blocks| {
            let (at, len) = (lba * 512, blocks as usize * 512);
            let slice =
                |end: &[u8], at: u64| Some(end.get(at as usize..at as usize + len)?.to_vec());
            slice(&self.disk.first, at).or_else(|| slice(&self.disk.last, at.checked_sub(at_end)?))
        })
        .is_ok_and(|f| f.table.role(Role::Slots).is_some())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let at_end = BYTES - LOOK as u64;
        if at < LOOK as u64 {
            self.disk.first[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        } else if at >= at_end {
            let from = (at - at_end) as usize;
            self.disk.last[from..from + bytes.len()].copy_from_slice(bytes);
        } else {
            self.disk.content.insert(at, bytes.len() as u64);
        }
    }

    /// Everything between the two tables, whole.
    fn whole(&self) -> bool {
        install_plan(Guid::NIL, 0).iter().all(|step| {
            let (at, len) = match step {
                Step::Bytes { at, bytes, .. } => (*at, bytes.len() as u64),
                Step::Zeros { at, len, .. } | Step::Copy { at, len, .. } => (*at, *len),
                Step::Root { at, .. } => (*at, 1),
                _ => return true,
            };
            at < LOOK as u64
                || at >= BYTES - LOOK as u64
                || self.disk.content.get(&at) == Some(&len)
        })
    }

    fn step(&mut self, step: &Step, entry: &Installed) -> Option<Came> {
        match step {
            Step::Journal { done } => {
                self.stick.journal.retain(|i| i.disk != entry.disk);
                self.stick.journal.push(Installed {
                    done: *done,
                    ..entry.clone()
                });
            }
            Step::Bytes { at, bytes, .. } => self.write(*at, bytes),
            Step::Zeros { at, len, .. } if *at < LOOK as u64 || *at >= BYTES - LOOK as u64 => {
                self.write(*at, &vec![0; *len as usize]);
            }
            Step::Zeros { at, len, .. } | Step::Copy { at, len, .. } => {
                self.disk.content.insert(*at, *len);
            }
            Step::Root { at, .. } => {
                self.disk.content.insert(*at, 1);
            }
            Step::Table(gpt::Step::Write { lba, bytes }) => {
                let first = *lba == 0;
                self.write(lba * 512, bytes);
                if first {
                    let digest = slot_digest(&source().header);
                    self.disk.record = Some(Record::factory(digest, 1));
                }
            }
            Step::Table(gpt::Step::Flush) | Step::BootEntry => {}
            Step::Scrub => (self.stick.seed, self.stick.reported) = (false, false),
            Step::Report => self.stick.reported = true,
            Step::Retire => {
                assert!(
                    self.stick.journal.iter().any(|i| i.done && i.retire),
                    "init refuses"
                );
                let id = *self.stick.record.boot_id();
                self.stick.record.retire(&id).unwrap();
            }
            Step::ClearHeader(role) => {
                self.stick.headers.insert(role.name(), false);
            }
            Step::Restart => {
                let id = *self.stick.record.boot_id();
                if self.stick.record.running() == Some(Target::Rescue) {
                    self.stick.record.leave_rescue();
                }
                self.stick.record.quiet(&id).unwrap();
                return Some(Came::Restarted);
            }
            Step::PowerOff => {
                let id = *self.stick.record.boot_id();
                self.stick.record.quiet(&id).unwrap();
                return Some(Came::Off);
            }
        }
        None
    }

    /// One power-on, cut after `steps` steps of the installer, from a firmware that prefers either.
    fn boot(&mut self, stick_in: bool, stick_first: bool, mut steps: usize) -> Came {
        self.boots += 1;
        let id = [self.boots; 16];
        // Firmware finds a loader on the stick always, on the disk only behind a table; either
        // loader asks its own disk first and then the other.
        let order = match stick_first || !self.has_table() {
            true => [true, false],
            false => [false, true],
        };
        for stick in order.into_iter().filter(|stick| stick_in || !stick) {
            if !stick {
                if !self.has_table() {
                    continue;
                }
                assert!(self.whole(), "a half-installed disk starts");
                // Init looks for the record of this boot's id that says what was started.
                let record = &self.stick.record;
                assert!(
                    record.boot_id() != &id || record.running().is_none(),
                    "init takes the stick"
                );
                return Came::Runs;
            }
            let mut excluded = Excluded::default();
            while let Some(start) = self.stick.record.choose_start(id, excluded) {
                let header = match start.target {
                    Target::Slot(Slot::A) => "hf-boot-a",
                    Target::Slot(Slot::B) => "hf-boot-b",
                    Target::Rescue => "hf-rescue",
                };
                if self.stick.headers[header] {
                    return self.agent(start.target, &mut steps);
                }
                excluded.add(start.target);
                self.stick.record.start_failed(start.target, "");
            }
        }
        panic!("nothing starts");
    }

    fn agent(&mut self, target: Target, left: &mut usize) -> Came {
        if let Some(entry) = self
            .stick
            .journal
            .iter()
            .rev()
            .find(|i| i.done && i.retire)
            .cloned()
        {
            return self.carry_out(plan::tidy(true), &entry, left);
        }
        assert!(
            self.stick.seed,
            "a stick without a seed, and nothing to finish"
        );
        if target == Target::Rescue {
            let id = *self.stick.record.boot_id();
            self.stick.record.leave_rescue();
            self.stick.record.quiet(&id).unwrap();
            return Came::Restarted;
        }
        let disks = [self.target()];
        match choose(&self.rules, &disks, "sda", &self.stick.journal) {
            Choice::Refuse(lines) => panic!("{lines:?}"),
            Choice::Done(_, entry) => {
                let entry = self.stick.journal[entry].clone();
                let steps = if entry.done {
                    plan::tidy(entry.retire)
                } else {
                    plan::ending(entry.retire)
                };
                self.carry_out(steps, &entry, left)
            }
            Choice::Install(_, guid) => {
                self.guids += 1;
                let guid = guid.map_or_else(
                    || Guid::random([self.guids; 16]),
                    |g| super::parse_guid(&g).unwrap(),
                );
                let entry = Installed {
                    disk: guid.to_string(),
                    name: "x".into(),
                    done: false,
                    retire: !self.rules.reuse,
                    other: Default::default(),
                };
                let mut steps = install_plan(guid, self.guids);
                steps.extend(plan::ending(entry.retire));
                self.carry_out(steps, &entry, left)
            }
        }
    }

    fn carry_out(&mut self, steps: Vec<Step>, entry: &Installed, left: &mut usize) -> Came {
        for step in steps {
            if *left == 0 {
                return Came::Cut;
            }
            *left -= 1;
            if let Some(came) = self.step(&step, entry) {
                return came;
            }
        }
        panic!("the steps end without an end");
    }

    /// Boots as it is cut, then without a cut until the disk's system runs and the stick is tidy;
    /// how often the disk ran before that, although the firmware prefers the stick.
    fn live(&mut self, stick_first: bool, cuts: &[usize]) -> usize {
        let mut early = 0;
        let mut cuts = cuts.iter().copied();
        for _ in 0..cuts.len() + 12 {
            match self.boot(true, stick_first, cuts.next().unwrap_or(usize::MAX)) {
                Came::Cut | Came::Restarted => {}
                // A person takes the stick out.
                Came::Off => {
                    assert!(self.rules.reuse && self.stick.reported);
                    assert_eq!(self.boot(false, stick_first, 0), Came::Runs);
                    return early;
                }
                Came::Runs if self.tidy() => return early,
                // The loader gave the stick up for this start: the next one has its turn.
                Came::Runs if stick_first => early += 1,
                // A firmware that prefers the disk does not let the stick tidy up.
                Came::Runs => return early,
            }
        }
        panic!("never comes to rest");
    }

    fn tidy(&self) -> bool {
        let empty = Slot::BOTH
            .iter()
            .all(|s| self.stick.record.slot(*s).state == State::Empty);
        self.rules.reuse
            || (!self.stick.seed
                && self.stick.reported
                && empty
                && self.stick.headers.values().all(|h| !h))
    }
}

#[test]
fn any_prefix_of_the_plan_ends_installed() {
    let mut steps = install_plan(Guid::NIL, 1);
    steps.extend(plan::ending(true));
    for n in 0..=steps.len() {
        for (reuse, data, stick_first) in [
            (false, false, true),
            (false, true, true),
            (true, false, true),
            (false, false, false),
            (true, true, false),
        ] {
            World::new(reuse, data).live(stick_first, &[n]);
        }
    }
}

#[test]
fn without_a_cut_the_disk_runs_after_one_restart() {
    let mut world = World::new(false, false);
    assert_eq!(world.boot(true, true, usize::MAX), Came::Restarted);
    assert!(world.tidy() && world.whole());
    for _ in 0..10 {
        assert_eq!(world.boot(true, true, usize::MAX), Came::Runs);
        assert_eq!(world.boot(false, true, usize::MAX), Came::Runs);
    }
}

#[test]
fn cuts_in_rescue_hand_one_start_to_the_disk_and_the_stick_is_tidied_up_later() {
    let steps = install_plan(Guid::NIL, 1).len() + plan::ending(true).len();
    // The slots' headers are cleared, that of rescue is not; rescue is cut each time.
    let cuts = [steps - 2, 0, 0, 0];
    for guids in [0, 1] {
        let mut world = World::new(false, false);
        world.guids = guids;
        assert_eq!(world.live(true, &cuts), 1);
        assert!(world.tidy());
    }
}

#[test]
fn the_disk_gets_the_kind_of_mbr_that_the_stick_has() {
    for salt in [0, 1] {
        let steps = install_plan(Guid::NIL, salt);
        let block = steps.iter().find_map(|s| match s {
            Step::Table(gpt::Step::Write { lba: 0, bytes }) => Some(bytes),
            _ => None,
        });
        assert_eq!(gpt::is_hybrid(block.unwrap()), salt == 1);
    }
}

#[test]
fn a_stick_that_is_kept_leaves_its_own_disk_alone() {
    let mut world = World::new(true, false);
    assert_eq!(world.boot(true, true, usize::MAX), Came::Off);
    let (before, guids) = (world.disk.first.clone(), world.guids);
    for _ in 0..5 {
        assert_eq!(world.boot(true, true, usize::MAX), Came::Off);
    }
    assert_eq!((world.disk.first, world.guids), (before, guids));
    assert!(world.stick.seed && world.stick.reported);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_number_of_cuts(cuts in prop::collection::vec(0usize..40, 0..9), reuse: bool, data: bool, stick_first: bool) {
        World::new(reuse, data).live(stick_first, &cuts);
    }
}
