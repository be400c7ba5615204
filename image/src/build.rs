//! The way from a recipe to an image. Each step's result is kept under the digest of what went
//! into it, so a second build does only what changed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use holdfast_core::{
    header::{Encoding, SlotHeader, Watchdog, slot_digest},
    image::{ImageInfo, K3sInfo},
    loader_keys::LoaderKeys,
    manifest::Manifest,
    releases::ReleaseList,
    text::Text,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    archive::fetch::{Fetcher, Wanted},
    bundle,
    cache::{Cache, write_whole},
    deb,
    digest::{self, Digest, Inputs},
    disk,
    error::{Error, IoContext, Result},
    lock::{self, Lock, Locked},
    modules::{KernelPackage, Module},
    pack::{Kind, Pack, Writer},
    payload::{initramfs, uki},
    progress::{Event, Progress, step},
    request::{BuildReport, BuildRequest, Relock, Sizes, StepReport},
    root::{
        content::{self, K3sBinary},
        squashfs, verity,
    },
    sbom,
};

/// zstd level of the root; figures in `docs/design.md`.
const ROOT_LEVEL: u32 = 9;
/// Where the agent lies in the initramfs.
const AGENT: &str = "usr/bin/holdfast-agent";

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

/// What a root is, beside its bytes.
#[derive(Serialize, Deserialize)]
struct RootMeta {
    /// Length of the file system; the tree follows.
    fs_len: u64,
    /// dm-verity root hash.
    root_hash: Digest,
    /// File system and tree.
    len: u64,
    digest: Digest,
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

        let kernel_pack = board_packs
            .iter()
            .find(|p| KernelPackage::new(p).is_ok())
            .ok_or_else(|| {
                Error::build(
                    "kernel",
                    format!("package {} brings none", request.board.kernel_package),
                )
            })?;
        let stub = board_packs
            .iter()
            .find_map(|p| p.find(&request.board.stub))
            .ok_or_else(|| {
                Error::build(
                    "board",
                    format!(
                        "boot.stub: package {} has no {}",
                        request.board.stub_package, request.board.stub
                    ),
                )
            })?;
        let kernel = KernelPackage::new(kernel_pack)?;
        let (modules_key, boot_modules, late_modules) = self.modules(&kernel, kernel_pack)?;

