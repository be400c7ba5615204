//! `holdfast`: the operator's one command.

mod app;
mod args;
mod cluster_dir;
mod commands;
mod control;
mod counters;
mod exit;
mod files;
mod find;
mod kube;
mod lighthouse;
mod nodes;
mod paper;
mod progress;
mod secrets;
mod seed_file;
mod series;
mod sizes;
mod table;
mod vms;
mod waiting;
mod words;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match app::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{}", exit::describe(&error));
            ExitCode::from(exit::code_of(&error))
        }
    }
}
