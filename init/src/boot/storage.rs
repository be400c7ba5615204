//! The disk of this boot, what its record says of the boot, the root and `/var`.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use holdfast_core::layout::Role;
use holdfast_core::slots::{State, Target};
use holdfast_core::state::StateDoc;

use crate::cmdline::Cmdline;
use crate::disk::{self, Disk};
use crate::dog::Dog;
use crate::modules::Which;
use crate::modules::background::Background;
use crate::record::{self, RecordStore};
use crate::state::{Loaded, StateStore};
use crate::tool::Tools;
use crate::vigil::Mode;
use crate::{grow, kmsg, modules, root, var};

/// How long disks may take to appear; USB bridges are the slow ones.
const DISK_LIMIT: Duration = Duration::from_secs(30);

/// Also tells whether every boot module is loaded.
pub fn find_disk(
    line: &Cmdline,
    initramfs: &OwnedFd,
    dog: &mut Dog,
    notes: &mut Vec<String>,
) -> (Option<Disk>, Option<RecordStore>, bool) {
    let Some(id) = line.boot.as_deref().and_then(record::boot_id) else {
        notes.push("no holdfast.boot on the command line: not started by the loader, running without a disk".into());
        return (None, None, false);
    };
    // Not on the hardware that most machines of the board have: the other modules have it. They are
    // still loading when the root covers the initramfs.
    let root = PathBuf::from(format!("/proc/self/fd/{}", initramfs.as_raw_fd()));
    let mut others = None;
    let found = disk::find(&id, DISK_LIMIT, || {
        dog.feed();
        // Beside the search: one that hangs over another disk does not end it.
        others.get_or_insert_with(|| {
            let root = root.clone();
            Background::start(move || modules::load(&root, modules::BOOT_LIST, Which::Later))
        });
    });
    let failed = others
        .and_then(Result::ok)
        .and_then(|loading| loading.finished());
    let all_loaded = failed.is_some();
    notes.extend(failed.into_iter().flatten());
    match found {
        Some((disk, store)) => {
            kmsg::notice(format_args!("disk {}", disk.node.display()));
            (Some(disk), Some(store), all_loaded)
        }
        None => {
            notes.push(format!(
                "no disk holds this boot's id after {} s",
                DISK_LIMIT.as_secs()
            ));
            (None, None, all_loaded)
        }
    }
}

/// The record decides what this boot is; without one there is nothing to prove or to lose.
pub fn mode(line: &Cmdline, store: Option<&RecordStore>) -> Mode {
    let Some(record) = store.map(RecordStore::record) else {
        return Mode::Rescue;
    };
    match record.running() {
        Some(Target::Slot(slot)) if !line.rescue => match record.slot(slot).state {
            State::Trial => Mode::Trial(Duration::from_secs(line.deadline)),
            _ => Mode::Good,
        },
        _ => Mode::Rescue,
    }
}

pub fn enter_root(line: &Cmdline, mode: Mode, disk: Option<&Disk>) -> Result<bool> {
    let (Some(spec), Some(disk)) = (&line.root, disk) else {
        return Ok(false);
    };
    let slot = match line.slot {
        Some(holdfast_core::status::SlotName::A) => holdfast_core::slots::Slot::A,
        Some(holdfast_core::status::SlotName::B) => holdfast_core::slots::Slot::B,
        _ => return Ok(false),
    };
    if mode == Mode::Rescue {
        return Ok(false);
    }
    let role = Role::Root(slot);
    let partition = disk
        .partition(role)
        .ok_or_else(|| anyhow::anyhow!("no partition {}", role.name()))?;
    root::enter(spec, partition)?;
    Ok(true)
}

pub fn make_var(
    disk: &Disk,
    mode: Mode,
    tools: bool,
    dog: &mut Dog,
    notes: &mut Vec<String>,
) -> Result<var::Outcome> {
    let state = disk
        .partition(Role::State)
        .ok_or_else(|| anyhow::anyhow!("no partition hf-state"))?;
    let (mut store, loaded) = StateStore::open(&state.node)?;
    let fresh = matches!(loaded, Loaded::Fresh);
    let (mut doc, formatted) = match loaded {
        Loaded::Fresh => (Some(StateDoc::default()), Some(false)),
        Loaded::Known(doc) => {
            let formatted = doc.var_formatted;
            (Some(*doc), Some(formatted))
        }
        Loaded::Unreadable(why) => {
            notes.push(format!(
                "hf-state cannot be read ({why}): nothing is formatted"
            ));
            (None, None)
        }
    };
    let trial = matches!(mode, Mode::Trial(_));
    if mode == Mode::Good
        && let Err(error) = grow::last_partition(disk)
    {
        notes.push(format!("partition table: {error:#}"));
    }
    let partition = disk
        .partition(Role::Var)
        .ok_or_else(|| anyhow::anyhow!("no partition hf-var"))?;
    let device = &partition.node;
    let errors = var::read_superblock(device).is_some_and(|s| s.errors);
    let plan = var::plan(var::Known {
        formatted,
        trial,
        tools,
        errors,
    });
    let mut feed = || dog.feed();
    let outcome = var::execute(&plan, device, &mut Tools::new(&mut feed), notes)?;

    if let Some(doc) = &mut doc {
        let mut changed = false;
        if outcome == var::Outcome::Disk(true) {
            doc.var_formatted = true;
            changed = true;
        }
        if doc.machine_id.is_none() {
            doc.machine_id = Some(var::new_machine_id()?);
            changed = true;
        }
        if changed {
            store.save(doc)?;
        }
        if changed && fresh {
            // Both copies: one torn write must not look like a lost state.
            store.save(doc)?;
        }
        if let Some(id) = &doc.machine_id {
            fs::write("/run/machine-id", format!("{id}\n"))?;
        }
    }
    if outcome == var::Outcome::Disk(false) && mode == Mode::Good {
        match var::grow(device) {
            Ok(true) => kmsg::notice("/var grown to the disk's end"),
            Ok(false) => {}
            Err(error) => notes.push(format!("{error:#}")),
        }
    }
    Ok(outcome)
}
