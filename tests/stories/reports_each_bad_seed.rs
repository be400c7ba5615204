//! Whatever is wrong with a seed, the node says which on the console and in a report on `hf-seed`,
//! and goes on trying what can mend itself.

use anyhow::{Context as _, ensure};
use holdfast_qemu::Rtc;
use holdfast_tests::{Built, Lab, Node, Story, seedvolume};
use std::path::PathBuf;

/// Boots with `seed` and wants `console` said there, and in the report.
fn says(lab: &Lab, image: &Built, name: &str, seed: Option<PathBuf>, words: &[&str]) -> Story {
    let mut node = Node::new(lab, name, image, seed.as_deref())?;
    node.machine.power_on()?;
    for word in words {
        node.wait_for(word)
            .with_context(|| format!("{name}: {word:?} on the console"))?;
    }
    node.wait_for("holdfast: report written")?;
    node.power_cut()?;
    let disk = node.machine.disk().context("no disk")?;
    let report = seedvolume::file(disk, "report.txt")?.context("no report.txt on hf-seed")?;
    let json = seedvolume::file(disk, "report.json")?.context("no report.json on hf-seed")?;
    serde_json::from_str::<serde_json::Value>(&json)?;
    for word in words {
        ensure!(
            report.contains(word),
            "{name}: the report does not say {word:?}:\n{report}"
        );
    }
    Ok(())
}

#[test]
fn reports_each_bad_seed() -> Story {
    let lab = Lab::new("reports_each_bad_seed")?;
    let image = lab.build("base", "1.0.0")?;
    let changed = |name: &str, from: &str, to: &str| -> anyhow::Result<Option<PathBuf>> {
        let file = lab.seed(name, "bare", &[])?;
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.contains(from), "{from:?} is not in the seed:\n{text}");
        std::fs::write(&file, text.replacen(from, to, 1))?;
        Ok(Some(file))
    };

    says(&lab, &image, "missing", None, &["no seed"])?;
    let garbage = lab.dir().join("garbage.toml");
    std::fs::write(&garbage, "this is not a seed")?;
    says(&lab, &image, "not-toml", Some(garbage), &["line 1"])?;
    let seed = changed(
        "unknown-field",
        "version = 1",
        "version = 1\ncolour = \"red\"",
    )?;
    says(&lab, &image, "unknown-field", seed, &["line 2", "colour"])?;
    let seed = changed("wrong-type", "issued = ", "issued = \"today\" #")?;
    says(&lab, &image, "wrong-type", seed, &["line"])?;
    // Port 9 of this computer's loopback: nobody listens there.
    let here = format!("10.0.2.2:{}", lab.https_port());
    let seed = changed("unreachable", &here, "10.0.2.2:9")?;
    says(&lab, &image, "unreachable", seed, &["unreachable"])?;

    let text = std::fs::read_to_string(lab.seed("other", "bare", &[])?)?;
    let root = text
        .lines()
        .find(|l| l.starts_with("roots"))
        .context("roots")?
        .to_string();
    let key = root.split('"').nth(1).context("a root key")?.to_string();
    let pin = lab.seed("wrong-pin", "bare", &[])?;
    let text = std::fs::read_to_string(&pin)?;
    let at = text.find("[[lighthouses]]").context("lighthouses")?;
    let (head, tail) = text.split_at(at);
    // Nor does a root of the seed vouch for the key that is shown: the two change places.
    let own = tail
        .split('"')
        .skip_while(|t| !t.ends_with("key = "))
        .nth(1);
    let head = head.replace(&key, own.context("the lighthouse's key")?);
    let tail: Vec<String> = tail
        .lines()
        .map(|l| {
            if l.starts_with("key") {
                format!("key = \"{key}\"")
            } else {
                l.to_string()
            }
        })
        .collect();
    std::fs::write(&pin, format!("{head}{}\n", tail.join("\n")))?;
    says(&lab, &image, "wrong-pin", Some(pin), &["another key"])?;

    let expired = lab.seed("expired", "bare", &["--expires", "0s"])?;
    says(&lab, &image, "expired", Some(expired), &["expired"])?;
    let revoked = lab.seed("revoked", "bare", &[])?;
    lab.holdfast.run(["token", "revoke", "revoked"])?;
    says(&lab, &image, "revoked", Some(revoked), &["revoked"])?;

    // a second machine with a seed whose one use is taken
    let seed = lab.seed("taken", "bare", &[])?;
    let mut first = Node::new(&lab, "taken", &image, Some(&seed))?;
    first.boot()?;
    first.power_cut()?;
    says(&lab, &image, "taken-again", Some(seed), &["used up"])
}

#[test]
fn joins_with_a_clock_at_1970() -> Story {
    let lab = Lab::new("joins_with_a_clock_at_1970")?;
    let image = lab.build("base", "1.0.0")?;
    let seed = lab.seed("old", "bare", &[])?;
    let mut node = Node::with(&lab, "old", &image, Some(&seed), |spec| {
        spec.rtc(Rtc::Epoch)
    })?;
    node.boot()?;
    Ok(())
}
