//! A lighthouse's directory: everything it is lies in here.
//!
//! | file | holds |
//! |---|---|
//! | `cluster.toml` | what `cluster new` fixed: name, id, dual stack, the roots' public halves |
//! | `keys.toml` | the TLS key and the WireGuard key, private, mode 0600 |
//! | `documents.json` | a [`DocumentSet`]: taken over at start where it is newer than the store's |
//! | `store.redb` | the store |
//! | `blobs/` | bundles, each named by its SHA-256 |
//! | `refill-until` | of a restored one: Unix seconds until which it believes members about grants |

use crate::error::LighthouseError;
use holdfast_core::api::LighthouseIdentity;
use holdfast_core::cluster::{AddressPlan, ClusterId};
use holdfast_core::documents::{DocumentSet, Roots};
use holdfast_core::keys::{PrivateKey, PublicKey};
use holdfast_core::names::ClusterName;
use holdfast_mesh::MeshPrivateKey;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Format of `cluster.toml` and `keys.toml`.
const VERSION: u32 = 1;
const CLUSTER: &str = "cluster.toml";
const KEYS: &str = "keys.toml";
const DOCUMENTS: &str = "documents.json";
const STORE: &str = "store.redb";
const BLOBS: &str = "blobs";
const REFILL: &str = "refill-until";

/// `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// Format: 1.
    pub version: u32,
    /// The cluster's name.
    pub name: ClusterName,
    /// The cluster's id.
    pub id: ClusterId,
    /// Whether pods and services have IPv6 ranges too.
    #[serde(default)]
    pub dual_stack: bool,
    /// Public halves of the roots: what documents are checked against.
    pub roots: Vec<PublicKey>,
}

impl ClusterFile {
    /// In today's format.
    #[must_use]
    pub fn new(name: ClusterName, id: ClusterId, dual_stack: bool, roots: Roots) -> Self {
        Self {
            version: VERSION,
            name,
            id,
            dual_stack,
            roots: roots.0,
        }
    }

    /// The addresses that follow from the id.
    #[must_use]
    pub fn plan(&self) -> AddressPlan {
        AddressPlan::new(self.id, self.dual_stack)
    }

    /// As the documents' checks want them.
    #[must_use]
    pub fn roots(&self) -> Roots {
        Roots(self.roots.clone())
    }
}

/// A lighthouse's own keys.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Of its TLS certificate.
    pub tls: PrivateKey,
    /// WireGuard.
    pub mesh: MeshPrivateKey,
}

/// `keys.toml`; the keys as base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    version: u32,
    tls: PrivateKey,
    mesh: PrivateKey,
}

impl Keys {
    /// Fresh ones.
    ///
    /// # Errors
    /// When the system's random source cannot be read.
    pub fn generate() -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|e| io::Error::other(format!("no random bytes from the system: {e}")))?;
        Ok(Self {
            tls: PrivateKey::from_bytes(seed),
            mesh: MeshPrivateKey::generate()?,
        })
    }

    /// The public halves, for the *lighthouses* document.
    #[must_use]
    pub fn identity(&self) -> LighthouseIdentity {
        LighthouseIdentity {
            key: self.tls.public(),
            mesh_key: self.mesh.public(),
        }
    }
}

/// An existing directory.
#[derive(Debug, Clone)]
pub struct LighthouseDir {
    path: PathBuf,
}

