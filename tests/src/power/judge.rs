//! What a node would make of a disk: the loader's own code chooses and checks, init's and the agent's
//! own code read what they keep; the root and the seed are read here.

use super::image::Image;
use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_agent::store::Store;
use holdfast_boot::machine::Machine;
use holdfast_boot::node::Node;
use holdfast_core::bytes::BLOCK;
use holdfast_core::gpt::{Geometry, find};
use holdfast_core::header::{Watchdog, slot_digest};
use holdfast_core::layout::Role;
use holdfast_core::loader_keys::LoaderKeys;
use holdfast_core::manifest::{self, Manifest};
use holdfast_core::slots::{BootId, State, Target};
use holdfast_init::record::RecordStore;
use holdfast_init::state::{Loaded, StateStore};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::fmt::Arguments;
use std::io::{Cursor, Read as _};
use std::ops::Range;
use std::path::Path;
use tokio::runtime::Runtime;

/// Bytes of a sector of the disks judged.
const SECTOR: u32 = 512;
/// The boot that is asked for.
const BOOT: BootId = [0x5a; 16];

/// A system that may run, as its bundle describes it.
#[derive(Debug, Clone)]
pub struct System {
    /// For people.
    pub version: String,
    header: [u8; 32],
    root_len: u64,
    root: [u8; 32],
}

impl System {
    /// From a bundle's signed manifest.
    ///
    /// # Errors
    /// No bundle.
    pub fn of(bundle: &Path) -> Result<Self> {
        let bytes = std::fs::read(bundle)?;
        let (signed, _) = manifest::read(&bytes)?;
        let (manifest, _): (Manifest, _) = signed.open_self()?;
        let header = STANDARD
            .decode(&manifest.header)
            .context("the slot header")?;
        let block = header
            .as_slice()
            .try_into()
            .context("the slot header's length")?;
        Ok(Self {
            version: manifest.version,
            header: slot_digest(block),
            root_len: manifest.root.decoded_len,
            root: manifest.root.decoded_digest.0,
        })
    }
}

/// What starts, and what it finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the loader starts.
    pub target: Target,
    /// The version there; none for the rescue system.
    pub version: Option<String>,
    /// It is on trial.
    pub trial: bool,
    /// The node's name, when its state says that it joined.
    pub joined: Option<String>,
    /// `/var` holds data that must not be formatted.
    pub var_formatted: bool,
    /// What the loader wrote to the console.
    pub said: Vec<String>,
}

/// Knows the cluster and its systems.
pub struct Judge {
    keys: LoaderKeys,
    systems: Vec<System>,
    seed: String,
    runtime: Runtime,
}

/// The bytes of the disk that a verdict rests on.
pub type Reads = Vec<Range<u64>>;

impl Judge {
    /// For the disk's first image, whose loader knows the cluster's keys, the systems that may run, and
    /// the seed that it began with.
    ///
    /// # Errors
    /// The image holds no loader of ours.
    pub fn new(first: &Image, systems: Vec<System>, seed: String) -> Result<Self> {
        let (extents, _) = holdfast_core::layout::plan(holdfast_core::layout::VAR_MIN);
        let esp = extents
            .iter()
            .find(|e| e.role == Role::Esp)
            .context("no ESP")?;
        Ok(Self {
            keys: LoaderKeys::of_loader(&first.bytes(esp.offset, esp.len))?,
            systems,
            seed,
            runtime: Runtime::new()?,
        })
    }

    /// What a node would make of this disk, or why it would be lost; and what that rests on.
    pub fn judge(&self, image: &Image) -> (Result<Verdict, String>, Reads) {
        let disk = Recorded::new(image);
        let verdict = self.verdict(&disk).map_err(|e| format!("{e:#}"));
        let reads = merged(disk.reads.into_inner());
        (verdict, reads)
    }

