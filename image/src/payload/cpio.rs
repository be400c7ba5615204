//! cpio archives as the kernel unpacks them (`newc`, Linux
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;

/// Writes an archive; the same calls give the same bytes.
pub(crate) struct Cpio {
    out: Vec<u8>,
    inode: u32,
    date: u32,
    dirs: BTreeSet<String>,
}

const DIR: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

impl Cpio {
    /// All files get the time `date`, Unix seconds.
    pub(crate) fn new(date: u32) -> Self {
        Self {
            out: Vec::new(),
            inode: 0,
            date,
            dirs: BTreeSet::new(),
        }
    }

    /// A folder with its parents.
    pub(crate) fn dir(&mut self, path: &str) {
        let ends: Vec<usize> = path
            .match_indices('/')
            .map(|(i, _)| i)
            .chain([path.len()])
            .collect();
        for end in ends {
            if self.dirs.insert(path[..end].to_owned()) {
                self.entry(&path[..end], DIR | 0o755, &[]);
            }
        }
    }

    /// A file with its parents.
    pub(crate) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.dir(parent);
        }
        self.entry(path, FILE | mode, bytes);
    }

    /// The archive with its end mark.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.date = 0;
        self.header("TRAILER!!!", 0, 0, 0);
        self.pad();
        self.out
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.inode += 1;
        self.header(path, mode, bytes.len() as u32, self.inode);
        self.out.extend_from_slice(bytes);
        self.pad();
    }

    fn header(&mut self, path: &str, mode: u32, len: u32, inode: u32) {
        let links = 1 + u32::from(mode & DIR == DIR && mode & FILE == 0);
        let fields = [
            inode,
            mode,
            0,
            0,
            links,
            self.date,
            len,
            0,
            0,
            0,
            0,
            path.len() as u32 + 1,
            0,
        ];
        self.out.extend_from_slice(b"070701");
        for field in fields {
            self.out
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.out.extend_from_slice(path.as_bytes());
        self.out.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_parents_before_children_and_an_end() {
        let mut cpio = Cpio::new(1);
        cpio.file("a/b/c", 0o755, b"hello");
        cpio.file("a/b/d", 0o644, b"");
        let bytes = cpio.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at = |name: &str| text.find(&format!("{name}\0")).unwrap();
        assert!(at("a") < at("a/b") && at("a/b") < at("a/b/c") && at("a/b/c") < at("TRAILER!!!"));
        assert_eq!(text.matches("070701").count(), 5);
        assert_eq!(text.matches("a/b\0").count(), 1);
    }
}
