//! `holdfast completions SHELL`.

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  holdfast completions bash > ~/.local/share/bash-completion/completions/holdfast
  holdfast completions zsh > ~/.zfunc/_holdfast
  holdfast completions fish > ~/.config/fish/completions/holdfast.fish")]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints them.
pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut crate::args::Cli::command(),
        "holdfast",
        &mut script,
    );
    crate::app::print_line(String::from_utf8_lossy(&script).trim_end()).map(|_| ())
}
