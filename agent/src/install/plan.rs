//! The installation as a value: what is written where, in which order. `work` carries it out;
//! `model` cuts the power between any two steps.
//!
//! ```text
//! journal (hf-state of the stick)   the disk and the GUID its table will get
//! mark    (block 0 of the disk)     "half-done, of this GUID"; no firmware starts from it
//! old tables cleared, content written and read back
//! table, block 0 last               from here on the disk starts
//! journal: done                     from here on the stick only tidies up
//! seed scrubbed, report, record emptied, headers cleared, reboot
//! ```

use super::content::{BLOCK as SECTOR, LOOK, MARK, geometry};
use super::root;
use super::source::Source;
use anyhow::Context as _;
use holdfast_core::gpt::{self, Part};
use holdfast_core::guid::Guid;
use holdfast_core::header::slot_digest;
use holdfast_core::layout::{self, ALIGN, Extent, HEADER_OFFSET, PAYLOAD_OFFSET, Role};
use holdfast_core::slots::{Record, Slot, fresh_partition};

/// One step; each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Note in the journal that work on the disk begins, or is done.
    Journal {
        /// It is done.
        done: bool,
    },
    /// Write bytes to the disk.
    Bytes {
        /// What they are, for errors.
        what: &'static str,
        /// Offset on the disk.
        at: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Write zeros to the disk.
    Zeros {
        /// What they stand for.
        what: &'static str,
        /// Offset on the disk.
        at: u64,
        /// How many.
        len: u64,
    },
    /// Copy from a partition of the stick.
    Copy {
        /// What is copied.
        what: &'static str,
        /// The partition.
        from: Role,
        /// Offset in it.
        from_at: u64,
        /// How much.
        len: u64,
        /// Offset on the disk.
        at: u64,
        /// Bytes that the copy has in place of the original's, by offset.
        patches: Vec<(u64, Vec<u8>)>,
        /// SHA-256 that the original must have.
        digest: Option<[u8; 32]>,
    },
    /// Copy the root and make its hash tree, which must have the root hash that is signed.
    Root {
        /// The partition.
        from: Role,
        /// Offset on the disk.
        at: u64,
    },
    /// Write to the disk without more ado: the table, in the order that keeps it whole.
    Table(gpt::Step),
    /// Tell the firmware, where it can be told.
    BootEntry,
    /// Make the stick's seed volume anew.
    Scrub,
    /// Leave a report on it.
    Report,
    /// Empty the stick's slot record.
    Retire,
    /// Clear a header block of the stick.
    ClearHeader(Role),
    /// Start the machine again.
    Restart,
    /// Switch the machine off.
    PowerOff,
}

/// What a plan is made from.
pub struct Inputs<'a> {
    /// What is installed.
    pub source: &'a Source,
    /// The partition that the running slot's UKI is in.
    pub boot: Role,
    /// And its root.
    pub root: Role,
    /// Size of the disk, in bytes.
    pub bytes: u64,
    /// The GUID that its table gets.
    pub disk: Guid,
    /// Whether the disk's MBR names the FAT volumes, as the stick's does: some boards start from
    /// nothing else.
    pub hybrid_mbr: bool,
    /// The partitions' GUIDs, in the order of the disk.
    pub guids: [Guid; 10],
    /// The patches that give the copied `esp` another volume id.
    pub esp_patches: Vec<(u64, Vec<u8>)>,
    /// The content of the disk's `hf-seed`.
    pub seed_volume: Vec<u8>,
}

/// Where the partitions of a disk of so many bytes lie, `hf-var` up to its end.
pub fn extents(bytes: u64) -> anyhow::Result<[Extent; 10]> {
    let (_, least) = layout::plan(layout::VAR_MIN);
    let spare = bytes.checked_sub(least).context("the disk is too small")?;
    Ok(layout::plan(layout::VAR_MIN + spare / ALIGN * ALIGN).0)
}

