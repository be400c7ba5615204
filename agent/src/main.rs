//! Holdfast agent.
fn main() {}
