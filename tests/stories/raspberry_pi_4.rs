//! A Raspberry Pi 4 from its card. QEMU's has no network: it boots with a verified root, tries the
//! other slot, and goes back by itself, for it proves nothing.

use holdfast_qemu::Platform;
use holdfast_tests::{Lab, Node, Story, offline};
use std::time::Duration;

/// One emulated thread for four processors, and a card that reads 1 MiB/s.
const BOOT: Duration = Duration::from_secs(400);
/// A trial of 90 s, and the boot before it.
const TRIAL: Duration = Duration::from_secs(600);

#[test]
fn boots_tries_the_other_slot_and_goes_back() -> Story {
    let lab = Lab::new("raspberry_pi_4")?;
    let build = |recipe, version| lab.build_board("rpi4", recipe, version, &["--no-watchdog"]);
    let first = build("base", "1.0.0")?;
    let second = build("test-no-network", "1.1.0")?;
    let mut node = Node::with(&lab, "n1", &first, None, |spec| {
        spec.platform(Platform::Raspi4b)
    })?;
    let machine = &mut node.machine;
    machine.power_on()?;
    machine.wait_for("slot a: rpi4 1.0.0, generation 1", BOOT)?;
    machine.wait_for("verity root mounted", BOOT)?;
    machine.wait_for("agent started", BOOT)?;
    machine.power_cut()?;

    let disk = machine.disk().ok_or_else(|| anyhow::anyhow!("no card"))?;
    offline::upgrade(disk, &second.image, second.generation)?;
    machine.power_on()?;
    machine.wait_for("slot b: rpi4 1.1.0, generation 2", BOOT)?;
    machine.wait_for("verity root mounted", BOOT)?;
    // its deadline over, it starts anew
    machine.wait_for("slot a: rpi4 1.0.0, generation 1", TRIAL)?;
    machine.wait_for("verity root mounted", BOOT)?;
    Ok(())
}
