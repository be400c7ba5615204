//! `holdfast flash`.

mod ask;
mod card;
mod list;
mod seeds;
mod stop;

use super::seed::tables::InstallArgs;
use crate::app::App;
use crate::exit::Exit;
use crate::words::parse_size;
use anyhow::{Context as _, Result};
use card::{Card, Failed};
use holdfast_flash::Error;
use holdfast_flash::device::Needs;
use holdfast_flash::image::Image;
use holdfast_flash::seed::InstallWishes;
use seeds::Seeds;
use serde::Serialize;
use std::path::PathBuf;
use stop::Stop;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast flash                                      what is plugged in
  holdfast flash images/holdfast-rpi4-k3s-1.img /dev/sdb --seed n1.seed.toml
  holdfast flash holdfast-rpi4-k3s-1.img.zst /dev/sdb --seed seeds/ --count 5
      five cards, one after the other, each with a seed of its own
  holdfast flash images/holdfast-x86-64-k3s-1.img /dev/sdb --seed n2.seed.toml --installer \\
      --install-bus nvme --install-erase
      a stick that installs itself on a machine's NVMe disk
  holdfast flash images/holdfast-x86-64-k3s-1.img n3.img --size 16G --seed n3.seed.toml
      a file, for a machine elsewhere

Only cards, sticks and other disks on USB are overwritten, never a mounted one nor the system's own. \
What was written is read back from the medium before it can start a machine: one that was not finished \
starts nothing. Needs the right to write to the device, not root. A seed that went on a card is marked \
by a file beside it (n1.seed.toml.used), and is not put on another.")]
pub struct Args {
    /// The disk image: .img, or .img.zst
    #[arg(value_name = "IMAGE")]
    image: Option<PathBuf>,
    /// The card, stick or disk; a file stands for a disk of its size
    #[arg(value_name = "DEVICE")]
    device: Option<PathBuf>,
    /// List what is plugged in, and whether it can be used
    #[arg(long)]
    list: bool,
    /// A seed, or a folder of seeds; may be repeated, one for each card
    #[arg(long = "seed", value_name = "FILE")]
    seeds: Vec<PathBuf>,
    /// Flash so many cards one after the other [default: one, or one for each --seed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Put a seed on a card although it went on another before, or on all (its grant needs as many
    /// uses)
    #[arg(long, requires = "seeds")]
    reuse_seed: bool,
    /// Overwrite without asking
    #[arg(short = 'y', long)]
    yes: bool,
    /// Internal disks, too
    #[arg(long)]
    allow_internal: bool,
    /// Make DEVICE, a file that does not exist, so large: 16G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Do not read back what was written
    #[arg(long)]
    no_verify: bool,
    /// Leave the medium where it is when all is done
    #[arg(long)]
    no_eject: bool,
    #[command(flatten)]
    install: InstallArgs,
}

/// What was done, for programs.
#[derive(Debug, Serialize)]
struct Report {
    image: PathBuf,
    board: String,
    version: String,
    generation: u64,
    cards: Vec<Card>,
    failed: Vec<Failed>,
}

/// The exit code that goes with an error.
fn explain(error: Error) -> anyhow::Error {
    let exit = match &error {
        Error::NoImage(_) | Error::NoDevice(_) | Error::NoDisk(_) => Exit::Usage,
        Error::Device { .. }
        | Error::Busy(_)
        | Error::Swapped(_)
        | Error::NoRights { .. }
        | Error::Seed(_) => Exit::Refused,
        _ => Exit::Failed,
    };
    exit.error(error.to_string())
}

/// Runs the verb.
pub fn run(app: &App, args: Args) -> Result<()> {
    let image = args
        .image
        .as_deref()
        .map(Image::inspect)
        .transpose()
        .map_err(explain)?;
    let needs = Needs {
        bytes: image.as_ref().map(|i| i.len),
        internal: args.allow_internal,
    };
    match (&image, &args.device) {
        (Some(image), Some(device)) if !args.list => {
            flash(app, &args, image, device.clone(), needs)
        }
        _ => list::run(app, needs),
    }
}

