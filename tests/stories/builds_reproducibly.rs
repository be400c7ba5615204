//! The same inputs give the same bytes, in two folders, at two times, as an ordinary user.

use anyhow::{Context as _, ensure};
use holdfast_core::keys::Digest;
use holdfast_tests::{Lab, Story, command};
use std::path::Path;
use std::process::Command;

/// Runs `holdfast build` as `nobody` when this is root, else as whoever this is.
fn build(lab: &Lab, cache: &Path, out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out)?;
    let line = [
        "build",
        "--board",
        "proxmox",
        "--recipe",
        "base",
        "--version",
        "1.0.0",
        "--generation",
        "1",
        "--formats",
        "raw,qcow2,bundle",
        "--output-dir",
    ];
    let mut build = lab.holdfast.command(line);
    build
        .arg(out)
        .env("XDG_CACHE_HOME", cache)
        .env("HOME", out)
        .env_remove("SOURCE_DATE_EPOCH");
    let is_root = String::from_utf8(Command::new("id").arg("-u").output()?.stdout)?.trim() == "0";
    let output = if is_root {
        let mut run = Command::new("setpriv");
        run.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
            "--",
        ]);
        run.arg(build.get_program())
            .args(build.get_args())
            .current_dir(command::top());
        for (key, value) in build.get_envs() {
            match value {
                Some(value) => run.env(key, value),
                None => run.env_remove(key),
            };
        }
        run.output()?
    } else {
        build.output()?
    };
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Gives the tree to everyone, as `chmod -R a+rwX` does.
fn open_to_all(tree: &Path) -> Story {
    let done = Command::new("chmod")
        .args(["-R", "a+rwX"])
        .arg(tree)
        .status()?;
    ensure!(done.success(), "chmod {}", tree.display());
    Ok(())
}

#[test]
fn the_same_inputs_give_the_same_bytes_without_root() -> Story {
    let lab = Lab::new("builds_reproducibly")?;
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let mut sums = vec![];
    for dir in &dirs {
        let (cache, out) = (dir.path().join("cache"), dir.path().join("a/deeper/folder"));
        lab.share_downloads(&cache)?;
        std::fs::create_dir_all(&out)?;
        // the ordinary user must be able to write here and to read the cluster
        open_to_all(dir.path())?;
        open_to_all(lab.dir())?;
        build(&lab, &cache, &out)?;
        let mut these = vec![];
        for ending in ["img", "qcow2", "bundle", "spdx.json"] {
            let name = format!("holdfast-proxmox-base-1.0.0.{ending}");
            let bytes = std::fs::read(out.join(&name)).with_context(|| name.clone())?;
            these.push((name, Digest::of(&bytes)));
        }
        sums.push(these);
    }
    ensure!(sums[0] == sums[1], "{:#?}", sums);
    Ok(())
}
