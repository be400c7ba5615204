//! The disk image: on the host already, or brought there.

use super::place;
use super::work::Work;
use crate::exit::Exit;
use crate::words::size;
use anyhow::{Context as _, Result};
use holdfast_core::seed::Seed;
use holdfast_proxmox::answers::{self, Release, StorageEntry};
use holdfast_proxmox::calls;
use holdfast_proxmox::machine::{DISK, Machine};
use holdfast_proxmox::names::{Node, Storage, Volume};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the image is.
#[derive(Debug, Clone)]
pub enum Image {
    /// A file of this computer.
    Local(PathBuf),
    /// A volume of the host.
    There(Volume),
}

/// A file wins over a volume of that name.
pub fn parse(text: &str) -> Result<Image, String> {
    let path = PathBuf::from(text);
    match text.parse::<Volume>() {
        Ok(volume) if !path.exists() => Ok(Image::There(volume)),
        _ => Ok(Image::Local(path)),
    }
}

/// Refuses what Proxmox would, before anything is sent.
pub fn check(path: &Path) -> Result<()> {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic));
    match read {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Exit::Usage.error(format!(
                "there is no image {}: `holdfast build --board proxmox --recipe RECIPE --formats qcow2` makes one",
                path.display()
            )));
        }
        // Shorter than the magic: no image either.
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {}
        read => read.with_context(|| format!("cannot read the image {}", path.display()))?,
    }
    // QEMU: docs/interop/qcow2.rst.
    if &magic != b"QFI\xfb" {
        return Err(Exit::Usage.error(format!(
            "{} is no qcow2 image: `holdfast build --board proxmox --recipe RECIPE --formats qcow2` makes one",
            path.display()
        )));
    }
    Ok(())
}

/// Refuses an image that no such machine starts, or that the seed is not for, before the host is
/// asked anything. One that somebody else made, or packed anew, is taken unseen.
pub fn fits(path: &Path, seed: Option<&Seed>) -> Result<()> {
    let Ok(image) = holdfast_flash::image::Image::inspect_qcow2(path) else {
        return Ok(());
    };
    if image.arch != "x86_64" {
        return Err(Exit::Usage.error(format!(
            "{} is for board {} ({}), the machine would be an x86 one: `holdfast build --board proxmox --recipe \
             RECIPE --formats qcow2`",
            path.display(),
            image.board,
            image.arch
        )));
    }
    let Some(seed) = seed else { return Ok(()) };
    holdfast_flash::seed::check(seed, &image)
        .map_err(|e| Exit::Refused.error(format!("the seed does not fit {}: {e}", path.display())))
}

/// What to type where the API cannot bring an image to the host.
fn by_hand(machine: &Machine, path: &Path, host: &str, why: &str) -> String {
    let file = path
        .file_name()
        .map_or_else(|| "image.qcow2".into(), |f| f.to_string_lossy());
    let host = host.rsplit_once(':').map_or(host, |(h, _)| h);
    let options: Vec<String> = machine
        .settings()
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, _)| !["vmid", "boot", "description", DISK, "ide2"].contains(&name.as_str()))
        .map(|(name, value)| format!("--{name} {value}"))
        .collect();
    let (id, storage) = (machine.id, &machine.storage);
    format!(
        "{why}. By hand:\n\
         \x20 scp {} root@{host}:/var/tmp/\n\
         \x20 ssh root@{host}\n\
         \x20 qm create {id} {}\n\
         \x20 qm importdisk {id} /var/tmp/{file} {storage}      (it prints the volume's name)\n\
         \x20 qm set {id} --scsi0 {storage}:vm-{id}-disk-1 --boot order=scsi0\n\
         Then put the seed on a drive: docs/boards/proxmox.md",
        path.display(),
        options.join(" ")
    )
}

/// Where images are uploaded to.
pub struct Store<'a> {
    pub node: &'a Node,
    pub storages: &'a [StorageEntry],
    pub wanted: Option<&'a Storage>,
}

/// Brings the image to the host, unless it is there already: its name holds its digest.
pub async fn bring(
    work: &mut Work<'_>,
    store: &Store<'_>,
    path: &Path,
    machine: &Machine,
) -> Result<Volume> {
    let host = work.client.host().to_owned();
    let release = Release::read(&place::ask(work.client, &calls::version()).await?)?;
    if release < Release::TAKES_IMAGES {
        let why = format!(
            "Proxmox VE {release} takes no disk images through its API ({} does)",
            Release::TAKES_IMAGES
        );
        return Err(Exit::Failed.error(by_hand(machine, path, &host, &why)));
    }
    let target = match place::choose(store.storages, "import", "--import-storage", store.wanted) {
        Ok(target) => target,
        Err(why) if store.wanted.is_none() && !store.storages.iter().any(|s| s.holds("import")) => {
            return Err(Exit::Usage.error(by_hand(machine, path, &host, &why.to_string())));
        }
        Err(why) => return Err(why),
    };
    let digest = tokio::task::spawn_blocking({
        let path = path.to_owned();
        move || holdfast_proxmox::file_digest(&path)
    })
    .await?
    .with_context(|| path.display().to_string())?;
    let file = format!("holdfast-{}.qcow2", &digest[..16]);
    let volume = Volume::file(&target.storage, "import", &file);
    let listing = calls::content(store.node, &target.storage, "import");
    let there = answers::volumes(&place::ask(work.client, &listing).await?)?;
    if there.contains(&volume) {
        work.steps
            .line(&format!("{:<28} is there already: {volume}", "image"));
        return Ok(volume);
    }
    let len = std::fs::metadata(path).map_or(0, |m| m.len());
    if target.free.is_some_and(|free| free < len) {
        return Err(Exit::Failed.error(format!(
            "storage {} has {} left, the image takes {}",
            target.storage,
            size(target.free.unwrap_or(0)),
            size(len)
        )));
    }
    // Half a file is no use; a whole one stays for the next machine.
    work.will_make_file(store.node, &volume);
    let steps = work.steps.clone();
    let tell = Arc::clone(&steps);
    let upload = work.client.upload_file(
        store.node,
        &target.storage,
        ("import", &file),
        path,
        &digest,
        move |sent| tell.set("image", sent, len),
    );
    work.patiently(upload).await?;
    work.keep_file(&volume);
    steps.done("image", &size(len));
    Ok(volume)
}
