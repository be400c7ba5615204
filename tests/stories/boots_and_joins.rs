//! A flashed image, a seed: the node boots, joins and answers; it does so again after a reboot and
//! after a power cut.

use holdfast_tests::{Lab, Story};

#[test]
fn boots_and_joins() -> Story {
    let lab = Lab::new("boots_and_joins")?;
    let image = lab.build("base", "1.0.0")?;
    let mut node = lab.node("n1", "bare", &image)?;

    let first = node.boot()?;
    assert_eq!(first.text("role"), "bare");
    assert_eq!(first.text("slot"), "a");
    assert_eq!(first.text("version"), "1.0.0");
    assert!(!first.text("mesh_address").is_empty(), "{first:?}");

    let second = node.reboot()?;
    assert_ne!(first.text("boot_id"), second.text("boot_id"));
    assert_eq!(first.text("mesh_address"), second.text("mesh_address"));

    node.power_cut()?;
    let third = node.boot()?;
    assert_eq!(first.text("mesh_address"), third.text("mesh_address"));
    Ok(())
}
