//! A Raspberry Pi 3 from its card: U-Boot, loader, join over a USB network card, reboot, upgrade,
//! going back. QEMU cannot run the GPU's firmware (the harness does its part) and its watchdog fires
//! at once (the image leaves it alone); all else is what is flashed.

use holdfast_qemu::Platform;
use holdfast_tests::{Lab, Node, Story, seedvolume};

#[test]
fn joins_upgrades_and_goes_back() -> Story {
    let lab = Lab::new("raspberry_pi_3")?;
    let build = |recipe, version| lab.build_board("rpi3", recipe, version, &["--no-watchdog"]);
    let first = build("base", "1.0.0")?;
    let second = build("base", "1.1.0")?;
    let deaf = build("test-no-network", "1.2.0")?;

    let mut node = Node::with(&lab, "n1", &first, None, |spec| {
        spec.platform(Platform::Raspi3b)
    })?;
    let seed = std::fs::read(lab.seed("n1", "bare", &["--board", "rpi3"])?)?;
    let disk = node
        .machine
        .disk()
        .ok_or_else(|| anyhow::anyhow!("no card"))?;
    seedvolume::put(disk, "seed.toml", &seed)?;
    let booted = node.boot()?;
    assert_eq!(
        (booted.text("slot"), booted.text("version")),
        ("a", "1.0.0")
    );
    let again = node.reboot()?;
    assert_ne!(booted.text("boot_id"), again.text("boot_id"));

    let upgrade = node.upgrade(&second)?;
    assert_eq!(upgrade.code, 0, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_online()?;
    assert_eq!((view.text("slot"), view.text("version")), ("b", "1.1.0"));

    let upgrade = node.upgrade(&deaf)?;
    assert_eq!(upgrade.code, 5, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_online()?;
    assert_eq!((view.text("slot"), view.text("version")), ("b", "1.1.0"));
    Ok(())
}
