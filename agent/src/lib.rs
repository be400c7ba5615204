//! `holdfast-agent`: network, time, seed, identity, mesh, k3s, control, updates and the gate of a
//! Holdfast node. Started by init, which it tells that it lives; it may die and be started anew
//! at any time without taking the node down.
//!
//! A library for the sake of [`member`]: on an ordinary Linux machine the same join and the same mesh
//! run without the rest.

mod backoff;
mod chapters;
mod clock;
mod console;
mod control;
mod disk;
mod documents;
mod forever;
mod gate;
mod guest;
mod health;
mod hosts;
mod identity;
mod init;
mod install;
mod join;
mod k3s;
mod lighthouse;
mod logs;
mod machine;
pub mod member;
mod meshed;
mod names;
mod network;
mod node;
mod notes;
mod releases;
mod rescue;
mod seed;
mod spread;
mod start;
pub mod store;
mod update;
mod watch;

use std::process::ExitCode;

/// Threads for work that blocks (disks, name lookups).
const WORKERS: usize = 6;

/// Runs the agent of a node.
pub fn main() -> ExitCode {
    logs::start();
    // For TLS connections that are not pinned; an error means that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("mesh")
        .enable_all()
        .build()
        .and_then(|mesh| {
            let main = tokio::runtime::Builder::new_current_thread()
                .max_blocking_threads(WORKERS)
                .enable_all()
                .build()?;
            Ok((main, mesh))
        });
    let ended = match made {
        Ok((main, mesh)) => main.block_on(start::run(mesh.handle().clone())),
        Err(e) => Err(e.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            console::say(&format!("the agent stops: {e:#}"));
            ExitCode::FAILURE
        }
    }
}
