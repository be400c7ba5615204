//! A node's disk is recorded from its first boot on, through join, upgrade, commit, going back and a
//! reboot. Every state that a power cut could have left is judged by the loader's, init's and the
//! agent's own code; a sample of them is booted (HOLDFAST_POWER_SAMPLE, 10).

use anyhow::{Context as _, Result, ensure};
use holdfast_core::layout::{self, Role};
use holdfast_core::slots::Slot;
use holdfast_qemu::Disk;
use holdfast_tests::power::image::{Base, Image};
use holdfast_tests::power::judge::{Judge, System, Verdict};
use holdfast_tests::power::log::Log;
use holdfast_tests::power::replay::{self, Tally};
use holdfast_tests::power::samples::{Sample, Samples, kind};
use holdfast_tests::{Built, Lab, Node, Story, seedvolume};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The machine's disk in bytes.
const DISK: u64 = 6 << 30;
/// Odd cuts for each large window.
const BOUND: usize = 96;
const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

/// A stretch of the record in which these versions may start.
struct Phase {
    name: &'static str,
    /// Its first operation.
    from: usize,
    may_run: &'static [&'static str],
    joined: bool,
}

#[test]
fn every_power_cut_leaves_a_node_that_starts() -> Story {
    let sample = match std::env::var("HOLDFAST_POWER_SAMPLE") {
        Ok(count) => count.parse().context("HOLDFAST_POWER_SAMPLE")?,
        Err(_) => 10,
    };
    let mut lab = Lab::new("power_cuts")?;
    let first = lab.build("base", OLD)?;
    let second = lab.build("base", NEW)?;
    let seed = std::fs::read_to_string(lab.seed("n1", "bare", &[])?)?;
    let card = lab.dir().join("card.img");
    copy(&first.image, &card)?;
    seedvolume::put(&Disk::open(&card)?, "seed.toml", seed.as_bytes())?;
    let card = Built {
        image: card,
        ..first.clone()
    };

    let before_join = Snapshot::of(&mut lab, "before-join")?;
    let record = lab.dir().join("writes.log");
    let (log, phases) = recorded(&lab, &card, &second, &record)?;
    let after_join = Snapshot::of(&mut lab, "after")?;

    let base = Arc::new(Base::open(&card.image, DISK)?);
    let image = Image::new(base);
    let systems = vec![System::of(&first.bundle)?, System::of(&second.bundle)?];
    let judge = Judge::new(&image, systems, seed)?;
    let samples = judged(&log, image.clone(), &judge, &phases)?;
    sees_what_is_missing(&log, &image, &judge, &phases)?;

    let chosen = samples.choose(sample);
    let (young, old): (Vec<_>, Vec<_>) = chosen
        .into_iter()
        .partition(|s| !phase(&phases, s.at).joined);
    for (snapshot, samples) in [(before_join, young), (after_join, old)] {
        for sample in samples {
            // Each finds the lighthouse as it was: what one of them joined with is used up.
            snapshot.restore(&mut lab)?;
            boot(
                &lab,
                &card,
                &log,
                image.clone(),
                phase(&phases, sample.at),
                &sample,
            )
            .with_context(|| format!("cut before operation {}: {sample:?}", sample.at))?;
        }
    }
    println!("{sample} of them booted");
    Ok(())
}

/// Lives a node's life with its writes recorded.
fn recorded(lab: &Lab, card: &Built, second: &Built, record: &Path) -> Result<(Log, Vec<Phase>)> {
    let mut node = Node::with(lab, "n1", card, None, |spec| spec.record_writes(record))?;
    let mut lens = vec![];
    let mut mark = || -> Result<()> {
        lens.push(std::fs::metadata(record)?.len());
        Ok(())
    };
    node.boot()?;
    mark()?;
    let upgrade = node.upgrade(second)?;
    ensure!(upgrade.code == 0, "{}{}", upgrade.stdout, upgrade.stderr);
    mark()?;
    node.reboot()?;
    mark()?;
    lab.holdfast.run(["rollback", "n1", "--wait"])?;
    mark()?;
    node.reboot()?;
    node.power_cut()?;
    let log = Log::open(record)?;
    let begin = |n: usize| log.until(lens[n]);
    let phases = [
        ("first boot and join", 0, &[OLD][..], false),
        ("upgrade and commit", begin(0), &[OLD, NEW], true),
        ("reboot", begin(1), &[NEW], true),
        ("rollback and commit", begin(2), &[OLD, NEW], true),
        ("reboot after it", begin(3), &[OLD], true),
    ];
    let phases = phases.map(|(name, from, may_run, joined)| Phase {
        name,
        from,
        may_run,
        joined,
    });
    Ok((log, phases.into()))
}

fn phase(phases: &[Phase], at: usize) -> &Phase {
    let n = phases.partition_point(|p| p.from <= at);
    &phases[n.saturating_sub(1)]
}