/// Everything up to the table.
pub fn install(inputs: &Inputs<'_>) -> anyhow::Result<Vec<Step>> {
    let Inputs { source, bytes, .. } = inputs;
    let extents = extents(*bytes)?;
    let at = |role: Role| {
        extents
            .iter()
            .find(|e| e.role == role)
            .map_or(0, |e| e.offset)
    };
    let (boot, root) = (Role::Boot(Slot::A), Role::Root(Slot::A));
    let uki = |what, to: Role| Step::Copy {
        what,
        from: inputs.boot,
        from_at: PAYLOAD_OFFSET,
        len: source.facts.stored_len,
        at: at(to) + PAYLOAD_OFFSET,
        patches: vec![],
        digest: Some(source.facts.payload),
    };
    let header = |what, to: Role| Step::Bytes {
        what,
        at: at(to) + HEADER_OFFSET,
        bytes: source.header.to_vec(),
    };
    let zeros = |what, at, len| Step::Zeros { what, at, len };
    let end = LOOK as u64;
    anyhow::ensure!(
        source.root.len + root::tree_len(source.root.len) <= root_size(),
        "the root is larger than its partition"
    );
    let mut steps = vec![
        Step::Journal { done: false },
        Step::Bytes {
            what: "mark",
            at: 0,
            bytes: mark(inputs.disk),
        },
        zeros("old table", SECTOR as u64, end - SECTOR as u64),
        zeros("old backup table", bytes - end, end),
        Step::Copy {
            what: "loader",
            from: Role::Esp,
            from_at: 0,
            len: Role::Esp.size(),
            at: at(Role::Esp),
            patches: inputs.esp_patches.clone(),
            digest: None,
        },
        Step::Bytes {
            what: "slot record",
            at: at(Role::Slots),
            bytes: fresh_partition(
                // Slot A is good from the factory.
                Record::factory(slot_digest(&source.header), source.facts.generation),
                &source.list,
            ),
        },
        zeros("state", at(Role::State), Role::State.size()),
        Step::Bytes {
            what: "seed",
            at: at(Role::Seed),
            bytes: inputs.seed_volume.clone(),
        },
        uki("rescue system", Role::Rescue),
        uki("system", boot),
        header("rescue header", Role::Rescue),
        header("header", boot),
        zeros("other slot", at(Role::Boot(Slot::B)), ALIGN),
        Step::Root {
            from: inputs.root,
            at: at(root),
        },
        zeros("/var", at(Role::Var), layout::VAR_MIN),
    ];
    steps.extend(table(inputs, &extents));
    Ok(steps)
}

/// Everything after the table: a spent stick starts nothing any more, one that is kept stays as it
/// is, and the machine goes on from its disk once the stick is out.
pub fn ending(retire: bool) -> Vec<Step> {
    let mut steps = vec![Step::BootEntry, Step::Journal { done: true }];
    steps.extend(tidy(retire));
    steps
}

/// What is left to do once the journal says done.
pub fn tidy(retire: bool) -> Vec<Step> {
    if !retire {
        return vec![Step::Report, Step::PowerOff];
    }
    vec![
        Step::Scrub,
        Step::Report,
        Step::Retire,
        Step::ClearHeader(Role::Boot(Slot::A)),
        Step::ClearHeader(Role::Boot(Slot::B)),
        // Last: rescue comes back here for as long as anything before is not done.
        Step::ClearHeader(Role::Rescue),
        Step::Restart,
    ]
}

/// Bytes that a step moves, twice where they are read back: what progress is counted in.
pub fn weight(step: &Step, source: &Source) -> u64 {
    match step {
        Step::Bytes { bytes, .. } => 2 * bytes.len() as u64,
        Step::Zeros { len, .. } | Step::Copy { len, .. } => 2 * len,
        Step::Root { .. } => 2 * source.root.len,
        _ => 0,
    }
}

fn root_size() -> u64 {
    Role::Root(Slot::A).size()
}

/// Block 0 of a disk that is being worked on.
fn mark(disk: Guid) -> Vec<u8> {
    let mut block = vec![0; SECTOR];
    block[..16].copy_from_slice(MARK);
    block[16..32].copy_from_slice(&disk.0);
    block
}

/// The table with its backup first and block 0, which replaces the mark, last.
fn table(inputs: &Inputs<'_>, extents: &[Extent; 10]) -> Vec<Step> {
    let (sector, geometry) = (SECTOR as u64, geometry(inputs.bytes));
    let part = |(e, guid): (&Extent, &Guid)| Part {
        type_guid: e.role.type_guid(),
        guid: *guid,
        name: e.role.name(),
        first: e.offset / sector,
        last: (e.offset + e.len) / sector - 1,
    };
    let parts: Vec<_> = extents.iter().zip(&inputs.guids).map(part).collect();
    let mut all = gpt::create(geometry, inputs.disk, &parts);
    if inputs.hybrid_mbr {
        let mbr = gpt::hybrid(geometry, &gpt::fat_parts(geometry, extents));
        for step in &mut all {
            if let gpt::Step::Write { lba: 0, bytes } = step
                && let Some(block) = bytes.get_mut(..mbr.len())
            {
                block.copy_from_slice(&mbr);
            }
        }
    }
    let is_first = |s: &gpt::Step| matches!(s, gpt::Step::Write { lba: 0, .. });
    let (first, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(is_first);
    let in_order = rest.into_iter().chain(first).chain([gpt::Step::Flush]);
    in_order.map(Step::Table).collect()
}
