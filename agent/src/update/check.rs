//! Whether a bundle may be written, decided from its front alone, before a byte is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use holdfast_core::cluster::ClusterId;
use holdfast_core::header::{HeaderError, SlotHeader, slot_digest};
use holdfast_core::image::{ImageInfo, K3sInfo};
use holdfast_core::keys::Digest;
use holdfast_core::layout::{PAYLOAD_MAX, Role};
use holdfast_core::manifest::{BundleError, Manifest, Payload, read};
use holdfast_core::releases::ReleaseList;
use holdfast_core::signed::OpenError;
use holdfast_core::slots::Slot;
use std::ops::Range;

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not a bundle, or cut short.
    #[error(transparent)]
    Front(#[from] BundleError),
    /// The manifest's signature.
    #[error(
        "the manifest is not signed by a release key of this cluster (release list {list}): {source}"
    )]
    Manifest {
        /// Generation of the node's list.
        list: u64,
        /// What failed.
        source: OpenError,
    },
    /// The slot header.
    #[error("the manifest's slot header: {0}")]
    Header(#[from] HeaderError),
    /// Header and manifest contradict each other.
    #[error("the manifest contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Made for another cluster.
    #[error("the bundle is for cluster {found}; this node is in {own}")]
    Cluster {
        /// The bundle's.
        found: ClusterId,
        /// The node's.
        own: ClusterId,
    },
    /// Made for another board.
    #[error("the bundle is for board {found:?}; this machine is a {own:?}")]
    Board {
        /// The bundle's.
        found: String,
        /// The node's.
        own: String,
    },
    /// An older release.
    #[error(
        "the bundle's generation {found} is older than {running}, which runs; --allow-downgrade takes it all the same"
    )]
    Older {
        /// The bundle's.
        found: u64,
        /// The running one.
        running: u64,
    },
    /// A payload outside of the bundle.
    #[error("the bundle is truncated: {have} bytes, but the {what} payload ends at byte {want}")]
    Truncated {
        /// Which payload.
        what: &'static str,
        /// The bundle's length.
        have: u64,
        /// Where the payload ends.
        want: u64,
    },
    /// Payloads that overlap or do not follow the format.
    #[error("the {0} payload's place in the bundle is not one that a builder writes")]
    Place(&'static str),
    /// Too large for its partition.
    #[error("the {what} payload has {len} bytes; its partition holds {room}")]
    TooLarge {
        /// Which payload.
        what: &'static str,
        /// Its length.
        len: u64,
        /// What fits.
        room: u64,
    },
    /// A jump that Kubernetes does not support.
    #[error("k3s {found} skips a minor version after {running}; upgrade to the one between first")]
    SkipsMinor {
        /// The running version.
        running: String,
        /// The bundle's.
        found: String,
    },
    /// A k3s version that is none.
    #[error("{0:?} is not a k3s version")]
    K3sVersion(String),
}

/// What the node knows of itself.
#[derive(Debug)]
pub struct Here<'a> {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Whose signatures count.
    pub releases: &'a ReleaseList,
    /// What runs.
    pub image: &'a ImageInfo,
    /// Whether k3s has data here, which an older or much newer k3s may not read.
    pub runs_k3s: bool,
    /// The operator takes an older one.
    pub allow_downgrade: bool,
}

/// Where a payload lies in the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the bundle.
    pub range: Range<u64>,
    /// Boot or root.
    pub boot: bool,
    /// As the manifest has it.
    pub payload: Payload,
}

/// A bundle that may be written.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its manifest.
    pub manifest: Manifest,
    /// The block that goes to the boot partition last.
    pub header: Box<[u8; 4096]>,
    /// Of that block.
    pub digest: Digest,
    /// Payloads, in the bundle's order.
    pub pieces: [Piece; 2],
}

fn minor(version: &str) -> Result<(u64, u64), Refusal> {
    let bad = || Refusal::K3sVersion(version.to_owned());
    let mut parts = version.strip_prefix('v').unwrap_or(version).split('.');
    let mut number = || parts.next().and_then(|p| p.parse().ok()).ok_or_else(bad);
    Ok((number()?, number()?))
}

/// Kubernetes supports one minor version at a time (its version skew policy).
fn check_k3s(running: Option<&K3sInfo>, found: Option<&K3sInfo>) -> Result<(), Refusal> {
    let (Some(running), Some(found)) = (running, found) else {
        return Ok(());
    };
    let (old, new) = (minor(&running.version)?, minor(&found.version)?);
    if new.0 > old.0 || new.1 > old.1 + 1 {
        return Err(Refusal::SkipsMinor {
            running: running.version.clone(),
            found: found.version.clone(),
        });
    }
    Ok(())
}

