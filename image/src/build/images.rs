//! Container images that come along for k3s, checked against the recipe's digests.

use std::path::PathBuf;

use holdfast_core::layout::Role;
use holdfast_core::slots::Slot;

use super::Builder;
use crate::{
    archive::fetch::{Fetcher, Wanted},
    digest::{self, Digest},
    error::{Error, IoContext, Result},
    recipe::{ImageSource, K3s},
};

impl Builder<'_> {
    /// File name, file, digest and length of each.
    pub(super) fn k3s_images(&self, k3s: &K3s) -> Result<Vec<(String, PathBuf, Digest, u64)>> {
        let mut found = Vec::new();
        for image in &k3s.images {
            let path = match &image.source {
                ImageSource::Path(path) => {
                    let is = digest::of_file(path)?;
                    if is != image.sha256 {
                        return Err(image.error(format!(
                            "{} has SHA-256 {is}, the recipe says {}",
                            path.display(),
                            image.sha256
                        )));
                    }
                    path.clone()
                }
                ImageSource::Url(url) => {
                    let wanted = Wanted {
                        location: url.clone(),
                        sha256: image.sha256,
                        size: None,
                    };
                    Fetcher::new("", self.progress.clone())
                        .objects(self.cache, &[wanted], &self.request.recipe.called())
                        .map_err(|e| image.error(format!("{:?}: {e}", image.name)))?;
                    self.cache.object(&image.sha256)
                }
            };
            let len = std::fs::metadata(&path).at("read", &path)?.len();
            found.push((image.name.clone(), path, image.sha256, len));
        }
        room(&found)?;
        Ok(found)
    }
}

/// Archives of images are packed already: together they cannot be larger than the root's place.
fn room(images: &[(String, PathBuf, Digest, u64)]) -> Result<()> {
    let limit = Role::Root(Slot::A).size();
    let all: u64 = images.iter().map(|(_, _, _, len)| len).sum();
    if all <= limit {
        return Ok(());
    }
    let mut list: Vec<_> = images.iter().map(|(n, _, _, len)| (*len, n)).collect();
    list.sort_unstable_by(|a, b| b.cmp(a));
    let list: Vec<String> = list
        .iter()
        .map(|(len, name)| format!("{name} {} MiB", len >> 20))
        .collect();
    Err(Error::build(
        "the container images of the recipe",
        format!(
            "are {} MiB together, the root has room for {} MiB: {}",
            all >> 20,
            limit >> 20,
            list.join(", ")
        ),
    ))
}
