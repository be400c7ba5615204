//! The process that a machine belongs to: powers it on, copies its console where asked, and ends
//! it on a signal.

use super::tail::Tail;
use crate::vms::{Process, VmRecord, Vms};
use anyhow::{Context as _, Result};
use holdfast_qemu::{Machine, MachineSpec};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often console and machine are looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Runs the machine to its end.
pub fn hold(vms: &Vms, mut record: VmRecord, spec: MachineSpec, copy: Option<&Path>) -> Result<()> {
    let copy = copy
        .map(|path| {
            let opened = File::options().create(true).append(true).open(path);
            opened.with_context(|| format!("cannot write {}", path.display()))
        })
        .transpose()?;
    let mut machine = Machine::create(spec)?;
    record.console = machine.console().path().to_path_buf();
    let tail = Tail::from_end(&record.console);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    machine.power_on()?;
    record.holder = Process::of(std::process::id());
    record.qemu = machine.pid().and_then(Process::of);
    vms.write(&record)?;
    let result = runtime.block_on(watch(&mut machine, tail, copy));
    record.holder = None;
    record.qemu = None;
    drop(machine);
    vms.write(&record)?;
    result
}

async fn watch(machine: &mut Machine, mut tail: Tail, mut copy: Option<File>) -> Result<()> {
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot watch for signals")?;
    let mut terms = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    loop {
        let on = machine.is_on();
        if let Some(copy) = &mut copy {
            copy.write_all(&tail.read())
                .context("cannot copy the console")?;
        }
        if !on {
            return Ok(());
        }
        tokio::select! {
            _ = interrupts.recv() => machine.power_button()?,
            _ = terms.recv() => machine.power_button()?,
            () = tokio::time::sleep(GLANCE) => {}
        }
    }
}
