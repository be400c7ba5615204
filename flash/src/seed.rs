//! Whether a seed goes with an image, and what `--installer` makes of it.

use crate::image::Image;
use holdfast_core::seed::{Seed, SeedInstall};

/// Why a seed does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// For another board.
    #[error(
        "it is for board {seed}, the image is for {image}: take an image or a seed of the other's --board"
    )]
    Board {
        /// The seed's.
        seed: String,
        /// The image's.
        image: String,
    },
    /// Of another cluster.
    #[error(
        "it is of cluster {seed}, the image was built for {image}: make the seed with the --cluster that \
         the image was built with"
    )]
    Cluster {
        /// The seed's.
        seed: String,
        /// The image's.
        image: String,
    },
    /// Of a cluster with the same id and other keys.
    #[error(
        "its root keys are not those that the image trusts: make seed and image with the same --cluster"
    )]
    Roots,
}

/// Checks a seed against an image's board and keys.
///
/// # Errors
/// [`Mismatch`].
pub fn check(seed: &Seed, image: &Image) -> Result<(), Mismatch> {
    fits(seed, &image.board, image.keys.cluster, image.keys.roots())
}

fn fits(seed: &Seed, board: &str, cluster: [u8; 16], roots: &[[u8; 32]]) -> Result<(), Mismatch> {
    if let Some(of) = seed.board.as_deref().filter(|b| *b != board) {
        return Err(Mismatch::Board {
            seed: of.to_owned(),
            image: board.to_owned(),
        });
    }
    if seed.cluster_id.0 != cluster {
        return Err(Mismatch::Cluster {
            seed: seed.cluster_id.to_string(),
            image: holdfast_core::cluster::ClusterId(cluster).to_string(),
        });
    }
    // The node takes documents of any root it knows: one in common is needed, more is better.
    if !seed.roots.iter().any(|r| roots.contains(&r.0)) {
        return Err(Mismatch::Roots);
    }
    Ok(())
}

/// What was said on the command line about installing; what is not said stays as the seed has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstallWishes(pub SeedInstall);

impl InstallWishes {
    /// The table that the seed gets.
    #[must_use]
    pub fn over(&self, seed: Option<&SeedInstall>) -> SeedInstall {
        let (wish, old) = (&self.0, seed.cloned().unwrap_or_default());
        SeedInstall {
            bus: match wish.bus.is_empty() {
                true => old.bus,
                false => wish.bus.clone(),
            },
            model: wish.model.clone().or(old.model),
            serial: wish.serial.clone().or(old.serial),
            min_gb: wish.min_gb.or(old.min_gb),
            max_gb: wish.max_gb.or(old.max_gb),
            choose: match wish.choose == holdfast_core::seed::Choose::default() {
                true => old.choose,
                false => wish.choose,
            },
            erase: wish.erase || old.erase,
            reuse: wish.reuse || old.reuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::seed::{Bus, Choose};

    #[test]
    fn board_cluster_and_roots_have_to_fit() {
        let mut seed = Seed::parse(include_str!("../../core/src/seed/example.toml")).unwrap();
        let root = seed.roots[0].0;
        assert_eq!(fits(&seed, "rpi4", [1; 16], &[[9; 32], root]), Ok(()));
        seed.board = Some("rpi4".into());
        assert_eq!(fits(&seed, "rpi4", [1; 16], &[root]), Ok(()));
        let error = fits(&seed, "x86-64", [1; 16], &[root]).unwrap_err();
        assert!(error.to_string().contains("rpi4") && error.to_string().contains("x86-64"));
        assert!(matches!(
            fits(&seed, "rpi4", [2; 16], &[root]),
            Err(Mismatch::Cluster { .. })
        ));
        assert_eq!(
            fits(&seed, "rpi4", [1; 16], &[[9; 32]]),
            Err(Mismatch::Roots)
        );
    }

    #[test]
    fn wishes_win_and_the_rest_stays() {
        let old = SeedInstall {
            bus: vec![Bus::Ata],
            min_gb: Some(10),
            erase: true,
            ..SeedInstall::default()
        };
        let wishes = InstallWishes(SeedInstall {
            bus: vec![Bus::Nvme],
            choose: Choose::Smallest,
            ..SeedInstall::default()
        });
        let new = wishes.over(Some(&old));
        assert_eq!((new.bus, new.min_gb), (vec![Bus::Nvme], Some(10)));
        assert_eq!((new.choose, new.erase), (Choose::Smallest, true));
        assert_eq!(InstallWishes::default().over(None), SeedInstall::default());
    }
}
