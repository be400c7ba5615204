//! Power fails after each step of the join: the node joins all the same at the next boot, as the
//! same member, and its one use is counted once.

use anyhow::{Context as _, ensure};
use holdfast_tests::{Lab, Story};

/// What the agent says on the console when a step is durable.
const STEPS: [&str; 5] = [
    "holdfast: join: identity stored",
    "holdfast: join: offer accepted",
    "holdfast: join: record sent",
    "holdfast: join: admission stored",
    "holdfast: join: seed scrubbed",
];

#[test]
fn power_cut_at_every_step_of_the_join() -> Story {
    let lab = Lab::new("power_cut_in_join")?;
    let image = lab.build("base", "1.0.0")?;
    for (i, step) in STEPS.iter().enumerate() {
        let name = format!("n{i}");
        let mut node = lab.node(&name, "bare", &image)?;
        node.machine.power_on()?;
        node.wait_for(step)?;
        node.power_cut()?;
        let view = node
            .boot()
            .with_context(|| format!("after a power cut at {step:?}"))?;
        ensure!(view.text("name") == name, "{view:?}");
        node.power_cut()?;
    }
    let tokens = lab.holdfast.json(&["token", "list"])?;
    for token in tokens.as_array().context("a list")? {
        ensure!(token["used"] == 1, "{token}");
    }
    Ok(())
}
