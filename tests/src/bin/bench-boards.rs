//! Boots of every board that QEMU runs, under emulation: power-on to agent with verity root, and to
//! mesh up. `make bench-boards` calls it; its last line is the figures as JSON.

use anyhow::{Context as _, Result};
use holdfast_tests::Lab;
use holdfast_tests::emulated::{BOOT, EMULATED, Emulated};
use serde_json::{Value, json};

/// Seconds from power-on to the agent, and to mesh up.
fn boot(case: &Emulated, run: u32) -> Result<(f64, Option<f64>)> {
    let lab = Lab::new(&format!("bench_boards_{}_{run}", case.board))?;
    let image = case.build(&lab, "base", "1.0.0")?;
    let mut node = case.node(&lab, "n1", &image)?;
    node.machine.power_on()?;
    node.machine.wait_for("verity root mounted", BOOT)?;
    let agent = node.machine.wait_for("holdfast: agent ", BOOT)?;
    let mesh = match case.network {
        true => Some(node.machine.wait_for("holdfast: mesh up", BOOT)?),
        false => None,
    };
    node.power_cut()?;
    Ok((agent.as_secs_f64(), mesh.map(|m| m.as_secs_f64())))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn figure(name: String, seconds: Option<f64>) -> Option<Value> {
    let value = (seconds? * 1000.0).round() / 1000.0;
    Some(
        json!({ "name": name, "value": value, "unit": "s", "peer": null, "peer_value": null, "ratio": null }),
    )
}

fn main() -> Result<()> {
    let runs = std::env::args().nth(1).map_or(Ok(1), |w| w.parse())?;
    let mut figures = Vec::new();
    for case in &EMULATED {
        let (mut agents, mut meshes) = (Vec::new(), Vec::new());
        for run in 1..=runs {
            let (agent, mesh) = boot(case, run).context(case.board)?;
            eprintln!(
                "{} run {run}: agent {agent:.1} s, mesh {mesh:?}",
                case.board
            );
            agents.push(agent);
            meshes.extend(mesh);
        }
        let board = case.board;
        let agent = format!("{board}: power-on to agent with verity root, TCG");
        figures.extend(figure(agent, median(agents)));
        figures.extend(figure(
            format!("{board}: power-on to mesh up, TCG"),
            median(meshes),
        ));
    }
    println!("{}", json!({ "bench": "boards", "figures": figures }));
    Ok(())
}
