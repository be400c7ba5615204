//! An image that boots but cannot join the mesh: the node goes back by itself and says why.

use holdfast_tests::{Lab, Story};

#[test]
fn goes_back_from_an_image_that_cannot_join() -> Story {
    let lab = Lab::new("goes_back")?;
    let good = lab.build("base", "1.0.0")?;
    let deaf = lab.build("test-no-network", "1.1.0")?;
    let mut node = lab.node("n1", "bare", &good)?;
    node.boot()?;

    let upgrade = node.upgrade(&deaf)?;
    assert_eq!(upgrade.code, 5, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_online()?;
    assert_eq!((view.text("slot"), view.text("version")), ("a", "1.0.0"));
    assert!(view.text("reason").contains("mesh"), "no reason: {view:?}");

    let history = lab.holdfast.json(&["history", "n1"])?;
    let went_back = history.as_array().is_some_and(|h| {
        h.iter()
            .any(|e| e["event"] == "went-back" && e["version"] == "1.1.0")
    });
    assert!(went_back, "{history}");
    Ok(())
}

#[test]
fn says_at_which_stage_a_trial_ended() -> Story {
    let lab = Lab::new("goes_back_by_stage")?;
    let good = lab.build("base", "1.0.0")?;
    let panics = lab.build("test-panics", "1.1.0")?;
    let mut node = lab.node("n1", "bare", &good)?;
    node.boot()?;
    let upgrade = node.upgrade(&panics)?;
    assert_eq!(upgrade.code, 5, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_online()?;
    assert_eq!((view.text("slot"), view.text("version")), ("a", "1.0.0"));
    assert!(
        view.text("reason").contains("stage kernel"),
        "no stage: {view:?}"
    );
    Ok(())
}
