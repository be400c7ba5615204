//! One card: looked at, asked about, written, read back, ejected.

use super::list::{content_of, medium_size};
use super::seeds::SeedFile;
use super::stop::Stop;
use super::{ask, explain};
use crate::exit::Exit;
use crate::progress::Steps;
use crate::words;
use anyhow::{Context as _, Result};
use holdfast_flash::Error;
use holdfast_flash::device::{Bus, Needs, Obstacle, obstacle};
use holdfast_flash::image::Image;
use holdfast_flash::medium::{Presence, look};
use holdfast_flash::plan::Plan;
use holdfast_flash::write::{self, Disk, Job, Place, Progress};
use serde::Serialize;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What holds for every card of a stack.
pub struct Options<'a> {
    pub image: &'a Image,
    pub device: &'a Path,
    pub needs: Needs,
    pub yes: bool,
    pub size: Option<u64>,
    pub verify: bool,
    pub eject: bool,
}

/// A card that is done.
#[derive(Debug, Serialize)]
pub struct Card {
    pub device: PathBuf,
    #[serde(skip)]
    pub file: bool,
    pub model: String,
    /// Its size in bytes.
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<PathBuf>,
    pub installer: bool,
    /// The GUID of the disk it became.
    pub disk: String,
    /// Bytes written, bytes of zeros asked for, bytes left out.
    pub written: u64,
    pub zeroed: u64,
    pub left_out: u64,
    pub seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_seconds: Option<f64>,
    pub ejected: bool,
}

/// A card that failed, in a stack that went on.
#[derive(Debug, Serialize)]
pub struct Failed {
    pub device: PathBuf,
    pub error: String,
}

/// What may be overwritten.
pub struct Checked {
    model: String,
    bus: Option<Bus>,
    bytes: u64,
    sector: u32,
    fresh: bool,
}

/// Whether the device is there and may be overwritten.
pub fn check(options: &Options<'_>) -> Result<Checked> {
    let refused = |obstacle| {
        explain(Error::Device {
            path: options.device.to_owned(),
            obstacle,
        })
    };
    let fresh = match options.size {
        Some(size) if !options.device.exists() => {
            create(options.device, size)?;
            true
        }
        _ => false,
    };
    let place = write::find(options.device).map_err(explain)?;
    if !fresh {
        size_is(&place, options)?;
    }
    match place {
        Place::Disk(device) => match obstacle(&device, options.needs) {
            Some(obstacle) => Err(refused(obstacle)),
            None => Ok(Checked {
                model: format!("{} {}", device.model, device.serial)
                    .trim()
                    .to_owned(),
                bus: Some(device.bus),
                bytes: device.bytes,
                sector: device.sector,
                fresh,
            }),
        },
        Place::File(has) => match options.needs.bytes.filter(|needs| *needs > has) {
            Some(needs) => {
                if fresh {
                    let _ = std::fs::remove_file(options.device);
                }
                Err(refused(Obstacle::TooSmall { has, needs }))
            }
            None => Ok(Checked {
                model: "a file".into(),
                bus: None,
                bytes: has,
                sector: 512,
                fresh,
            }),
        },
    }
}

/// `--size` is for a file that is made: it changes neither disks nor files.
fn size_is(place: &Place, options: &Options<'_>) -> Result<()> {
    let has = match place {
        Place::Disk(device) => device.bytes,
        Place::File(bytes) => *bytes,
    };
    match options.size {
        Some(size) if size != has => Err(Exit::Usage.error(format!(
            "{} is there, of {has} bytes: --size makes a new file. Leave --size out, or name another file",
            options.device.display()
        ))),
        _ => Ok(()),
    }
}

/// Makes a file that stands for a disk.
fn create(path: &Path, size: u64) -> Result<()> {
    let what = || format!("cannot make {}", path.display());
    if path.starts_with("/dev") {
        return Err(Exit::Usage.error(format!(
            "there is no {}, and --size makes no devices",
            path.display()
        )));
    }
    let file = File::create_new(path).with_context(what)?;
    file.set_len(size).with_context(what)
}

