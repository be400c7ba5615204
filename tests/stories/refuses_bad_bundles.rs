//! Bundles that are truncated, flipped, for another board, signed by another key or older are
//! refused; the running system and the last good one stay as they were.

use anyhow::{Context as _, ensure};
use holdfast_core::keys::Digest;
use holdfast_core::layout::Role;
use holdfast_core::slots::Slot;
use holdfast_tests::{Built, Lab, Node, Story, seedvolume};
use std::path::Path;

fn copy_with(from: &Path, to: &Path, change: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<Built> {
    let mut bytes = std::fs::read(from)?;
    change(&mut bytes);
    std::fs::write(to, bytes)?;
    Ok(Built {
        image: from.into(),
        bundle: to.into(),
        version: String::new(),
        generation: 0,
    })
}

fn slot_a(node: &Node) -> anyhow::Result<(Digest, Digest)> {
    let disk = node.machine.disk().context("no disk")?;
    let front =
        |role| -> anyhow::Result<Digest> { Ok(Digest::of(&seedvolume::partition(disk, role)?)) };
    Ok((front(Role::Boot(Slot::A))?, front(Role::Root(Slot::A))?))
}

#[test]
fn refuses_bad_bundles() -> Story {
    let lab = Lab::new("refuses_bad_bundles")?;
    let older = lab.build("base", "0.9.0")?;
    let first = lab.build("base", "1.0.0")?;
    let good = lab.build("base", "1.1.0")?;
    let stranger = Lab::new("refuses_bad_bundles_stranger")?;
    let foreign = stranger.build("base", "1.1.0")?;
    let mut node = lab.node("n1", "bare", &first)?;
    node.boot()?;
    node.power_cut()?;
    let before = slot_a(&node)?;
    node.boot()?;

    let dir = lab.dir();
    let size = std::fs::metadata(&good.bundle)?.len();
    let middle = usize::try_from(size / 2)?;
    let cases = [
        (
            "truncated",
            copy_with(&good.bundle, &dir.join("truncated"), |b| b.truncate(middle))?,
            "truncated",
        ),
        (
            "flipped",
            copy_with(&good.bundle, &dir.join("flipped"), |b| b[middle] ^= 1)?,
            "digest",
        ),
        (
            "manifest flipped",
            copy_with(&good.bundle, &dir.join("manifest"), |b| b[400] ^= 1)?,
            "manifest",
        ),
        (
            "no bundle",
            copy_with(&good.bundle, &dir.join("noise"), |b| b[0] = 0)?,
            "not a Holdfast bundle",
        ),
        ("wrong key", foreign, "key"),
        ("older", older, "older"),
    ];
    for (what, bundle, word) in cases {
        // the operator's command looks first; --unchecked sends it all the same, for the node to judge
        for more in [&[][..], &["--unchecked"]] {
            let out = node.upgrade_with(&bundle, more)?;
            ensure!(
                out.code == 4,
                "{what} {more:?}: exit {}\n{}{}",
                out.code,
                out.stdout,
                out.stderr
            );
            ensure!(
                out.stderr.contains(word),
                "{what} {more:?}: no {word:?} in {}",
                out.stderr
            );
        }
        let view = node.wait_online()?;
        ensure!(
            (view.text("slot"), view.text("version")) == ("a", "1.0.0"),
            "{what}: {view:?}"
        );
    }
    node.power_cut()?;
    ensure!(slot_a(&node)? == before, "the running slot was touched");
    Ok(())
}
