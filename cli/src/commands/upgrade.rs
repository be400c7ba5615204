//! `holdfast upgrade NODE BUNDLE`.

use crate::app::App;
use crate::exit::Exit;
use crate::lighthouse::{Connection, connect, explain};
use crate::nodes::Which;
use crate::progress::Steps;
use crate::waiting::{Before, wait};
use crate::words::{parse_duration, size};
use anyhow::{Context as _, Result};
use holdfast_core::control::{Reply, Request};
use holdfast_core::keys::Digest;
use holdfast_core::manifest::{MAX_MANIFEST, Manifest, PREFIX_LEN, read};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast upgrade n1 images/holdfast-x86-64-k3s-1.1.0.bundle --wait
  holdfast upgrade n1 old.bundle --allow-downgrade --wait

The bundle goes to the lighthouse's store; the node fetches it, checks it, writes it to the slot that \
is not running, and reboots into it on trial. With --wait, exit code 0 means committed, 5 that the \
node went back by itself (the reason is printed). Without, the command ends when the trial begins.")]
pub struct Args {
    /// Which node
    node: Which,
    /// The bundle
    bundle: PathBuf,
    /// Take an older generation
    #[arg(long)]
    allow_downgrade: bool,
    /// Send it as it is; the node makes all checks anyway
    #[arg(long)]
    unchecked: bool,
    /// Wait until it is committed, or the node went back
    #[arg(long)]
    wait: bool,
    /// With --wait: how long at most
    #[arg(long, default_value = "45m", value_name = "TIME", value_parser = parse_duration)]
    timeout: Duration,
}

/// Refuses what the node would refuse as well, before it is sent anywhere.
fn check(connection: &Connection, path: &Path) -> Result<Manifest> {
    let what = || format!("{} cannot be used", path.display());
    let mut file =
        std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut front = Vec::new();
    (&mut file)
        .take(PREFIX_LEN + u64::from(MAX_MANIFEST))
        .read_to_end(&mut front)
        .with_context(what)?;
    let refused = |why: String| Exit::Refused.error(format!("{}: {why}", path.display()));
    let (signed, data_start) = read(&front).map_err(|e| refused(e.to_string()))?;
    let keys = connection.cluster.release_keys()?;
    let manifest = signed.open(|k| keys.contains(k)).map_err(|e| {
        refused(format!(
            "the manifest: {e}; this cluster's release keys are others"
        ))
    })?;
    if manifest.cluster != connection.cluster.config.id {
        return Err(refused(format!(
            "made for cluster {}, this is {}",
            manifest.cluster, connection.cluster.config.id
        )));
    }
    let end = [&manifest.boot, &manifest.root]
        .map(|p| p.offset.saturating_add(p.len))
        .into_iter()
        .max()
        .unwrap_or(0);
    let (have, want) = (
        file.metadata().with_context(what)?.len(),
        data_start.saturating_add(end),
    );
    if have < want {
        return Err(refused(format!(
            "the bundle is truncated: {have} bytes, {want} needed"
        )));
    }
    Ok(manifest)
}

fn digest(path: &Path) -> Result<(Digest, u64)> {
    let what = || format!("cannot read {}", path.display());
    let mut file = std::fs::File::open(path).with_context(what)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let n = file.read(&mut chunk).with_context(what)?;
        if n == 0 {
            return Ok((Digest(hash.finalize().into()), len));
        }
        hash.update(&chunk[..n]);
        len += n as u64;
    }
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    if !args.bundle.is_file() {
        return Err(Exit::Usage.error(format!(
            "there is no bundle at {}: `holdfast build --board BOARD --recipe RECIPE` makes one",
            args.bundle.display()
        )));
    }
    let connection = connect(app).await?;
    let manifest = if args.unchecked {
        None
    } else {
        Some(check(&connection, &args.bundle)?)
    };
    let target = connection.target(&args.node).await?;
    let before = target.status().await?;
    if let Some(manifest) = &manifest
        && manifest.generation < before.boot.generation
        && !args.allow_downgrade
    {
        return Err(Exit::Refused.error(format!(
            "{} is generation {}, older than {} which {} runs; --allow-downgrade takes it all the same",
            args.bundle.display(),
            manifest.generation,
            before.boot.generation,
            args.node
        )));
    }
    let (digest, len) = digest(&args.bundle)?;

    let steps = Arc::new(Steps::new());
    let bar = steps.clone();
    // There the node fetches it.
    let sent = target
        .via()
        .upload_blob(&digest, &args.bundle, move |done, total| {
            bar.set("upload", done, total)
        })
        .await;
    match sent {
        Ok(()) => steps.done("upload", &size(len)),
        Err(error) => {
            steps.clear();
            return Err(explain(error));
        }
    }
    let request = Request::Upgrade {
        url: format!("blob:{digest}"),
        digest,
        len,
        allow_downgrade: args.allow_downgrade,
    };
    let mut stream = target.ask(&request).await?;
    let mut running: Option<String> = None;
    loop {
        let reply = stream.next().await.inspect_err(|_| steps.clear())?;
        match reply {
            Some(Reply::Progress { step, done, total }) => {
                if running.as_ref() != Some(&step)
                    && let Some(old) = running.replace(step.clone())
                {
                    steps.done(&old, "done");
                }
                steps.set(&step, done, total);
            }
            None => break,
            other => return Err(stream.odd(other.as_ref())),
        }
    }
    if let Some(step) = running {
        steps.done(&step, "done");
    }
    drop(stream);
    let version = manifest.map_or_else(|| "the bundle".into(), |m| m.version);
    if !args.wait {
        return app.print(&serde_json::json!({ "name": args.node, "asked": "upgrade", "version": version }), || {
            format!("{} has {version} in its other slot and reboots into the trial; `holdfast nodes` shows how it ends.", args.node)
        });
    }
    let before = Before::of(&before);
    let status = wait(
        &target,
        &format!("{} tries {version}", args.node),
        args.timeout,
        |s| before.other_slot(s),
    )
    .await?;
    let view = connection.judge().view_of(status);
    app.print(&view, || {
        format!(
            "{} runs {} in slot {}, committed.",
            view.name,
            view.version.clone().unwrap_or_default(),
            view.slot_words()
        )
    })
}
