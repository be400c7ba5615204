//! After the join nothing of the seed's secret can be found on the raw disk.

use anyhow::{Context as _, ensure};
use holdfast_tests::{Lab, Node, Story, seedvolume, until};
use std::time::Duration;

#[test]
fn no_secret_of_the_seed_is_left_on_the_disk() -> Story {
    let lab = Lab::new("keeps_no_secret")?;
    let image = lab.build("base", "1.0.0")?;
    let seed = lab.seed("n1", "bare", &[])?;
    let text = std::fs::read_to_string(&seed)?;
    let token = text
        .lines()
        .find_map(|l| l.strip_prefix("token = \""))
        .and_then(|l| l.strip_suffix('"'))
        .context("the seed's token")?
        .to_string();
    let raw = holdfast_core::keys::PrivateKey::from_text(&token)?;

    // this machine gets its seed as a file on the card, as a person would put it there
    let mut node = Node::new(&lab, "n1", &image, None)?;
    seedvolume::put(
        node.machine.disk().context("no disk")?,
        "seed.toml",
        text.as_bytes(),
    )?;
    let found = node
        .machine
        .disk()
        .context("no disk")?
        .search(&[token.as_bytes()])?;
    ensure!(
        !found.is_empty(),
        "the search itself does not find the token before the join"
    );

    node.boot()?;
    // Before or after the mesh is up.
    until("the seed is wiped", Duration::from_secs(60), || {
        node.console().contains("holdfast: join: seed scrubbed")
    })?;
    node.power_cut()?;
    let disk = node.machine.disk().context("no disk")?;
    let found = disk.search(&[token.as_bytes(), raw.as_bytes()])?;
    ensure!(found.is_empty(), "the token is at {found:?}");
    ensure!(
        seedvolume::file(disk, "seed.toml")?.is_none(),
        "seed.toml is still there"
    );
    Ok(())
}
