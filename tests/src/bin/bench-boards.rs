//! Boots of every board that QEMU runs, under emulation: power-on to agent with verity root, and to
//! mesh up; beside each, in turns, mkosi's Debian on the same machine, where its disk is given.
//! `make bench-boards` calls it: `bench-boards [BOOTS [BOARD[=PEER-DISK]...]]`, without boards all of
//! them. Its last line is the figures as JSON.

use anyhow::{Context as _, Result};
use holdfast_tests::Lab;
use holdfast_tests::boots::{Boot, DEBIAN_NETWORK, DEBIAN_RUNNING, debian};
use holdfast_tests::emulated::{BOOT, EMULATED, Emulated};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

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

/// A first boot of mkosi's Debian on the board's machine.
fn peer_boot(case: &Emulated, disk: &Path, run: u32) -> Result<Boot> {
    let lab = Lab::new(&format!("bench_boards_{}_peer_{run}", case.board))?;
    debian(case.peer(&lab, "debian", disk), BOOT)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// A figure and, where one ran, the peer's: its name and seconds.
fn figure(name: String, ours: Vec<f64>, peer: &str, theirs: Vec<f64>) -> Option<Value> {
    let rounded = |v: f64| (v * 1000.0).round() / 1000.0;
    let value = median(ours)?;
    let theirs = median(theirs);
    Some(json!({
        "name": name,
        "value": rounded(value),
        "unit": "s",
        "peer": theirs.map(|_| peer),
        "peer_value": theirs.map(rounded),
        "ratio": theirs.map(|t| rounded(t / value)),
    }))
}

/// A board and its peer's disk, of `BOARD` or `BOARD=DISK`.
fn wanted(words: &[String], case: &Emulated) -> Option<Option<PathBuf>> {
    if words.is_empty() {
        return Some(None);
    }
    words.iter().find_map(|word| match word.split_once('=') {
        Some((board, disk)) => (board == case.board).then(|| Some(PathBuf::from(disk))),
        None => (word == case.board).then_some(None),
    })
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let runs = words.next().map_or(Ok(1), |w| w.parse())?;
    let words: Vec<String> = words.collect();
    let mut figures = Vec::new();
    for case in &EMULATED {
        let Some(disk) = wanted(&words, case) else {
            continue;
        };
        let board = case.board;
        let (mut agents, mut meshes) = (Vec::new(), Vec::new());
        let (mut running, mut network) = (Vec::new(), Vec::new());
        for run in 1..=runs {
            let (agent, mesh) = boot(case, run).context(board)?;
            eprintln!("{board} run {run}: agent {agent:.1} s, mesh {mesh:?}");
            agents.push(agent);
            meshes.extend(mesh);
            if let Some(disk) = &disk {
                // theirs is extra: what it does must not cost the figures of ours
                match peer_boot(case, disk, run) {
                    Ok(peer) => {
                        eprintln!("{board} run {run}: mkosi's {peer:?}");
                        running.push(peer.running);
                        network.push(peer.network);
                    }
                    Err(e) => eprintln!("{board} run {run}: left out, mkosi's: {e:#}"),
                }
            }
        }
        let agent = format!("{board}: power-on to agent with verity root, TCG");
        figures.extend(figure(agent, agents, DEBIAN_RUNNING, running));
        let mesh = format!("{board}: power-on to mesh up, TCG");
        figures.extend(figure(mesh, meshes, DEBIAN_NETWORK, network));
    }
    println!("{}", json!({ "bench": "boards", "figures": figures }));
    Ok(())
}
