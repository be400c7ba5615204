//! `holdfast-init`: PID 1 of a node. A library, so that the tests ask its own code what it would make
//! of a disk.
//!
//! ```text
//! boot     mounts, modules, watchdog, disk, verity root, /var   (what it needs, once)
//! system   slot record, services, deadline, socket              (for as long as the node is up)
//! stop     services, file systems, reboot
//! log      a child: what the node's programs write, kept and served
//! ```
//! Decisions are functions on values (`cmdline`, `policy`, `vigil`, `var::plan`, `verity`); system
//! calls without a safe wrapper are in `sys`.

mod answer;
mod boot;
mod cmdline;
mod disk;
mod dog;
mod grow;
mod ipc;
mod kmsg;
mod log;
mod modules;
mod mounts;
mod policy;
mod provide;
pub mod record;
mod root;
mod services;
pub mod state;
mod stop;
mod sys;
mod sysctl;
mod system;
mod tool;
mod var;
mod verity;
mod vigil;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    if std::process::id() == 1 {
        pid1();
    }
    match std::env::args().nth(1).as_deref() {
        Some("log") => match log::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                kmsg::error(format_args!("log: {error:#}"));
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!(
                "holdfast-init is the first process of a Holdfast node; it is not started by hand"
            );
            ExitCode::from(2)
        }
    }
}

/// PID 1 must not end, whatever happens: the kernel would panic. It reboots instead.
fn pid1() -> ! {
    std::panic::set_hook(Box::new(|info| kmsg::error(format_args!("panic: {info}"))));
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let ending = boot::run().and_then(|mut system| system.run())?;
        stop::in_order(&ending);
        anyhow::Ok(ending.power_off)
    }));
    let power_off = match ran {
        Ok(Ok(power_off)) => power_off,
        Ok(Err(error)) => {
            kmsg::error(format_args!("cannot go on: {error:#}"));
            false
        }
        Err(_) => false,
    };
    stop::at_once(power_off)
}
