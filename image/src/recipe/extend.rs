//! One recipe file on top of the ones it extends.

use holdfast_core::image::ServiceSpec;
use toml::Spanned;

use super::{
    File, ForArch, K3s, Link, Recipe, content, inside,
    raw::{Raw, RawArch, RawService},
    setting, sysctl,
};
use crate::{
    definition::{Origins, PROBATION_SECONDS, Source, TRIAL_SECONDS},
    error::Result,
    near,
};

/// Parts of Debian's archive (Debian Policy, 2.2).
const COMPONENTS: [&str; 4] = ["main", "contrib", "non-free", "non-free-firmware"];
/// Names of services that init or the agent have for themselves.
const TAKEN: [&str; 5] = ["agent", "log", "init", "kernel", "k3s"];

impl Recipe {
    /// Adds what `raw` says to what the recipe below says.
    pub(super) fn extend(&mut self, raw: Raw, source: &Source<'_>) -> Result<()> {
        self.description = raw.description;
        if let Some(suite) = raw.suite {
            self.suite = suite;
        }
        for component in raw.components {
            let name = component.get_ref().as_str();
            if !COMPONENTS.contains(&name) {
                let message = format!(
                    "components: {name:?} is none of {}{}",
                    COMPONENTS.join(", "),
                    near::hint(name, COMPONENTS)
                );
                return Err(source.error(Some(component.span()), message).into());
            }
            self.components.insert(component.into_inner());
        }
        let trial = raw.trial_seconds.as_ref();
        let trial = source.seconds("trial_seconds", &TRIAL_SECONDS, trial)?;
        self.trial_seconds = trial.or(self.trial_seconds);
        let probation = raw.probation_seconds.as_ref();
        let probation = source.seconds("probation_seconds", &PROBATION_SECONDS, probation)?;
        self.probation_seconds = probation.or(self.probation_seconds);
        for path in raw.remove {
            self.remove
                .insert(inside("remove", path.get_ref(), path.span(), source)?);
        }
        let common = RawArch {
            packages: raw.packages,
            modules: raw.modules,
            kernel_args: raw.kernel_args,
        };
        let added = lists(common, &mut self.origins, source)?;
        // What is wanted here may have been left out below.
        self.exclude.retain(|name| !added.packages.contains(name));
        self.packages.extend(added.packages);
        self.modules.extend(added.modules);
        self.kernel_args.extend(added.kernel_args);
        for (arch, part) in [("amd64", raw.arch.amd64), ("arm64", raw.arch.arm64)] {
            let added = lists(part, &mut self.origins, source)?;
            let all = self.for_arch.entry(arch).or_default();
            all.packages.extend(added.packages);
            all.modules.extend(added.modules);
            all.kernel_args.extend(added.kernel_args);
        }
        for package in raw.exclude {
            self.origins.note("exclude", &package, source);
            self.exclude.insert(package.into_inner());
        }
        for (key, value, span) in setting::flat(raw.sysctl) {
            let bad = |why: String| source.error(Some(span.clone()), format!("sysctl: {why}"));
            let key = sysctl::name(&key).map_err(bad)?;
            let value = sysctl::value(&key, value).map_err(bad)?;
            self.origins.said("sysctl", &key, span, &value, source);
            self.sysctl.insert(key, value);
        }
        for file in raw.file {
            let path = inside("file.path", file.path.get_ref(), file.path.span(), source)?;
            let said = if file.replace { "replace" } else { "" };
            self.origins
                .said("path", &path, file.path.span(), said, source);
            let file = File {
                content: content("file", &file.path, file.content, file.source, source)?,
                path,
                executable: file.executable,
                replace: file.replace,
            };
            self.clear(&file.path);
            self.files.push(file);
        }
        for link in raw.link {
            let path = inside("link.path", link.path.get_ref(), link.path.span(), source)?;
            let said = if link.replace { "replace" } else { "" };
            self.origins
                .said("path", &path, link.path.span(), said, source);
            self.clear(&path);
            self.links.push(Link {
                path,
                target: link.target,
                replace: link.replace,
            });
        }
        for dir in raw.dir {
            let path = inside("dir", dir.get_ref(), dir.span(), source)?;
            if !self.dirs.contains(&path) {
                self.origins
                    .said("path", &path, dir.span(), "replace", source);
                self.dirs.push(path);
            }
        }
        for service in raw.service {
            let spec = service_spec(service, &mut self.origins, source)?;
            self.services.retain(|s| s.name != spec.name);
            self.services.push(spec);
        }
        if let Some(k3s) = raw.k3s {
            let span = k3s.span();
            let below = self.k3s.take();
            self.k3s = Some(K3s::extend(
                below,
                k3s.into_inner(),
                span,
                source,
                &mut self.origins,
            )?);
        }
        Ok(())
    }

