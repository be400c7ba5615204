//! Power fails during an upgrade: before the new system is whole, the old one runs on; after, the
//! new one is proven or left. The node is always reachable again by itself.

use anyhow::ensure;
use holdfast_tests::{Lab, Story, until};
use std::time::Duration;

/// Marker after which the power is cut, and the versions that may run afterwards.
const CUTS: [(&str, &[&str]); 4] = [
    ("holdfast: upgrade: slot b emptied", &["1.0.0"]),
    ("holdfast: upgrade: root written", &["1.0.0"]),
    ("holdfast: upgrade: header written", &["1.0.0"]),
    ("holdfast: upgrade: trial set", &["1.1.0"]),
];

#[test]
fn power_cut_during_an_upgrade() -> Story {
    let lab = Lab::new("power_cut_in_upgrade")?;
    let first = lab.build("base", "1.0.0")?;
    let second = lab.build("base", "1.1.0")?;
    let mut node = lab.node("n1", "bare", &first)?;
    node.boot()?;
    for (marker, allowed) in CUTS {
        // Three starts that power ends within minutes would lead to the rescue system; an orderly
        // reboot says that this start was a good one.
        node.reboot()?;
        let bundle = second.bundle.to_string_lossy().into_owned();
        let mut asked = lab.holdfast.command(["upgrade", "n1", &bundle]).spawn()?;
        let seen = node.wait_for(marker);
        node.power_cut()?;
        // its stream is gone; how the command ends is not the matter here
        asked.kill()?;
        asked.wait()?;
        seen?;
        let view = node.boot()?;
        ensure!(
            allowed.contains(&view.text("version")),
            "cut at {marker:?}: {view:?}"
        );
    }
    // the trial that began after the last cut ends in a commit
    until("committed", Duration::from_secs(120), || {
        node.view()
            .is_ok_and(|v| v.is_some_and(|v| v.0["on_trial"] == false && v.text("slot") == "b"))
    })?;
    Ok(())
}
