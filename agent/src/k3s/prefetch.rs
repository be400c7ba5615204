//! k3s's program is read while the node joins: from a verified, compressed root (or an SD card) page
//! after page on demand is what its start would wait for most.

use super::memory;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Where unpacked programs are, in the root or on `/var`: `DIR/HASH/bin/k3s`.
const DATA: [&str; 2] = ["/usr/lib/k3s/data", "/var/lib/rancher/k3s/data"];
/// A program takes at most this share of the memory that is free.
const SHARE: u64 = 3;
const PIECE: usize = 1 << 20;

/// Begins to read, on a thread of its own; whatever fails is left to k3s to tell.
pub fn begin() {
    let read = || {
        let free = memory::bytes(&memory::table(), "MemAvailable").unwrap_or(0);
        if let Some(program) = DATA.iter().find_map(|dir| newest(Path::new(dir))) {
            match through(&program, free) {
                Ok(bytes) => tracing::debug!(bytes, "{} read ahead", program.display()),
                Err(e) => tracing::debug!("{} not read ahead: {e}", program.display()),
            }
        }
    };
    let _ = std::thread::Builder::new()
        .name("prefetch".into())
        .spawn(read);
}

/// The program that was unpacked last.
fn newest(data: &Path) -> Option<PathBuf> {
    let programs = fs::read_dir(data).ok()?.filter_map(|entry| {
        let program = entry.ok()?.path().join("bin/k3s");
        Some((fs::metadata(&program).ok()?.modified().ok()?, program))
    });
    programs.max().map(|(_, program)| program)
}

/// Reads all of it, so that it is in memory; nothing where it would crowd out others.
fn through(program: &Path, free: u64) -> std::io::Result<u64> {
    let mut file = File::open(program)?;
    if file.metadata()?.len() > free / SHARE {
        return Ok(0);
    }
    let (mut piece, mut bytes) = (vec![0; PIECE], 0);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_read_where_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest(dir.path()), None);
        let bin = dir.path().join("0f/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("k3s"), vec![7; 3 * PIECE]).unwrap();
        let program = newest(dir.path()).unwrap();
        assert_eq!(through(&program, 100 << 20).unwrap(), 3 << 20);
        assert_eq!(through(&program, 8 << 20).unwrap(), 0);
    }
}
