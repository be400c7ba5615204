//! The seeds of a stack of cards: read and checked before the first card, each on one card.
//!
//! A seed that goes on a card is marked by a file beside it, `NAME.used`, made before the first byte
//! is written and with the file system's own "only if it does not exist": neither a crash nor two
//! readers at once put it on two cards.

use crate::exit::Exit;
use crate::seed_file;
use crate::words::{now, utc};
use anyhow::{Context as _, Result};
use holdfast_core::seed::Seed;
use holdfast_flash::image::Image;
use holdfast_flash::seed::{InstallWishes, check};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A seed that passed its checks.
pub struct SeedFile {
    pub path: PathBuf,
    pub text: Zeroizing<String>,
    pub seed: Seed,
    reuse: bool,
}

/// The seeds that wait for a card.
pub struct Seeds {
    waiting: VecDeque<SeedFile>,
    given: bool,
    reuse: bool,
}

/// The file that marks a seed.
fn mark_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".used");
    name.into()
}

/// A mark that was just made.
#[derive(Debug)]
pub struct Mark(Option<PathBuf>);

impl Mark {
    /// The card is whole.
    pub fn keep(self, note: &str) {
        if let Some(path) = self.0 {
            // The mark is there; what it says of its state is for people.
            let text = format!("went on a card {}\n{note}", utc(now()));
            let _ = crate::files::write_public(&path, text.as_bytes());
        }
    }

