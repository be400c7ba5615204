//! The way from a recipe to an image. Each step's result is kept under the digest of what went
//! into it, so a second build does only what changed.

mod boot;
pub(crate) mod firmware;
mod images;
mod output;
mod packages;
mod sizes;
mod stages;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use holdfast_core::{header::slot_digest, image::ImageInfo, manifest::Manifest};

use crate::{
    board::Board,
    bundle,
    cache::Cache,
    digest::{Digest, Inputs},
    disk,
    error::{Error, Result},
    modules::Kernel,
    pack::Pack,
    progress::{Event, Progress},
    report::Measured,
    request::{BuildReport, BuildRequest, Sizes, StepReport},
    root::content,
};

/// Remembers steps for the report while it passes events on.
struct Recorder {
    next: Arc<dyn Progress>,
    steps: Mutex<Vec<StepReport>>,
}

impl Progress for Recorder {
    fn event(&self, event: Event<'_>) {
        if let (Event::Done { step, cached, took }, Ok(mut steps)) = (event, self.steps.lock()) {
            steps.push(StepReport {
                step: step.to_owned(),
                cached,
                millis: took.as_millis() as u64,
            });
        }
        self.next.event(event);
    }
}

/// Builds an image.
///
/// # Errors
/// Whatever the recipe, the archive or the file system gets wrong: nothing half-written is left
/// under a final name.
pub fn build(request: &BuildRequest, progress: Arc<dyn Progress>) -> Result<BuildReport> {
    let begun = Instant::now();
    // One architecture's recipe from here on.
    let request = &BuildRequest {
        recipe: request.recipe.resolved(request.board.arch),
        ..request.clone()
    };
    let recorder = Arc::new(Recorder {
        next: progress,
        steps: Mutex::default(),
    });
    let builder = Builder {
        request,
        cache: &request.cache,
        progress: recorder.clone(),
    };
    let mut report = builder.run()?;
    report.steps = recorder.steps.lock().map(|s| s.clone()).unwrap_or_default();
    report.took = begun.elapsed();
    request.cache.prune(&["root", "modules", "initramfs"]);
    Ok(report)
}

struct Builder<'a> {
    request: &'a BuildRequest,
    cache: &'a Cache,
    progress: Arc<Recorder>,
}

