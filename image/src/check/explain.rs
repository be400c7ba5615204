//! What a recipe does, and which line of which file says so.

use serde::Serialize;

use super::{Conflict, Contents, conflicts};
use crate::{
    board::Board,
    definition::{Mention, Origins, Place},
    recipe::{Image, ImageSource, Layer, Recipe},
};

/// One thing that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// Its name.
    pub what: String,
    /// More about it: a setting's value, a service's command.
    pub detail: String,
    /// Where it stands; the last one counts.
    pub places: Vec<Place>,
}

/// What a recipe does on one board.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The recipe's name.
    pub recipe: String,
    /// The files it is made of; each extends the one before.
    pub layers: Vec<Layer>,
    /// The board's name.
    pub board: String,
    /// Debian's name of its architecture.
    pub arch: &'static str,
    /// Suite and components of the archive.
    pub archive: String,
    /// Packages that are asked for; their dependencies come by themselves.
    pub packages: Vec<Said>,
    /// Dependencies that are left out.
    pub excluded: Vec<Said>,
    /// Kernel modules loaded once the root is mounted.
    pub modules: Vec<Said>,
    /// Kernel arguments.
    pub kernel_args: Vec<Said>,
    /// Kernel settings.
    pub sysctl: Vec<Said>,
    /// Files, links and folders.
    pub files: Vec<Said>,
    /// Services.
    pub services: Vec<Said>,
    /// k3s: version, settings, manifests, images.
    pub k3s: Vec<Said>,
    /// What contradicts itself.
    pub conflicts: Vec<Conflict>,
    /// What could not be looked at, and why.
    pub unchecked: Vec<String>,
}

impl Explanation {
    /// Of `recipe` (as read) on `board`; `contents`: what the packages tell, or why that is not
    /// known.
    #[must_use]
    pub fn of(recipe: &Recipe, board: &Board, contents: Result<&Contents, String>) -> Self {
        let it = recipe.resolved(board.arch);
        let of = &it.origins;
        let list = |field, names: &mut dyn Iterator<Item = &String>| -> Vec<Said> {
            names.map(|name| said(of, field, name, "")).collect()
        };
        let mut modules = list("modules", &mut it.modules.iter());
        let late = board.late_modules.iter();
        modules.extend(late.map(|m| said(&board.origins, "modules.late", m, "")));
        let mut kernel_args: Vec<Said> = board
            .kernel_args
            .iter()
            .map(|a| said(&board.origins, "kernel.args", a, ""))
            .collect();
        kernel_args.extend(list("kernel_args", &mut it.kernel_args.iter()));
        let unchecked = contents.as_ref().err().map(|why| {
            format!(
                "not checked: whether the kernel has the modules, packages bring the same files, programs of services are there ({why})"
            )
        });
        Self {
            recipe: it.name.clone(),
            layers: it.layers.clone(),
            board: board.name.clone(),
            arch: board.arch.debian(),
            archive: format!(
                "{} ({})",
                it.suite,
                it.components.iter().cloned().collect::<Vec<_>>().join(", ")
            ),
            packages: list("packages", &mut it.packages.iter()),
            excluded: list("exclude", &mut it.exclude.iter()),
            modules,
            kernel_args,
            sysctl: it
                .sysctl
                .iter()
                .map(|(key, value)| said(of, "sysctl", key, value))
                .collect(),
            files: files(&it),
            services: it
                .services
                .iter()
                .map(|s| said(of, "service", &s.name, &s.exec.join(" ")))
                .collect(),
            k3s: k3s(&it),
            conflicts: conflicts(recipe, board, contents.ok()),
            unchecked: unchecked.into_iter().collect(),
        }
    }
}

fn said(of: &Origins, field: &'static str, what: &str, detail: &str) -> Said {
    Said {
        what: what.to_owned(),
        detail: detail.to_owned(),
        places: of
            .mentions(field, what)
            .iter()
            .map(Mention::place)
            .collect(),
    }
}

/// Paths are noted as they are written.
fn at_path(recipe: &Recipe, path: &str, detail: &str) -> Said {
    let mut all = recipe.origins.of("path");
    let places = all.find(|(written, _)| recipe.expanded(written) == path);
    Said {
        what: format!("/{path}"),
        detail: detail.to_owned(),
        places: places
            .map(|(_, m)| m.iter().map(Mention::place).collect())
            .unwrap_or_default(),
    }
}

fn files(recipe: &Recipe) -> Vec<Said> {
    let file = |f: &crate::recipe::File| {
        let detail = if f.executable { "program" } else { "file" };
        at_path(recipe, &f.path, detail)
    };
    let link = |l: &crate::recipe::Link| at_path(recipe, &l.path, &format!("link to {}", l.target));
    recipe
        .files
        .iter()
        .map(file)
        .chain(recipe.links.iter().map(link))
        .chain(recipe.dirs.iter().map(|d| at_path(recipe, d, "folder")))
        .collect()
}

fn k3s(recipe: &Recipe) -> Vec<Said> {
    let Some(k3s) = &recipe.k3s else {
        return Vec::new();
    };
    let of = &recipe.origins;
    let stand_in = if k3s.stand_in { ", a stand-in" } else { "" };
    let mut all = vec![Said {
        what: "version".into(),
        detail: format!("{}{stand_in}", k3s.version),
        places: vec![k3s.place()],
    }];
    let disabled = k3s.disable.iter();
    all.extend(disabled.map(|d| said(of, "k3s.disable", d, "not deployed")));
    for key in k3s.config.keys() {
        let mut entry = said(of, "k3s.config", key, "");
        if let Some(last) = of.mentions("k3s.config", key).last() {
            entry.detail = last.said.clone();
        }
        all.push(entry);
    }
    let manifests = k3s.manifests.iter();
    all.extend(manifests.map(|m| said(of, "k3s.manifest", &m.name, "deployed")));
    let from = |i: &Image| match &i.source {
        ImageSource::Url(url) => url.clone(),
        ImageSource::Path(path) => path.display().to_string(),
    };
    all.extend(
        k3s.images
            .iter()
            .map(|i| said(of, "k3s.image", &i.name, &from(i))),
    );
    all
}
