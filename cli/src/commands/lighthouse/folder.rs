//! A lighthouse's folder in the cluster's directory, and the document that names it.

use super::{CONFIG, LighthouseConfig};
use crate::app::App;
use crate::cluster_dir::{ClusterDir, Documents, KeyFile};
use crate::exit::Exit;
use crate::files;
use anyhow::{Context as _, Result};
use holdfast_core::documents::{DocumentSet, Lighthouse, Lighthouses, Roots};
use holdfast_core::signed::Signed;
use holdfast_lighthouse::{ClusterFile, Keys, LighthouseDir, unix_now};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The port of the first of `host:port` texts.
pub fn port_of(all: &[String]) -> Option<u16> {
    all.first()?.rsplit_once(':')?.1.parse().ok()
}

/// The error for a name that the documents do not have.
pub fn unknown(name: &str) -> anyhow::Error {
    Exit::Usage.error(format!(
        "no lighthouse is called {name:?}: `holdfast lighthouse list` shows them"
    ))
}

/// Signs the change; returns all documents with it.
pub fn sign(
    app: &App,
    cluster: &ClusterDir,
    held: &Documents,
    list: &Lighthouses,
) -> Result<DocumentSet> {
    let root = app.key(cluster, KeyFile::Root)?;
    Ok(DocumentSet {
        lighthouses: Signed::sign(list, &root).context("signing the lighthouses document")?,
        ..held.set.clone()
    })
}

/// A lighthouse's folder as it was made.
pub struct Folder {
    /// Where it is.
    pub dir: PathBuf,
    /// Where the one that was there is kept.
    pub kept: Option<PathBuf>,
    /// Until when members may fill it, in Unix seconds.
    pub refill_until: u64,
}

/// `dir` with something after its name.
pub fn beside(dir: &Path, end: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{end}"));
    dir.with_file_name(name)
}

/// Puts a folder that was there out of the way, under the generation that did so.
pub fn put_by(dir: &Path, generation: u64) -> Result<Option<PathBuf>> {
    if !dir.exists() {
        return Ok(None);
    }
    let kept = beside(dir, &generation.to_string());
    std::fs::rename(dir, &kept).with_context(|| format!("cannot rename {}", dir.display()))?;
    Ok(Some(kept))
}

/// Writes the folder of lighthouse `new`, keeps an old one beside it.
pub fn write_folder(
    cluster: &ClusterDir,
    set: &DocumentSet,
    generation: u64,
    keys: &Keys,
    new: &Lighthouse,
    (listen, refill): (IpAddr, Duration),
) -> Result<Folder> {
    let dir = cluster.lighthouse_of(new);
    let fresh = beside(&dir, "new");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)
            .with_context(|| format!("cannot remove {}", fresh.display()))?;
    }
    let c = &cluster.config;
    let file = ClusterFile::new(c.name.clone(), c.id, c.dual_stack, Roots(c.roots.clone()));
    if let Some(parent) = dir.parent().filter(|p| **p == cluster.lighthouses()) {
        files::make_private_dir(parent)?;
    }
    let made = LighthouseDir::create(&fresh, &file, keys, set)?;
    let refill_until = unix_now().saturating_add(refill.as_secs());
    made.put_refill_until(refill_until)?;
    let socket = |texts: &[String]| {
        let port = port_of(texts).context("an address without a port")?;
        Ok::<_, anyhow::Error>(SocketAddr::new(listen, port))
    };
    let config = LighthouseConfig {
        https: vec![socket(&new.https)?],
        udp: socket(&new.udp)?,
        relay_mbits: None,
    };
    files::write_public(&fresh.join(CONFIG), toml::to_string(&config)?.as_bytes())?;
    let kept = put_by(&dir, generation)?;
    std::fs::rename(&fresh, &dir).with_context(|| format!("cannot rename {}", fresh.display()))?;
    Ok(Folder {
        dir,
        kept,
        refill_until,
    })
}
