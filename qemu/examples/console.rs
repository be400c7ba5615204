//! Boots an image under emulation and prints its console with times since power-on:
//! `console IMAGE SECONDS [SEED]`. The image is not written to.

use std::path::Path;
use std::time::Duration;

use holdfast_qemu::{Accel, Machine, MachineSpec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [image, seconds, rest @ ..] = &args[..] else {
        return Err("usage: console IMAGE SECONDS [SEED]".into());
    };
    let mut spec = MachineSpec::new("console")
        .accel(Accel::Tcg)
        .image(Path::new(image));
    spec = spec.disk_bytes(4 << 30);
    if let Some(seed) = rest.first() {
        spec = spec.seed(Path::new(seed));
    }
    if let Some(dir) = rest.get(1) {
        spec = spec.dir(Path::new(dir));
    }
    let mut machine = Machine::start(spec)?;
    let limit = Duration::from_secs(seconds.parse()?);
    while let Some(up) = machine.uptime().filter(|up| *up < limit) {
        let left = limit - up;
        match machine.wait_for("\n", left) {
            Ok(at) => println!("{:7.2} {}", at.as_secs_f32(), last_line(&mut machine)),
            Err(_) => break,
        }
    }
    Ok(())
}

/// The line that the last newline ended.
fn last_line(machine: &mut Machine) -> String {
    let unread = machine.console().unread().len();
    let text = machine.console().text();
    let read = &text[..text.len().saturating_sub(unread)];
    let line = read.trim_end().rsplit('\n').next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).collect()
}
