//! What takes how much in an image: a function from sizes to trees.

use std::collections::BTreeMap;

use serde::Serialize;

/// Something with a size, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Bytes as it is used.
    pub bytes: u64,
    /// Bytes in the image; of files in the root an estimate.
    pub packed: u64,
    /// What it is made of, the largest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Self>,
}

impl Part {
    /// Something whole.
    #[must_use]
    pub fn leaf(name: impl Into<String>, bytes: u64, packed: u64) -> Self {
        Self {
            name: name.into(),
            bytes,
            packed,
            parts: Vec::new(),
        }
    }

    /// The sum of `parts`.
    #[must_use]
    pub fn of(name: impl Into<String>, parts: Vec<Self>) -> Self {
        let mut part = Self {
            name: name.into(),
            bytes: parts.iter().map(|p| p.bytes).sum(),
            packed: parts.iter().map(|p| p.packed).sum(),
            parts,
        };
        part.order();
        part
    }

    /// `parts` in something of a known size; what they leave is `rest`.
    #[must_use]
    pub fn with_rest(
        name: impl Into<String>,
        packed: u64,
        mut parts: Vec<Self>,
        rest: &str,
    ) -> Self {
        let known: u64 = parts.iter().map(|p| p.packed).sum();
        let left = packed.saturating_sub(known);
        if left > 0 {
            parts.push(Self::leaf(rest, left, left));
        }
        Self::of(name, parts)
    }

    fn order(&mut self) {
        self.parts
            .sort_by(|a, b| b.packed.cmp(&a.packed).then_with(|| a.name.cmp(&b.name)));
    }

    /// The part of that name directly below.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&Self> {
        self.parts.iter().find(|p| p.name == name)
    }
}

/// A file of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFile {
    /// Its path, without a leading slash.
    pub path: String,
    /// Which package or other source brings it.
    pub owner: Owner,
    /// Its length.
    pub bytes: u64,
    /// Its length when each of its blocks is compressed.
    pub packed: u64,
}

/// Where a file of the root comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A Debian package.
    Package(String),
    /// A kernel module.
    Module,
    /// k3s itself.
    K3s,
    /// A container image for it.
    ContainerImage,
    /// The recipe.
    Recipe,
    /// The builder.
    Holdfast,
}

/// Files of one initramfs archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub name: String,
    /// Its length, packed.
    pub packed: u64,
    /// What is in it: name and length.
    pub files: Vec<(String, u64)>,
}

/// What is measured of a build, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The loader.
    pub loader: u64,
    /// The unified kernel image as it lies in its slot.
    pub uki: u64,
    /// Of it, the stub.
    pub stub: u64,
    /// Of it, the kernel: before the slot's compression, and after.
    pub kernel: (u64, u64),
    /// Of it, the microcode, likewise.
    pub microcode: (u64, u64),
    /// Of it, the device trees, likewise.
    pub device_trees: (u64, u64),
    /// Of it, the initramfs, which is compressed by itself.
    pub initramfs: u64,
    /// What the ESP holds beside the loader.
    pub esp_files: Vec<(String, u64)>,
    /// Of that, its archives as far as they are told apart.
    pub frames: Vec<Frame>,
    /// Files of the root.
    pub files: Vec<RootFile>,
    /// The root's file system.
    pub root_fs: u64,
    /// File system and verity tree.
    pub root: u64,
}

/// The sizes of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeReport {
    /// The board's name.
    pub board: String,
    /// The recipe's name.
    pub recipe: String,
    /// What the partitions hold: loader, UKI, root.
    pub image: Part,
    /// The root once more, by folder.
    pub folders: Part,
}

/// How deep the tree of folders goes.
const DEPTH: usize = 3;