/// Flashes the card that is there. The inner error is one of writing: another card may do better.
pub fn flash(
    options: &Options<'_>,
    seed: Option<&SeedFile>,
    stop: &Stop,
) -> Result<Result<Card, Error>> {
    let image = options.image;
    let device = options.device;
    let seen = || look(device).with_context(|| format!("cannot look at {}", device.display()));
    // Before it is judged: what is opened has to be what was judged, and asked about.
    let before = seen()?;
    let checked = check(options)?;
    let before = match (checked.fresh, before) {
        (false, before @ Presence::Present(_)) => before,
        _ => seen()?,
    };
    if !checked.fresh {
        let on_it = content_of(device, checked.bytes, checked.sector);
        let bus = checked.bus.map_or_else(String::new, |b| format!(", {b}"));
        let what = format!(
            "{}: {}, {}{bus}. On it: {on_it}.",
            device.display(),
            checked.model,
            medium_size(checked.bytes)
        );
        let with = seed.map_or_else(String::new, |s| format!(" and {}", s.path.display()));
        let question = format!(
            "Everything on it will be lost. Write {} (board {}){with}?",
            image.version, image.board
        );
        ask::confirm(&what, &question, options.yes)?;
    }
    let disk = Disk::open_seen(device, &before).map_err(explain)?;
    if disk.len() < image.len {
        return Err(explain(Error::Device {
            path: device.to_owned(),
            obstacle: Obstacle::TooSmall {
                has: disk.len(),
                needs: image.len,
            },
        }));
    }
    let text = seed.map(|s| s.text.as_bytes());
    let plan = Plan::new(image, disk.len(), text, getrandom::fill).map_err(explain)?;
    let note = format!(
        "image {} (board {}, generation {})\nmedium {}, {}, {} bytes\ndisk {}\n",
        image.path.display(),
        image.board,
        image.generation,
        device.display(),
        checked.model,
        disk.len(),
        plan.disk()
    );
    let mark = seed.map(|s| s.mark(&note)).transpose()?;
    let steps = Bars(Steps::new());
    let job = Job {
        target: &disk,
        path: device,
        progress: &steps,
        stop: stop.wanted(),
        verify: options.verify,
    };
    let done = stop.while_writing(|| {
        let done = write::flash(&image.path, &plan, &job);
        if let Some(mark) = mark {
            // A card that is not whole never starts: its seed is as good as new.
            match &done {
                Ok(_) => mark.keep(&note),
                Err(_) => mark.take_back(),
            }
        }
        done
    });
    steps.0.clear();
    let done = match done {
        Ok(done) => done,
        Err(error) => return Ok(Err(error)),
    };
    let removable = matches!(checked.bus, Some(Bus::Usb));
    let ejected = options.eject && removable && disk.eject().is_ok();
    if !ejected {
        disk.reread_table();
    }
    Ok(Ok(Card {
        device: device.to_owned(),
        file: checked.bus.is_none(),
        model: checked.model,
        bytes: checked.bytes,
        seed: seed.map(|s| s.path.clone()),
        installer: seed.is_some_and(|s| s.seed.install.is_some()),
        disk: plan.disk().to_string(),
        written: done.written,
        zeroed: done.zeroed,
        left_out: done.left_out,
        seconds: done.took.as_secs_f64(),
        verify_seconds: done.verified.map(|d| d.as_secs_f64()),
        ejected,
    }))
}

/// Bars, and a line with the throughput at a step's end.
struct Bars(Steps);

impl Progress for Bars {
    fn begin(&self, step: &str, total: Option<u64>) {
        self.0.start(step, total);
    }

    fn advance(&self, step: &str, bytes: u64) {
        self.0.advance(step, bytes);
    }

    fn end(&self, step: &str, bytes: u64, took: Duration) {
        let rate = bytes as f64 / took.as_secs_f64().max(0.001);
        let words = format!(
            "{} in {:.1} s, {}/s",
            words::size(bytes),
            took.as_secs_f64(),
            words::size(rate as u64)
        );
        self.0.done(step, &words);
    }
}
