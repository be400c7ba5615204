//! A console log as it grows.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// A file that grows, and may not be there yet.
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    at: u64,
}

impl Tail {
    /// From its beginning.
    pub fn from_start(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            file: None,
            at: 0,
        }
    }

    /// From where it ends now.
    pub fn from_end(path: &Path) -> Self {
        Self {
            at: std::fs::metadata(path).map_or(0, |m| m.len()),
            ..Self::from_start(path)
        }
    }

    /// What came since the last time; what cannot be read now is read the next time.
    pub fn read(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.file.is_none() {
            let at = SeekFrom::Start(self.at);
            self.file = File::open(&self.path)
                .and_then(|mut f| f.seek(at).map(|_| f))
                .ok();
        }
        if let Some(file) = &mut self.file {
            let _ = file.read_to_end(&mut bytes);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn gives_each_byte_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut early = Tail::from_start(&path);
        assert!(early.read().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        let mut late = Tail::from_end(&path);
        file.write_all(b"two").unwrap();
        assert_eq!(
            (early.read(), late.read()),
            (b"onetwo".to_vec(), b"two".to_vec())
        );
        assert!(early.read().is_empty() && late.read().is_empty());
    }
}
