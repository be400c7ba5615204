//! A folder of files in two: an index and one blob. What a package holds is kept in the cache in
//! this form, so that modes and names survive a builder without privileges.

use std::{
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext, Result};

/// One entry of a pack; `path` is below the root, without a leading slash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub path: String,
    #[serde(flatten)]
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    Dir { mode: u32 },
    File { mode: u32, offset: u64, len: u64 },
    Link { target: String },
}

/// A stretch of a file whose name is the digest of what made it.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The file.
    pub file: Arc<PathBuf>,
    /// Stands for the file's content in cache keys.
    pub key: Arc<str>,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Slice {
    /// Reads it whole.
    pub fn read(&self) -> Result<Vec<u8>> {
        let path = self.file.as_path();
        let mut file = File::open(path).at("open", path)?;
        file.seek(SeekFrom::Start(self.offset)).at("read", path)?;
        let mut out = Vec::with_capacity(self.len as usize);
        file.take(self.len).read_to_end(&mut out).at("read", path)?;
        match out.len() as u64 == self.len {
            true => Ok(out),
            false => Err(Error::build(
                path.display().to_string(),
                "is shorter than its index says; delete it",
            )),
        }
    }
}

/// Writes a pack.
pub struct Writer {
    dir: PathBuf,
    blob: BufWriter<File>,
    at: u64,
    entries: Vec<Entry>,
}

impl Writer {
    /// Makes the folder `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        std::fs::create_dir(dir).at("create", dir)?;
        let blob = dir.join("blob");
        let file = File::create(&blob).at("create", &blob)?;
        Ok(Self {
            dir: dir.to_owned(),
            blob: BufWriter::with_capacity(1 << 20, file),
            at: 0,
            entries: Vec::new(),
        })
    }

    pub fn dir(&mut self, path: String, mode: u32) {
        self.entries.push(Entry {
            path,
            kind: Kind::Dir { mode },
        });
    }

    pub fn link(&mut self, path: String, target: String) {
        self.entries.push(Entry {
            path,
            kind: Kind::Link { target },
        });
    }

    /// Adds a file with all that `content` has to give.
    pub fn file(&mut self, path: String, mode: u32, content: &mut dyn Read) -> Result<()> {
        let len = std::io::copy(content, &mut self.blob).at("write", &self.dir)?;
        self.entries.push(Entry {
            path,
            kind: Kind::File {
                mode,
                offset: self.at,
                len,
            },
        });
        self.at += len;
        Ok(())
    }

    /// A second name for an earlier file; `false` when there is none of that name.
    pub fn hard_link(&mut self, path: String, to: &str) -> bool {
        let found = self
            .entries
            .iter()
            .rev()
            .find(|e| e.path == to)
            .map(|e| e.kind.clone());
        match found {
            Some(kind @ Kind::File { .. }) => {
                self.entries.push(Entry { path, kind });
                true
            }
            _ => false,
        }
    }

    pub fn finish(self) -> Result<()> {
        let path = self.dir.join("blob");
        self.blob
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .at("write", &path)?;
        let index =
            serde_json::to_vec(&self.entries).map_err(|e| Error::build("package index", e))?;
        let path = self.dir.join("index.json");
        std::fs::write(&path, index).at("write", &path)
    }
}

/// A pack in the cache.
pub struct Pack {
    blob: Arc<PathBuf>,
    key: Arc<str>,
    /// Its entries, in the order they were added.
    pub entries: Vec<Entry>,
}

impl Pack {
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("index.json");
        let bytes = std::fs::read(&path).at("read", &path)?;
        let entries = serde_json::from_slice(&bytes)
            .map_err(|e| Error::build(path.display().to_string(), format!("{e}; delete it")))?;
        let key = dir
            .file_name()
            .map(|n| n.to_string_lossy())
            .unwrap_or_default();
        Ok(Self {
            blob: Arc::new(dir.join("blob")),
            key: key.into(),
            entries,
        })
    }

    /// Stands for its content in cache keys.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The bytes of a file entry.
    pub fn slice(&self, offset: u64, len: u64) -> Slice {
        Slice {
            file: self.blob.clone(),
            key: self.key.clone(),
            offset,
            len,
        }
    }

    /// The bytes of the file at `path`.
    pub fn find(&self, path: &str) -> Option<Slice> {
        self.entries.iter().find_map(|e| match e.kind {
            Kind::File { offset, len, .. } if e.path == path => Some(self.slice(offset, len)),
            _ => None,
        })
    }
}
