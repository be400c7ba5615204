//! `holdfast build`.

use super::lock::Archive;
use crate::app::App;
use crate::cluster_dir::{ClusterDir, KeyFile};
use crate::exit::Exit;
use crate::find::{self, definition, node_binary};
use crate::progress::Steps;
use crate::words;
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use holdfast_image::archive::fetch::{Fetcher, Wanted};
use holdfast_image::board::Arch;
use holdfast_image::{
    Binaries, Board, BuildReport, BuildRequest, Cache, Outputs, Recipe, Relock, Signing,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast build --board proxmox --recipe k3s --output-dir images
  holdfast build --board rpi4 --recipe base --formats raw,bundle
  holdfast build --recipe base --version 1.4.0 --formats raw,qcow2,bundle
  holdfast build --recipe ./my/edge.toml --report edge-sizes.json
  holdfast build --recipe kube --k3s stand-in=target/kube/k3s      test equipment

Files are called holdfast-BOARD-RECIPE-VERSION, with .img, .qcow2 or .bundle behind it. \
Needs no root, no loop devices and no containers. The same inputs give the same bytes. The release \
key signs: image and bundle are for this cluster alone.")]
pub struct Args {
    /// A board's name in boards/, or its file
    #[arg(long, default_value = "x86-64", value_name = "BOARD")]
    board: String,
    /// A recipe's name in recipes/, or its file
    #[arg(long, value_name = "RECIPE")]
    recipe: String,
    /// Where the files go
    #[arg(long, default_value = "images", value_name = "DIR")]
    output_dir: PathBuf,
    /// The image's version, for people [default: its generation]
    #[arg(long = "version", value_name = "VERSION")]
    image_version: Option<String>,
    /// Its generation: nodes refuse older ones [default: one more than the last]
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
    /// Which files, beside the bill of materials
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Format::Raw, Format::Bundle], value_name = "FORMAT,...")]
    formats: Vec<Format>,
    /// When to lock anew by itself
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    relock: RelockWhen,
    #[command(flatten)]
    archive: Archive,
    /// k3s: `official` (downloaded, checked against the recipe's digest), PATH of the official
    /// binary, or `stand-in=PATH`: test equipment, which says so wherever it shows its name
    #[arg(long, default_value = "official", value_name = "K3S")]
    k3s: K3s,
    /// Show what takes how much in the image, as a tree; with FILE, write it there as JSON, too
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    report: Option<Option<PathBuf>>,
    /// Build nothing: download the official k3s, and tell by the exit code whether it can be had
    #[arg(long)]
    check_k3s: bool,
    /// Leave the hardware watchdog alone, in loader and init: for emulators whose watchdog fires at
    /// once (QEMU's Raspberry Pi machines). A node that hangs then stays so
    #[arg(long)]
    no_watchdog: bool,
    /// holdfast-init [default: in HOLDFAST_NODE_BINARIES, else node/ARCH/ beside this program]
    #[arg(long, value_name = "PATH", help_heading = "Programs for nodes")]
    init: Option<PathBuf>,
    /// holdfast-agent
    #[arg(long, value_name = "PATH", help_heading = "Programs for nodes")]
    agent: Option<PathBuf>,
    /// holdfast-boot.efi
    #[arg(long, value_name = "PATH", help_heading = "Programs for nodes")]
    loader: Option<PathBuf>,
}

/// A file to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A raw disk image.
    Raw,
    /// A disk image for QEMU and Proxmox.
    Qcow2,
    /// An update bundle.
    Bundle,
}

/// When to lock anew.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum RelockWhen {
    /// Stop, and name the command that does.
    #[default]
    Never,
    /// When the mirror no longer has a locked file.
    WhenGone,
    /// Each time.
    Always,
}

/// Which k3s goes in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum K3s {
    Official,
    Binary(PathBuf),
    StandIn(PathBuf),
}

impl std::str::FromStr for K3s {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            _ if text == "official" => Ok(Self::Official),
            Some(("stand-in", path)) if !path.is_empty() => Ok(Self::StandIn(path.into())),
            Some(("stand-in", _)) | None if text.starts_with("stand-in") => {
                Err("a stand-in is given as stand-in=PATH (kube/build.sh builds it)".into())
            }
            _ if text.is_empty() => Err("official, PATH or stand-in=PATH".into()),
            _ => Ok(Self::Binary(text.into())),
        }
    }
}

