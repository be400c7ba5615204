//! The files that a build leaves: disk images, update bundle, bill of materials.

use std::path::{Path, PathBuf};

use holdfast_core::manifest::Manifest;

use super::Builder;
use crate::{
    bundle,
    cache::write_whole,
    digest, disk,
    error::{Error, IoContext, Result},
    lock::{self, Lock},
    progress::step,
    root::content::K3sBinary,
    sbom,
};

/// Paths of what was written.
pub(super) struct Files {
    pub(super) raw: Option<PathBuf>,
    pub(super) qcow2: Option<PathBuf>,
    pub(super) bundle: Option<PathBuf>,
    pub(super) sbom: Option<PathBuf>,
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

impl Builder<'_> {
    pub(super) fn write(
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

    pub(super) fn bill(
        &self,
        name: &str,
        lock: &Lock,
        k3s: Option<&K3sBinary>,
    ) -> Result<serde_json::Value> {
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
