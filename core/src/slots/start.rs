//! The loader's decisions: what to start, counted before it happens.

use super::{
    BootId, Code, RESCUE_STARTS_MAX, Reason, Record, STARTS_MAX, Slot, SlotInfo, Stage, State,
    Target,
};
use crate::text::Text;

/// What already failed to load in this boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Excluded {
    slots: [bool; 2],
    rescue: bool,
}

impl Excluded {
    /// Leaves `target` out from now on.
    pub const fn add(&mut self, target: Target) {
        match target {
            Target::Slot(slot) => self.slots[slot.index()] = true,
            Target::Rescue => self.rescue = true,
        }
    }

    const fn has(self, slot: Slot) -> bool {
        self.slots[slot.index()]
    }
}

/// What to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// What.
    pub target: Target,
    /// The how manieth start without staying up this is, from 1: `holdfast.try`.
    pub attempt: u8,
    /// How many starts a trial has after this one; 0 for anything else.
    pub tries_left: u8,
    /// Whether it is on trial.
    pub trial: bool,
    /// Why.
    pub why: Code,
}

impl Record {
    /// Decides what to start and counts it. Write and flush the record before acting on it.
    ///
    /// Call it again with what failed to load added to `excluded`. `None`: nothing can be
    /// started in this boot; the next boot tries everything again.
    pub fn choose_start(&mut self, boot_id: BootId, excluded: Excluded) -> Option<Start> {
        if self.boot_id != boot_id {
            self.previous = self.last;
            self.boot_id = boot_id;
        }
        self.boots = self.boots.saturating_add(1);
        let start = self
            .start_requested_rescue(excluded)
            .or_else(|| self.start_a_slot(excluded))
            .or_else(|| self.start_rescue(excluded))
            .or_else(|| {
                self.try_again();
                self.start_a_slot(excluded)
            });
        let (code, detail) = match &start {
            Some(s) => (s.why, Text::EMPTY),
            None => (
                Code::NO_SLOT_LEFT,
                Text::new("nothing on this disk can be started"),
            ),
        };
        self.last_reason = Reason {
            code,
            at_boot: self.boots,
            detail,
        };
        self.last = start.map(|s| s.target);
        start
    }

    /// Notes that what was chosen cannot be loaded: a trial is over; a good slot stays good, for
    /// it may be the disk's mood, and loses nothing but this start.
    pub fn start_failed(&mut self, target: Target, detail: &str) {
        if let Target::Slot(slot) = target {
            self.give_reason(slot, Code::DOES_NOT_VERIFY, detail);
            let info = self.slot_mut(slot);
            if info.state == State::Trial {
                info.state = State::Bad;
                info.tries_left = 0;
            }
        }
    }

    /// Whether the loader arms the hardware watchdog for this start. Not where a system found that the
    /// kernel has no driver to feed it: every start would end in a reset, rescue's too. Nor for the
    /// last of rescue's starts in a row: one that ends before any system can say so.
    #[must_use]
    pub const fn arms_watchdog(&self, start: &Start) -> bool {
        let last_rescue =
            matches!(start.target, Target::Rescue) && start.attempt >= RESCUE_STARTS_MAX;
        !self.watchdog_unfed && !last_rescue
    }

    /// Ends rescue's rule: every good slot gets one more start; without a good slot, every slot
    /// that was written whole gets one more try. Then reboot.
    pub fn leave_rescue(&mut self) {
        self.rescue_requested = false;
        self.try_again();
    }

    /// Makes a record from the headers that verify (digest, generation), one try each.
    #[must_use]
    pub fn rebuild(headers: [Option<([u8; 32], u64)>; 2]) -> Self {
        let mut record = Self::blank();
        for (slot, header) in Slot::BOTH.into_iter().zip(headers) {
            if let Some((digest, generation)) = header {
                *record.slot_mut(slot) = SlotInfo {
                    digest,
                    generation,
                    state: State::Trial,
                    tries_left: 1,
                    ..SlotInfo::EMPTY
                };
                record.give_reason(slot, Code::REBUILT, "");
            }
        }
        if record.slots[1].generation > record.slots[0].generation {
            record.preferred = Slot::B;
        }
        record
    }

