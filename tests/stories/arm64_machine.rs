//! The whole way of a node on 64-bit Arm with UEFI: join, reboot, power cut, upgrade, going back.

use holdfast_qemu::Platform;
use holdfast_tests::{Lab, Node, Story};

#[test]
fn joins_upgrades_and_goes_back() -> Story {
    let lab = Lab::new("arm64_machine")?;
    let [first, second, deaf] = [
        ("base", "1.0.0"),
        ("base", "1.1.0"),
        ("test-no-network", "1.2.0"),
    ]
    .map(|(recipe, version)| lab.build_for("arm64", recipe, version));
    let seed = lab.seed("n1", "bare", &[])?;
    let mut node = Node::with(&lab, "n1", &first?, Some(&seed), |spec| {
        spec.platform(Platform::Virt)
    })?;
    let booted = node.boot()?;
    assert_eq!(
        (booted.text("slot"), booted.text("version")),
        ("a", "1.0.0")
    );
    let again = node.reboot()?;
    assert_ne!(booted.text("boot_id"), again.text("boot_id"));
    assert_eq!(booted.text("mesh_address"), again.text("mesh_address"));

    let upgrade = node.upgrade(&second?)?;
    assert_eq!(upgrade.code, 0, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_online()?;
    assert_eq!((view.text("slot"), view.text("version")), ("b", "1.1.0"));
    node.power_cut()?;
    let view = node.boot()?;
    assert_eq!((view.text("slot"), view.text("version")), ("b", "1.1.0"));

    let upgrade = node.upgrade(&deaf?)?;
    assert_eq!(upgrade.code, 5, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_online()?;
    assert_eq!((view.text("slot"), view.text("version")), ("b", "1.1.0"));
    assert!(view.text("reason").contains("mesh"), "no reason: {view:?}");
    Ok(())
}
