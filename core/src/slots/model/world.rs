//! The disk, the loader and the system on it, and what must hold after every step.

use super::super::*;
use super::ops::Op;
use crate::layout::RECORD_COPIES;

const SECTOR: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Half,
    Whole([u8; 32]),
}

/// The disk, and beside it what really happened.
#[derive(Clone)]
pub struct World {
    copies: [Block; 2],
    slots: [Content; 2],
    /// What runs, in which boot.
    running: Option<(Target, BootId)>,
    boots: u8,
    images: u8,
    /// A good slot exists and must go on existing.
    had_good: bool,
    /// Both copies were lost once.
    rebuilt: bool,
    /// Starts that a trial in each slot may still have.
    granted: [i32; 2],
    /// Starts of each slot as a good one since it stayed up, minus what was allowed beyond.
    uncleared: [i32; 2],
}

impl World {
    pub fn new() -> Self {
        let digest = [1; 32];
        let mut copies = Copies::fresh(Record::factory(digest, 1));
        let blocks = [copies.next_write().1, copies.next_write().1];
        Self {
            copies: blocks,
            slots: [Content::Whole(digest), Content::Half],
            running: None,
            boots: 0,
            images: 1,
            had_good: true,
            rebuilt: false,
            granted: [0; 2],
            uncleared: [0; 2],
        }
    }

    fn read(&self) -> Result<Copies, [RecordError; 2]> {
        Copies::read([&self.copies[0], &self.copies[1]]).map(|(copies, _)| copies)
    }

    pub fn record(&self) -> Record {
        self.read().unwrap().record().clone()
    }

