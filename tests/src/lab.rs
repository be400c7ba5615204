//! A cluster, its lighthouse and its images, for one story.

use crate::command::{Holdfast, PASSPHRASE};
use crate::lighthouse::LighthouseProcess;
use crate::node::Node;
use anyhow::{Context as _, Result};
use holdfast_qemu::free_tcp_port;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The board of the stories' machines.
const BOARD: &str = "proxmox";

/// What `holdfast build` made.
#[derive(Debug, Clone)]
pub struct Built {
    /// The raw disk image.
    pub image: PathBuf,
    /// The update bundle.
    pub bundle: PathBuf,
    /// The version it was given.
    pub version: String,
    /// Its generation.
    pub generation: u64,
}

/// A cluster made for one story.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: PathBuf,
    keep: bool,
    https: u16,
    /// Where the lighthouse listens.
    here: IpAddr,
    /// The operator's command.
    pub holdfast: Holdfast,
    /// The running lighthouse; none while a story has it killed.
    pub lighthouse: Option<LighthouseProcess>,
}

impl Lab {
    /// Makes a cluster and starts its lighthouse on loopback.
    ///
    /// # Errors
    /// Whatever the commands say.
    pub fn new(story: &str) -> Result<Self> {
        Self::at(story, "10.0.2.2", Ipv4Addr::LOCALHOST.into())
    }

