//! The cluster's directory on the operator's machine.
//!
//! | file | holds |
//! |---|---|
//! | `cluster.toml` | what `cluster new` fixed: name, id, roots' public halves, dual stack; how this machine reaches the lighthouse |
//! | `keys/root.age`, `keys/operator.age`, `keys/release.age` | private keys, encrypted with the passphrase |
//! | `documents.json` | what the roots signed, newest known generation |
//! | `counters.json` | next mesh index, last release generation |
//! | `grants/ID.json` | grants not yet handed to the lighthouse |
//! | `grants/handed-over/ID.json` | copies of those that it has |
//! | `lighthouse/` | all that the lighthouse with the lowest mesh index needs: the one of `cluster new`, later whichever was added in its place |
//! | `lighthouses/NAME/` | the same for each other one |

use crate::counters::Counters;
use crate::exit::Exit;
use crate::files;
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use holdfast_core::cluster::{AddressPlan, ClusterId, MeshIndex};
use holdfast_core::documents::{
    Document, DocumentSet, Lighthouse, Lighthouses, Operators, Policy, Roots, accept,
};
use holdfast_core::keys::PublicKey;
use holdfast_core::names::ClusterName;
use holdfast_core::releases::ReleaseList;
use holdfast_core::signed::Signed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file that makes a directory a cluster's.
pub const CLUSTER_TOML: &str = "cluster.toml";
const DOCUMENTS: &str = "documents.json";
const COUNTERS: &str = "counters.json";
/// The only format so far.
const VERSION: u32 = 1;

/// Which of the cluster's keys.
#[derive(Debug, Clone, Copy)]
pub enum KeyFile {
    /// Signs documents.
    Root,
    /// Asks nodes and the lighthouse, signs grants.
    Operator,
    /// Signs images and bundles.
    Release,
}

/// `cluster.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Format of the file.
    pub version: u32,
    /// The cluster's name.
    pub name: ClusterName,
    /// The cluster's id.
    pub id: ClusterId,
    /// Whether pods and services have IPv6 ranges too.
    pub dual_stack: bool,
    /// Public halves of the roots: the one in use, the printed one.
    pub roots: Vec<PublicKey>,
    /// `host:port` of the HTTPS API of the lighthouse in `lighthouse/` as this machine reaches it, tried
    /// before those in the lighthouses document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api: Vec<String>,
    /// The same of the other lighthouses, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_apis: BTreeMap<String, Vec<String>>,
}

/// The documents, opened and found to be signed by a root.
#[derive(Debug, Clone)]
pub struct Documents {
    /// As signed.
    pub set: DocumentSet,
    /// Who may ask what.
    pub operators: Operators,
    /// Where the lighthouses are.
    pub lighthouses: Lighthouses,
    /// Who may reach whom.
    pub policy: Policy,
}