fn flash(app: &App, args: &Args, image: &Image, device: PathBuf, needs: Needs) -> Result<()> {
    let wishes = args.install.table().map(InstallWishes);
    if wishes.is_some() && args.seeds.is_empty() {
        return Err(Exit::Usage.error(
            "an installer needs a seed, which it hands on to the disk it installs on: give --seed",
        ));
    }
    let mut seeds = Seeds::collect(&args.seeds, args.reuse_seed)?;
    seeds.prepare(image, wishes.as_ref())?;
    let count = seeds.cards(args.count)?;
    if count > 1 && args.count.is_none() {
        ask::can_change_cards(&device, count)?;
    }
    if seeds.is_none() {
        app.say("note: no --seed: the machine waits for a seed.toml on the volume HOLDFAST");
    }
    if seeds.any_installs() && wishes.is_none() {
        app.say("note: the seed has an [install] table: this makes an installer");
    }
    let stop = Stop::watch().context("cannot watch for Ctrl-C")?;
    let options = card::Options {
        image,
        device: &device,
        needs,
        yes: args.yes,
        size: args.size,
        verify: !args.no_verify,
        eject: !args.no_eject,
    };
    let mut report = Report {
        image: image.path.clone(),
        board: image.board.clone(),
        version: image.version.clone(),
        generation: image.generation,
        cards: Vec::new(),
        failed: Vec::new(),
    };
    while report.cards.len() < count {
        if !report.cards.is_empty() || !report.failed.is_empty() {
            ask::next_card(app, &options, report.cards.len(), count, seeds.next_name())?;
        }
        let seed = seeds.next();
        match card::flash(&options, seed, &stop)? {
            Ok(card) => {
                seeds.went();
                report.cards.push(card);
            }
            // One bad card does not end the stack.
            Err(error) if count > 1 && is_the_cards(&error) => {
                app.say(&crate::words::plain(&error.to_string()));
                report.failed.push(Failed {
                    device: device.clone(),
                    error: error.to_string(),
                });
            }
            Err(error) => return Err(explain(error)),
        }
    }
    app.print(&report, || text(&report))
}

/// Whether another card may do better.
fn is_the_cards(error: &Error) -> bool {
    matches!(
        error,
        Error::BadCard { .. } | Error::Gone { .. } | Error::Write { .. }
    )
}

fn text(report: &Report) -> String {
    let one = |card: &Card| {
        let seed = card
            .seed
            .as_ref()
            .map_or_else(String::new, |s| format!(" with {}", s.display()));
        let end = match (card.ejected, card.file) {
            (_, true) => "done",
            (true, _) => "ejected, take it out",
            (false, _) => "it can be taken out",
        };
        format!("{}{seed}: {end}.", card.device.display())
    };
    let mut lines: Vec<_> = report.cards.iter().map(one).collect();
    if !report.failed.is_empty() {
        lines.push(format!("{} card(s) failed.", report.failed.len()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use holdfast_core::seed::Bus;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let cli = crate::args::Cli::try_parse_from(line.split(' '))?;
        match cli.verb {
            crate::args::Verb::Flash(args) => Ok(*args),
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn what_is_said_about_installing_reaches_the_seed() {
        let line =
            "holdfast flash a.img /dev/sdb --seed s --installer --install-bus nvme --install-erase";
        let table = parse(line).unwrap().install.table().unwrap();
        assert_eq!(table.bus, [Bus::Nvme]);
        assert!(table.erase && !table.reuse);
        for bad in [
            "holdfast flash a.img b --seed s --install-erase",
            "holdfast flash a.img b --count 0",
            "holdfast flash a.img b --reuse-seed",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_and_wrong_names_have_exit_codes() {
        use crate::exit::code_of;
        assert_eq!(code_of(&explain(Error::NoDevice("/dev/sdz".into()))), 2);
        assert_eq!(code_of(&explain(Error::Busy("/dev/sdb".into()))), 4);
        let stopped = Error::Stopped {
            path: "/dev/sdb".into(),
        };
        assert_eq!(code_of(&explain(stopped)), 1);
    }
}
