use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::console::find;
use crate::error::{Error, Result, io};

/// How the bytes of an image file are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// As on a disk.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl ImageFormat {
    /// QEMU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// Told from the first bytes (qcow2 specification: magic `QFI\xfb`).
    ///
    /// # Errors
    /// [`Error::MissingImage`] where there is no such file.
    pub fn of(path: &Path) -> Result<Self> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::MissingImage(path.to_owned()));
            }
            other => other.map_err(io("open", path))?,
        };
        let mut magic = [0; 4];
        Ok(match file.read_exact(&mut magic) {
            Ok(()) if &magic == b"QFI\xfb" => Self::Qcow2,
            _ => Self::Raw,
        })
    }
}

/// A disk image in a file, worked on while its machine is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    path: PathBuf,
    format: ImageFormat,
}

impl Disk {
    /// An image that exists.
    ///
    /// # Errors
    /// [`Error::MissingImage`] where there is no such file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            format: ImageFormat::of(path)?,
        })
    }

    /// A copy-on-write overlay at `path` over `base`; larger than it where `bytes` says so.
    ///
    /// # Errors
    /// A missing base, or what `qemu-img` says.
    pub fn overlay(base: &Path, path: &Path, bytes: Option<u64>) -> Result<Self> {
        let format = ImageFormat::of(base)?;
        // qemu-img takes a relative backing file as relative to the overlay.
        let base = std::fs::canonicalize(base).map_err(io("find", base))?;
        let mut args = vec![
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            format.name(),
            "-b",
            text(&base)?,
            text(path)?,
        ];
        let size = bytes.map(|n| n.to_string());
        args.extend(size.as_deref());
        run("qemu-img", &args)?;
        Ok(Self {
            path: path.to_owned(),
            format: ImageFormat::Qcow2,
        })
    }

    /// An empty raw disk.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn blank(path: &Path, bytes: u64) -> Result<Self> {
        let file = File::create(path).map_err(io("make", path))?;
        file.set_len(bytes).map_err(io("size", path))?;
        Ok(Self {
            path: path.to_owned(),
            format: ImageFormat::Raw,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format.
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    /// Makes the disk larger.
    ///
    /// # Errors
    /// What `qemu-img` says; shrinking is refused.
    pub fn grow(&self, bytes: u64) -> Result<()> {
        run(
            "qemu-img",
            &[
                "resize",
                "-q",
                "-f",
                self.format.name(),
                text(&self.path)?,
                &bytes.to_string(),
            ],
        )
        .map(drop)
    }

    /// Writes all that the machine would read, overlay and base together, into a sparse raw file.
    ///
    /// # Errors
    /// What `qemu-img` says.
    pub fn export_raw(&self, to: &Path) -> Result<()> {
        run(
            "qemu-img",
            &[
                "convert",
                "-q",
                "-f",
                self.format.name(),
                "-O",
                "raw",
                text(&self.path)?,
                text(to)?,
            ],
        )
        .map(drop)
    }

    /// Reads `length` bytes at `offset` as the machine would.
    ///
    /// # Errors
    /// A disk that ends before, or what `qemu-img` says.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let raw = self.raw_copy()?;
        let mut file = File::open(raw.path()).map_err(io("open", raw.path()))?;
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(io("read", &self.path))?;
        Ok(bytes)
    }

    /// Writes `bytes` at `offset`: the bad block, the flipped bit.
    ///
    /// # Errors
    /// What `qemu-io` says.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let dir = scratch(&self.path)?;
        let source = dir.path().join("bytes");
        std::fs::write(&source, bytes).map_err(io("write", &source))?;
        let command = format!("write -q -s {} {offset} {}", text(&source)?, bytes.len());
        run(
            "qemu-io",
            &["-f", self.format.name(), "-c", &command, text(&self.path)?],
        )
        .map(drop)
    }

    /// Which of `needles` can be found anywhere on the disk, in raw bytes, with the offset of the
    /// first occurrence.
    ///
    /// # Errors
    /// What `qemu-img` says.
    pub fn search<'n>(&self, needles: &[&'n [u8]]) -> Result<Vec<(&'n [u8], u64)>> {
        let raw = self.raw_copy()?;
        let mut file = File::open(raw.path()).map_err(io("open", raw.path()))?;
        search_in(&mut file, needles).map_err(io("read", raw.path()))
    }

    fn raw_copy(&self) -> Result<RawCopy> {
        let dir = scratch(&self.path)?;
        let path = dir.path().join("disk.raw");
        self.export_raw(&path)?;
        Ok(RawCopy { _dir: dir, path })
    }
}