fn arch_folder(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64",
        Arch::Arm64 => "aarch64",
    }
}

/// The recipe's pin of the official binary.
fn pin(recipe: &Recipe, arch: Arch) -> Result<Wanted> {
    let k3s = recipe.k3s.as_ref().filter(|k| !k.stand_in);
    let k3s = k3s.with_context(|| format!("recipe {} holds no official k3s", recipe.name))?;
    let (url, sha256) = k3s.asset(arch.debian())?;
    Ok(Wanted {
        location: url.clone(),
        sha256: *sha256,
        size: None,
    })
}

/// Brings the official binary into the cache.
fn fetch_official(
    recipe: &Recipe,
    arch: Arch,
    cache: &Cache,
    steps: Arc<Steps>,
) -> Result<PathBuf> {
    let wanted = pin(recipe, arch)?;
    let object = cache.object(&wanted.sha256);
    if !object.exists() {
        Fetcher::new("", steps)
            .objects(cache, &[wanted], &recipe.name)
            .context("the official k3s cannot be had here (download it elsewhere and give it with --k3s PATH)")?;
    }
    Ok(object)
}

/// Takes a binary that someone downloaded, if it is the pinned one.
fn adopt(path: &Path, recipe: &Recipe, arch: Arch, cache: &Cache) -> Result<()> {
    let wanted = pin(recipe, arch)?;
    let found = holdfast_image::digest::of_file(path)?;
    if found != wanted.sha256 {
        return Err(Exit::Refused.error(format!(
            "{} is not the k3s that recipe {} pins: its SHA-256 is {found}, pinned is {}",
            path.display(),
            recipe.name,
            wanted.sha256
        )));
    }
    let partial = cache.partial(&wanted.sha256);
    std::fs::copy(path, &partial).with_context(|| format!("cannot copy {}", path.display()))?;
    cache.adopt(&partial, &wanted.sha256)?;
    Ok(())
}

/// The stand-in to build in, if one is; the official binary is in the cache otherwise.
fn choose_k3s(
    args: &Args,
    recipe: &Recipe,
    arch: Arch,
    cache: &Cache,
    steps: &Arc<Steps>,
) -> Result<Option<PathBuf>> {
    let stand_in = |path: &Path| {
        if !path.is_file() {
            return Err(Exit::Usage.error(format!(
                "there is no stand-in at {} (kube/build.sh builds it)",
                path.display()
            )));
        }
        steps.line("k3s: the stand-in goes in (test equipment around real Kubernetes, not k3s).");
        Ok(Some(path.to_path_buf()))
    };
    if recipe.k3s.is_none() {
        return match &args.k3s {
            K3s::Official => Ok(None),
            _ => Err(Exit::Usage.error(format!(
                "recipe {} holds no k3s; --k3s does not fit",
                recipe.name
            ))),
        };
    }
    match &args.k3s {
        K3s::StandIn(path) => stand_in(path),
        K3s::Binary(path) => adopt(path, recipe, arch, cache).map(|()| None),
        // The builder itself says what a recipe of test equipment wants.
        K3s::Official if recipe.k3s.as_ref().is_some_and(|k| k.stand_in) => Ok(None),
        K3s::Official => fetch_official(recipe, arch, cache, steps.clone()).map(|_| None),
    }
}

/// The generation: as given, else one more than the last. One that was given needs no counters.
fn generation(app: &App, cluster: &ClusterDir, given: Option<u64>) -> Result<u64> {
    match (cluster.take_generation(given), given) {
        (Err(error), Some(generation)) => {
            app.say(&format!(
                "note: the next build will not know of generation {generation}: {error:#}"
            ));
            Ok(generation)
        }
        (taken, _) => taken,
    }
}

