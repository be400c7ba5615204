//! `holdfast lighthouse`.

mod config;
mod install;

pub use config::{CONFIG, LighthouseConfig};

use crate::app::App;
use anyhow::Result;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Write a systemd unit for a lighthouse, and say which ports to open
    Install(install::Args),
}

/// Runs the verb.
pub fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Install(args) => install::run(app, args),
    }
}