struct RawCopy {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl RawCopy {
    fn path(&self) -> &Path {
        &self.path
    }
}

/// Beside the disk, where there is room for a copy of it; `/tmp` may be memory.
fn scratch(disk: &Path) -> Result<tempfile::TempDir> {
    let parent = disk.parent().unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".scratch-")
        .tempdir_in(parent)
        .map_err(io("make a directory in", parent))
}

fn search_in<'n>(
    reader: &mut impl Read,
    needles: &[&'n [u8]],
) -> std::io::Result<Vec<(&'n [u8], u64)>> {
    const CHUNK: usize = 4 << 20;
    // What one chunk's end keeps for the next, so that nothing hides on a border.
    let overlap = needles
        .iter()
        .map(|n| n.len())
        .max()
        .unwrap_or(0)
        .saturating_sub(1);
    let mut found: Vec<(&[u8], u64)> = Vec::new();
    let mut window: Vec<u8> = Vec::with_capacity(CHUNK + overlap);
    let mut base = 0_u64;
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = reader.read(&mut chunk)?;
        if n == 0 {
            return Ok(found);
        }
        window.extend_from_slice(&chunk[..n]);
        // The holes of a sparse copy read as zeros and hold no needle that is not zeros.
        if window.iter().any(|&b| b != 0) {
            for &needle in needles {
                if !found.iter().any(|(f, _)| *f == needle)
                    && let Some(at) = find(&window, needle)
                {
                    found.push((needle, base + at as u64));
                }
            }
        }
        let drop = window.len().saturating_sub(overlap);
        window.drain(..drop);
        base += drop as u64;
    }
}

pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::BadPath(path.to_owned()))
}

/// Runs a helper of `qemu-utils` to its end.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|_| Error::MissingProgram {
            program: program.into(),
            package: match program {
                "fdtput" => "device-tree-compiler",
                _ => "qemu-utils",
            },
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Program {
        program: program.into(),
        args: args.iter().map(|&a| a.to_owned()).collect(),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_on_the_border_of_two_reads_is_found() {
        struct Trickle(Vec<u8>, usize);
        impl Read for Trickle {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let n = 3.min(self.0.len() - self.1);
                buffer[..n].copy_from_slice(&self.0[self.1..self.1 + n]);
                self.1 += n;
                Ok(n)
            }
        }
        let mut reader = Trickle(b"....secret.....".to_vec(), 0);
        let found = search_in(&mut reader, &[b"secret", b"absent"]).unwrap();
        assert_eq!(found, vec![(b"secret".as_slice(), 4)]);
    }

    #[test]
    fn overlay_sees_the_base_and_leaves_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base.img");
        Disk::blank(&base, 1 << 20)
            .unwrap()
            .write_at(4096, b"from the base")
            .unwrap();
        let before = std::fs::read(&base).unwrap();
        let overlay = Disk::overlay(&base, &dir.path().join("o.qcow2"), Some(4 << 20)).unwrap();
        overlay.write_at(2 << 20, b"written later").unwrap();
        assert_eq!(overlay.read_at(4096, 13).unwrap(), b"from the base");
        let found = overlay.search(&[b"written later", b"never there"]).unwrap();
        assert_eq!(found, vec![(b"written later".as_slice(), 2 << 20)]);
        assert_eq!(std::fs::read(&base).unwrap(), before);
    }

    #[test]
    fn missing_image_says_what_to_build() {
        let error = Disk::open(Path::new("/nonexistent/x.img")).unwrap_err();
        assert!(error.to_string().contains("holdfast build"), "{error}");
    }
}