/// The trees of what was measured.
#[must_use]
pub fn report(board: &str, recipe: &str, measured: &Measured) -> SizeReport {
    let files = scaled(&measured.files, measured.root_fs);
    let uki = Part::with_rest(
        "UKI",
        measured.uki,
        vec![
            Part::leaf("stub", measured.stub, measured.stub),
            Part::leaf("kernel", measured.kernel.0, measured.kernel.1),
            Part::leaf("microcode", measured.microcode.0, measured.microcode.1),
            Part::leaf(
                "device trees",
                measured.device_trees.0,
                measured.device_trees.1,
            ),
            initramfs(measured),
        ],
        "headers",
    );
    let esp: Vec<Part> = measured
        .esp_files
        .iter()
        .map(|(path, len)| Part::leaf(path.clone(), *len, *len))
        .collect();
    let tree = measured.root.saturating_sub(measured.root_fs);
    let mut root = owners(&files);
    root.push(Part::leaf("verity tree", tree, tree));
    let mut image = vec![
        Part::leaf("loader", measured.loader, measured.loader),
        uki,
        Part::of("root", root),
    ];
    if !esp.is_empty() {
        image.push(Part::of("firmware on the ESP", esp));
    }
    SizeReport {
        board: board.to_owned(),
        recipe: recipe.to_owned(),
        image: Part::of("image", image),
        folders: folders("/", &files.iter().collect::<Vec<_>>(), 0),
    }
}

/// Blocks compressed one by one do not add up to the file system, which also has names and tables,
/// and keeps equal files once: all files share the difference.
fn scaled(files: &[RootFile], root_fs: u64) -> Vec<RootFile> {
    let sum: u64 = files.iter().map(|f| f.packed).sum();
    let scale = |packed: u64| match sum {
        0 => 0,
        _ => (u128::from(packed) * u128::from(root_fs) / u128::from(sum)) as u64,
    };
    let mut files = files.to_vec();
    for file in &mut files {
        file.packed = scale(file.packed);
    }
    files
}

fn initramfs(measured: &Measured) -> Part {
    let frames = measured
        .frames
        .iter()
        .map(|frame| {
            let bytes: u64 = frame.files.iter().map(|(_, len)| len).sum();
            // One stream: each has its share of it.
            let share = |len: u64| match bytes {
                0 => 0,
                _ => (u128::from(len) * u128::from(frame.packed) / u128::from(bytes)) as u64,
            };
            let parts = frame
                .files
                .iter()
                .map(|(name, len)| Part::leaf(name.clone(), *len, share(*len)))
                .collect();
            let mut part = Part::of(frame.name.clone(), parts);
            part.packed = frame.packed;
            if part.parts.len() < 2 {
                part.parts.clear();
            }
            part
        })
        .collect();
    Part::with_rest("initramfs", measured.initramfs, frames, "others")
}

fn owners(files: &[RootFile]) -> Vec<Part> {
    let mut sums: BTreeMap<&Owner, (u64, u64)> = BTreeMap::new();
    for file in files {
        let sum = sums.entry(&file.owner).or_default();
        *sum = (sum.0 + file.bytes, sum.1 + file.packed);
    }
    let mut packages = Vec::new();
    let mut parts = Vec::new();
    for (owner, (bytes, packed)) in sums {
        let name = match owner {
            Owner::Package(name) => {
                packages.push(Part::leaf(name.clone(), bytes, packed));
                continue;
            }
            Owner::Module => "kernel modules",
            Owner::K3s => "k3s",
            Owner::ContainerImage => "container images",
            Owner::Recipe => "files of the recipe",
            Owner::Holdfast => "holdfast",
        };
        parts.push(Part::leaf(name, bytes, packed));
    }
    parts.push(Part::of("packages", packages));
    parts
}

