//! One disk of a node: its table, its record, and the way from there to a kernel.

use crate::machine::Machine;
use crate::options::{UkiError, command_line, load_options};
use crate::payload::{self, PayloadError};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Deref;
use holdfast_core::bytes::{BLOCK, Block};
use holdfast_core::gpt::{self, Entry, GptError, Source, Table};
use holdfast_core::header::{Encoding, HeaderError, SlotHeader, slot_digest};
use holdfast_core::layout::{PAYLOAD_OFFSET, RECORD_COPIES, RELEASE_COPIES, Role};
use holdfast_core::loader_keys::LoaderKeys;
use holdfast_core::releases::{ReleaseError, ReleaseList};
use holdfast_core::slots::{BootId, Copies, Excluded, Record, Slot, Start, Target};
use holdfast_core::text::Text;

/// Why a disk is of no use.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No table.
    #[error("no partition table: {}; backup: {}", .0[0], .0[1])]
    Table([GptError; 2]),
    /// Not one of ours.
    #[error("not a node's disk: no hf-slots")]
    Foreign,
    /// Nothing can be trusted.
    #[error("no release list to trust: {0}")]
    Releases(ReleaseError),
}

/// Why a UKI is not started.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<F: core::fmt::Debug + core::fmt::Display> {
    /// The table lacks it.
    #[error("no such partition")]
    NoPartition,
    /// The disk failed.
    #[error("cannot be read ({0})")]
    Read(F),
    /// The header is not to be trusted.
    #[error("{0}")]
    Header(#[from] HeaderError),
    /// Another image than the record names.
    #[error("holds another image than the record names")]
    OtherImage,
    /// The payload is longer than its partition.
    #[error("payload longer than its partition")]
    TooLong,
    /// The payload is damaged.
    #[error("{0}")]
    Payload(#[from] PayloadError),
    /// The payload is no UKI.
    #[error("{0}")]
    Uki(#[from] UkiError),
    /// The firmware refused it.
    #[error("refused by the firmware ({0})")]
    Refused(F),
    /// It came back.
    #[error("came back instead of starting ({0})")]
    Returned(F),
}

/// A node's disk, on its machine.
pub struct Node<M> {
    machine: M,
    table: Table,
    slots: Entry,
    releases: ReleaseList,
}

/// Says one line of the loader's.
macro_rules! say {
    ($machine:expr, $($arg:tt)*) => { $machine.say(format_args!($($arg)*)) };
}

impl<M: Machine> Node<M> {
    /// Reads table and release list.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn open(mut machine: M, keys: &LoaderKeys) -> Result<Self, NodeError> {
        let geometry = machine.geometry();
        let found = gpt::find(geometry, |lba, blocks| {
            let len = usize::try_from(blocks).ok()? * geometry.block as usize;
            machine
                .read(lba, len)
                .ok()
                .map(|pages| Vec::from(&pages[..]))
        })
        .map_err(NodeError::Table)?;
        let slots = found.table.role(Role::Slots).ok_or(NodeError::Foreign)?;
        if let (Source::Backup(lba), Some(why)) = (found.source, found.primary) {
            machine.say(format_args!(
                "{}: backup partition table of block {lba} used: {why}",
                machine.disk_name()
            ));
        }
        let copies = RELEASE_COPIES.map(|at| read_block(&mut machine, &slots, at));
        let releases = ReleaseList::newest(copies.each_ref().map(as_slice), keys)
            .map_err(NodeError::Releases)?;
        Ok(Self {
            machine,
            table: found.table,
            slots,
            releases,
        })
    }

    /// Starts what the record says, then whatever else can be; comes back when nothing can.
    pub fn start(&mut self, boot_id: BootId) -> &'static str {
        let mut copies = self.record();
        let mut excluded = Excluded::default();
        loop {
            let before = copies.record().clone();
            let choice = copies.record_mut().choose_start(boot_id, excluded);
            say_changes(&self.machine, &before, copies.record());
            let counted = self.write(&mut copies);
            let Some(start) = choice else {
                return "no slot and no rescue system can be started";
            };
            say!(self.machine, "{}: {}", start.target, Words(&start));
            if start.trial && !counted {
                // Uncounted, a trial would never end.
                excluded.add(start.target);
                say!(
                    self.machine,
                    "{} left out: a trial must be counted",
                    start.target
                );
                continue;
            }
            let Err(e) = self.launch(&start, boot_id, copies.record());
            say!(self.machine, "{} not started: {e}", start.target);
            excluded.add(start.target);
            copies
                .record_mut()
                .start_failed(start.target, Text::<63>::of(&e).as_str());
        }
    }

    fn launch(
        &mut self,
        start: &Start,
        boot_id: BootId,
        record: &Record,
    ) -> Result<core::convert::Infallible, LoadError<M::Fault>> {
        let (header, uki) = self.load(start.target, record)?;
        let image = self.machine.load(&uki).map_err(LoadError::Refused)?;
        let line = String::from(command_line(&uki)?);
        drop(uki);
        let armed = match record.arms_watchdog(start) {
            true => self.machine.arm(header.watchdog, header.watchdog_seconds),
            false => {
                say!(
                    self.machine,
                    "hardware watchdog left alone: earlier starts may have ended by it"
                );
                None
            }
        };
        let options = load_options(&line, &boot_id, start, armed);
        say!(self.machine, "starting {}", start.target);
        Err(LoadError::Returned(self.machine.start(image, &options)))
    }

    fn load(
        &mut self,
        target: Target,
        record: &Record,
    ) -> Result<(SlotHeader, M::Memory), LoadError<M::Fault>> {
        let (part, block) = self.header_block(target)?;
        let header = SlotHeader::verify(&block, &self.releases)?;
        if let Target::Slot(slot) = target
            && slot_digest(&block) != record.slot(slot).digest
        {
            return Err(LoadError::OtherImage);
        }
        say!(
            self.machine,
            "{target}: {} {}, generation {}, {} KiB, {}",
            header.board,
            header.version,
            header.generation,
            header.stored_len.div_ceil(1024),
            "signature good"
        );
        let too_long = |_| LoadError::TooLong;
        let stored_len = usize::try_from(header.stored_len).map_err(too_long)?;
        let decoded_len = usize::try_from(header.decoded_len).map_err(too_long)?;
        let block_len = u64::from(self.machine.geometry().block);
        if PAYLOAD_OFFSET + header.stored_len > (part.last - part.first + 1) * block_len {
            return Err(LoadError::TooLong);
        }
        let stored = self
            .machine
            .read(part.first + PAYLOAD_OFFSET / block_len, stored_len)
            .map_err(LoadError::Read)?;
        payload::check(&stored, &header.payload)?;
        match header.encoding {
            Encoding::Raw => Ok((header, stored)),
            Encoding::Zstd => {
                let mut decoded = self.machine.memory(decoded_len).map_err(LoadError::Read)?;
                payload::unzstd(&stored, &mut decoded)?;
                Ok((header, decoded))
            }
        }
    }

    fn header_block(&mut self, target: Target) -> Result<(Entry, Block), LoadError<M::Fault>> {
        let role = match target {
            Target::Slot(slot) => Role::Boot(slot),
            Target::Rescue => Role::Rescue,
        };
        let part = self.table.role(role).ok_or(LoadError::NoPartition)?;
        let block = self
            .machine
            .read(part.first, BLOCK)
            .map_err(LoadError::Read)?;
        let block = Block::try_from(&block[..]).map_err(|_| LoadError::NoPartition)?;
        Ok((part, block))
    }

    /// The record, made anew when neither copy reads.
    fn record(&mut self) -> Copies {
        let blocks = RECORD_COPIES.map(|at| read_block(&mut self.machine, &self.slots, at));
        match Copies::read(blocks.each_ref().map(as_slice)) {
            Ok((copies, states)) => {
                for (n, state) in states.iter().enumerate() {
                    if let Err(e) = state {
                        say!(self.machine, "copy {} of the record not used: {e}", n + 1);
                    }
                }
                copies
            }
            Err([a, b]) => {
                say!(
                    self.machine,
                    "both copies of the record lost ({a}; {b}): made anew from the slots"
                );
                let headers = Slot::BOTH.map(|slot| self.verified(slot));
                let mut copies = Copies::fresh(Record::rebuild(headers));
                self.write(&mut copies);
                copies
            }
        }
    }

    fn verified(&mut self, slot: Slot) -> Option<([u8; 32], u64)> {
        let (_, block) = self.header_block(Target::Slot(slot)).ok()?;
        let header = SlotHeader::verify(&block, &self.releases).ok()?;
        Some((slot_digest(&block), header.generation))
    }

    /// Writes the record, to the other place if the first one refuses.
    fn write(&mut self, copies: &mut Copies) -> bool {
        for _ in 0..2 {
            let (offset, block) = copies.next_write();
            let lba = self.slots.first + offset / u64::from(self.machine.geometry().block);
            match self.machine.write(lba, &block) {
                Ok(()) => return true,
                Err(e) => say!(self.machine, "record not written to block {lba} ({e})"),
            }
        }
        say!(
            self.machine,
            "the disk takes no writes: this start is not counted"
        );
        false
    }
}

fn read_block<M: Machine>(machine: &mut M, part: &Entry, offset: u64) -> Option<M::Memory> {
    let lba = part.first + offset / u64::from(machine.geometry().block);
    machine.read(lba, BLOCK).ok()
}

fn as_slice<T: Deref<Target = [u8]>>(memory: &Option<T>) -> &[u8] {
    memory.as_deref().unwrap_or_default()
}

fn say_changes<M: Machine>(machine: &M, before: &Record, after: &Record) {
    for slot in Slot::BOTH {
        if before.slot(slot).reason != after.slot(slot).reason {
            say!(
                machine,
                "slot {slot} is {}: {}",
                after.slot(slot).state,
                after.slot(slot).reason
            );
        }
    }
}

/// A decision in one line.
struct Words<'a>(&'a Start);

impl core::fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}, start {}", self.0.why, self.0.attempt)?;
        if self.0.trial {
            write!(f, ", {} tries left", self.0.tries_left)
        } else {
            Ok(())
        }
    }
}
