//! The process that a machine belongs to: powers it on, shows or copies its console, and ends it.

use crate::app::App;
use crate::vms::{Process, VmRecord, Vms};
use anyhow::{Context as _, Result};
use holdfast_qemu::{Machine, MachineSpec};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often console and machine are looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Runs the machine to its end.
pub fn hold(
    app: &App,
    vms: &Vms,
    mut record: VmRecord,
    spec: MachineSpec,
    copy: Option<&Path>,
    show: bool,
) -> Result<()> {
    let mut copy = copy
        .map(|path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))
        })
        .transpose()?;
    let mut machine = Machine::create(spec)?;
    record.console = machine.console().path().to_path_buf();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let tail = Tail::from_end(record.console.clone());
    machine.power_on()?;
    record.holder = Process::of(std::process::id());
    record.qemu = machine.pid().and_then(Process::of);
    vms.write(&record)?;
    if show {
        let how = if machine.under_kvm() == Some(true) {
            "KVM"
        } else {
            "emulation, KVM does not run here"
        };
        app.say(&format!(
            "{} is on ({how}). Ctrl-C presses the power button, once more pulls the plug.",
            record.name
        ));
    }
    let result = runtime.block_on(watch(&mut machine, tail, &mut copy, show));
    record.holder = None;
    record.qemu = None;
    drop(machine);
    vms.write(&record)?;
    result
}

/// A file that grows, from where it was.
struct Tail {
    path: PathBuf,
    file: Option<File>,
    skip: u64,
}

impl Tail {
    fn from_end(path: PathBuf) -> Self {
        let skip = std::fs::metadata(&path).map_or(0, |m| m.len());
        Self {
            path,
            file: None,
            skip,
        }
    }

    /// What came since the last time.
    fn read(&mut self) -> Vec<u8> {
        use std::io::Seek as _;
        let mut bytes = Vec::new();
        if self.file.is_none() {
            let opened = File::open(&self.path)
                .and_then(|mut f| f.seek(std::io::SeekFrom::Start(self.skip)).map(|_| f));
            self.file = opened.ok();
        }
        if let Some(file) = &mut self.file {
            // QEMU's file; what cannot be read now is read at the next glance.
            let _ = file.read_to_end(&mut bytes);
        }
        bytes
    }
}

async fn watch(
    machine: &mut Machine,
    mut tail: Tail,
    copy: &mut Option<File>,
    show: bool,
) -> Result<()> {
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
    let mut terms = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    let mut asked = false;
    loop {
        let on = machine.is_on();
        pass_on(&tail.read(), copy, show)?;
        if !on {
            return Ok(());
        }
        let stop = tokio::select! {
            _ = interrupts.recv() => true,
            _ = terms.recv() => true,
            () = tokio::time::sleep(GLANCE) => false,
        };
        match (stop, asked) {
            (true, true) => machine.power_cut()?,
            (true, false) => {
                asked = true;
                machine.power_button()?;
            }
            (false, _) => {}
        }
    }
}

fn pass_on(bytes: &[u8], copy: &mut Option<File>, show: bool) -> Result<()> {
    if let Some(file) = copy {
        file.write_all(bytes).context("cannot copy the console")?;
    }
    if show {
        let mut out = std::io::stdout();
        // A reader that went away does not end the machine.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }
    Ok(())
}
