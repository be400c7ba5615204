//! The rescue system follows a system that lasts, is reached as any other, takes an upgrade, and is
//! what starts when no slot does.

use anyhow::ensure;
use holdfast_core::layout::{self, Role};
use holdfast_core::slots::Slot;
use holdfast_tests::{Lab, Story, until};
use std::time::Duration;

#[test]
fn rescue_follows_and_is_reached_and_repairs() -> Story {
    let lab = Lab::new("rescue")?;
    let first = lab.build("base", "1.0.0")?;
    let lasting = lab.build("test-lasts", "1.1.0")?;
    let repair = lab.build("base", "1.2.0")?;
    let mut node = lab.node("n1", "bare", &first)?;
    node.boot()?;
    let upgrade = node.upgrade(&lasting)?;
    ensure!(upgrade.code == 0, "{}{}", upgrade.stdout, upgrade.stderr);
    until(
        "the rescue system renewed",
        Duration::from_secs(120),
        || {
            let history = lab.holdfast.json(&["history", "n1"]);
            history.is_ok_and(|h| {
                h.as_array().is_some_and(|h| {
                    h.iter()
                        .any(|e| e["event"] == "rescue" && e["version"] == "1.1.0")
                })
            })
        },
    )?;

    // Asked for: it runs the version that lasted, and answers.
    lab.holdfast.run(["reboot", "n1", "--rescue", "--wait"])?;
    let view = node.wait_online()?;
    ensure!(
        (view.text("slot"), view.text("version")) == ("rescue", "1.1.0"),
        "{view:?}"
    );
    let logs = lab.holdfast.run(["logs", "n1", "--lines", "20"])?;
    ensure!(!logs.is_empty(), "no logs");
    node.reboot()?;

    // No slot verifies any more.
    node.power_cut()?;
    let (extents, _) = layout::plan(layout::VAR_MIN);
    for slot in Slot::BOTH {
        let boot = extents.iter().find(|e| e.role == Role::Boot(slot));
        let at = boot.map_or(0, |e| e.offset);
        let disk = node.machine.disk();
        disk.map_or(Ok(()), |d| d.write_at(at, &[0; 4096]))?;
    }
    let view = node.boot()?;
    ensure!(view.text("slot") == "rescue", "{view:?}");
    let upgrade = node.upgrade(&repair)?;
    ensure!(upgrade.code == 0, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_online()?;
    ensure!(
        view.text("version") == "1.2.0" && view.text("slot") != "rescue",
        "{view:?}"
    );
    Ok(())
}