    fn in_order(&self) -> [Slot; 2] {
        [self.preferred, self.preferred.other()]
    }

    fn start_a_slot(&mut self, excluded: Excluded) -> Option<Start> {
        let order = self.in_order();
        order
            .into_iter()
            .find_map(|slot| self.start_trial(slot, excluded))
            .or_else(|| {
                order
                    .into_iter()
                    .find_map(|slot| self.start_good(slot, excluded))
            })
    }

    fn start_trial(&mut self, slot: Slot, excluded: Excluded) -> Option<Start> {
        let info = self.slot_mut(slot);
        if info.state != State::Trial || excluded.has(slot) {
            return None;
        }
        if info.tries_left == 0 {
            info.state = State::Bad;
            let stage = info.stage;
            self.give_reason(slot, Code::TRIES_USED_UP, Text::<63>::of(stage).as_str());
            return None;
        }
        info.tries_left -= 1;
        info.stage = Stage::KERNEL;
        info.starts = info.starts.saturating_add(1);
        Some(Start {
            target: Target::Slot(slot),
            attempt: info.starts,
            tries_left: info.tries_left,
            trial: true,
            why: Code::ON_TRIAL,
        })
    }

    fn start_good(&mut self, slot: Slot, excluded: Excluded) -> Option<Start> {
        let preferred = self.preferred;
        let info = self.slot_mut(slot);
        if !info.is_good() || excluded.has(slot) {
            return None;
        }
        if info.starts >= STARTS_MAX {
            if !matches!(info.reason.code, Code::DOES_NOT_STAY_UP | Code::GAVE_UP) {
                let words = Text::<63>::of(info.stage);
                self.give_reason(slot, Code::DOES_NOT_STAY_UP, words.as_str());
            }
            return None;
        }
        info.starts += 1;
        info.stage = Stage::KERNEL;
        let why = match info.reason.code {
            Code::TRIED_AGAIN => Code::TRIED_AGAIN,
            _ if slot == preferred => Code::PREFERRED,
            _ => Code::OTHER_GOOD,
        };
        Some(Start {
            target: Target::Slot(slot),
            attempt: info.starts,
            tries_left: 0,
            trial: false,
            why,
        })
    }

    fn start_requested_rescue(&mut self, excluded: Excluded) -> Option<Start> {
        if !self.rescue_requested || excluded.rescue {
            return None;
        }
        self.rescue_requested = false;
        Some(self.count_rescue(Code::RESCUE_REQUESTED))
    }

    fn start_rescue(&mut self, excluded: Excluded) -> Option<Start> {
        if excluded.rescue || self.rescue_starts >= RESCUE_STARTS_MAX {
            return None;
        }
        Some(self.count_rescue(Code::NO_SLOT_LEFT))
    }

    fn count_rescue(&mut self, why: Code) -> Start {
        self.rescue_starts = self.rescue_starts.saturating_add(1);
        let attempt = self.rescue_starts;
        Start {
            target: Target::Rescue,
            attempt,
            tries_left: 0,
            trial: false,
            why,
        }
    }

    fn try_again(&mut self) {
        self.rescue_starts = 0;
        let any_good = self.slots.iter().any(SlotInfo::is_good);
        for slot in Slot::BOTH {
            let info = self.slot_mut(slot);
            match info.state {
                State::Good if info.starts >= STARTS_MAX => info.starts = STARTS_MAX - 1,
                State::Bad if !any_good && info.digest != [0; 32] => {
                    info.state = State::Trial;
                    info.tries_left = 1;
                }
                _ => continue,
            }
            self.give_reason(slot, Code::TRIED_AGAIN, "");
        }
    }
}