    /// The card is not, and never starts.
    pub fn take_back(self) {
        if let Some(path) = self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl SeedFile {
    fn read(path: &Path, reuse: bool) -> Result<Self> {
        let file = seed_file::read(path)?;
        Ok(Self {
            path: path.to_owned(),
            text: file.text,
            seed: file.seed,
            reuse,
        })
    }

    /// Marks the seed as used.
    pub fn mark(&self, note: &str) -> Result<Mark> {
        let path = mark_of(&self.path);
        let text = format!("being written to a card since {}\n{note}", utc(now()));
        let made = File::create_new(&path).and_then(|mut f| f.write_all(text.as_bytes()));
        match made {
            Ok(()) => Ok(Mark(Some(path))),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && self.reuse => Ok(Mark(None)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(used(&self.path)),
            Err(e) => Err(e).with_context(|| {
                format!(
                    "cannot mark the seed as used: {} cannot be made (keep seeds where you may write)",
                    path.display()
                )
            }),
        }
    }
}

fn used(path: &Path) -> anyhow::Error {
    let note = std::fs::read_to_string(mark_of(path)).unwrap_or_default();
    let first = note.lines().next().unwrap_or_default();
    Exit::Refused.error(format!(
        "{} {first} ({}): make another seed. If its grant has uses left, or that card was never started, \
         --reuse-seed puts it on one more",
        path.display(),
        mark_of(path).display()
    ))
}

/// The seeds in a folder that no card has yet.
fn in_folder(folder: &Path, reuse: bool) -> Result<Vec<PathBuf>> {
    let what = || format!("cannot read the folder {}", folder.display());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(what)? {
        let path = entry.with_context(what)?.path();
        if path.extension().is_some_and(|e| e == "toml") && (reuse || !mark_of(&path).exists()) {
            all.push(path);
        }
    }
    all.sort();
    if all.is_empty() {
        return Err(Exit::Usage.error(format!(
            "{} holds no seed that is not used yet (files that end in .toml)",
            folder.display()
        )));
    }
    Ok(all)
}

impl Seeds {
    /// Reads all seeds: files, and folders of files.
    pub fn collect(paths: &[PathBuf], reuse: bool) -> Result<Self> {
        let mut waiting: VecDeque<SeedFile> = VecDeque::new();
        for path in paths {
            let files = match path.is_dir() {
                true => in_folder(path, reuse)?,
                false => vec![path.clone()],
            };
            for file in files {
                if !reuse && mark_of(&file).exists() {
                    return Err(used(&file));
                }
                let seed = SeedFile::read(&file, reuse)?;
                let same = |s: &&SeedFile| s.seed.token.public() == seed.seed.token.public();
                if let Some(other) = waiting.iter().find(same).filter(|_| !reuse) {
                    return Err(Exit::Refused.error(format!(
                        "{} and {} are the same seed: each card needs one of its own",
                        other.path.display(),
                        file.display()
                    )));
                }
                waiting.push_back(seed);
            }
        }
        Ok(Self {
            waiting,
            given: !paths.is_empty(),
            reuse,
        })
    }

    /// Checks each against the image, and makes installers of them where that is wished.
    pub fn prepare(&mut self, image: &Image, wishes: Option<&InstallWishes>) -> Result<()> {
        for file in &mut self.waiting {
            let name = file.path.display();
            check(&file.seed, image)
                .map_err(|e| Exit::Refused.error(format!("{name} does not fit the image: {e}")))?;
            let Some(wishes) = wishes else { continue };
            file.seed.install = Some(wishes.over(file.seed.install.as_ref()));
            let text = file.seed.to_toml().context("writing the seed")?;
            Seed::from_bytes(text.as_bytes())
                .map_err(|e| Exit::Usage.error(format!("{name} as an installer: {e}")))?;
            file.text = Zeroizing::new(text);
        }
        Ok(())
    }

    /// How many cards are to be made.
    pub fn cards(&self, asked: Option<u32>) -> Result<usize> {
        let have = self.waiting.len();
        let want = asked.map(|n| n as usize);
        match want {
            Some(n) if self.given && have < n && !(self.reuse && have == 1) => {
                Err(Exit::Usage.error(format!(
                    "{n} cards need {n} seeds, here are {have}: each card gets one of its own (a seed whose \
                     grant has {n} uses: --reuse-seed)"
                )))
            }
            Some(n) => Ok(n),
            None => Ok(have.max(1)),
        }
    }

    /// Whether no seed was given at all.
    pub fn is_none(&self) -> bool {
        !self.given
    }

    /// Whether one of them makes an installer.
    pub fn any_installs(&self) -> bool {
        self.waiting.iter().any(|s| s.seed.install.is_some())
    }

    /// The seed of the next card.
    pub fn next(&self) -> Option<&SeedFile> {
        self.waiting.front()
    }

    /// Its file.
    pub fn next_name(&self) -> Option<&Path> {
        self.next().map(|s| s.path.as_path())
    }

    /// The next seed is on a card.
    pub fn went(&mut self) {
        if !(self.reuse && self.waiting.len() == 1) {
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::code_of;
    use holdfast_core::keys::PrivateKey;

    fn write(dir: &Path, name: &str, token: u8) -> PathBuf {
        let example = include_str!("../../../../core/src/seed/example.toml");
        let mut seed = Seed::parse(example).unwrap();
        seed.token = PrivateKey::from_bytes([token; 32]);
        let path = dir.join(name);
        std::fs::write(&path, seed.to_toml().unwrap()).unwrap();
        path
    }

    #[test]
    fn a_seed_goes_on_one_card() {
        let dir = tempfile::tempdir().unwrap();
        let a = write(dir.path(), "a.toml", 1);
        let seeds = Seeds::collect(std::slice::from_ref(&a), false).unwrap();
        let seed = seeds.next().unwrap();
        seed.mark("note\n").unwrap().take_back();
        seed.mark("note\n").unwrap().keep("card 7\n");
        let note = std::fs::read_to_string(dir.path().join("a.toml.used")).unwrap();
        assert!(
            note.starts_with("went on a card 20") && note.ends_with("card 7\n"),
            "{note}"
        );
        // Neither this run nor the next puts it on another.
        assert_eq!(code_of(&seed.mark("").unwrap_err()), 4);
        let error = Seeds::collect(std::slice::from_ref(&a), false)
            .err()
            .unwrap();
        assert_eq!(code_of(&error), 4);
        assert!(error.to_string().contains("--reuse-seed"), "{error}");
        let mut again = Seeds::collect(&[a], true).unwrap();
        again.next().unwrap().mark("").unwrap().take_back();
        assert!(dir.path().join("a.toml.used").exists());
        assert_eq!(again.cards(Some(5)).unwrap(), 5);
        again.went();
        assert!(again.next().is_some());
    }

    #[test]
    fn a_folder_gives_what_is_not_used_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        for (name, token) in [("b.toml", 2), ("a.toml", 1), ("c.toml", 3)] {
            write(dir.path(), name, token);
        }
        std::fs::write(dir.path().join("a.toml.used"), "went on a card\n").unwrap();
        std::fs::write(dir.path().join("README"), "").unwrap();
        let folder = [dir.path().to_path_buf()];
        let mut seeds = Seeds::collect(&folder, false).unwrap();
        assert_eq!(seeds.cards(None).unwrap(), 2);
        let error = seeds.cards(Some(3)).unwrap_err().to_string();
        assert!(
            error.contains("3 cards need 3 seeds, here are 2"),
            "{error}"
        );
        for name in ["b.toml", "c.toml"] {
            assert_eq!(seeds.next_name().unwrap().file_name().unwrap(), name);
            seeds.went();
        }
        assert!(seeds.next().is_none());
        // A copy of a seed is the same seed.
        write(dir.path(), "d.toml", 2);
        let error = Seeds::collect(&folder, false).err().unwrap().to_string();
        assert!(error.contains("are the same seed"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        assert!(Seeds::collect(&[empty.path().into()], false).is_err());
        assert!(Seeds::collect(&[], false).unwrap().is_none());
    }
}
