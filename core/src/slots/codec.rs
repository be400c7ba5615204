//! The record as a block of 4096 bytes.
//!
//! Version 1. Little endian; bytes not named are zero when made, and kept as they are afterwards.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `HFRECORD` |
//! | 8 | 2, 2 | major version (1), minor version (0) |
//! | 16 | 8 | sequence number |
//! | 24 | 8 | starts counted |
//! | 32 | 16 | id of the last boot |
//! | 48 | 1 | preferred slot: 0 a, 1 b |
//! | 49 | 1 | last started: 0 nothing, 1 a, 2 b, 3 rescue |
//! | 50 | 1 | started in the boot before: the same |
//! | 51 | 1 | flags: bit 0 rescue requested; bit 1 nobody feeds the loader's watchdog (older loaders keep it and arm) |
//! | 52 | 1 | uncleared starts of rescue |
//! | 64 | 80 | reason of the last start |
//! | 256, 512 | 256 each | slots a, b |
//! | 4092 | 4 | CRC-32 of bytes 0 to 4091 |
//!
//! A slot: digest (0, 32 bytes), generation (32, 8), state (40, 1: 0 empty, 1 trial, 2 good,
//! 3 bad), tries left (41, 1), uncleared starts (42, 1), how far its last start came (43, 1:
//! [`Stage`]), flags (44, 1: bit 0 on probation), reason (48, 80). A reason: code (0, 2), count of starts
//! at the time (8, 8), text (16, 1 length byte and 63).

use super::{Code, Reason, Record, Slot, SlotInfo, Stage, State, Target};
use crate::bytes::{Block, as_block, get, put, seal, sealed, u16_at, u64_at};
use crate::text::Text;

const MAGIC: &[u8; 8] = b"HFRECORD";
const MAJOR: u16 = 1;
const LAST_REASON_AT: usize = 64;
const SLOT_AT: [usize; 2] = [256, 512];
const RESCUE_REQUESTED: u8 = 1;
const WATCHDOG_UNFED: u8 = 2;
const PROBATION: u8 = 1;

/// Why a copy of the record is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Nothing was written here, or something else was, or it could not be read.
    #[error("no record here")]
    Absent,
    /// The CRC does not fit: a torn write or a bad block.
    #[error("record damaged: its CRC does not fit")]
    Damaged,
    /// Written by a newer major version.
    #[error("record of version {0}; version 1 was expected")]
    Version(u16),
    /// A value that version 1 does not know.
    #[error("record: {field} is {value}, which version 1 does not know")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u8,
    },
}

impl Record {
    /// Encodes the record with its sequence number as it is; [`super::Copies`] counts it up.
    #[must_use]
    pub fn encode(&self) -> Block {
        let mut b = self.raw;
        put(&mut b, 0, MAGIC);
        put(&mut b, 8, &MAJOR.to_le_bytes());
        put(&mut b, 16, &self.seq.to_le_bytes());
        put(&mut b, 24, &self.boots.to_le_bytes());
        put(&mut b, 32, &self.boot_id);
        b[48] = self.preferred.index() as u8;
        b[49] = target_code(self.last);
        b[50] = target_code(self.previous);
        put_flag(&mut b, 51, RESCUE_REQUESTED, self.rescue_requested);
        put_flag(&mut b, 51, WATCHDOG_UNFED, self.watchdog_unfed);
        b[52] = self.rescue_starts;
        put_reason(&mut b, LAST_REASON_AT, &self.last_reason);
        for (at, slot) in SLOT_AT.into_iter().zip(&self.slots) {
            put_slot(&mut b, at, slot);
        }
        seal(&mut b);
        b
    }

    /// Reads a block.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let b = as_block(bytes)
            .filter(|b| &b[..8] == MAGIC)
            .ok_or(RecordError::Absent)?;
        if !sealed(b) {
            return Err(RecordError::Damaged);
        }
        let major = u16_at(b, 8);
        if major != MAJOR {
            return Err(RecordError::Version(major));
        }
        Ok(Self {
            seq: u64_at(b, 16),
            boots: u64_at(b, 24),
            boot_id: get(b, 32),
            preferred: match b[48] {
                0 => Slot::A,
                1 => Slot::B,
                value => {
                    return Err(RecordError::Field {
                        field: "preferred slot",
                        value,
                    });
                }
            },
            last: target(b[49])?,
            previous: target(b[50])?,
            rescue_requested: b[51] & RESCUE_REQUESTED != 0,
            watchdog_unfed: b[51] & WATCHDOG_UNFED != 0,
            rescue_starts: b[52],
            last_reason: reason(b, LAST_REASON_AT),
            slots: [slot(b, SLOT_AT[0])?, slot(b, SLOT_AT[1])?],
            raw: *b,
        })
    }
}

fn put_flag(b: &mut Block, at: usize, flag: u8, set: bool) {
    b[at] = (b[at] & !flag) | if set { flag } else { 0 };
}

fn put_slot(b: &mut Block, at: usize, slot: &SlotInfo) {
    put(b, at, &slot.digest);
    put(b, at + 32, &slot.generation.to_le_bytes());
    b[at + 40] = match slot.state {
        State::Empty => 0,
        State::Trial => 1,
        State::Good => 2,
        State::Bad => 3,
    };
    b[at + 41] = slot.tries_left;
    b[at + 42] = slot.starts;
    b[at + 43] = slot.stage.0;
    put_flag(b, at + 44, PROBATION, slot.probation);
    put_reason(b, at + 48, &slot.reason);
}

fn slot(b: &Block, at: usize) -> Result<SlotInfo, RecordError> {
    Ok(SlotInfo {
        digest: get(b, at),
        generation: u64_at(b, at + 32),
        state: match b[at + 40] {
            0 => State::Empty,
            1 => State::Trial,
            2 => State::Good,
            3 => State::Bad,
            value => {
                return Err(RecordError::Field {
                    field: "slot state",
                    value,
                });
            }
        },
        tries_left: b[at + 41],
        starts: b[at + 42],
        stage: Stage(b[at + 43]),
        probation: b[at + 44] & PROBATION != 0,
        reason: reason(b, at + 48),
    })
}

fn put_reason(b: &mut Block, at: usize, reason: &Reason) {
    put(b, at, &reason.code.0.to_le_bytes());
    put(b, at + 8, &reason.at_boot.to_le_bytes());
    reason.detail.write(b, at + 16);
}

fn reason(b: &Block, at: usize) -> Reason {
    Reason {
        code: Code(u16_at(b, at)),
        at_boot: u64_at(b, at + 8),
        // Words are for people: bad ones are no ground to lose a record.
        detail: Text::read(b, at + 16).unwrap_or_default(),
    }
}

const fn target_code(target: Option<Target>) -> u8 {
    match target {
        None => 0,
        Some(Target::Slot(Slot::A)) => 1,
        Some(Target::Slot(Slot::B)) => 2,
        Some(Target::Rescue) => 3,
    }
}

const fn target(code: u8) -> Result<Option<Target>, RecordError> {
    match code {
        0 => Ok(None),
        1 => Ok(Some(Target::Slot(Slot::A))),
        2 => Ok(Some(Target::Slot(Slot::B))),
        3 => Ok(Some(Target::Rescue)),
        value => Err(RecordError::Field {
            field: "started target",
            value,
        }),
    }
}
