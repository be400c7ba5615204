//! `holdfast vm`: machines on this computer, for trying things.

mod follow;
mod hold;
mod run;
mod tail;

use crate::app::App;
use crate::exit::Exit;
use crate::table::table;
use crate::vms::Vms;
use crate::words::parse_duration;
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Power a machine on, with an image and a seed
    Run(Box<run::Args>),
    /// List the machines
    #[command(after_help = "Example:\n  holdfast vm list --output json")]
    List(Place),
    /// Power a machine off
    Stop(StopArgs),
    /// Show a machine's console
    Console(ConsoleArgs),
    /// Delete a machine that is off, with its disk
    #[command(after_help = "Example:\n  holdfast vm remove n1")]
    Remove(Named),
}

/// Where machines are kept.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Where machines are kept [default: $XDG_STATE_HOME/holdfast/vms]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// One machine.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Which machine
    name: String,
    #[command(flatten)]
    place: Place,
}

/// Options of `vm stop`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast vm stop n1\n  holdfast vm stop n1 --cut      as if the plug were pulled"
)]
pub struct StopArgs {
    #[command(flatten)]
    named: Named,
    /// Pull the plug at once
    #[arg(long)]
    cut: bool,
    /// How long the guest may take before the plug is pulled
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = parse_duration)]
    grace: Duration,
}

/// Options of `vm console`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast vm console n1\n  holdfast vm console n1 -f\n\nA node has no shell: its console only tells."
)]
pub struct ConsoleArgs {
    #[command(flatten)]
    named: Named,
    /// Go on with what comes, until the machine is off
    #[arg(short, long)]
    follow: bool,
}

/// Runs the verb.
pub fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Run(args) => run::run(app, *args),
        Verb::List(place) => list(app, &Vms::at(place.dir.as_deref())?),
        Verb::Stop(args) => stop(app, &args),
        Verb::Console(args) => console(&args),
        Verb::Remove(args) => remove(app, &args),
    }
}

impl Named {
    fn vms(&self) -> Result<Vms> {
        Vms::at(self.place.dir.as_deref())
    }
}

#[derive(serde::Serialize)]
struct Row {
    name: String,
    on: bool,
    pid: Option<u32>,
    memory: u32,
    cpus: u32,
    image: PathBuf,
    console: PathBuf,
}

fn list(app: &App, vms: &Vms) -> Result<()> {
    let rows: Vec<Row> = vms
        .all()?
        .into_iter()
        .map(|r| Row {
            on: r.on(),
            pid: r.qemu.filter(|q| q.lives()).map(|q| q.pid),
            name: r.name,
            memory: r.memory,
            cpus: r.cpus,
            image: r.image,
            console: r.console,
        })
        .collect();
    app.print(&rows, || {
        table(
            ["name", "state", "pid", "memory", "cpus", "image"],
            rows.iter().map(|r| {
                [
                    r.name.clone(),
                    if r.on { "on" } else { "off" }.into(),
                    r.pid.map(|p| p.to_string()).unwrap_or_default(),
                    format!("{} MiB", r.memory),
                    r.cpus.to_string(),
                    r.image.display().to_string(),
                ]
            }),
        )
    })
}

/// Waits until `condition` holds.
fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

fn stop(app: &App, args: &StopArgs) -> Result<()> {
    let record = args.named.vms()?.known(&args.named.name)?;
    let Some(qemu) = record.qemu.filter(|q| q.lives()) else {
        return app.print(
            &serde_json::json!({ "name": record.name, "on": false }),
            || format!("{} is off.", record.name),
        );
    };
    let held = record.holder.filter(|h| h.lives());
    if !args.cut
        && let Some(holder) = held
    {
        // The holder presses the power button.
        holder.signal(Signal::SIGTERM)?;
        within(args.grace, || !qemu.lives());
    }
    if qemu.lives() {
        qemu.signal(Signal::SIGKILL)?;
    }
    // The holder notes the end before it goes.
    if !within(Duration::from_secs(10), || {
        !qemu.lives() && held.is_none_or(|h| !h.lives())
    }) {
        return Err(Exit::Failed.error(format!(
            "{} does not end: process {}",
            record.name, qemu.pid
        )));
    }
    app.print(
        &serde_json::json!({ "name": record.name, "on": false }),
        || format!("{} is off.", record.name),
    )
}

fn console(args: &ConsoleArgs) -> Result<()> {
    let record = args.named.vms()?.known(&args.named.name)?;
    follow::console(&record, args.follow);
    Ok(())
}

fn remove(app: &App, args: &Named) -> Result<()> {
    let vms = args.vms()?;
    let record = vms.known(&args.name)?;
    if record.on() {
        return Err(Exit::Usage.error(format!(
            "{0} is on: `holdfast vm stop {0}` first",
            args.name
        )));
    }
    let dir = vms.dir(&args.name);
    std::fs::remove_dir_all(&dir).with_context(|| format!("cannot delete {}", dir.display()))?;
    app.print(&serde_json::json!({}), || format!("{} is gone.", args.name))
}
