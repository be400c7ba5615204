//! A machine's console in this terminal.

use super::tail::Tail;
use crate::app::App;
use crate::vms::VmRecord;
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::io::Write as _;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often the console is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Shows what `tail` holds; false when nobody reads any more.
fn show(tail: &mut Tail) -> bool {
    let mut out = std::io::stdout();
    out.write_all(&tail.read())
        .and_then(|()| out.flush())
        .is_ok()
}

/// Shows the console, as it is or until the machine is off.
pub fn console(record: &VmRecord, until_off: bool) {
    let mut tail = Tail::from_start(&record.console);
    loop {
        // Asked before reading, so that the last words are still shown.
        let on = record.on();
        if !show(&mut tail) || !until_off || !on {
            return;
        }
        std::thread::sleep(GLANCE);
    }
}

/// Shows the console from `tail` on until the machine is off; Ctrl-C presses its power button,
/// once more pulls the plug.
pub fn attached(app: &App, record: &VmRecord, mut tail: Tail) -> Result<()> {
    app.say(&format!(
        "{} is on. Ctrl-C presses its power button, once more pulls the plug.",
        record.name
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut interrupts = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
        let mut terms = signal(SignalKind::terminate()).context("cannot watch for signals")?;
        let mut pressed = false;
        loop {
            let on = record.on();
            show(&mut tail);
            if !on {
                return Ok(());
            }
            tokio::select! {
                _ = interrupts.recv() => stop(record, &mut pressed)?,
                _ = terms.recv() => stop(record, &mut pressed)?,
                () = tokio::time::sleep(GLANCE) => {}
            }
        }
    })
}

fn stop(record: &VmRecord, pressed: &mut bool) -> Result<()> {
    let (whom, what) = match (*pressed, record.holder) {
        (false, Some(holder)) => (Some(holder), Signal::SIGTERM),
        _ => (record.qemu, Signal::SIGKILL),
    };
    *pressed = true;
    whom.map_or(Ok(()), |process| process.signal(what))
}
