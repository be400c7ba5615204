//! What contradicts itself.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::{layout::Role, slots::Slot};
use serde::Serialize;

use super::Contents;
use crate::{
    board::Board,
    definition::{Mention, Place},
    near,
    recipe::Recipe,
};

/// What a conflict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A path of the root.
    Path,
    /// A kernel argument.
    KernelArgument,
    /// A kernel module.
    Module,
    /// A service.
    Service,
    /// A package.
    Package,
    /// A kernel setting.
    Sysctl,
    /// k3s.
    K3s,
    /// Recipe and board together.
    Board,
    /// The root's size.
    Size,
}

/// Two things that do not go together, or one that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Conflict {
    /// What it is about.
    pub kind: Kind,
    /// What it is, and what to do.
    pub message: String,
    /// Where the parts stand.
    pub places: Vec<Place>,
}

/// Kernel arguments that are given more than once on purpose (Linux
/// `Documentation/admin-guide/kernel-parameters.txt`).
const LISTS: [&str; 12] = [
    "blacklist",
    "console",
    "earlycon",
    "hugepages",
    "hugepagesz",
    "initcall_blacklist",
    "memmap",
    "module_blacklist",
    "modprobe.blacklist",
    "pci",
    "usbcore.quirks",
    "video",
];
/// What init, agent or builder put there.
const SYSTEM_PATHS: [&str; 7] = [
    "usr/lib/holdfast/",
    "usr/lib/modules/",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/hostname",
    "etc/hosts",
    "usr/bin/k3s",
];

/// Every conflict of `recipe` (as read) on `board`, in a fixed order. Without `contents` what only
/// packages tell is left out.
#[must_use]
pub fn conflicts(recipe: &Recipe, board: &Board, contents: Option<&Contents>) -> Vec<Conflict> {
    let resolved = recipe.resolved(board.arch);
    let look = Look {
        recipe: &resolved,
        board,
        contents,
    };
    let mut found = Vec::new();
    look.paths(&mut found);
    look.kernel_arguments(&mut found);
    look.modules(&mut found);
    look.services(&mut found);
    look.packages(&mut found);
    look.settings(&mut found);
    look.k3s(&mut found);
    look.size(&mut found);
    found.sort();
    found.dedup();
    found
}

struct Look<'a> {
    /// For the board's architecture.
    recipe: &'a Recipe,
    board: &'a Board,
    contents: Option<&'a Contents>,
}

fn places(mentions: &[Mention]) -> Vec<Place> {
    mentions.iter().map(Mention::place).collect()
}

/// An argument's name as the kernel compares it (`-` is `_`), and its value.
fn argument(arg: &str) -> (String, &str) {
    let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
    (name.replace('-', "_"), value)
}