fn folders(name: &str, files: &[&RootFile], depth: usize) -> Part {
    let mut below: BTreeMap<&str, Vec<&RootFile>> = BTreeMap::new();
    for file in files {
        let mut parts = file.path.split('/').skip(depth);
        if let (Some(folder), Some(_)) = (parts.next(), parts.next()) {
            below.entry(folder).or_default().push(file);
        }
    }
    let parts = match depth < DEPTH {
        true => below
            .into_iter()
            .map(|(name, files)| folders(name, &files, depth + 1))
            .collect(),
        false => Vec::new(),
    };
    let mut part = Part {
        name: name.to_owned(),
        bytes: files.iter().map(|f| f.bytes).sum(),
        packed: files.iter().map(|f| f.packed).sum(),
        parts,
    };
    part.order();
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, owner: Owner, bytes: u64, packed: u64) -> RootFile {
        RootFile {
            path: path.to_owned(),
            owner,
            bytes,
            packed,
        }
    }

    fn measured() -> Measured {
        let package = |name: &str| Owner::Package(name.to_owned());
        Measured {
            loader: 40,
            uki: 1000,
            stub: 100,
            kernel: (500, 500),
            initramfs: 390,
            frames: vec![Frame {
                name: "modules".into(),
                packed: 300,
                files: vec![("ext4".into(), 600), ("tun".into(), 300)],
            }],
            files: vec![
                file("usr/bin/k3s", Owner::K3s, 800, 400),
                file("usr/lib/a/b/c/d", package("a"), 100, 60),
                file("usr/lib/a/e", package("b"), 100, 40),
                file("etc/x", Owner::Recipe, 1, 1),
            ],
            root_fs: 1002,
            root: 1010,
            ..Measured::default()
        }
    }

    #[test]
    fn every_byte_of_the_image_has_a_place() {
        let report = report("b", "r", &measured());
        let image = &report.image;
        let uki = image.part("UKI").unwrap();
        assert_eq!(
            (uki.packed, uki.part("headers").unwrap().packed),
            (1000, 10)
        );
        let initramfs = uki.part("initramfs").unwrap();
        assert_eq!(initramfs.part("others").unwrap().packed, 90);
        let modules = initramfs.part("modules").unwrap();
        assert_eq!((modules.bytes, modules.packed), (900, 300));
        assert_eq!(modules.part("ext4").unwrap().packed, 200);
        let root = image.part("root").unwrap();
        // Twice of what its blocks take: the file system is 1002 for 501.
        assert_eq!(root.part("k3s").unwrap().packed, 800);
        assert_eq!(root.part("verity tree").unwrap().packed, 8);
        assert_eq!(root.packed, 1010);
        let packages = root.part("packages").unwrap();
        let names: Vec<&str> = packages.parts.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(image.packed, 40 + 1000 + 1010);
    }

    #[test]
    fn folders_go_down_three_levels_the_largest_first() {
        let report = report("b", "r", &measured());
        assert_eq!(report.folders.bytes, 1001);
        let usr = report.folders.part("usr").unwrap();
        let names: Vec<&str> = usr.parts.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["bin", "lib"]);
        let a = usr.part("lib").unwrap().part("a").unwrap();
        assert_eq!((a.bytes, a.parts.len()), (200, 0));
    }

    proptest! {
        #[test]
        fn parts_never_sum_to_more_than_the_whole(
            files in proptest::collection::vec(("[a-c](/[a-c]){0,5}", 0u64..1 << 40, 0u64..1 << 40), 0..30),
            root_fs in 0u64..1 << 40,
        ) {
            let measured = Measured {
                files: files.into_iter().map(|(path, bytes, packed)| file(&path, Owner::Recipe, bytes, packed)).collect(),
                root_fs,
                root: root_fs + 7,
                ..Measured::default()
            };
            let report = report("b", "r", &measured);
            prop_assert!(report.image.packed <= root_fs + 7);
            fn look(part: &Part) -> bool {
                part.parts.iter().map(|p| p.packed).sum::<u64>() <= part.packed
                    && part.parts.iter().all(look)
            }
            prop_assert!(look(&report.folders));
        }
    }
}