    /// `true`: written whole. Else the power is gone.
    fn write(&mut self, copies: &mut Copies, torn: Option<u8>) -> bool {
        let (offset, block) = copies.next_write();
        let copy = RECORD_COPIES.iter().position(|at| *at == offset).unwrap();
        let mask = torn.unwrap_or(0xff);
        for sector in (0..8).filter(|s| mask & (1 << s) != 0) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            self.copies[copy][range.clone()].copy_from_slice(&block[range]);
        }
        if torn.is_some() {
            self.running = None;
        }
        torn.is_none()
    }

    /// A verb of the running system: changes the record and writes it. `false`: refused or cut.
    fn verb<T>(
        &mut self,
        torn: Option<u8>,
        verb: impl FnOnce(&mut Record, &BootId) -> Result<T, VerbError>,
    ) -> bool {
        let Some((_, boot_id)) = self.running else {
            return false;
        };
        let mut copies = self.read().unwrap();
        let before = copies.record().clone();
        if verb(copies.record_mut(), &boot_id).is_err() {
            assert_eq!(&before, copies.record(), "a refused verb changes nothing");
            return false;
        }
        self.write(&mut copies, torn)
    }

    fn boot(&mut self, torn: Option<u8>, unreadable: u8) {
        self.running = None;
        self.boots = self.boots.wrapping_add(1);
        let boot_id = [self.boots; 16];
        let mut copies = self.read().unwrap_or_else(|_| {
            let headers = self.slots.map(|c| match c {
                Content::Whole(digest) => Some((digest, digest[0].into())),
                Content::Half => None,
            });
            self.granted = [1; 2];
            self.uncleared = [0; 2];
            let mut copies = Copies::fresh(Record::rebuild(headers));
            self.write(&mut copies, None);
            copies
        });
        let mut excluded = Excluded::default();
        for _ in 0..4 {
            let before = copies.record().clone();
            let choice = copies.record_mut().choose_start(boot_id, excluded);
            self.allow_again(&before, copies.record());
            if !self.write(&mut copies, torn) {
                return;
            }
            let Some(start) = choice else { return };
            let (bit, loads) = match start.target {
                Target::Rescue => (4, true),
                Target::Slot(slot) => {
                    let digest = copies.record().slot(slot).digest;
                    (
                        1 << slot.index(),
                        self.slots[slot.index()] == Content::Whole(digest),
                    )
                }
            };
            if loads && unreadable & bit == 0 {
                self.count(&start);
                self.running = Some((start.target, boot_id));
                return;
            }
            excluded.add(start.target);
            copies
                .record_mut()
                .start_failed(start.target, "does not load");
        }
        panic!("more attempts than there are targets");
    }

    /// What rescue's rule gives back.
    fn allow_again(&mut self, before: &Record, after: &Record) {
        for slot in Slot::BOTH {
            let (old, new, i) = (before.slot(slot), after.slot(slot), slot.index());
            if new.reason.code == Code::TRIED_AGAIN && old.reason != new.reason {
                if new.is_good() {
                    self.uncleared[i] -= 1
                } else {
                    self.granted[i] += 1
                }
            }
        }
    }

    fn count(&mut self, start: &Start) {
        let Target::Slot(slot) = start.target else {
            return;
        };
        let i = slot.index();
        if start.trial {
            self.granted[i] -= 1;
            assert!(self.granted[i] >= 0, "a trial outlives its tries");
        } else {
            self.uncleared[i] += 1;
            assert!(
                self.uncleared[i] <= i32::from(STARTS_MAX),
                "a good slot that does not stay up is started again and again"
            );
        }
    }

    /// A verb that may clear the running slot's starts.
    fn clear(
        &mut self,
        torn: Option<u8>,
        verb: impl FnOnce(&mut Record, &BootId) -> Result<bool, VerbError>,
    ) {
        let running = self.running;
        self.verb(torn, verb);
        if let Some((Target::Slot(slot), _)) = running
            && self.record().slot(slot).is_good()
            && self.record().slot(slot).starts == 0
        {
            self.uncleared[slot.index()] = 0;
        }
    }

    fn update(&mut self, slot: Slot, tries: u8, steps: u8, torn: Option<u8>) {
        let i = slot.index();
        if !self.verb(torn.filter(|_| steps == 0), |r, id| r.begin_write(id, slot)) {
            return;
        }
        // The header is cleared, then the payload is overwritten, then the header is written.
        if steps == 1 {
            return self.running = None;
        }
        assert_eq!(
            self.record().slot(slot).state,
            State::Empty,
            "overwritten unmarked"
        );
        self.slots[i] = Content::Half;
        if steps == 2 {
            return self.running = None;
        }
        self.images += 1;
        let digest = [self.images; 32];
        self.slots[i] = Content::Whole(digest);
        if steps == 3 {
            return self.running = None;
        }
        let generation = self.images.into();
        self.grant(slot, tries, torn, |r, id| {
            r.install(id, slot, digest, generation, tries)
        });
    }

    fn grant<T>(
        &mut self,
        slot: Slot,
        tries: u8,
        torn: Option<u8>,
        verb: impl FnOnce(&mut Record, &BootId) -> Result<T, VerbError>,
    ) {
        let seq = self.record().seq();
        self.verb(torn, verb);
        // A torn write with all its sectors on the disk counts as well.
        if self.record().seq() != seq {
            self.granted[slot.index()] = tries.into();
        }
    }

    pub fn step(&mut self, op: Op) {
        if self.read().is_err() && !matches!(op, Op::Boot { .. } | Op::PowerCut) {
            return;
        }
        match op {
            Op::Boot { torn, unreadable } => self.boot(torn, unreadable),
            Op::PowerCut => self.running = None,
            Op::Quiet { torn } => self.clear(torn, Record::quiet),
            Op::Stopped { torn } => self.clear(torn, Record::stopped),
            Op::Settled { torn } => self.clear(torn, Record::settled),
            Op::Reached { stage, torn } => {
                self.verb(torn, |r, id| r.reached(id, Stage(stage)));
            }
            Op::GiveUp { torn } => {
                if self.verb(torn, |r, id| r.give_up(id, "its root rots")) {
                    self.running = None;
                }
            }
            Op::Commit { torn } => {
                let Some((Target::Slot(slot), _)) = self.running else {
                    return;
                };
                let Content::Whole(digest) = self.slots[slot.index()] else {
                    panic!("half an image runs")
                };
                let seq = self.record().seq();
                self.verb(torn, |r, id| r.commit(id, &digest));
                if self.record().seq() != seq && self.record().slot(slot).is_good() {
                    self.had_good = true;
                    self.uncleared[slot.index()] = 0;
                }
            }
            Op::FailTrial { torn } => {
                self.verb(torn, |r, id| r.fail_trial(id, "no handshake"));
            }
            Op::Update {
                slot,
                tries,
                steps,
                torn,
            } => self.update(slot, tries, steps, torn),
            Op::TrySlot { slot, tries, torn } => {
                self.grant(slot, tries, torn, |r, id| r.try_slot(id, slot, tries));
            }
            Op::Rollback { torn } => {
                if let Some((Target::Slot(slot), _)) = self.running {
                    self.grant(slot.other(), 2, torn, |r, id| r.rollback(id, 2));
                }
            }
            Op::MarkBad { slot, torn } => {
                self.verb(torn, |r, id| r.mark_bad(id, slot, "on request"));
            }
            Op::RequestRescue => {
                self.verb(None, |r, _| {
                    r.request_rescue();
                    Ok(())
                });
            }
            Op::LeaveRescue { torn } => {
                if let Some((Target::Rescue, _)) = self.running {
                    let before = self.record();
                    self.verb(torn, |r, _| {
                        r.leave_rescue();
                        Ok(())
                    });
                    self.allow_again(&before, &self.record());
                }
            }
            Op::Rot { copy, sector } => self.rot(copy, sector),
            Op::RotBoth => {
                // A bit flipped twice would heal, and bring back a record that was given up.
                self.copies
                    .iter_mut()
                    .for_each(|c| c[300] = c[300].wrapping_add(1));
                (self.had_good, self.rebuilt) = (false, true);
                self.running = None;
            }
        }
    }

    /// A second rot before the first was written over would be damage in two blocks.
    fn rot(&mut self, copy: usize, sector: usize) {
        if self.copies.iter().any(|c| Record::decode(c).is_err()) {
            return;
        }
        self.copies[copy][sector * SECTOR + 100] ^= 0x10;
        assert!(self.read().is_ok(), "damaged in one block, and not read");
        // The state of one write earlier: one start, or one clearing, may be forgotten.
        self.granted.iter_mut().for_each(|n| *n += 1);
        self.uncleared
            .iter_mut()
            .for_each(|n| *n -= i32::from(STARTS_MAX));
        if !Slot::BOTH.iter().any(|s| self.record().slot(*s).is_good()) {
            // The first commit after both copies were lost is what was forgotten.
            assert!(self.rebuilt, "one damaged block, and no good slot left");
            self.had_good = false;
        }
    }

    pub fn check(&self) {
        let Ok(copies) = self.read() else {
            assert!(
                !self.had_good,
                "the record is lost though at most one block was damaged"
            );
            return;
        };
        let record = copies.record();
        let safe = |s: Slot| {
            let info = record.slot(s);
            info.is_good() && self.slots[s.index()] == Content::Whole(info.digest)
        };
        assert!(
            !self.had_good || Slot::BOTH.into_iter().any(safe),
            "the last good slot is lost"
        );
        assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(record));
    }

    /// Nothing stays up any more: everything that could work must get its turn, for ever.
    pub fn check_liveness(&self) {
        for round in 0..2 {
            let mut world = self.clone();
            for _ in 0..round * 16 {
                world.boot(None, 0);
            }
            let mut seen = Vec::new();
            for _ in 0..16 {
                world.boot(None, 0);
                seen.push(world.running.map(|(target, _)| target));
            }
            assert!(seen.contains(&Some(Target::Rescue)), "{seen:?}");
            let record = world.record();
            let any_good = record.slots.iter().any(SlotInfo::is_good);
            for slot in Slot::BOTH {
                let info = record.slot(slot);
                let whole = self.slots[slot.index()] == Content::Whole(info.digest);
                if whole && (info.is_good() || !any_good) {
                    assert!(
                        seen.contains(&Some(Target::Slot(slot))),
                        "{seen:?} {record:?}"
                    );
                }
            }
        }
    }
}
