//! What is plugged in.

use crate::app::App;
use crate::table::table;
use anyhow::Result;
use holdfast_flash::device::{Device, Needs, Snapshot, content, devices, obstacle};
use serde::Serialize;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    device: Device,
    /// What is on it.
    content: String,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// A medium's size as it stands on it: in powers of ten.
pub fn medium_size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// What lies on a disk or in a file, in words.
pub fn content_of(path: &Path, bytes: u64, sector: u32) -> String {
    if bytes == 0 {
        return String::new();
    }
    let Ok(file) = File::open(path) else {
        return "not known: you may not read it".into();
    };
    content::describe(bytes, sector, |at, len| {
        let mut buffer = vec![0; len];
        file.read_exact_at(&mut buffer, at).ok()?;
        Some(buffer)
    })
}

/// Lists removable disks, or all.
pub fn run(app: &App, needs: Needs) -> Result<()> {
    let snapshot = Snapshot::take().map_err(super::explain)?;
    let rows: Vec<_> = devices(&snapshot)
        .into_iter()
        .filter(|d| d.removable || needs.internal)
        .map(|device| {
            let why = obstacle(&device, needs).map(|o| o.to_string());
            Row {
                content: content_of(&device.path, device.bytes, device.sector),
                usable: why.is_none(),
                why,
                device,
            }
        })
        .collect();
    app.print(&rows, || text(&rows, needs))
}

fn text(rows: &[Row], needs: Needs) -> String {
    if rows.is_empty() {
        return match needs.internal {
            true => "There is no disk here.".into(),
            false => {
                "No card and no stick is plugged in (--allow-internal lists internal disks, too)."
                    .into()
            }
        };
    }
    table(
        ["device", "size", "model", "bus", "on it", "usable"],
        rows.iter().map(|row| {
            let d = &row.device;
            [
                d.path.display().to_string(),
                match d.bytes {
                    0 => String::new(),
                    bytes => medium_size(bytes),
                },
                d.model.clone(),
                d.bus.to_string(),
                row.content.clone(),
                match &row.why {
                    Some(why) => format!("no: {why}"),
                    None => "yes".into(),
                },
            ]
        }),
    )
}