impl Look<'_> {
    fn paths(&self, found: &mut Vec<Conflict>) {
        for (written, mentions) in self.recipe.origins.of("path") {
            let path = self.recipe.expanded(written);
            let mut add = |message: String| {
                found.push(Conflict {
                    kind: Kind::Path,
                    message,
                    places: places(mentions),
                });
            };
            if mentions.iter().skip(1).any(|m| m.said != "replace") {
                add(format!(
                    "/{path} is given {} times; the last one counts: say `replace = true` there if that is meant",
                    mentions.len()
                ));
            }
            if SYSTEM_PATHS
                .iter()
                .any(|own| path == *own || (own.ends_with('/') && path.starts_with(own)))
            {
                add(format!("/{path} is the system's own; name yours otherwise"));
            }
            let replaces = mentions.last().is_some_and(|m| m.said == "replace");
            if let Some(package) = self.contents.and_then(|c| c.files.get(&path))
                && !replaces
            {
                add(format!(
                    "/{path} also comes with package {package}: say `replace = true` if yours is meant"
                ));
            }
        }
    }

    fn kernel_arguments(&self, found: &mut Vec<Conflict>) {
        let mut given: BTreeMap<String, Vec<(&str, Option<Place>)>> = BTreeMap::new();
        let both = [
            ("kernel.args", &self.board.kernel_args, &self.board.origins),
            (
                "kernel_args",
                &self.recipe.kernel_args,
                &self.recipe.origins,
            ),
        ];
        for (field, args, origins) in both {
            for arg in args {
                let place = origins.mentions(field, arg).last().map(Mention::place);
                given.entry(argument(arg).0).or_default().push((arg, place));
            }
        }
        for (name, args) in given {
            let values: BTreeSet<&str> = args.iter().map(|(arg, _)| argument(arg).1).collect();
            if values.len() < 2 || LISTS.contains(&name.as_str()) {
                continue;
            }
            let all: Vec<&str> = args.iter().map(|(arg, _)| *arg).collect();
            found.push(Conflict {
                kind: Kind::KernelArgument,
                message: format!(
                    "the kernel is told {}: of most arguments the last one counts; leave one out",
                    all.join(" and ")
                ),
                places: args.into_iter().filter_map(|(_, place)| place).collect(),
            });
        }
    }

    fn modules(&self, found: &mut Vec<Conflict>) {
        let Some(contents) = self.contents else {
            return;
        };
        for wish in &self.recipe.modules {
            let name = wish.split(' ').next().unwrap_or(wish).replace('-', "_");
            if !contents.modules.contains(&name) {
                found.push(Conflict {
                    kind: Kind::Module,
                    message: format!(
                        "the kernel of board {} has no module {name}{}",
                        self.board.name,
                        near::hint(&name, contents.modules.iter().map(String::as_str))
                    ),
                    places: places(self.recipe.origins.mentions("modules", wish)),
                });
            }
        }
    }

    fn services(&self, found: &mut Vec<Conflict>) {
        for service in &self.recipe.services {
            let mentions = self.recipe.origins.mentions("service", &service.name);
            let mut add = |message: String| {
                found.push(Conflict {
                    kind: Kind::Service,
                    message,
                    places: places(mentions),
                });
            };
            if mentions.len() > 1 {
                add(format!(
                    "service {} is described {} times; the last one counts",
                    service.name,
                    mentions.len()
                ));
            }
            let Some(program) = service.exec.first() else {
                continue;
            };
            if self.contents.is_some() && !self.holds(program) {
                add(format!(
                    "service {}: no package or file of the recipe brings {program}",
                    service.name
                ));
            }
        }
    }

    /// Whether the root has this program, as far as packages and recipe tell.
    fn holds(&self, program: &str) -> bool {
        let path = program.trim_start_matches('/');
        let path = match path.split_once('/') {
            Some(("bin" | "sbin" | "lib", _)) => format!("usr/{path}"),
            _ => path.to_owned(),
        };
        (path == "usr/bin/k3s" && self.recipe.k3s.is_some())
            || self.contents.is_some_and(|c| c.files.contains_key(&path))
            || self.recipe.files.iter().any(|f| f.path == path)
            || self.recipe.links.iter().any(|l| l.path == path)
    }

    fn packages(&self, found: &mut Vec<Conflict>) {
        for name in self.recipe.packages.intersection(&self.recipe.exclude) {
            let of = |field| self.recipe.origins.mentions(field, name);
            found.push(Conflict {
                kind: Kind::Package,
                message: format!("package {name} is wanted and excluded; it goes in"),
                places: places(of("packages"))
                    .into_iter()
                    .chain(places(of("exclude")))
                    .collect(),
            });
        }
    }

    fn settings(&self, found: &mut Vec<Conflict>) {
        for (field, kind) in [("sysctl", Kind::Sysctl), ("k3s.config", Kind::K3s)] {
            for (key, mentions) in self.recipe.origins.of(field) {
                let values: BTreeSet<&str> = mentions.iter().map(|m| m.said.as_str()).collect();
                if values.len() > 1 {
                    let values: Vec<&str> = mentions.iter().map(|m| m.said.as_str()).collect();
                    found.push(Conflict {
                        kind,
                        message: format!(
                            "{field} {key} is set to {}; the last one counts",
                            values.join(" and to ")
                        ),
                        places: places(mentions),
                    });
                }
            }
        }
    }

    fn k3s(&self, found: &mut Vec<Conflict>) {
        let Some(k3s) = &self.recipe.k3s else {
            return;
        };
        let arch = self.board.arch.debian();
        if !k3s.stand_in
            && let Err(e) = k3s.asset(arch)
        {
            found.push(Conflict {
                kind: Kind::Board,
                message: e.to_string(),
                places: Vec::new(),
            });
        }
        let here: BTreeSet<&str> = k3s.images.iter().map(|i| i.name.as_str()).collect();
        if here.is_empty()
            && let Some((name, mentions)) = self.recipe.origins.of("k3s.image").next()
        {
            found.push(Conflict {
                kind: Kind::Board,
                message: format!("k3s.image {name}: none of them is for {arch}"),
                places: places(mentions),
            });
        }
        let mut stems: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for manifest in &k3s.manifests {
            let stem = manifest.name.split('.').next().unwrap_or(&manifest.name);
            stems.entry(stem).or_default().push(&manifest.name);
        }
        for (stem, names) in stems {
            if names.len() > 1 {
                let of = names
                    .iter()
                    .flat_map(|n| places(self.recipe.origins.mentions("k3s.manifest", n)));
                found.push(Conflict {
                    kind: Kind::K3s,
                    message: format!(
                        "k3s makes one add-on {stem} of {}: their names must differ before the first dot",
                        names.join(" and ")
                    ),
                    places: of.collect(),
                });
            }
        }
    }

    /// Archives of images are packed already; of everything else not even a quarter would be left.
    fn size(&self, found: &mut Vec<Conflict>) {
        let images = self.recipe.k3s.iter().flat_map(|k| &k.images);
        let archives: u64 = images.filter_map(|i| i.len).sum();
        let rest = self.contents.map_or(0, |c| c.bytes);
        let limit = Role::Root(Slot::A).size();
        if archives + rest / 4 > limit {
            found.push(Conflict {
                kind: Kind::Size,
                message: format!(
                    "the root has room for {} MiB: archives of images take {} MiB, packages {} MiB before compression",
                    limit >> 20,
                    archives >> 20,
                    rest >> 20
                ),
                places: Vec::new(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