fn newer<T: Document + Clone>(
    held: &mut T,
    held_signed: &mut Signed<T>,
    found: &Signed<T>,
    roots: &Roots,
    cluster: ClusterId,
) -> Result<bool> {
    match accept(found, roots, cluster, None) {
        Ok(doc) if doc.generation() > held.generation() => {
            *held = doc;
            *held_signed = found.clone();
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(e) => Err(Exit::Refused.error(format!(
            "the lighthouse holds a document that no root of this cluster signed: {e}"
        ))),
    }
}

impl Documents {
    fn open(set: DocumentSet, roots: &Roots, cluster: ClusterId) -> Result<Self> {
        Ok(Self {
            operators: accept(&set.operators, roots, cluster, None)?,
            lighthouses: accept(&set.lighthouses, roots, cluster, None)?,
            policy: accept(&set.policy, roots, cluster, None)?,
            set,
        })
    }

    /// Takes over what is newer in `found`; says whether anything was.
    ///
    /// # Errors
    /// When a document there was not signed by a root.
    pub fn take_newer(
        &mut self,
        found: &DocumentSet,
        roots: &Roots,
        cluster: ClusterId,
    ) -> Result<bool> {
        let operators = newer(
            &mut self.operators,
            &mut self.set.operators,
            &found.operators,
            roots,
            cluster,
        )?;
        let lighthouses = newer(
            &mut self.lighthouses,
            &mut self.set.lighthouses,
            &found.lighthouses,
            roots,
            cluster,
        )?;
        let policy = newer(
            &mut self.policy,
            &mut self.set.policy,
            &found.policy,
            roots,
            cluster,
        )?;
        Ok(operators || lighthouses || policy)
    }
}

/// An opened cluster directory.
#[derive(Debug)]
pub struct ClusterDir {
    /// Where it is.
    pub path: PathBuf,
    /// `cluster.toml`.
    pub config: ClusterConfig,
}

/// Held while counters or documents are changed, so that two commands never hand out one index.
pub struct Locked(#[expect(dead_code, reason = "the lock goes with the file")] std::fs::File);

impl ClusterDir {
    /// Opens the directory given by `--cluster` or `HOLDFAST_CLUSTER`, else the current one.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        match given {
            Some(path) if path.join(CLUSTER_TOML).is_file() => Self::open(path),
            Some(path) => Err(Exit::Usage.error(format!(
                "{} is no cluster directory: it holds no {CLUSTER_TOML}; `holdfast cluster new NAME` makes one",
                path.display()
            ))),
            None if Path::new(CLUSTER_TOML).is_file() => Self::open(Path::new(".")),
            None => Err(Exit::Usage.error(
                "which cluster? Give --cluster DIR, set HOLDFAST_CLUSTER, or run this in a cluster's directory; \
                 `holdfast cluster new NAME` makes one",
            )),
        }
    }

    fn open(path: &Path) -> Result<Self> {
        let file = path.join(CLUSTER_TOML);
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let config: ClusterConfig =
            toml::from_str(&text).with_context(|| format!("{} cannot be used", file.display()))?;
        if config.version != VERSION {
            anyhow::bail!(
                "{}: version = {}; this holdfast reads version {VERSION}: use a newer one",
                file.display(),
                config.version
            );
        }
        Ok(Self {
            path: path.to_owned(),
            config,
        })
    }

    /// Makes the files of a new cluster in `path`, keys excepted.
    pub fn create(path: &Path, config: ClusterConfig, set: &DocumentSet) -> Result<Self> {
        let this = Self {
            path: path.to_owned(),
            config,
        };
        this.save_documents(set)?;
        this.save_counters(&Counters::fresh())?;
        files::make_private_dir(&this.path.join("grants"))?;
        // Last: a directory that holds it is whole.
        this.save_config()?;
        Ok(this)
    }

    /// Opens the directory `path`, which must hold a cluster.
    pub fn at(path: &Path) -> Result<Self> {
        Self::find(Some(path))
    }

    /// Reads `cluster.toml` again: under the lock, before it is changed, since another command may
    /// have changed it meanwhile.
    pub fn reload_config(&mut self) -> Result<()> {
        self.config = Self::open(&self.path)?.config;
        Ok(())
    }

    /// Keeps `cluster.toml`.
    pub fn save_config(&self) -> Result<()> {
        let text = toml::to_string(&self.config).context("writing cluster.toml")?;
        files::write_public(&self.path.join(CLUSTER_TOML), text.as_bytes())
    }

    /// The addresses that follow from the cluster's id.
    pub fn plan(&self) -> AddressPlan {
        AddressPlan::new(self.config.id, self.config.dual_stack)
    }

    /// The roots as the documents' checks want them.
    pub fn roots(&self) -> Roots {
        Roots(self.config.roots.clone())
    }

    /// Where an encrypted key is.
    pub fn key(&self, which: KeyFile) -> PathBuf {
        key_in(&self.path, which)
    }

    /// The files of the lighthouse that has the lowest mesh index.
    pub fn lighthouse(&self) -> PathBuf {
        self.path.join("lighthouse")
    }

    /// The files of the others, each in a folder of its name.
    pub fn lighthouses(&self) -> PathBuf {
        self.path.join("lighthouses")
    }

    /// The files of one lighthouse.
    pub fn lighthouse_of(&self, lighthouse: &Lighthouse) -> PathBuf {
        if lighthouse.index == MeshIndex::LIGHTHOUSE {
            return self.lighthouse();
        }
        // A root signed the name, and yet it stays in its folder.
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = lighthouse.name.chars().map(plain).collect();
        self.lighthouses().join(name)
    }

    /// This machine's own way to a lighthouse, where it has one: the nodes' way may lead nowhere
    /// from here, slowly.
    pub fn way_to(&self, lighthouse: &Lighthouse) -> Vec<String> {
        let own = if lighthouse.index == MeshIndex::LIGHTHOUSE {
            Some(&self.config.api)
        } else {
            self.config.other_apis.get(&lighthouse.name)
        };
        let own = own.filter(|own| !own.is_empty());
        own.unwrap_or(&lighthouse.https).clone()
    }

    /// Takes note of another way from here to a lighthouse; none: as nodes go.
    pub fn set_way(&mut self, lighthouse: &Lighthouse, way: Vec<String>) {
        if lighthouse.index == MeshIndex::LIGHTHOUSE {
            self.config.api = way;
        } else if way.is_empty() {
            self.config.other_apis.remove(&lighthouse.name);
        } else {
            self.config.other_apis.insert(lighthouse.name.clone(), way);
        }
    }

    /// Where a grant waits until the lighthouse has it.
    pub fn pending_grant(&self, id: &str) -> PathBuf {
        self.pending_grants().join(format!("{id}.json"))
    }

    /// All of them.
    pub fn pending_grants(&self) -> PathBuf {
        self.path.join("grants")
    }

    /// Keeps a copy of a grant that a lighthouse has, for the case that it is lost.
    pub fn keep_pushed(&self, id: &str, grant: &[u8]) -> Result<()> {
        files::make_private_dir(&self.pushed_grants())?;
        files::write_public(&self.pushed_grants().join(format!("{id}.json")), grant)
    }

    /// Those copies.
    pub fn pushed_grants(&self) -> PathBuf {
        self.pending_grants().join("handed-over")
    }

    /// The documents as held here.
    pub fn documents(&self) -> Result<Documents> {
        let path = self.path.join(DOCUMENTS);
        let set = read_json(&path)?;
        Documents::open(set, &self.roots(), self.config.id)
            .with_context(|| format!("{} cannot be used", path.display()))
    }

    /// Keeps documents, here and in the lighthouse's own folder.
    pub fn save_documents(&self, set: &DocumentSet) -> Result<()> {
        let text = serde_json::to_vec_pretty(set).context("writing documents")?;
        files::write_public(&self.path.join(DOCUMENTS), &text)
    }

    /// The counters.
    pub fn counters(&self) -> Result<Counters> {
        read_json(&self.path.join(COUNTERS))
    }

    /// Keeps the counters.
    pub fn save_counters(&self, counters: &Counters) -> Result<()> {
        let text = serde_json::to_vec_pretty(counters).context("writing counters")?;
        files::write_public(&self.path.join(COUNTERS), &text)
    }

    /// Waits until no other command changes this directory.
    pub fn lock(&self) -> Result<Locked> {
        let path = self.path.join(".lock");
        let what = || format!("cannot lock {}", path.display());
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(what)?;
        file.lock().with_context(what)?;
        Ok(Locked(file))
    }

    /// The release keys that the roots signed.
    pub fn release_keys(&self) -> Result<Vec<PublicKey>> {
        let documents = self.documents()?;
        let bytes = B64
            .decode(&documents.set.releases)
            .context("documents.json: the release list is no base64")?;
        let list = ReleaseList::parse(&bytes).context("documents.json: release list")?;
        Ok(list.keys().iter().map(|k| PublicKey(*k)).collect())
    }
}

/// Where an encrypted key is in the cluster directory `dir`.
pub fn key_in(dir: &Path, which: KeyFile) -> PathBuf {
    dir.join("keys").join(match which {
        KeyFile::Root => "root.age",
        KeyFile::Operator => "operator.age",
        KeyFile::Release => "release.age",
    })
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_cluster_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = ClusterDir::find(Some(dir.path())).unwrap_err();
        assert_eq!(crate::exit::code_of(&error), 2);
        std::fs::write(dir.path().join(CLUSTER_TOML), "colour = 1").unwrap();
        let error = crate::exit::describe(&ClusterDir::find(Some(dir.path())).unwrap_err());
        assert!(
            error.contains("cluster.toml") && error.contains("colour"),
            "{error}"
        );
    }
}
