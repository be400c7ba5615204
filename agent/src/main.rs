//! `holdfast-agent`, as init starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_agent::main()
}
