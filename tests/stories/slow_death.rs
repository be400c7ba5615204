//! A system that passes the gate and dies three minutes after each start, once it counts as up: the node goes back by itself, and
//! says that it did not last.

use anyhow::ensure;
use holdfast_tests::{Lab, Story};
use std::time::Duration;

#[test]
fn goes_back_from_a_system_that_does_not_last() -> Story {
    let lab = Lab::new("slow_death")?;
    let first = lab.build("base", "1.0.0")?;
    let dying = lab.build("test-slow-death", "1.1.0")?;
    let mut node = lab.node("n1", "bare", &first)?;
    node.boot()?;
    let upgrade = node.upgrade(&dying)?;
    ensure!(upgrade.code == 0, "{}{}", upgrade.stdout, upgrade.stderr);
    node.machine
        .wait_for("the other good slot", Duration::from_secs(1700))?;
    let view = node.wait_online()?;
    ensure!(
        (view.text("slot"), view.text("version")) == ("a", "1.0.0"),
        "{view:?}"
    );
    ensure!(view.text("reason").contains("did not stay up"), "{view:?}");
    Ok(())
}
