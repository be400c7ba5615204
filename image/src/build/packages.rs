//! The packages and the k3s binary of an image, from the archive into the cache.

use holdfast_core::image::K3sInfo;
use rayon::prelude::*;

use super::Builder;
use crate::{
    archive::fetch::{Fetcher, Wanted},
    deb, digest,
    error::{Error, IoContext, Result},
    lock::{self, Lock, Locked},
    pack::Pack,
    progress::{Event, Progress, step},
    request::Relock,
    root::content::K3sBinary,
};

impl Builder<'_> {
    /// The lock, with all its packages in the cache; made anew where that was asked for.
    pub(super) fn locked_packages(&self) -> Result<(Lock, bool)> {
        let request = self.request;
        let relock = || {
            lock::lock(
                &request.recipe,
                std::slice::from_ref(&request.board),
                lock::Others::Keep,
                &request.sources,
                self.cache,
                self.progress.clone(),
            )
        };
        let first = match request.relock {
            Relock::Always => relock().map(|l| (l, true)),
            Relock::Never | Relock::WhenGone => {
                Lock::read(&request.recipe, &request.board).map(|l| (l, false))
            }
        };
        let fetched = first.and_then(|(lock, new)| self.fetch(&lock).map(|()| (lock, new)));
        match fetched {
            Err(e @ (Error::Gone { .. } | Error::Lock { .. }))
                if request.relock == Relock::WhenGone =>
            {
                self.progress.event(Event::Note(&format!(
                    "{e}; locking anew, as --relock when-gone asks"
                )));
                let lock = relock()?;
                self.fetch(&lock)?;
                Ok((lock, true))
            }
            other => other,
        }
    }

    pub(super) fn fetch(&self, lock: &Lock) -> Result<()> {
        let wanted: Vec<Wanted> = self
            .used(lock)
            .map(|p| Wanted {
                location: p.path.clone(),
                sha256: p.sha256,
                size: Some(p.size),
            })
            .filter(|w| !self.cache.object(&w.sha256).exists())
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.request
            .sources
            .fetcher(self.progress.clone())?
            .objects(self.cache, &wanted, &self.request.recipe.called())
    }

    pub(super) fn used<'l>(&self, lock: &'l Lock) -> impl Iterator<Item = &'l Locked> {
        lock.root_packages(self.request.board.arch)
            .chain(lock.board_packages(&self.request.board.name))
    }

    /// The k3s binary: test equipment, or the recipe's by its digest.
    pub(super) fn k3s(&self) -> Result<Option<K3sBinary>> {
        let request = self.request;
        let Some(k3s) = &request.recipe.k3s else {
            return match &request.k3s_stand_in {
                None => Ok(None),
                Some(_) => Err(Error::build(
                    "k3s stand-in",
                    format!(
                        "recipe {} holds no k3s to stand in for",
                        request.recipe.name
                    ),
                )),
            };
        };
        if let Some(path) = &request.k3s_stand_in {
            if !k3s.stand_in {
                return Err(k3s.takes_no_stand_in());
            }
            let len = std::fs::metadata(path).at("read", path)?.len();
            return Ok(Some(K3sBinary {
                path: path.clone(),
                sha256: digest::of_file(path)?,
                len,
                prepared: Some(path.with_file_name("data")).filter(|data| data.is_dir()),
                images: self.k3s_images(k3s)?,
            }));
        }
        if k3s.stand_in {
            return Err(k3s.needs_stand_in());
        }
        let (url, sha256) = k3s.asset(request.board.arch.debian())?;
        let wanted = Wanted {
            location: url.clone(),
            sha256: *sha256,
            size: None,
        };
        Fetcher::new("", self.progress.clone()).objects(
            self.cache,
            &[wanted],
            &request.recipe.name,
        )?;
        let path = self.cache.object(sha256);
        let len = std::fs::metadata(&path).at("read", &path)?.len();
        Ok(Some(K3sBinary {
            path,
            sha256: *sha256,
            len,
            prepared: None,
            images: self.k3s_images(k3s)?,
        }))
    }

    pub(super) fn k3s_info(&self, binary: Option<&K3sBinary>) -> Option<K3sInfo> {
        let (k3s, binary) = (self.request.recipe.k3s.as_ref()?, binary?);
        Some(K3sInfo {
            version: k3s.version.clone(),
            sha256: binary.sha256.to_string(),
            stand_in: self.request.k3s_stand_in.is_some(),
        })
    }

    /// The packages of the root and of the board, unpacked in the cache.
    pub(super) fn unpack(&self, lock: &Lock) -> Result<(Vec<Pack>, Vec<Pack>)> {
        step(&*self.progress, "unpack packages", || {
            let all: Vec<&Locked> = self.used(lock).collect();
            let done = all
                .par_iter()
                .with_max_len(1)
                .map(|p| deb::unpacked(self.cache, p))
                .collect::<Result<Vec<_>>>()?;
            let cached = done.iter().all(|(_, cached)| *cached);
            let roots = lock.root_packages(self.request.board.arch).count();
            let mut packs: Vec<Pack> = done.into_iter().map(|(pack, _)| pack).collect();
            let board = packs.split_off(roots);
            Ok(((packs, board), cached))
        })
    }
}