impl Builder<'_> {
    fn run(&self) -> Result<BuildReport> {
        let request = self.request;
        let keys = self.check_signing()?;
        let (lock, relocked) = self.locked_packages()?;
        let date =
            u32::try_from(lock.date).map_err(|_| Error::build("lock", "its date is after 2106"))?;
        let k3s = self.k3s()?;
        let (root_packs, board_packs) = self.unpack(&lock)?;

        let board = &request.board;
        let kernel = Kernel::new(&board_packs).map_err(|e| {
            let name = &board.kernel_package;
            let e = Error::build(
                format!("package {name}"),
                format!("brings no kernel to build with; a linux-image-* is needed: {e}"),
            );
            board.origins.blame("kernel.package", name, e)
        })?;
        let stub = board_packs
            .iter()
            .find_map(|p| p.find(&board.stub))
            .ok_or_else(|| no_stub(board, &board_packs))?;
        let (modules_key, boot_modules, late_modules) = self.modules(&kernel)?;

        let inputs = content::Inputs {
            recipe: &request.recipe,
            packages: &root_packs,
            kernel_release: &kernel.release,
            late_modules: &late_modules,
            firmware: &self.root_firmware(&board_packs)?,
            k3s: k3s.as_ref(),
        };
        let boot = stages::BootModules {
            key: &modules_key,
            release: &kernel.release,
            modules: &boot_modules,
            firmware: &self.initramfs_firmware(&board_packs)?,
        };
        // The two long steps side by side: the root, and what goes into the initramfs.
        let (root, frames) = rayon::join(
            || self.root(&inputs, lock.date),
            || self.initramfs_frames(&boot, date),
        );
        let ((root_image, root), frames) = (root?, frames?);

        let k3s_info = self.k3s_info(k3s.as_ref());
        let info = ImageInfo {
            version: request.version.clone(),
            generation: request.generation,
            board: request.board.name.clone(),
            recipe: request.recipe.name.clone(),
            built: lock.date,
            k3s: k3s_info.clone(),
        };
        let frame_lens: Vec<u64> = frames.iter().map(|f| f.len() as u64).collect();
        let initramfs = self.initramfs(frames, date, &info)?;
        let kernel_image = kernel.image()?.read()?;
        let uki_parts = boot::UkiParts {
            stub: &stub.read()?,
            kernel: &kernel_image,
            release: &kernel.release,
            microcode: self.microcode(&board_packs, date)?,
            device_trees: self.device_trees(&board_packs, &kernel.release)?,
            initramfs: &initramfs,
            root: &root,
        };
        let microcode = uki_parts.microcode.as_ref().map_or(0, |m| m.len() as u64);
        let uki = self.uki(&uki_parts)?;
        let decoded_len = uki.len() as u64;
        let uki = self.encode(uki)?;
        let uki_digest = Digest::of(&uki);
        let header = self.header(&uki, decoded_len, &uki_digest);
        let loader = self.loader(&keys)?;
        let esp_files = self.esp_files(&board_packs, &kernel.release)?;

        let (boot_payload, root_payload) = bundle::payloads(
            &bundle::Content {
                len: uki.len() as u64,
                digest: uki_digest,
            },
            &bundle::Content {
                len: root.len,
                digest: root.digest,
            },
        );
        let manifest = Manifest {
            cluster: request.signing.cluster,
            board: info.board.clone(),
            generation: info.generation,
            version: info.version.clone(),
            recipe: info.recipe.clone(),
            built: info.built,
            header: base64_of(&header),
            boot: boot_payload,
            root: root_payload,
            k3s: k3s_info.clone(),
        };
        let contents = disk::image::Contents {
            loader_path: &request.board.loader,
            loader: &loader,
            esp_files: &esp_files,
            hybrid_mbr: board.hybrid_mbr,
            release_list: &request.signing.release_list,
            header: &header,
            generation: request.generation,
            uki: &uki,
            root: &root_image,
            seed: Inputs::of("disk/1")
                .with(request.signing.cluster.0)
                .with(slot_digest(&header))
                .key(),
        };
        let files = self.write(&contents, &manifest, &lock, k3s.as_ref())?;
        let parts = self.size_report(sizes::Built {
            lock: &lock,
            inputs: &inputs,
            boot: &boot,
            root_packs: &root_packs,
            frames: &frame_lens,
            measured: Measured {
                loader: loader.len() as u64,
                uki: uki.len() as u64,
                stub: stub.len,
                kernel: self.in_slot(&kernel_image)?,
                microcode: self.in_slot(uki_parts.microcode.as_deref().unwrap_or_default())?,
                device_trees: self.in_slot(&uki_parts.device_trees.concat())?,
                initramfs: initramfs.len() as u64,
                esp_files: esp_files
                    .iter()
                    .map(|(path, bytes)| (path.clone(), bytes.len() as u64))
                    .collect(),
                root_fs: root.fs_len,
                root: root.len,
                ..Measured::default()
            },
        })?;
        let len = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
        Ok(BuildReport {
            image: files.raw,
            qcow2: files.qcow2,
            bundle: files.bundle,
            sbom: files.sbom,
            version: info.version,
            generation: info.generation,
            slot_digest: Digest(slot_digest(&header)),
            root_hash: root.root_hash,
            sizes: Sizes {
                loader: loader.len() as u64,
                uki: uki.len() as u64,
                uki_decoded: decoded_len,
                kernel: kernel_image.len() as u64,
                microcode,
                initramfs: initramfs.len() as u64,
                root: len(&root_image),
                k3s: k3s.as_ref().map_or(0, |k| k.len),
            },
            k3s: k3s_info,
            parts,
            relocked,
            steps: Vec::new(),
            took: Duration::ZERO,
        })
    }
}

fn no_stub(board: &Board, packs: &[Pack]) -> Error {
    let stubs: Vec<&str> = packs
        .iter()
        .flat_map(|p| &p.entries)
        .map(|e| e.path.as_str())
        .filter(|path| path.ends_with(".stub"))
        .collect();
    let hint = match stubs.is_empty() {
        true => "it has no stub at all".to_owned(),
        false => format!("it has {}", stubs.join(", ")),
    };
    let e = Error::build(
        format!("package {}", board.stub_package),
        format!("has no {}; {hint}", board.stub),
    );
    board.origins.blame("boot.stub", &board.stub, e)
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
