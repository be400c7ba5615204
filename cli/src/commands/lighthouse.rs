//! `holdfast lighthouse`.

mod config;
mod install;
mod run;

pub use config::{CONFIG, LighthouseConfig};

use crate::app::App;
use anyhow::Result;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Run a lighthouse, in the foreground
    Run(run::Args),
    /// Write a systemd unit for a lighthouse, and say which ports to open
    Install(install::Args),
}

/// Runs the verb.
pub async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Run(args) => run::run(app, args).await,
        Verb::Install(args) => install::run(app, args),
    }
}