/// Judges all cuts; fails with those that would lose the node.
fn judged(log: &Log, image: Image, judge: &Judge, phases: &[Phase]) -> Result<Samples> {
    let begun = Instant::now();
    let (mut tally, mut bad, mut samples) = (Tally::default(), vec![], Samples::default());
    let count = replay::all(log, image, judge, BOUND, |judged| {
        // Around the change from one phase to the next, both count.
        let around = [judged.flushed, judged.at].map(|op| phase(phases, op));
        let verdict = judged.verdict.as_ref().map_err(Clone::clone);
        let phase = around[0];
        match verdict.and_then(|v| fits(v, around).map(|()| v)) {
            Ok(verdict) => {
                tally.add(format!("{}: {}", phase.name, kind(verdict)));
                samples.see(judged, verdict);
            }
            Err(why) => bad.push(format!("{}, operation {}: {why}", phase.name, judged.at)),
        }
    });
    println!(
        "{} operations, {} cuts, {} different ones judged in {} s\n{tally}",
        count.ops,
        count.cuts,
        count.judged,
        begun.elapsed().as_secs()
    );
    ensure!(
        bad.is_empty(),
        "{} of {} cuts lose the node or its system:\n{}",
        bad.len(),
        count.cuts,
        bad[..bad.len().min(20)].join("\n")
    );
    Ok(samples)
}

/// The proof of the proof: of an upgrade whose writes to one place are lost, the judge must say so.
fn sees_what_is_missing(log: &Log, image: &Image, judge: &Judge, phases: &[Phase]) -> Result<()> {
    let (extents, _) = layout::plan(layout::VAR_MIN);
    let lose = |role: Role| {
        let extent = extents.iter().find(|e| e.role == role);
        let lost = extent.map_or(0..0, |e| e.offset..e.offset + e.len);
        replay::without(log, image.clone(), judge, phases[2].from, &lost)
    };
    let whole = replay::without(log, image.clone(), judge, phases[2].from, &(0..0));
    ensure!(
        whole
            .as_ref()
            .is_ok_and(|v| v.version.as_deref() == Some(NEW)),
        "{whole:?}"
    );
    let root = lose(Role::Root(Slot::B));
    ensure!(
        root.as_ref().is_err_and(|why| why.contains("not whole")),
        "a root that was never written: {root:?}"
    );
    let boot = lose(Role::Boot(Slot::B));
    ensure!(
        boot.as_ref()
            .is_ok_and(|v| v.version.as_deref() == Some(OLD)),
        "a system that was never written: {boot:?}"
    );
    let slots = lose(Role::Slots);
    ensure!(
        slots
            .as_ref()
            .is_ok_and(|v| v.version.as_deref() == Some(OLD)),
        "a record that was never written: {slots:?}"
    );
    let state = lose(Role::State);
    ensure!(
        state.as_ref().is_ok_and(|v| v.joined.is_none()) || state.is_err(),
        "a state that was never written: {state:?}"
    );
    Ok(())
}

fn fits(verdict: &Verdict, around: [&Phase; 2]) -> Result<(), String> {
    let version = verdict.version.as_deref().unwrap_or("the rescue system");
    if !around.iter().any(|p| p.may_run.contains(&version)) {
        return Err(format!("{version} would start: {:?}", verdict.said));
    }
    let joined = around.iter().all(|p| p.joined);
    if joined && verdict.joined.is_none() {
        return Err("its identity is gone".into());
    }
    if joined && !verdict.var_formatted {
        return Err("/var would be formatted anew".into());
    }
    Ok(())
}

/// Boots a cut; the node must be reached, with a system that may run there.
fn boot(lab: &Lab, card: &Built, log: &Log, image: Image, phase: &Phase, sample: &Sample) -> Story {
    let mut image = image;
    for op in &log.ops()[..sample.flushed] {
        image.apply(log, op, None);
    }
    let window = &log.ops()[sample.flushed..];
    for n in &sample.cut.whole {
        image.apply(log, &window[*n], None);
    }
    if let Some((n, part)) = sample.cut.torn {
        image.apply(log, &window[n], Some(part));
    }
    let raw = lab.dir().join("cut.img");
    image.save(&raw)?;
    let dir = lab.dir().join("vm").join("n1");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let cut = Built {
        image: raw,
        ..card.clone()
    };
    let mut node = Node::new(lab, "n1", &cut, None)?;
    let view = node.boot()?;
    let version = view.text("version");
    println!(
        "booted: {}, operation {}: {}; runs {version}",
        phase.name,
        sample.at,
        kind(&sample.verdict)
    );
    ensure!(phase.may_run.contains(&version), "{view:?}");
    node.power_cut()
}

/// The lighthouse's folder at one moment.
struct Snapshot(PathBuf);

impl Snapshot {
    fn of(lab: &mut Lab, name: &str) -> Result<Self> {
        let kept = lab.dir().join(name);
        lab.kill_lighthouse()?;
        copy(&lab.lighthouse_dir(), &kept)?;
        lab.start_lighthouse()?;
        Ok(Self(kept))
    }

    fn restore(&self, lab: &mut Lab) -> Result<()> {
        lab.lose_lighthouse()?;
        copy(&self.0, &lab.lighthouse_dir())?;
        lab.start_lighthouse()
    }
}

/// A file or a folder, as it is, holes included.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let done = std::process::Command::new("cp")
        .args(["-a", "--sparse=always", "--"])
        .args([from, to])
        .status()?;
    ensure!(done.success(), "copy {}", from.display());
    Ok(())
}
