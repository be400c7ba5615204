//! What the firmware and the loader start: loader with its keys, slot header, unified kernel image.

use holdfast_core::{
    bytes::Block,
    header::{DECODED_MAX, Encoding, SlotHeader, Watchdog},
    image::ImageInfo,
    loader_keys::LoaderKeys,
    releases::ReleaseList,
    text::Text,
};

use super::{Builder, stages::RootMeta};
use crate::{
    digest::Digest,
    error::{Error, IoContext, Result},
    payload::{initramfs, uki},
};

/// zstd level of a UKI whose kernel is not compressed; figures in `docs/design.md`.
const UKI_LEVEL: i32 = 9;

/// What a unified kernel image is made of, beside its command line.
pub(super) struct UkiParts<'a> {
    pub(super) stub: &'a [u8],
    pub(super) kernel: &'a [u8],
    pub(super) release: &'a str,
    /// An archive that the kernel reads before all others.
    pub(super) microcode: Option<Vec<u8>>,
    pub(super) device_trees: Vec<Vec<u8>>,
    pub(super) initramfs: &'a [u8],
    pub(super) root: &'a RootMeta,
}

impl Builder<'_> {
    /// An image that its own loader would refuse is not built.
    pub(super) fn check_signing(&self) -> Result<LoaderKeys> {
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

    pub(super) fn initramfs(
        &self,
        frames: Vec<Vec<u8>>,
        date: u32,
        info: &ImageInfo,
    ) -> Result<Vec<u8>> {
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

    pub(super) fn uki(&self, parts: &UkiParts<'_>) -> Result<Vec<u8>> {
        let request = self.request;
        let mut args: Vec<String> = request
            .board
            .kernel_args
            .iter()
            .chain(&request.recipe.kernel_args)
            .cloned()
            .collect();
        args.push(format!("holdfast.roothash={}", parts.root.root_hash));
        args.push(format!("holdfast.rootlen={}", parts.root.fs_len));
        args.push("holdfast.rootfs=squashfs".to_owned());
        let trial = request.recipe.trial_seconds.or(request.board.trial_seconds);
        args.extend(trial.map(|seconds| format!("holdfast.trial={seconds}")));
        let probation = request.recipe.probation_seconds;
        args.extend(probation.map(|seconds| format!("holdfast.probation={seconds}")));
        let os_release = format!(
            "ID=holdfast\nNAME=Holdfast\nPRETTY_NAME=\"Holdfast {0}\"\nVERSION_ID=\"{0}\"\nIMAGE_ID={1}\n",
            request.version, request.recipe.name
        );
        let args = args.join(" ");
        let mut sections: Vec<(&str, &[u8])> = vec![
            (".osrel", os_release.as_bytes()),
            (".uname", parts.release.as_bytes()),
            (".cmdline", args.as_bytes()),
        ];
        sections.extend(parts.microcode.iter().map(|m| (".ucode", &m[..])));
        sections.extend(parts.device_trees.iter().map(|t| (".dtbauto", &t[..])));
        sections.push((".initrd", parts.initramfs));
        sections.push((".linux", parts.kernel));
        uki::assemble(parts.stub, &sections)
    }

    /// The UKI as it lies in its slot.
    pub(super) fn encode(&self, uki: Vec<u8>) -> Result<Vec<u8>> {
        if uki.len() as u64 > DECODED_MAX {
            let reason = format!(
                "is {} MiB, the loader takes {} MiB at most",
                uki.len() >> 20,
                DECODED_MAX >> 20
            );
            return Err(Error::build("the unified kernel image", reason));
        }
        match self.request.board.encoding {
            Encoding::Raw => Ok(uki),
            Encoding::Zstd => zstd::bulk::compress(&uki, UKI_LEVEL)
                .map_err(|e| Error::build("the unified kernel image", e)),
        }
    }

    /// Length of a part of the UKI, and what the slot's encoding leaves of it, for the report.
    pub(super) fn in_slot(&self, part: &[u8]) -> Result<(u64, u64)> {
        let len = part.len() as u64;
        match self.request.report && len > 0 {
            true => Ok((len, self.encode(part.to_vec())?.len() as u64)),
            false => Ok((len, len)),
        }
    }

    pub(super) fn header(&self, stored: &[u8], decoded_len: u64, digest: &Digest) -> Block {
        let (request, key) = (self.request, &self.request.signing.release_key);
        let board = &request.board;
        let header = SlotHeader {
            encoding: board.encoding,
            watchdog: board.watchdog,
            watchdog_seconds: if board.watchdog == Watchdog::None {
                0
            } else {
                board.watchdog_seconds
            },
            generation: request.generation,
            stored_len: stored.len() as u64,
            decoded_len,
            payload: digest.0,
            board: Text::new(&board.name),
            version: Text::new(&request.version),
        };
        header.encode(&key.public().0, |bytes| key.sign(bytes).0)
    }

    pub(super) fn loader(&self, keys: &LoaderKeys) -> Result<Vec<u8>> {
        let path = &self.request.binaries.loader;
        let mut bytes = std::fs::read(path).at("read", path)?;
        keys.patch(&mut bytes)
            .map_err(|e| Error::build(path.display().to_string(), e))?;
        Ok(bytes)
    }
}