    /// As [`Lab::new`], for machines without IPv4.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn by_ipv6(story: &str) -> Result<Self> {
        Self::at(story, "fec0::2", Ipv6Addr::LOCALHOST.into())
    }

    /// `host`: by which the machines know what is `here` to the lighthouse and the operator.
    fn at(story: &str, host: &str, here: IpAddr) -> Result<Self> {
        let dir = crate::command::top().join("target/stories").join(story);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).context("clear the last run's folder")?;
        }
        std::fs::create_dir_all(&dir)?;
        let (https, udp) = (free_tcp_port()?, free_tcp_port()?);
        let bare = Holdfast::new(&dir);
        let cluster = dir.join("cluster");
        bare.run([
            "cluster",
            "new",
            "lab",
            "--dir",
            &cluster.to_string_lossy(),
            "--lighthouse",
            host,
            "--reach",
            &here.to_string(),
            "--listen",
            &here.to_string(),
            "--https-port",
            &https.to_string(),
            "--udp-port",
            &udp.to_string(),
        ])?;
        let holdfast = bare.cluster(&cluster);
        let mut lab = Self {
            name: story.into(),
            dir,
            keep: false,
            https,
            here,
            holdfast,
            lighthouse: None,
        };
        lab.start_lighthouse()?;
        Ok(lab)
    }

    /// The story's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster's directory.
    #[must_use]
    pub fn cluster_dir(&self) -> PathBuf {
        self.dir.join("cluster")
    }

    /// The lighthouse's port for HTTPS.
    #[must_use]
    pub fn https_port(&self) -> u16 {
        self.https
    }

    /// The lighthouse's directory.
    #[must_use]
    pub fn lighthouse_dir(&self) -> PathBuf {
        self.cluster_dir().join("lighthouse")
    }

    /// The passphrase of the cluster's keys.
    #[must_use]
    pub fn passphrase(&self) -> &'static str {
        PASSPHRASE
    }

    /// Starts the lighthouse (again).
    ///
    /// # Errors
    /// It does not listen.
    pub fn start_lighthouse(&mut self) -> Result<()> {
        let log = self.dir.join("lighthouse.log");
        self.lighthouse = Some(LighthouseProcess::start(
            &self.holdfast,
            &self.lighthouse_dir(),
            SocketAddr::new(self.here, self.https),
            &log,
        )?);
        Ok(())
    }

    /// Kills it with `kill -9`.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_lighthouse(&mut self) -> Result<()> {
        self.lighthouse.take().context("no lighthouse runs")?.kill()
    }

    /// Ends the lighthouse and destroys its folder, keys and store included.
    ///
    /// # Errors
    /// It does not run.
    pub fn lose_lighthouse(&mut self) -> Result<()> {
        self.kill_lighthouse()?;
        std::fs::remove_dir_all(self.lighthouse_dir()).context("destroy the lighthouse's disk")
    }

    /// `holdfast lighthouse restore`, and starts what it made.
    ///
    /// # Errors
    /// The command's words; it does not listen.
    pub fn restore_lighthouse(&mut self) -> Result<()> {
        let here = self.here.to_string();
        let line = ["lighthouse", "restore", "--listen", &here];
        self.holdfast.run(line)?;
        self.start_lighthouse()
    }

    /// Builds `recipe` as `version`.
    ///
    /// # Errors
    /// The builder's words.
    pub fn build(&self, recipe: &str, version: &str) -> Result<Built> {
        self.build_with(recipe, version, &[])
    }

    /// Builds `recipe` as `version` with more options.
    ///
    /// # Errors
    /// The builder's words.
    pub fn build_with(&self, recipe: &str, version: &str, more: &[&str]) -> Result<Built> {
        self.build_board(BOARD, recipe, version, more)
    }

    /// Builds `recipe` as `version` for `board`.
    ///
    /// # Errors
    /// The builder's words.
    pub fn build_for(&self, board: &str, recipe: &str, version: &str) -> Result<Built> {
        self.build_board(board, recipe, version, &[])
    }

    /// Builds `recipe` as `version` for `board` with more options.
    ///
    /// # Errors
    /// The builder's words.
    pub fn build_board(
        &self,
        board: &str,
        recipe: &str,
        version: &str,
        more: &[&str],
    ) -> Result<Built> {
        let out = self.dir.join("images").join(version);
        let out_text = out.to_string_lossy().into_owned();
        let mut args = vec![
            "build",
            "--board",
            board,
            "--recipe",
            recipe,
            "--version",
            version,
            "--output-dir",
            &out_text,
            "--relock",
            "when-gone",
        ];
        args.extend(more);
        let made = self.holdfast.json(&args)?;
        let path = |field: &str| -> Result<PathBuf> {
            Ok(made[field]
                .as_str()
                .with_context(|| format!("no {field} in {made}"))?
                .into())
        };
        Ok(Built {
            image: path("image")?,
            bundle: path("bundle")?,
            version: version.into(),
            generation: made["generation"].as_u64().context("no generation")?,
        })
    }

    /// A seed for a node called `name`, its grant handed to the lighthouse.
    ///
    /// # Errors
    /// The command's words.
    pub fn seed(&self, name: &str, role: &str, more: &[&str]) -> Result<PathBuf> {
        let file = self.dir.join(format!("{name}.seed.toml"));
        let text = file.to_string_lossy().into_owned();
        let mut args = vec![
            "seed", "new", "--role", role, "--name", name, "--out", &text,
        ];
        args.extend(more);
        self.holdfast.run(args)?;
        Ok(file)
    }

    /// A node with `image` and a fresh seed, powered off.
    ///
    /// # Errors
    /// No seed, or no machine.
    pub fn node(&self, name: &str, role: &str, image: &Built) -> Result<Node> {
        let seed = self.seed(name, role, &[])?;
        Node::new(self, name, image, Some(&seed))
    }

    /// Gives the build cache in `cache` the packages that this user has downloaded before, so that
    /// a story with a cache of its own asks no mirror again.
    ///
    /// # Errors
    /// The copy fails.
    pub fn share_downloads(&self, cache: &Path) -> Result<()> {
        let own = std::env::var_os("XDG_CACHE_HOME").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
            PathBuf::from,
        );
        let to = cache.join("holdfast");
        std::fs::create_dir_all(&to)?;
        let done = std::process::Command::new("cp")
            .args(["-r", "--reflink=auto"])
            .arg(own.join("holdfast/objects"))
            .arg(&to)
            .status()?;
        anyhow::ensure!(done.success(), "copy the downloads to {}", to.display());
        Ok(())
    }

    /// Leaves the story's folder when it passes.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.lighthouse.take());
        if std::thread::panicking() {
            eprintln!("{}: the logs are in {}", self.name, self.dir.display());
        } else if !self.keep {
            let _ = std::fs::remove_dir_all(self.dir.join("images"));
        }
    }
}
