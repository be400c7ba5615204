//! Measures for the report what takes how much.

use std::collections::BTreeMap;

use holdfast_core::image::K3S_IMAGES;
use rayon::prelude::*;

use super::{Builder, stages::BootModules};
use crate::{
    error::{IoContext, Result},
    lock::Lock,
    pack::Pack,
    progress::step,
    report::{self, Frame, Measured, Owner, RootFile, SizeReport},
    root::{
        content::Inputs,
        squashfs::packed,
        tree::{Data, Node, Tree},
    },
};

/// What was built, beside what the request tells.
pub(super) struct Built<'a> {
    pub(super) lock: &'a Lock,
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) boot: &'a BootModules<'a>,
    pub(super) root_packs: &'a [Pack],
    /// The initramfs's archives: modules, init, agent, firmware, then others.
    pub(super) frames: &'a [u64],
    pub(super) measured: Measured,
}

impl Builder<'_> {
    /// The report, where it was asked for.
    pub(super) fn size_report(&self, built: Built<'_>) -> Result<Option<SizeReport>> {
        if !self.request.report {
            return Ok(None);
        }
        step(&*self.progress, "size report", || {
            let (board, recipe) = (&self.request.board, &self.request.recipe);
            let mut measured = built.measured;
            let tree = crate::root::content::tree(built.inputs)?;
            let names = built.lock.root_packages(board.arch).map(|p| p.name.clone());
            let owners: BTreeMap<String, String> = built
                .root_packs
                .iter()
                .map(|pack| pack.key().to_owned())
                .zip(names)
                .collect();
            measured.files = self.files(&tree, &owners)?;
            measured.frames = self.frames(built.frames, built.boot)?;
            let report = report::report(&board.name, &recipe.name, &measured);
            Ok((Some(report), false))
        })
    }

    fn files(&self, tree: &Tree, owners: &BTreeMap<String, String>) -> Result<Vec<RootFile>> {
        let files: Vec<(&String, &Data)> = tree
            .nodes
            .iter()
            .filter_map(|(path, node)| match node {
                Node::File { data, .. } => Some((path, data)),
                _ => None,
            })
            .collect();
        files
            .par_iter()
            .map(|(path, data)| {
                let bytes = data.read()?;
                Ok(RootFile {
                    path: (*path).clone(),
                    owner: self.owner(path, data, owners),
                    bytes: bytes.len() as u64,
                    packed: packed(&bytes, super::stages::ROOT_LEVEL)?,
                })
            })
            .collect()
    }

    fn owner(&self, path: &str, data: &Data, owners: &BTreeMap<String, String>) -> Owner {
        let package = match data {
            Data::Slice(slice) => owners.get(&*slice.key),
            Data::Bytes(_) => None,
        };
        if let Some(package) = package {
            return Owner::Package(package.clone());
        }
        let images = K3S_IMAGES.trim_start_matches('/');
        match path {
            "usr/bin/k3s" => Owner::K3s,
            "etc/ssl/certs/ca-certificates.crt" => Owner::Package("ca-certificates".into()),
            _ if path.starts_with("usr/lib/k3s/") => Owner::K3s,
            _ if path.starts_with(images) => Owner::ContainerImage,
            _ if path.starts_with("usr/lib/modules/") => Owner::Module,
            _ if self.request.recipe.files.iter().any(|f| f.path == path) => Owner::Recipe,
            _ => Owner::Holdfast,
        }
    }

    fn frames(&self, packed: &[u64], boot: &BootModules<'_>) -> Result<Vec<Frame>> {
        let binaries = &self.request.binaries;
        let of = |path: &std::path::Path| -> Result<u64> {
            Ok(std::fs::metadata(path).at("read", path)?.len())
        };
        let modules = boot
            .modules
            .iter()
            .map(|m| (m.name().to_owned(), m.bytes.len() as u64))
            .collect();
        let firmware = boot
            .firmware
            .iter()
            .map(|f| (f.path.clone(), f.slice.len))
            .collect();
        let parts = [
            ("modules", modules),
            ("init", vec![("init".to_owned(), of(&binaries.init)?)]),
            ("agent", vec![("agent".to_owned(), of(&binaries.agent)?)]),
            ("firmware", firmware),
        ];
        Ok(parts
            .into_iter()
            .zip(packed)
            .map(|((name, files), packed)| Frame {
                name: name.to_owned(),
                packed: *packed,
                files,
            })
            .collect())
    }
}