    /// What comes later takes the place of what has the same path.
    fn clear(&mut self, path: &str) {
        self.files.retain(|f| f.path != path);
        self.links.retain(|l| l.path != path);
    }
}

/// The lists that a recipe has for all and for single architectures, checked.
fn lists(raw: RawArch, origins: &mut Origins, source: &Source<'_>) -> Result<ForArch> {
    let package = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(&c))
    };
    if let Some(bad) = raw.packages.iter().find(|p| !package(p.get_ref())) {
        let message = format!(
            "packages: {:?} is no package name (lower case, digits, + - .; no version)",
            bad.get_ref()
        );
        return Err(source.error(Some(bad.span()), message).into());
    }
    let module = |wish: &str| {
        let name = wish.split(' ').next().unwrap_or(wish);
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
        !name.is_empty() && name.bytes().all(plain) && !wish.chars().any(char::is_control)
    };
    if let Some(bad) = raw.modules.iter().find(|m| !module(m.get_ref())) {
        let message = format!(
            "modules: {:?} is no module's name, with parameters after it where it has any (like \"nbd max_part=8\")",
            bad.get_ref()
        );
        return Err(source.error(Some(bad.span()), message).into());
    }
    let arg = |arg: &str| {
        !arg.is_empty()
            && !arg.starts_with("holdfast.")
            && !arg.chars().any(|c| c.is_whitespace() || c.is_control())
    };
    if let Some(bad) = raw.kernel_args.iter().find(|a| !arg(a.get_ref())) {
        let message = format!(
            "kernel_args: {:?}: one argument each, and none of holdfast.*, which the builder sets",
            bad.get_ref()
        );
        return Err(source.error(Some(bad.span()), message).into());
    }
    let mut take = |field: &'static str, list: Vec<Spanned<String>>| -> Vec<String> {
        list.iter().for_each(|v| origins.note(field, v, source));
        list.into_iter().map(Spanned::into_inner).collect()
    };
    Ok(ForArch {
        packages: take("packages", raw.packages).into_iter().collect(),
        modules: take("modules", raw.modules),
        kernel_args: take("kernel_args", raw.kernel_args),
    })
}

fn service_spec(
    service: RawService,
    origins: &mut Origins,
    source: &Source<'_>,
) -> Result<ServiceSpec> {
    let name = service.name.get_ref();
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        let message = format!("service.name: {name:?} must be 1 to 32 of a-z, 0-9 and -");
        return Err(source.error(Some(service.name.span()), message).into());
    }
    if TAKEN.contains(&name.as_str()) {
        let message = format!("service.name: {name:?} is taken by the system");
        return Err(source.error(Some(service.name.span()), message).into());
    }
    if !service
        .exec
        .get_ref()
        .first()
        .is_some_and(|program| program.starts_with('/'))
    {
        let message =
            format!("service.exec of {name:?}: the first element is the program's absolute path");
        return Err(source.error(Some(service.exec.span()), message).into());
    }
    if let Some(bad) = service.env.iter().find(|e| !e.contains('=')) {
        let message = format!("service.env of {name:?}: {bad:?} must be NAME=VALUE");
        return Err(source.error(Some(service.name.span()), message).into());
    }
    origins.note("service", &service.name, source);
    Ok(ServiceSpec {
        name: service.name.into_inner(),
        exec: service.exec.into_inner(),
        env: service.env,
        keep_children: service.keep_children,
        delegate: service.delegate,
    })
}
