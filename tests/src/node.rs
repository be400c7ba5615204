//! A node: a virtual machine, and the operator's view of it.

use crate::command::Holdfast;
use crate::lab::{Built, Lab};
use crate::until::until_some;
use anyhow::{Context as _, Result};
use holdfast_qemu::{Machine, MachineSpec};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Disk of a story's machine, in bytes: larger than the image, so that `/var` grows.
pub(crate) const DISK: u64 = 6 << 30;
/// Software emulation on two busy cores: how long a boot may take.
const BOOT: Duration = Duration::from_secs(180);
/// How long Kubernetes may take to be Ready there.
const READY: Duration = Duration::from_secs(600);

/// A node of a lab.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its machine.
    pub machine: Machine,
    holdfast: Holdfast,
}

/// The node as `holdfast nodes` shows it.
#[derive(Debug, Clone)]
pub struct NodeView(pub Value);

impl NodeView {
    /// A text field, empty when absent.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }
}

impl Node {
    /// A machine with `image`; its disk is its own.
    ///
    /// # Errors
    /// QEMU or firmware missing, no such image.
    pub fn new(lab: &Lab, name: &str, image: &Built, seed: Option<&Path>) -> Result<Self> {
        Self::with(lab, name, image, seed, |spec| spec)
    }

    /// As [`Node::new`], with changes to the machine.
    ///
    /// # Errors
    /// As [`Node::new`].
    pub fn with(
        lab: &Lab,
        name: &str,
        image: &Built,
        seed: Option<&Path>,
        change: impl FnOnce(MachineSpec) -> MachineSpec,
    ) -> Result<Self> {
        let mut spec = MachineSpec::new(name)
            .image(&image.image)
            .disk_bytes(DISK)
            .dir(&lab.dir().join("vm").join(name));
        if let Some(seed) = seed {
            spec = spec.seed(seed);
        }
        Ok(Self {
            name: name.into(),
            machine: Machine::create(change(spec))?,
            holdfast: lab.holdfast.clone(),
        })
    }

    /// Powers it on and waits until it is in the mesh.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot(&mut self) -> Result<NodeView> {
        self.machine.power_on()?;
        self.wait_for("holdfast: mesh up")?;
        self.wait_online()
    }

    /// Powers it on and waits until its agent runs; whether it finds anybody is another matter.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(&mut self) -> Result<()> {
        self.machine.power_on()?;
        self.wait_for("holdfast: agent ")
    }

    /// Waits for a line on the console.
    ///
    /// # Errors
    /// It does not come within the time of a boot.
    pub fn wait_for(&mut self, marker: &str) -> Result<()> {
        self.machine.wait_for(marker, BOOT)?;
        Ok(())
    }

    /// The node as the operator sees it now.
    ///
    /// # Errors
    /// The lighthouse does not answer.
    pub fn view(&self) -> Result<Option<NodeView>> {
        let nodes = self.holdfast.json(&["nodes"])?;
        let list = nodes.as_array().context("nodes: no list")?;
        Ok(list
            .iter()
            .find(|n| n["name"] == self.name.as_str())
            .cloned()
            .map(NodeView))
    }

    /// Waits until the operator's view fulfils `condition`.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub fn wait_view(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&NodeView) -> bool,
    ) -> Result<NodeView> {
        until_some(&format!("{}: {what}", self.name), limit, || {
            match self.view() {
                Ok(Some(view)) if condition(&view) => Ok(view),
                Ok(other) => Err(format!("{:?}", other.map(|v| v.0.to_string()))),
                Err(e) => Err(format!("{e:#}")),
            }
        })
    }

    /// Waits until the node answers a control request, and its lighthouse lists that same boot:
    /// before the node's first report the list still shows the boot before.
    ///
    /// # Errors
    /// It does not.
    pub fn wait_online(&self) -> Result<NodeView> {
        let answer = until_some(&format!("{} answers", self.name), BOOT, || {
            self.holdfast
                .json(&["status", &self.name])
                .map_err(|e| format!("{e:#}"))
        })?;
        let boot = answer["boot_id"]
            .as_str()
            .with_context(|| format!("status without boot_id: {answer}"))?;
        self.wait_view("listed", BOOT, |v| {
            v.text("boot_id") == boot && !v.text("slot").is_empty()
        })
    }

    /// Waits until k3s says that the node is Ready.
    ///
    /// # Errors
    /// It does not.
    pub fn wait_ready(&self) -> Result<NodeView> {
        self.wait_view("k3s Ready", READY, |v| v.text("k3s") == "ready")
    }

    /// `holdfast reboot NODE --wait`.
    ///
    /// # Errors
    /// It does not come back.
    pub fn reboot(&mut self) -> Result<NodeView> {
        self.holdfast.run(["reboot", &self.name, "--wait"])?;
        self.wait_online()
    }

    /// `holdfast upgrade NODE BUNDLE --wait`: the exit code and what was said.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn upgrade(&mut self, bundle: &Built) -> Result<crate::Outcome> {
        self.upgrade_with(bundle, &[])
    }

    /// As [`Node::upgrade`], with more options.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn upgrade_with(&mut self, bundle: &Built, more: &[&str]) -> Result<crate::Outcome> {
        let file = bundle.bundle.to_string_lossy();
        self.holdfast.try_run(
            ["upgrade", &self.name, &file, "--wait"]
                .iter()
                .chain(more)
                .copied(),
        )
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// It is off.
    pub fn power_cut(&mut self) -> Result<()> {
        Ok(self.machine.power_cut()?)
    }

    /// The console's text so far.
    pub fn console(&mut self) -> String {
        self.machine.console().text()
    }
}