fn place(payload: &Payload, boot: bool, start: u64, len: u64) -> Result<Piece, Refusal> {
    let what = if boot { "boot" } else { "root" };
    let room = if boot {
        PAYLOAD_MAX
    } else {
        Role::Root(Slot::A).size()
    };
    if payload.decoded_len > room {
        return Err(Refusal::TooLarge {
            what,
            len: payload.decoded_len,
            room,
        });
    }
    if payload.len == 0 || !payload.offset.is_multiple_of(4096) {
        return Err(Refusal::Place(what));
    }
    let from = start
        .checked_add(payload.offset)
        .ok_or(Refusal::Place(what))?;
    let to = from.checked_add(payload.len).ok_or(Refusal::Place(what))?;
    if to > len {
        return Err(Refusal::Truncated {
            what,
            have: len,
            want: to,
        });
    }
    Ok(Piece {
        range: from..to,
        boot,
        payload: payload.clone(),
    })
}

/// Decides over a bundle of `len` bytes that begins with `front`.
///
/// # Errors
/// [`Refusal`].
pub fn check(front: &[u8], len: u64, here: &Here<'_>) -> Result<Plan, Refusal> {
    let (signed, start) = read(front)?;
    let listed = |key: &holdfast_core::keys::PublicKey| here.releases.keys().contains(&key.0);
    let manifest = signed.open(listed).map_err(|source| Refusal::Manifest {
        list: here.releases.generation,
        source,
    })?;
    if manifest.cluster != here.cluster {
        return Err(Refusal::Cluster {
            found: manifest.cluster,
            own: here.cluster,
        });
    }
    if manifest.board != here.image.board {
        return Err(Refusal::Board {
            found: manifest.board,
            own: here.image.board.clone(),
        });
    }
    if manifest.generation < here.image.generation && !here.allow_downgrade {
        return Err(Refusal::Older {
            found: manifest.generation,
            running: here.image.generation,
        });
    }
    if here.runs_k3s {
        check_k3s(here.image.k3s.as_ref(), manifest.k3s.as_ref())?;
    }
    let header: Box<[u8; 4096]> = B64
        .decode(&manifest.header)
        .ok()
        .and_then(|v| v.try_into().ok())
        .ok_or(Refusal::Contradiction(
            "its slot header is not 4096 bytes of base64",
        ))?;
    check_header(&manifest, &SlotHeader::verify(&header, here.releases)?)?;
    let mut pieces = [
        place(&manifest.root, false, start, len)?,
        place(&manifest.boot, true, start, len)?,
    ];
    pieces.sort_by_key(|p| p.range.start);
    if pieces[0].range.end > pieces[1].range.start {
        return Err(Refusal::Place("second"));
    }
    let digest = Digest(slot_digest(&header));
    Ok(Plan {
        manifest,
        header,
        digest,
        pieces,
    })
}

