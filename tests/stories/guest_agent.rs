//! A machine's host speaks QEMU's guest agent protocol: it learns the node's addresses, holds writes
//! while it copies the disk, and stops the node in order. It can run nothing.

use anyhow::{Context as _, ensure};
use holdfast_qemu::GuestAgent;
use holdfast_tests::{Lab, Node, Story, until, until_some};
use serde_json::{Value, json};
use std::time::Duration;

/// An answer under emulation on a busy machine.
const ANSWER: Duration = Duration::from_secs(20);
/// A node thaws by itself after a minute.
const FORGOTTEN: Duration = Duration::from_secs(120);

fn host(node: &mut Node) -> anyhow::Result<GuestAgent> {
    until_some("the guest agent answers", Duration::from_secs(120), || {
        node.machine
            .guest_agent(ANSWER)
            .map_err(|e| format!("{e:#}"))
    })
}

fn ask(agent: &mut GuestAgent, command: &str) -> anyhow::Result<Value> {
    Ok(agent.execute(command, Value::Null)?)
}

#[test]
fn a_host_asks_freezes_and_stops() -> Story {
    let lab = Lab::new("guest_agent")?;
    let image = lab.build("base", "1.0.0")?;
    let seed = lab.seed("n1", "bare", &[])?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |s| s.guest_agent())?;
    let joined = node.boot()?;
    let mut agent = host(&mut node)?;

    ensure!(ask(&mut agent, "guest-ping")? == json!({}));
    let info = ask(&mut agent, "guest-info")?;
    ensure!(info["version"] == "1.0.0", "{info}");
    let os = ask(&mut agent, "guest-get-osinfo")?;
    ensure!(os["id"] == "holdfast" && os["variant-id"] == "base", "{os}");
    let name = ask(&mut agent, "guest-get-host-name")?;
    ensure!(name["host-name"] == "n1", "{name}");
    let nanos = ask(&mut agent, "guest-get-time")?;
    ensure!(
        nanos
            .as_u64()
            .is_some_and(|n| n > 1_700_000_000_000_000_000),
        "{nanos}"
    );
    // QEMU's user network gives this address; the mesh has its own interface.
    let interfaces = ask(&mut agent, "guest-network-get-interfaces")?.to_string();
    for address in ["\"10.0.2.15\"", joined.text("mesh_address")] {
        ensure!(interfaces.contains(address), "{address}: {interfaces}");
    }
    let file_systems = ask(&mut agent, "guest-get-fsinfo")?;
    let var = file_systems
        .as_array()
        .and_then(|l| l.iter().find(|f| f["mountpoint"] == "/var"))
        .context("no /var")?;
    ensure!(
        var["type"] == "ext4" && var["total-bytes"].as_u64() > Some(1 << 30),
        "{var}"
    );
    let exec = agent.execute("guest-exec", json!({ "path": "/bin/sh" }));
    ensure!(exec.is_err_and(|e| e.to_string().contains("CommandNotFound")));

    freezes_and_lets_go(&lab, &mut agent)?;
    is_not_forgotten(&mut agent)?;

    agent.send("guest-shutdown", json!({ "mode": "reboot" }))?;
    // The port takes one host at a time.
    drop(agent);
    node.wait_for("holdfast: mesh up")?;
    let mut agent = host(&mut node)?;
    agent.send("guest-shutdown", json!({ "mode": "powerdown" }))?;
    node.machine.wait_off(Duration::from_secs(120))?;
    ensure!(node.console().contains("switching off"), "not in order");

    // An orderly power-off is no failed start, and the disk is whole.
    let again = node.boot()?;
    ensure!(again.text("mesh_address") == joined.text("mesh_address"));
    Ok(())
}

/// While `/var` is frozen the log can write nothing, so that it answers no one; the node stays in
/// the operator's hands. Then everything goes on.
fn freezes_and_lets_go(lab: &Lab, agent: &mut GuestAgent) -> Story {
    ensure!(ask(agent, "guest-fsfreeze-status")? == json!("thawed"));
    ensure!(ask(agent, "guest-fsfreeze-freeze")? == json!(1));
    ensure!(ask(agent, "guest-fsfreeze-status")? == json!("frozen"));
    let second = agent.execute("guest-fsfreeze-freeze", Value::Null);
    ensure!(second.is_err(), "frozen twice");

    std::thread::scope(|scope| {
        let read = || lab.holdfast.try_run(["logs", "n1", "--lines", "500"]);
        // The first reader has the log write what it holds, which is where it stops. It may be
        // answered from the disk before that.
        let first = scope.spawn(read);
        for _ in 0..2 {
            lab.holdfast.json(&["status", "n1"])?;
        }
        let logs = scope.spawn(read);
        // Two rounds of control, in which an unblocked log would have answered.
        for _ in 0..2 {
            lab.holdfast.json(&["status", "n1"])?;
        }
        ensure!(ask(agent, "guest-fsfreeze-status")? == json!("frozen"));
        ensure!(
            !logs.is_finished(),
            "the log was written and read while /var was frozen"
        );
        ensure!(ask(agent, "guest-fsfreeze-thaw")? == json!(1));
        first
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        let said = logs
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        ensure!(
            said.stdout.contains("the host froze /var"),
            "the line that waited is not there: {}",
            said.stdout
        );
        anyhow::Ok(())
    })?;
    ensure!(ask(agent, "guest-fsfreeze-status")? == json!("thawed"));
    ensure!(ask(agent, "guest-fsfreeze-thaw")? == json!(0));
    Ok(())
}

/// A host that freezes and goes away is not waited for; it hears of it.
fn is_not_forgotten(agent: &mut GuestAgent) -> Story {
    ask(agent, "guest-fsfreeze-freeze")?;
    until("it thaws by itself", FORGOTTEN, || {
        ask(agent, "guest-fsfreeze-status").is_ok_and(|s| s == json!("thawed"))
    })?;
    let late = agent.execute("guest-fsfreeze-thaw", Value::Null);
    ensure!(late.is_err_and(|e| e.to_string().contains("thawed by itself")));
    Ok(())
}