/// Runs the verb.
pub fn run(app: &App, args: Args) -> Result<()> {
    let recipe = find::recipe(&args.recipe)?;
    let mut board = Board::read(&definition("boards", &args.board)?)?;
    if args.no_watchdog {
        board = board.without_watchdog();
    }
    let cache = Cache::open(Cache::default_dir()?)?;
    let steps = Arc::new(Steps::new());
    if args.check_k3s {
        let had = fetch_official(&recipe, board.arch, &cache, steps.clone());
        steps.clear();
        let path = had?;
        return app.print(
            &serde_json::json!({ "k3s": "official", "path": path }),
            || "The official k3s can be had.".into(),
        );
    }
    let cluster = app.cluster()?;
    let folder = arch_folder(board.arch);
    let binaries = Binaries {
        init: node_binary(args.init.as_deref(), folder, "holdfast-init")?,
        agent: node_binary(args.agent.as_deref(), folder, "holdfast-agent")?,
        loader: node_binary(args.loader.as_deref(), folder, "holdfast-boot.efi")?,
    };
    let k3s_stand_in = choose_k3s(&args, &recipe, board.arch, &cache, &steps)?;
    let release_list = B64
        .decode(&cluster.documents()?.set.releases)
        .ok()
        .and_then(|b| b.try_into().ok());
    let signing = Signing {
        cluster: cluster.config.id,
        roots: cluster.config.roots.clone(),
        release_list: release_list.context("documents.json: the release list is damaged")?,
        release_key: app.key(&cluster, KeyFile::Release)?,
    };
    let generation = generation(app, &cluster, args.generation)?;
    let request = BuildRequest {
        recipe,
        board,
        version: args.image_version.unwrap_or_else(|| generation.to_string()),
        generation,
        binaries,
        signing,
        k3s_stand_in,
        sources: args.archive.sources(),
        cache,
        output_dir: args.output_dir,
        outputs: Outputs {
            raw: args.formats.contains(&Format::Raw),
            qcow2: args.formats.contains(&Format::Qcow2),
            bundle: args.formats.contains(&Format::Bundle),
            sbom: true,
        },
        relock: match args.relock {
            RelockWhen::Never => Relock::Never,
            RelockWhen::WhenGone => Relock::WhenGone,
            RelockWhen::Always => Relock::Always,
        },
        report: args.report.is_some(),
    };
    let report = holdfast_image::build(&request, steps.clone());
    steps.clear();
    let report = report?;
    if let (Some(Some(file)), Some(parts)) = (&args.report, &report.parts) {
        let json = serde_json::to_string_pretty(parts).context("writing JSON")?;
        std::fs::write(file, json + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    app.print(&report, || text(&report))
}

fn text(report: &BuildReport) -> String {
    let files = [
        ("image", &report.image),
        ("qcow2", &report.qcow2),
        ("bundle", &report.bundle),
        ("bill", &report.sbom),
    ];
    let mut rows = vec![
        (
            "version",
            format!("{} (generation {})", report.version, report.generation),
        ),
        (
            "k3s",
            report
                .k3s
                .as_ref()
                .map(|k| {
                    format!(
                        "{}{}",
                        k.version,
                        if k.stand_in {
                            ", STAND-IN: test equipment"
                        } else {
                            ""
                        }
                    )
                })
                .unwrap_or_default(),
        ),
    ];
    rows.extend(
        files
            .into_iter()
            .filter_map(|(name, path)| Some((name, path.as_ref()?.display().to_string()))),
    );
    rows.push((
        "sizes",
        format!(
            "UKI {} (unpacked {}: kernel {}, initramfs {}), root {}",
            words::size(report.sizes.uki),
            words::size(report.sizes.uki_decoded),
            words::size(report.sizes.kernel),
            words::size(report.sizes.initramfs),
            words::size(report.sizes.root),
        ),
    ));
    rows.push(("took", format!("{:.1} s", report.took.as_secs_f64())));
    let mut out = crate::table::fields(&rows);
    if let Some(parts) = &report.parts {
        out += "\n\n";
        out += &crate::sizes::text(parts);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_only_ever_asked_for_by_name() {
        assert_eq!("official".parse(), Ok(K3s::Official));
        assert_eq!("stand-in=/x".parse(), Ok(K3s::StandIn("/x".into())));
        assert_eq!("/x/k3s".parse(), Ok(K3s::Binary("/x/k3s".into())));
        assert!("stand-in".parse::<K3s>().is_err());
        assert!("stand-in=".parse::<K3s>().is_err());
        assert!("".parse::<K3s>().is_err());
    }
}