fn check_header(manifest: &Manifest, header: &SlotHeader) -> Result<(), Refusal> {
    let same = |holds: bool, what| {
        if holds {
            Ok(())
        } else {
            Err(Refusal::Contradiction(what))
        }
    };
    same(
        header.board.as_str() == manifest.board,
        "header and manifest name different boards",
    )?;
    same(
        header.generation == manifest.generation,
        "header and manifest name different generations",
    )?;
    same(
        header.stored_len == manifest.boot.decoded_len,
        "header and manifest name different lengths",
    )?;
    same(
        header.payload == manifest.boot.decoded_digest.0,
        "header and manifest name different digests",
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use holdfast_core::header::{Encoding as HeaderEncoding, Watchdog};
    use holdfast_core::keys::PrivateKey;
    use holdfast_core::manifest::{Encoding, write};
    use holdfast_core::signed::Signed;
    use holdfast_core::text::Text;

    /// Of this crate's tests.
    pub const CLUSTER: ClusterId = ClusterId([9; 16]);

    fn key(n: u8) -> PrivateKey {
        PrivateKey::from_bytes([n; 32])
    }

    /// The list of this crate's tests: key 1.
    pub fn releases() -> ReleaseList {
        ReleaseList::new(CLUSTER.0, 3, &[key(1).public().0]).unwrap()
    }

    /// The running image of this crate's tests.
    pub fn image() -> ImageInfo {
        ImageInfo {
            version: "1.0.0".into(),
            generation: 5,
            board: "x86-64".into(),
            recipe: "base".into(),
            built: 1,
            k3s: None,
        }
    }

    /// The node of this crate's tests.
    pub fn here<'a>(releases: &'a ReleaseList, image: &'a ImageInfo) -> Here<'a> {
        Here {
            cluster: CLUSTER,
            releases,
            image,
            runs_k3s: true,
            allow_downgrade: false,
        }
    }

    /// A bundle whose payloads are zstd frames of `root` and `boot`.
    pub fn bundle(
        root: &[u8],
        boot: &[u8],
        signer: u8,
        change: impl FnOnce(&mut Manifest),
    ) -> Vec<u8> {
        let stored = |raw: &[u8]| zstd::encode_all(raw, 1).unwrap();
        let (root_z, boot_z) = (stored(root), stored(boot));
        let payload = |offset: u64, stored: &[u8], raw: &[u8]| Payload {
            offset,
            len: stored.len() as u64,
            digest: Digest::of(stored),
            encoding: Encoding::Zstd,
            decoded_len: raw.len() as u64,
            decoded_digest: Digest::of(raw),
        };
        let at = (root_z.len() as u64).next_multiple_of(4096);
        let release = key(1);
        let header = SlotHeader {
            encoding: HeaderEncoding::Raw,
            watchdog: Watchdog::None,
            watchdog_seconds: 0,
            generation: 6,
            stored_len: boot.len() as u64,
            decoded_len: boot.len() as u64,
            payload: Digest::of(boot).0,
            board: Text::new("x86-64"),
            version: Text::new("1.1.0"),
        }
        .encode(&release.public().0, |m| release.sign(m).0);
        let mut manifest = Manifest {
            cluster: CLUSTER,
            board: "x86-64".into(),
            generation: 6,
            version: "1.1.0".into(),
            recipe: "base".into(),
            built: 2,
            header: B64.encode(header),
            root: payload(0, &root_z, root),
            boot: payload(at, &boot_z, boot),
            k3s: None,
        };
        change(&mut manifest);
        let mut out = write(&Signed::sign(&manifest, &key(signer)).unwrap()).unwrap();
        let start = out.len();
        out.extend_from_slice(&root_z);
        out.resize(start + at as usize, 0);
        out.extend_from_slice(&boot_z);
        out
    }

    fn refused(bundle: &[u8], len: usize) -> String {
        let (list, image) = (releases(), image());
        check(bundle, len as u64, &here(&list, &image))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_sound_bundle_passes() {
        let (list, image) = (releases(), image());
        let b = bundle(b"root", b"boot", 1, |_| {});
        let plan = check(&b, b.len() as u64, &here(&list, &image)).unwrap();
        assert!(!plan.pieces[0].boot && plan.pieces[1].boot);
        assert_eq!(plan.digest, Digest::of(&*plan.header));
    }

    #[test]
    fn each_fault_is_named() {
        let b = bundle(b"root", b"boot", 1, |_| {});
        assert!(refused(&b, b.len() - 1).contains("truncated"));
        assert!(refused(&b[..100], 100).contains("truncated"));
        let mut flipped = b.clone();
        flipped[0] = 0;
        assert!(refused(&flipped, b.len()).contains("not a Holdfast bundle"));
        let mut flipped = b.clone();
        flipped[400] ^= 1;
        assert!(refused(&flipped, b.len()).contains("manifest"));
        let with = |signer, change: fn(&mut Manifest)| {
            let b = bundle(b"root", b"boot", signer, change);
            refused(&b, b.len())
        };
        assert!(with(2, |_| {}).contains("key"));
        assert!(with(1, |m| m.generation = 4).contains("older"));
        assert!(with(1, |m| m.board = "rpi4".into()).contains("rpi4"));
        assert!(with(1, |m| m.cluster = ClusterId([1; 16])).contains("cluster"));
        assert!(with(1, |m| m.generation = 7).contains("generations"));
        assert!(with(1, |m| m.root.decoded_len = 2 << 30).contains("holds"));
        assert!(with(1, |m| m.boot.offset = 0).contains("place"));
        assert!(with(1, |m| m.boot.offset = u64::MAX - 4095).contains("place"));
    }

    #[test]
    fn a_skipped_minor_version_is_refused() {
        let k3s = |v: &str| K3sInfo {
            version: v.into(),
            sha256: String::new(),
            stand_in: false,
        };
        let run = |a, b| check_k3s(Some(&k3s(a)), Some(&k3s(b)));
        run("v1.35.4+k3s1", "v1.36.0+k3s1").unwrap();
        run("v1.36.4+k3s1", "v1.35.0+k3s1").unwrap();
        assert!(matches!(
            run("v1.34.1+k3s1", "v1.36.0+k3s1"),
            Err(Refusal::SkipsMinor { .. })
        ));
        assert!(matches!(run("one", "v1.36.0"), Err(Refusal::K3sVersion(_))));
        check_k3s(None, Some(&k3s("v1.36.0"))).unwrap();
    }
}
