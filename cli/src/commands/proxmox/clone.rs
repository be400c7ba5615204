//! `holdfast proxmox clone`.

use super::connect::HostArgs;
use super::create::{gib, put_drive};
use super::drive::{CheckedSeed, DriveArgs, uuid};
use super::place;
use super::start::{Row, StartArgs, rows};
use super::work::Work;
use crate::app::App;
use crate::exit::Exit;
use crate::words::parse_size;
use anyhow::Result;
use holdfast_proxmox::answers::MachineEntry;
use holdfast_proxmox::calls;
use holdfast_proxmox::machine::{DISK, DRIVE, TAG, description, drive_file, plugged};
use holdfast_proxmox::names::{MachineName, Storage, Volume};
use std::path::PathBuf;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast seed new --role agent --uses 3 --name-prefix shelf --out shelf.seed.toml
  holdfast proxmox clone base --count 3 --name shelf --seed shelf.seed.toml --start
      makes shelf-01, shelf-02 and shelf-03

Each machine is a whole copy with a network address, UUID and drive of its own, so that each becomes a \
node of its own. The seed needs as many uses as there are machines, and no name if there are several. \
A node's own name comes from its grant in the order of the joins, and need not be its machine's. If one copy fails, those that are whole stay.")]
pub struct Args {
    #[command(flatten)]
    host: HostArgs,
    /// The template (or a machine that is off), by number or name
    template: String,
    /// How many
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    count: u32,
    /// Names: NAME for one, NAME-01, NAME-02, … for several
    #[arg(long, value_name = "NAME")]
    name: MachineName,
    /// The seed for all of them
    #[arg(long, value_name = "FILE")]
    seed: PathBuf,
    #[command(flatten)]
    drive: DriveArgs,
    /// Where their disks go [default: where the template's are]
    #[arg(long, value_name = "STORAGE")]
    storage: Option<Storage>,
    /// Grow their disks to this
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    disk_size: Option<u64>,
    #[command(flatten)]
    start: StartArgs,
}

fn names(prefix: &MachineName, count: u32) -> Result<Vec<MachineName>> {
    if count == 1 {
        return Ok(vec![prefix.clone()]);
    }
    // As a grant of several uses numbers its nodes.
    let width = count.to_string().len().max(2);
    let numbered = |n| format!("{prefix}-{n:0width$}");
    let all = (1..=count).map(|n| numbered(n).parse().map_err(anyhow::Error::from));
    all.collect()
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let seed = CheckedSeed::read(&args.seed, &args.drive)?;
    if let Some(name) = &seed.seed.name
        && args.count > 1
    {
        return Err(Exit::Usage.error(format!(
            "{} is for one node, {name}: for {} machines make one without a name, \
             `holdfast seed new --role ROLE --uses {}`",
            args.seed.display(),
            args.count,
            args.count
        )));
    }
    let client = args.host.client()?;
    let machines = place::machines(&client).await?;
    let template = place::find(&machines, &args.template)?.clone();
    if template.running {
        return Err(Exit::Usage.error(format!(
            "VM {} runs: a copy would have its disk as a power cut leaves it, with all that its /var holds. Clone a template",
            template.id
        )));
    }
    let names = names(&args.name, args.count)?;
    for name in &names {
        place::name_is_free(&machines, name)?;
    }
    let storages = place::storages(&client, &template.node).await?;
    let drives = place::choose(
        &storages,
        "iso",
        "--iso-storage",
        args.drive.iso_storage.as_ref(),
    )?;
    if let Some(storage) = &args.storage {
        place::choose(&storages, "images", "--storage", Some(storage))?;
    }
    let mut work = Work::begin(&client)?;
    let mut made = vec![];
    let mut result = Ok(());
    for name in names {
        match one(&mut work, &args, &seed, &template, &drives.storage, name).await {
            Ok(row) => {
                work.keep_all();
                made.push(row);
            }
            Err(e) => {
                result = Err(e);
                break;
            }
        }
    }
    if result.is_ok() {
        result = args.start.carry_out(&mut work, &mut made).await;
    }
    let whole = !made.is_empty() && result.is_err();
    let ended = work.end(app, result).await;
    if whole {
        app.say("These are made and stay:");
    }
    if ended.is_ok() || whole {
        app.print(&made, || rows(&made))?;
    }
    ended
}

async fn one(
    work: &mut Work<'_>,
    args: &Args,
    seed: &CheckedSeed,
    template: &MachineEntry,
    drives: &Storage,
    name: MachineName,
) -> Result<Row> {
    let node = &template.node;
    let id = place::free_id(work.client, None).await?;
    let volume = Volume::file(drives, "iso", &drive_file(id, &name));
    put_drive(work, node, &volume, seed.drive(&uuid()?, &name)?).await?;
    let text = description(Some(&volume));
    let call = calls::clone(
        node,
        template.id,
        id,
        name.as_str(),
        &text,
        args.storage.as_ref(),
    );
    let step = format!("copy to {name}");
    work.make_machine(&step, &call, node, id, volume.file_name())
        .await?;
    let settings = vec![
        (DRIVE.into(), plugged(&volume)),
        ("tags".into(), TAG.into()),
    ];
    let step = format!("drive of {name}");
    work.run(&step, &calls::set_config(node, id, settings))
        .await?;
    if let Some(bytes) = args.disk_size {
        let step = format!("grow {name}'s disk");
        work.run(&step, &calls::resize(node, id, DISK, gib(bytes)))
            .await?;
    }
    Ok(Row {
        vmid: id,
        node: node.clone(),
        name,
        template: false,
        running: false,
        drive: Some(volume),
        image: None,
        addresses: vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_are_numbered() {
        let all = |n| {
            let names = names(&"shelf".parse().unwrap(), n).unwrap();
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(all(1), ["shelf"]);
        assert_eq!(all(3), ["shelf-01", "shelf-02", "shelf-03"]);
    }
}