    fn verdict(&self, disk: &Recorded) -> Result<Verdict> {
        let mut node = Node::open(disk, &self.keys).map_err(|e| anyhow::anyhow!("{e}"))?;
        let last_word = node.start(BOOT);
        let said = disk.said.borrow().clone();
        ensure!(
            disk.off.get(),
            "the loader starts nothing: {last_word}: {said:?}"
        );
        let table = find(disk.geometry(), |lba, blocks| {
            Some(disk.bytes(lba * u64::from(SECTOR), blocks * u64::from(SECTOR)))
        })
        .map_err(|e| anyhow::anyhow!("{e:?}"))?
        .table;
        let extent = |role: Role| {
            let entry = table.role(role).with_context(|| role.name())?;
            let sector = u64::from(SECTOR);
            anyhow::Ok((
                entry.first * sector,
                (entry.last - entry.first + 1) * sector,
            ))
        };
        let file = |role: Role| {
            let (at, len) = extent(role)?;
            disk.note(at, len);
            disk.image.borrow().file_of(at, len)
        };

        let slots = file(Role::Slots)?;
        let record = RecordStore::open(slots.path(), &BOOT)?
            .context("init does not find the boot that the loader began")?;
        let target = record.record().running().context("nothing runs")?;
        let (mut version, mut trial) = (None, false);
        if let Target::Slot(slot) = target {
            let (at, _) = extent(Role::Boot(slot))?;
            let header = disk.bytes(at, BLOCK as u64);
            let digest = slot_digest(header.as_slice().try_into()?);
            let system = self
                .systems
                .iter()
                .find(|s| s.header == digest)
                .context("a system that nobody built")?;
            let (at, _) = extent(Role::Root(slot))?;
            let root = disk.bytes(at, system.root_len);
            ensure!(
                Sha256::digest(&root).as_slice() == system.root,
                "{target}: the root of {} is not whole: {said:?}",
                system.version
            );
            version = Some(system.version.clone());
            trial = record.record().slot(slot).state == State::Trial;
        }

        let state = file(Role::State)?;
        let (_, loaded) = StateStore::open(state.path())?;
        let (store, lost) = self.runtime.block_on(Store::open(state.path()))?;
        let doc = store.get();
        let joined = doc.admission.as_ref().map(|a| a.name.to_string());
        let var_formatted = match loaded {
            Loaded::Fresh => false,
            Loaded::Known(doc) => doc.var_formatted,
            // then nothing is formatted
            Loaded::Unreadable(_) => true,
        };
        if joined.is_none() {
            let (at, len) = extent(Role::Seed)?;
            let seed = seed(disk.bytes(at, len)).context("neither joined nor with a seed")?;
            ensure!(
                seed == self.seed,
                "not joined, and the seed is not whole; lost: {lost:?}"
            );
        }
        Ok(Verdict {
            target,
            version,
            trial,
            joined,
            var_formatted,
            said,
        })
    }
}

/// `seed.toml` of a volume; a damaged volume makes the library panic.
fn seed(volume: Vec<u8>) -> Result<String> {
    let read = || {
        let volume = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new())?;
        let mut text = String::new();
        volume
            .root_dir()
            .open_file("seed.toml")?
            .read_to_string(&mut text)?;
        anyhow::Ok(text)
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .unwrap_or_else(|_| anyhow::bail!("the seed's volume is damaged"))
}

fn merged(mut reads: Reads) -> Reads {
    reads.sort_by_key(|r| r.start);
    let mut out: Reads = vec![];
    for range in reads {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

/// A disk in a machine that ends where a kernel would start, and knows what was read until then.
struct Recorded {
    image: RefCell<Image>,
    reads: RefCell<Reads>,
    said: RefCell<Vec<String>>,
    off: std::cell::Cell<bool>,
}

impl Recorded {
    fn new(image: &Image) -> Self {
        Self {
            image: RefCell::new(image.clone()),
            reads: RefCell::default(),
            said: RefCell::default(),
            off: std::cell::Cell::new(false),
        }
    }

    fn note(&self, at: u64, len: u64) {
        self.reads.borrow_mut().push(at..at + len);
    }

    fn bytes(&self, at: u64, len: u64) -> Vec<u8> {
        self.note(at, len);
        self.image.borrow().bytes(at, len)
    }
}

impl Machine for &Recorded {
    type Memory = Vec<u8>;
    type Image = ();
    type Fault = &'static str;

    fn geometry(&self) -> Geometry {
        Geometry {
            block: SECTOR,
            last_lba: self.image.borrow().disk() / u64::from(SECTOR) - 1,
        }
    }

    fn disk_name(&self) -> &str {
        "disk"
    }

    fn say(&self, line: Arguments<'_>) {
        if !self.off.get() {
            self.said.borrow_mut().push(line.to_string());
        }
    }

    fn memory(&mut self, len: usize) -> Result<Vec<u8>, &'static str> {
        Ok(vec![0; len])
    }

    fn read(&mut self, lba: u64, len: usize) -> Result<Vec<u8>, &'static str> {
        if self.off.get() {
            return Err("the kernel runs");
        }
        Ok(self.bytes(lba * u64::from(SECTOR), len as u64))
    }

    fn write(&mut self, lba: u64, bytes: &[u8]) -> Result<(), &'static str> {
        if self.off.get() {
            return Err("the kernel runs");
        }
        self.image
            .borrow_mut()
            .write(lba * u64::from(SECTOR), bytes);
        Ok(())
    }

    fn load(&mut self, _: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }

    fn arm(&mut self, watchdog: Watchdog, _: u16) -> Option<Watchdog> {
        Some(watchdog)
    }

    fn start(&mut self, (): (), _: &[u16]) -> &'static str {
        self.off.set(true);
        "the kernel runs"
    }
}
