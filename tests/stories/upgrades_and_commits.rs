//! A newer image is written to the other slot, tried, proven and committed.

use holdfast_tests::{Lab, Story};

#[test]
fn upgrades_and_commits() -> Story {
    let lab = Lab::new("upgrades_and_commits")?;
    let first = lab.build("base", "1.0.0")?;
    let second = lab.build("base", "1.1.0")?;
    let mut node = lab.node("n1", "bare", &first)?;
    node.boot()?;

    let upgrade = node.upgrade(&second)?;
    assert_eq!(upgrade.code, 0, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_online()?;
    assert_eq!((view.text("slot"), view.text("version")), ("b", "1.1.0"));
    assert_eq!(view.0["on_trial"], false);

    // what was committed is what starts after a power cut
    node.power_cut()?;
    let view = node.boot()?;
    assert_eq!((view.text("slot"), view.text("version")), ("b", "1.1.0"));

    // and the old one can be had again
    lab.holdfast.run(["rollback", "n1", "--wait"])?;
    let view = node.wait_online()?;
    assert_eq!((view.text("slot"), view.text("version")), ("a", "1.0.0"));
    Ok(())
}