impl LighthouseDir {
    /// Makes the directory with its three files; what is there already is kept only if it is no
    /// lighthouse's directory yet.
    ///
    /// # Errors
    /// [`LighthouseError::File`]; `AlreadyExists` when a `keys.toml` is there.
    pub fn create(
        path: &Path,
        cluster: &ClusterFile,
        keys: &Keys,
        documents: &DocumentSet,
    ) -> Result<Self, LighthouseError> {
        let failed = |p: &Path, e| LighthouseError::file("cannot be made", p, e);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| failed(path, e))?;
        let this = Self {
            path: path.to_owned(),
        };
        let keys_path = path.join(KEYS);
        if keys_path.exists() {
            return Err(failed(&keys_path, io::ErrorKind::AlreadyExists.into()));
        }
        let text = |e: toml::ser::Error| failed(path, io::Error::other(e));
        let cluster = toml::to_string(cluster).map_err(text)?;
        this.write(CLUSTER, 0o644, cluster.as_bytes())?;
        this.put_documents(documents)?;
        let file = KeysFile {
            version: VERSION,
            tls: keys.tls.clone(),
            mesh: PrivateKey::from_bytes(*keys.mesh.as_bytes()),
        };
        // Last: a directory that holds it is whole.
        this.write(
            KEYS,
            0o600,
            toml::to_string(&file).map_err(text)?.as_bytes(),
        )?;
        Ok(this)
    }

    /// Puts newer documents beside a lighthouse that does not run; it takes them over when it
    /// starts. One that runs gets them by its API.
    ///
    /// # Errors
    /// [`LighthouseError::File`].
    pub fn put_documents(&self, documents: &DocumentSet) -> Result<(), LighthouseError> {
        let text = serde_json::to_vec_pretty(documents)
            .map_err(|e| LighthouseError::file("cannot be written", &self.path, e.into()))?;
        self.write(DOCUMENTS, 0o644, &text)
    }

    /// Opens the directory.
    ///
    /// # Errors
    /// [`LighthouseError::NotADirectory`] when it holds no `keys.toml`.
    pub fn open(path: &Path) -> Result<Self, LighthouseError> {
        if !path.join(KEYS).is_file() {
            return Err(LighthouseError::NotADirectory(path.to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's file.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// The folder of bundles.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.path.join(BLOBS)
    }

    /// Reads `cluster.toml`.
    ///
    /// # Errors
    /// [`LighthouseError::File`] with line and field.
    pub fn cluster(&self) -> Result<ClusterFile, LighthouseError> {
        let file: ClusterFile = self.read_toml(CLUSTER)?;
        self.check_version(CLUSTER, file.version)?;
        Ok(file)
    }

    /// Reads `keys.toml`.
    ///
    /// # Errors
    /// [`LighthouseError::File`]; no key is ever repeated in it.
    pub fn keys(&self) -> Result<Keys, LighthouseError> {
        let file: KeysFile = self.read_toml(KEYS)?;
        self.check_version(KEYS, file.version)?;
        Ok(Keys {
            tls: file.tls,
            mesh: MeshPrivateKey::from_bytes(*file.mesh.as_bytes()),
        })
    }

    /// Reads `documents.json`; none if there is no such file.
    ///
    /// # Errors
    /// [`LighthouseError::File`].
    pub fn documents(&self) -> Result<Option<DocumentSet>, LighthouseError> {
        let path = self.path.join(DOCUMENTS);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(LighthouseError::file("cannot be read", &path, e)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| LighthouseError::file("is damaged", &path, e.into()))
    }

    /// Until when, in Unix seconds, members may bring back what a lost lighthouse knew of them
    /// (`refill-until`); 0 without the file.
    ///
    /// # Errors
    /// [`LighthouseError::File`].
    pub fn refill_until(&self) -> Result<u64, LighthouseError> {
        let path = self.path.join(REFILL);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(LighthouseError::file("cannot be read", &path, e)),
        };
        text.trim().parse().map_err(|_| {
            let what = format!("{:?} are no Unix seconds", text.trim());
            LighthouseError::file("cannot be used", &path, io::Error::other(what))
        })
    }

    /// Lets members bring back until `until` (Unix seconds) what a lost lighthouse knew of them.
    ///
    /// # Errors
    /// [`LighthouseError::File`].
    pub fn put_refill_until(&self, until: u64) -> Result<(), LighthouseError> {
        self.write(REFILL, 0o644, format!("{until}\n").as_bytes())
    }

    fn check_version(&self, name: &str, version: u32) -> Result<(), LighthouseError> {
        if version == VERSION {
            return Ok(());
        }
        let what = format!("version = {version}; this holdfast reads version {VERSION}");
        let path = self.path.join(name);
        Err(LighthouseError::file(
            "cannot be used",
            &path,
            io::Error::other(what),
        ))
    }

    fn read_toml<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, LighthouseError> {
        let path = self.path.join(name);
        let text = fs::read_to_string(&path)
            .map_err(|e| LighthouseError::file("cannot be read", &path, e))?;
        toml::from_str(&text).map_err(|e| {
            let line = e
                .span()
                .map_or(0, |s| 1 + text[..s.start].matches('\n').count());
            // Not e's Display: it would show the line, and with it a key.
            let what = format!("line {line}: {}", e.message());
            LighthouseError::file("cannot be used", &path, io::Error::other(what))
        })
    }

    /// Writes a file so that after a power cut either the old or the new one is there.
    fn write(&self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), LighthouseError> {
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}.new"));
        let written = (|| {
            let _ = fs::remove_file(&new);
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            fs::File::open(&self.path)?.sync_all()
        })();
        written.map_err(|e| LighthouseError::file("cannot be written", &path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_created_is_read_and_keys_are_private() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/lighthouse");
        let cluster = testing::cluster();
        let keys = Keys::generate().unwrap();
        let set = testing::set(&testing::policy(1), &keys.identity());
        let dir = LighthouseDir::create(&path, &cluster, &keys, &set).unwrap();
        assert_eq!(dir.cluster().unwrap(), cluster);
        assert_eq!(dir.keys().unwrap().identity(), keys.identity());
        assert_eq!(dir.documents().unwrap().unwrap(), set);
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path.join(KEYS)), 0o600);
        assert_eq!(mode(&path), 0o700);
        assert!(LighthouseDir::create(&path, &cluster, &keys, &set).is_err());
        assert_eq!(dir.refill_until().unwrap(), 0);
        dir.put_refill_until(7).unwrap();
        assert_eq!(dir.refill_until().unwrap(), 7);
        fs::write(path.join(REFILL), "tomorrow").unwrap();
        assert!(dir.refill_until().is_err());
    }

    #[test]
    fn broken_files_are_named_with_their_line_and_without_their_secret() {
        let tmp = tempfile::tempdir().unwrap();
        assert!(matches!(
            LighthouseDir::open(tmp.path()),
            Err(LighthouseError::NotADirectory(_))
        ));
        fs::write(tmp.path().join(KEYS), "version = 1\ntls = \"sesame\"\n").unwrap();
        let error = LighthouseDir::open(tmp.path())
            .unwrap()
            .keys()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("keys.toml") && error.contains("line 2"),
            "{error}"
        );
        assert!(!error.contains("sesame"), "{error}");
    }
}
