//! `holdfast-init`: PID 1 of a node.

fn main() -> std::process::ExitCode {
    holdfast_init::main()
}