        // The two long steps side by side: the root, and what goes into the initramfs.
        let (root, frames) = rayon::join(
            || {
                self.root(
                    &root_packs,
                    &kernel.release,
                    &late_modules,
                    k3s.as_ref(),
                    lock.date,
                )
            },
            || self.initramfs_frames(&modules_key, &kernel.release, date, &boot_modules),
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
        let initramfs = self.initramfs(frames, date, &info)?;
        let kernel_image = kernel.image()?.read()?;
        let uki = self.uki(
            &stub.read()?,
            &kernel_image,
            &kernel.release,
            &initramfs,
            &root,
        )?;
        let uki_digest = Digest::of(&uki);
        let header = self.header(&uki, &uki_digest);
        let loader = self.loader(&keys)?;

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
                kernel: kernel_image.len() as u64,
                initramfs: initramfs.len() as u64,
                root: len(&root_image),
                k3s: k3s.as_ref().map_or(0, |k| k.len),
            },
            k3s: k3s_info,
            relocked,
            steps: Vec::new(),
            took: Duration::ZERO,
        })
    }

    /// An image that its own loader would refuse is not built.
    fn check_signing(&self) -> Result<LoaderKeys> {
        let signing = &self.request.signing;
        let roots: Vec<[u8; 32]> = signing.roots.iter().map(|k| k.0).collect();
        let keys = LoaderKeys::new(signing.cluster.0, &roots)
            .map_err(|e| Error::build("cluster keys", e))?;
        let list = ReleaseList::verify(&signing.release_list, &keys)
            .map_err(|e| Error::build("the cluster's release list", e))?;
        if !list.keys().contains(&signing.release_key.public().0) {
            return Err(Error::build(
                "release key",
                format!(
                    "{} is not in the cluster's release list",
                    signing.release_key.public()
                ),
            ));
        }
        for (what, text) in [
            ("version", &self.request.version),
            ("board", &self.request.board.name),
        ] {
            if Text::<63>::exact(text).is_none() || text.is_empty() {
                return Err(Error::build(
                    what,
                    format!("{text:?} must have 1 to 63 bytes"),
                ));
            }
        }
        Ok(keys)
    }

    /// The lock, with all its packages in the cache; made anew where that was asked for.
    fn locked_packages(&self) -> Result<(Lock, bool)> {
        let request = self.request;
        let relock = || {
            lock::lock(
                &request.recipe,
                std::slice::from_ref(&request.board),
                &request.sources,
                self.cache,
                self.progress.clone(),
            )
        };
        let first = match request.relock {
            Relock::Always => relock().map(|l| (l, true)),
            Relock::Never | Relock::WhenGone => {
                Lock::read(&request.recipe, &request.board).map(|l| (l, false))
            }
        };
        let fetched = first.and_then(|(lock, new)| self.fetch(&lock).map(|()| (lock, new)));
        match fetched {
            Err(e @ (Error::Gone { .. } | Error::Lock { .. }))
                if request.relock == Relock::WhenGone =>
            {
                self.progress.event(Event::Note(&format!(
                    "{e}; locking anew, as --relock when-gone asks"
                )));
                let lock = relock()?;
                self.fetch(&lock)?;
                Ok((lock, true))
            }
            other => other,
        }
    }

    fn fetch(&self, lock: &Lock) -> Result<()> {
        let wanted: Vec<Wanted> = self
            .used(lock)
            .map(|p| Wanted {
                location: p.path.clone(),
                sha256: p.sha256,
                size: Some(p.size),
            })
            .filter(|w| !self.cache.object(&w.sha256).exists())
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.request
            .sources
            .fetcher(self.progress.clone())?
            .objects(self.cache, &wanted, &self.request.recipe.name)
    }

    fn used<'l>(&self, lock: &'l Lock) -> impl Iterator<Item = &'l Locked> {
        lock.root_packages(self.request.board.arch)
            .chain(lock.board_packages(&self.request.board.name))
    }

    /// The k3s binary: test equipment, or the recipe's by its digest.
    fn k3s(&self) -> Result<Option<K3sBinary>> {
        let request = self.request;
        let Some(k3s) = &request.recipe.k3s else {
            return match &request.k3s_stand_in {
                None => Ok(None),
                Some(_) => Err(Error::build(
                    "k3s stand-in",
                    format!(
                        "recipe {} holds no k3s to stand in for",
                        request.recipe.name
                    ),
                )),
            };
        };
        if let Some(path) = &request.k3s_stand_in {
            let len = std::fs::metadata(path).at("read", path)?.len();
            return Ok(Some(K3sBinary {
                path: path.clone(),
                sha256: digest::of_file(path)?,
                len,
            }));
        }
        if k3s.stand_in {
            return Err(Error::build(
                format!("recipe {}", request.recipe.name),
                "its k3s is a stand-in, test equipment: give it with --k3s stand-in=PATH (kube/build.sh builds it)",
            ));
        }
        let arch = request.board.arch.debian();
        let (url, sha256) = k3s.assets.get(arch).ok_or_else(|| {
            Error::build(
                format!("recipe {}", request.recipe.name),
                format!("has no [k3s.{arch}] with url and sha256"),
            )
        })?;
        let wanted = Wanted {
            location: url.clone(),
            sha256: *sha256,
            size: None,
        };
        Fetcher::new("", self.progress.clone()).objects(
            self.cache,
            &[wanted],
            &request.recipe.name,
        )?;
        let path = self.cache.object(sha256);
        let len = std::fs::metadata(&path).at("read", &path)?.len();
        Ok(Some(K3sBinary {
            path,
            sha256: *sha256,
            len,
        }))
    }

    fn k3s_info(&self, binary: Option<&K3sBinary>) -> Option<K3sInfo> {
        let (k3s, binary) = (self.request.recipe.k3s.as_ref()?, binary?);
        Some(K3sInfo {
            version: k3s.version.clone(),
            sha256: binary.sha256.to_string(),
            stand_in: self.request.k3s_stand_in.is_some(),
        })
    }

    /// The packages of the root and of the board, unpacked in the cache.
    fn unpack(&self, lock: &Lock) -> Result<(Vec<Pack>, Vec<Pack>)> {
        step(&*self.progress, "unpack packages", || {
            let all: Vec<&Locked> = self.used(lock).collect();
            let done = all
                .par_iter()
                .with_max_len(1)
                .map(|p| {
                    let key = Inputs::of(deb::STAGE).with(p.sha256.0).key();
                    let object = self.cache.object(&p.sha256);
                    let (dir, cached) = self
                        .cache
                        .stage("deb", &key, |to| deb::unpack(&object, &p.name, to))?;
                    Ok((Pack::open(&dir)?, cached))
                })
                .collect::<Result<Vec<_>>>()?;
            let cached = done.iter().all(|(_, cached)| *cached);
            let roots = lock.root_packages(self.request.board.arch).count();
            let mut packs: Vec<Pack> = done.into_iter().map(|(pack, _)| pack).collect();
            let board = packs.split_off(roots);
            Ok(((packs, board), cached))
        })
    }

    /// The boot and late modules, decompressed, in load order, and a key that stands for them.
    fn modules(
        &self,
        kernel: &KernelPackage<'_>,
        pack: &Pack,
    ) -> Result<(Digest, Vec<Module>, Vec<Module>)> {
        let board = &self.request.board;
        let late: Vec<String> = board
            .late_modules
            .iter()
            .chain(&self.request.recipe.modules)
            .cloned()
            .collect();
        let key = Inputs::of("modules/1")
            .with(pack.key())
            .with(board.boot_modules.join(" "))
            .with(late.join(" "))
            .key();
        step(&*self.progress, "kernel modules", || {
            let (dir, cached) = self.cache.stage("modules", &key, |to| {
                let mut have = BTreeSet::new();
                let boot = kernel.closure(&board.boot_modules, &mut have)?;
                let late = kernel.closure(&late, &mut have)?;
                let mut out = Writer::create(to)?;
                for (kind, modules) in [("boot", &boot), ("late", &late)] {
                    for module in modules {
                        out.file(
                            format!("{kind}/{}", module.path),
                            0o644,
                            &mut &module.bytes[..],
                        )?;
                    }
                }
                out.finish()
            })?;
            let pack = Pack::open(&dir)?;
            let read = |kind: &str| -> Result<Vec<Module>> {
                let prefix = format!("{kind}/");
                let files = pack.entries.iter().filter_map(|e| {
                    match (e.path.strip_prefix(&prefix), &e.kind) {
                        (Some(path), Kind::File { offset, len, .. }) => Some((path, *offset, *len)),
                        _ => None,
                    }
                });
                files
                    .map(|(path, offset, len)| {
                        Ok(Module {
                            path: path.to_owned(),
                            bytes: pack.slice(offset, len).read()?,
                        })
                    })
                    .collect()
            };
            Ok(((key, read("boot")?, read("late")?), cached))
        })
    }

    /// File system and verity tree in one file, and what init has to know of it.
    fn root(
        &self,
        packages: &[Pack],
        kernel_release: &str,
        late_modules: &[Module],
        k3s: Option<&K3sBinary>,
        date: u64,
    ) -> Result<(PathBuf, RootMeta)> {
        step(&*self.progress, "root", || {
            let recipe = &self.request.recipe;
            let tree = content::tree(&content::Inputs {
                recipe,
                packages,
                kernel_release,
                late_modules,
                k3s,
            })?;
            let tree_key = tree.key("tree/1");
            let key = Inputs::of("root/1")
                .with(tree_key.0)
                .with(ROOT_LEVEL.to_le_bytes())
                .with(date.to_le_bytes())
                .key();
            let (dir, cached) = self.cache.stage("root", &key, |to| {
                std::fs::create_dir(to).at("create", to)?;
                let image = to.join("image");
                let fs_len = squashfs::write(&tree, ROOT_LEVEL, date, &image)?;
                let mut bytes = std::fs::read(&image).at("read", &image)?;
                let (hashes, root_hash) = verity::tree(&bytes);
                bytes.extend(hashes);
                std::fs::write(&image, &bytes).at("write", &image)?;
                let meta = RootMeta {
                    fs_len,
                    root_hash: Digest(root_hash),
                    len: bytes.len() as u64,
                    digest: Digest::of(&bytes),
                };
                let text = serde_json::to_vec(&meta).map_err(|e| Error::build("root", e))?;
                std::fs::write(to.join("meta.json"), text).at("write", to)
            })?;
            let meta = dir.join("meta.json");
            let bytes = std::fs::read(&meta).at("read", &meta)?;
            let meta = serde_json::from_slice(&bytes).map_err(|e| {
                Error::build(
                    meta.display().to_string(),
                    format!("{e}; delete its folder"),
                )
            })?;
            Ok(((dir.join("image"), meta), cached))
        })
    }

    fn initramfs_frames(
        &self,
        modules_key: &Digest,
        release: &str,
        date: u32,
        modules: &[Module],
    ) -> Result<Vec<Vec<u8>>> {
        step(&*self.progress, "initramfs", || {
            let binaries = &self.request.binaries;
            let (modules, (init, agent)) = rayon::join(
                || initramfs::modules(self.cache, modules_key, release, date, modules),
                || {
                    rayon::join(
                        || initramfs::program(self.cache, "init", date, &binaries.init),
                        || initramfs::program(self.cache, AGENT, date, &binaries.agent),
                    )
                },
            );
            Ok((vec![modules?, init?, agent?], false))
        })
    }

    fn initramfs(&self, frames: Vec<Vec<u8>>, date: u32, info: &ImageInfo) -> Result<Vec<u8>> {
        let json = serde_json::to_vec_pretty(info).map_err(|e| Error::build("image.json", e))?;
        let small = [
            (
                holdfast_core::image::IMAGE_JSON.trim_start_matches('/'),
                &json[..],
            ),
            (
                "etc/holdfast/board.toml",
                self.request.board.text.as_bytes(),
            ),
        ];
        let mut all = frames.concat();
        all.extend(initramfs::files(date, &small)?);
        Ok(all)
    }

    fn uki(
        &self,
        stub: &[u8],
        kernel: &[u8],
        release: &str,
        initramfs: &[u8],
        root: &RootMeta,
    ) -> Result<Vec<u8>> {
        let request = self.request;
        let mut args: Vec<String> = request
            .board
            .kernel_args
            .iter()
            .chain(&request.recipe.kernel_args)
            .cloned()
            .collect();
        args.push(format!("holdfast.roothash={}", root.root_hash));
        args.push(format!("holdfast.rootlen={}", root.fs_len));
        args.push("holdfast.rootfs=squashfs".to_owned());
        let os_release = format!(
            "ID=holdfast\nNAME=Holdfast\nPRETTY_NAME=\"Holdfast {0}\"\nVERSION_ID=\"{0}\"\nIMAGE_ID={1}\n",
            request.version, request.recipe.name
        );
        uki::assemble(
            stub,
            &[
                (".osrel", os_release.as_bytes()),
                (".uname", release.as_bytes()),
                (".cmdline", args.join(" ").as_bytes()),
                (".initrd", initramfs),
                (".linux", kernel),
            ],
        )
    }

    fn header(&self, uki: &[u8], digest: &Digest) -> holdfast_core::bytes::Block {
        let (request, key) = (self.request, &self.request.signing.release_key);
        let board = &request.board;
        let header = SlotHeader {
            encoding: Encoding::Raw,
            watchdog: board.watchdog,
            watchdog_seconds: if board.watchdog == Watchdog::None {
                0
            } else {
                board.watchdog_seconds
            },
            generation: request.generation,
            stored_len: uki.len() as u64,
            decoded_len: uki.len() as u64,
            payload: digest.0,
            board: Text::new(&board.name),
            version: Text::new(&request.version),
        };
        header.encode(&key.public().0, |bytes| key.sign(bytes).0)
    }

    fn loader(&self, keys: &LoaderKeys) -> Result<Vec<u8>> {
        let path = &self.request.binaries.loader;
        let mut bytes = std::fs::read(path).at("read", path)?;
        keys.patch(&mut bytes)
            .map_err(|e| Error::build(path.display().to_string(), e))?;
        Ok(bytes)
    }

    fn write(
        &self,
        contents: &disk::image::Contents<'_>,
        manifest: &Manifest,
        lock: &Lock,
        k3s: Option<&K3sBinary>,
    ) -> Result<Files> {
        let request = self.request;
        let dir = &request.output_dir;
        std::fs::create_dir_all(dir).at("create", dir)?;
        let name = format!(
            "holdfast-{}-{}-{}",
            request.board.name, request.recipe.name, request.version
        );
        let outputs = request.outputs;
        let path = |wanted: bool, end: &str| wanted.then(|| dir.join(format!("{name}.{end}")));
        let files = Files {
            raw: path(outputs.raw, "img"),
            qcow2: path(outputs.qcow2, "qcow2"),
            bundle: path(outputs.bundle, "bundle"),
            sbom: path(outputs.sbom, "spdx.json"),
        };
        step(&*self.progress, "write files", || {
            let (disks, rest) = rayon::join(
                || -> Result<()> {
                    let (pieces, len) = disk::image::pieces(contents)?;
                    if let Some(to) = &files.raw {
                        whole(to, |to| disk::piece::write_raw(&pieces, len, to))?;
                    }
                    if let Some(to) = &files.qcow2 {
                        whole(to, |to| disk::qcow2::write(&pieces, len, to))?;
                    }
                    Ok(())
                },
                || -> Result<()> {
                    if let Some(to) = &files.bundle {
                        let key = &request.signing.release_key;
                        whole(to, |to| {
                            bundle::write(manifest, key, contents.uki, contents.root, to)
                        })?;
                    }
                    if let Some(to) = &files.sbom {
                        let json = serde_json::to_vec_pretty(&self.bill(&name, lock, k3s)?)
                            .map_err(|e| Error::build("bill of materials", e))?;
                        write_whole(to, &json)?;
                    }
                    Ok(())
                },
            );
            disks.and(rest)?;
            Ok(((), false))
        })?;
        Ok(files)
    }

    fn bill(&self, name: &str, lock: &Lock, k3s: Option<&K3sBinary>) -> Result<serde_json::Value> {
        let (request, binaries) = (self.request, &self.request.binaries);
        let own = env!("CARGO_PKG_VERSION");
        let mut extras = Vec::new();
        for (name, path) in [
            ("holdfast-init", &binaries.init),
            ("holdfast-agent", &binaries.agent),
            ("holdfast-boot", &binaries.loader),
        ] {
            extras.push(sbom::Extra {
                name,
                version: own,
                sha256: digest::of_file(path)?,
                license: "Apache-2.0",
                location: "NOASSERTION",
            });
        }
        if let (Some(binary), Some(recipe)) = (k3s, &request.recipe.k3s) {
            let stand_in = request.k3s_stand_in.is_some();
            let url = recipe
                .assets
                .get(request.board.arch.debian())
                .map(|(url, _)| url.as_str());
            extras.push(sbom::Extra {
                name: if stand_in { "k3s-stand-in" } else { "k3s" },
                version: &recipe.version,
                sha256: binary.sha256,
                license: "Apache-2.0",
                location: if stand_in {
                    "NOASSERTION"
                } else {
                    url.unwrap_or("NOASSERTION")
                },
            });
        }
        let who = lock::users(request.board.arch, &request.board.name);
        Ok(sbom::document(name, lock, &who, &extras))
    }
}

/// Paths of what was written.
struct Files {
    raw: Option<PathBuf>,
    qcow2: Option<PathBuf>,
    bundle: Option<PathBuf>,
    sbom: Option<PathBuf>,
}

/// Lets `write` make a file beside `to`, which then takes its place in one step.
fn whole(to: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let making = to.with_file_name(format!(".{name}.making"));
    let done = write(&making).and_then(|()| std::fs::rename(&making, to).at("write", to));
    if done.is_err() {
        let _ = std::fs::remove_file(&making);
    }
    done
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
