//! `holdfast seed`: the files that turn flashed images into nodes.

mod new;
mod pack;
pub mod tables;

use crate::app::App;
use anyhow::Result;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make a seed, and hand its grant to the lighthouse
    New(Box<new::Args>),
    /// Write a seed in a form for places that take no file
    Pack(pack::Args),
}

/// Runs the verb.
pub async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::New(args) => new::run(app, *args).await,
        Verb::Pack(args) => pack::run(app, &args),
    }
}
