//! Recipes that are read, and what is said of those that are not.

use super::*;
use crate::error::Error;
use std::fs;

fn read(files: &[(&str, &str)], name: &str) -> Result<Recipe, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    Recipe::read(&dir.path().join(name)).map_err(|e| {
        e.to_string()
            .replace(&format!("{}/", dir.path().display()), "")
    })
}

const BASE: &str = "description = \"b\"\npackages = [\"e2fsprogs\"]\nexclude = [\"x\"]\n";

#[test]
fn a_recipe_adds_to_the_one_it_extends() {
    let top = "description = \"t\"\nextends = \"base\"\ntrial_seconds = 90\npackages = [\"socat\"]\n\
               [[service]]\nname = \"echo\"\nexec = [\"/usr/bin/socat\"]\n\
               [k3s]\nversion = \"v1\"\n[k3s.amd64]\nurl = \"u\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n";
    let recipe = read(&[("base.toml", BASE), ("top.toml", top)], "top.toml").unwrap();
    assert_eq!(
        (recipe.name.as_str(), recipe.trial_seconds),
        ("top", Some(90))
    );
    assert_eq!(
        recipe.packages.iter().collect::<Vec<_>>(),
        ["e2fsprogs", "socat"]
    );
    assert!(recipe.exclude.contains("x"));
    assert_eq!(recipe.services[0].name, "echo");
    assert!(recipe.k3s.unwrap().assets.contains_key("amd64"));
}

#[test]
fn errors_name_file_line_field_and_the_right_form() {
    let one = |line: &str| {
        read(
            &[("r.toml", &format!("description = \"d\"\n{line}\n"))],
            "r.toml",
        )
        .unwrap_err()
    };
    let e = one("packges = []");
    assert!(
        e.starts_with("r.toml:2: ") && e.ends_with("did you mean \"packages\"?"),
        "{e}"
    );
    let e = one("packages = [\"Socat=1\"]");
    assert!(e.starts_with("r.toml:2: packages: \"Socat=1\""), "{e}");
    let e = one("extends = \"bas\"");
    assert!(
        e.starts_with("r.toml:2: extends: there is no bas.toml"),
        "{e}"
    );
    let e = read(
        &[
            ("r.toml", "description = \"d\"\nextends = \"bsae\"\n"),
            ("base.toml", BASE),
        ],
        "r.toml",
    )
    .unwrap_err();
    assert!(e.ends_with("did you mean \"base\"?"), "{e}");
    let e = one("extends = \"r\"");
    assert!(e.contains("extends itself"), "{e}");
    let e = one("trial_seconds = 5");
    assert!(
        e.starts_with("r.toml:2: trial_seconds: 5") && e.contains("between 20 and 7200"),
        "{e}"
    );
    let e = one("[[file]]\npath = \"/etc/../x\"\ncontent = \"\"");
    assert!(e.starts_with("r.toml:3: file.path"), "{e}");
    let e = one("[[service]]\nname = \"Echo\"\nexec = []");
    assert!(e.starts_with("r.toml:3: service.name"), "{e}");
    let e = one("[[service]]\nname = \"e\"\nexec = [\"socat\"]");
    assert!(e.contains("absolute path"), "{e}");
    let e = one("packages = \"socat\"");
    assert!(
        e.starts_with("r.toml:2: packages: ") && e.contains("sequence"),
        "{e}"
    );
    let e = one("[[file]]\npath = \"/etc/x\"\nsource = \"files/x\"");
    assert!(
        e.starts_with("r.toml:4: file.source: there is no files/x"),
        "{e}"
    );
}

#[test]
fn what_shows_only_in_a_build_is_still_told_with_its_place() {
    let top = "description = \"t\"\nextends = \"base\"\nmodules = [\n  \"tun\",\n  \"no_such\",\n]\n\
               [k3s]\nversion = \"v1\"\n";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("base.toml"), BASE).unwrap();
    fs::write(dir.path().join("top.toml"), top).unwrap();
    let recipe = Recipe::read(&dir.path().join("top.toml")).unwrap();
    let told = |e: Error| {
        e.to_string()
            .replace(&format!("{}/", dir.path().display()), "")
    };
    let missing = || Error::build("x", "is not there");
    let blame = |field, value| told(recipe.origins.blame(field, value, missing()));
    assert_eq!(
        blame("modules", "no_such"),
        "top.toml:5: modules: x: is not there"
    );
    assert_eq!(
        blame("packages", "e2fsprogs"),
        "base.toml:2: packages: x: is not there"
    );
    assert_eq!(blame("packages", "libc6"), "x: is not there");
    let e = told(recipe.k3s.unwrap().asset("arm64").unwrap_err());
    assert!(
        e.starts_with("top.toml:8: k3s.version: ") && e.contains("[k3s.arm64]"),
        "{e}"
    );
}

const K3S: &str = "description = \"k\"\nextends = \"base\"\n[k3s]\nversion = \"v1\"\n[k3s.amd64]\nurl = \"u\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n";

/// What only shows in a file of its own kind.
fn below_k3s(lines: &str) -> Result<Recipe, String> {
    let top = format!("description = \"t\"\nextends = \"k3s\"\n{lines}\n");
    let files = [("base.toml", BASE), ("k3s.toml", K3S), ("top.toml", &top)];
    read(&files, "top.toml")
}

#[test]
fn an_overlay_finds_what_it_extends_elsewhere() {
    let (shipped, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(shipped.path().join("base.toml"), BASE).unwrap();
    fs::write(
        shipped.path().join("edge.toml"),
        "description = \"e\"\nextends = \"base\"\npackages = [\"a\"]\n",
    )
    .unwrap();
    // The same name as the one it extends.
    let edge = own.path().join("edge.toml");
    fs::write(
        &edge,
        "description = \"own\"\nextends = \"edge\"\npackages = [\"b\"]\n",
    )
    .unwrap();
    let folders = [shipped.path().to_owned()];
    let recipe = Recipe::read_among(&edge, &folders).unwrap();
    assert_eq!(
        recipe.packages.iter().collect::<Vec<_>>(),
        ["a", "b", "e2fsprogs"]
    );
    let names: Vec<&str> = recipe.layers.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["base", "edge", "edge"]);
    assert_eq!(recipe.called(), edge.display().to_string());
    let e = Recipe::read(&edge).unwrap_err().to_string();
    assert!(e.contains("extends itself"), "{e}");
    // One file of the folder beside by its path.
    fs::write(
        own.path().join("site.toml"),
        "description = \"s\"\nextends = \"./edge.toml\"\n",
    )
    .unwrap();
    let site = Recipe::read_among(&own.path().join("site.toml"), &folders).unwrap();
    assert_eq!(site.layers.len(), 4);
}

#[test]
fn an_architecture_gets_its_own_paths_and_lists() {
    let one = "description = \"d\"\npackages = [\"a\"]\nremove = [\"/usr/lib/{triplet}/gconv/*\"]\n\
               [arch.amd64]\npackages = [\"microcode\"]\nmodules = [\"msr\"]\n\
               [arch.arm64]\nkernel_args = [\"x=1\"]\n\
               [[link]]\npath = \"/usr/lib/x.so\"\ntarget = \"{triplet}/y.so\"\n";
    let recipe = read(&[("r.toml", one)], "r.toml").unwrap();
    let (amd64, arm64) = (recipe.resolved(Arch::Amd64), recipe.resolved(Arch::Arm64));
    assert!(amd64.remove.contains("usr/lib/x86_64-linux-gnu/gconv/*"));
    assert!(arm64.remove.contains("usr/lib/aarch64-linux-gnu/gconv/*"));
    assert_eq!(arm64.links[0].target, "aarch64-linux-gnu/y.so");
    assert_eq!(amd64.packages, recipe.packages_for(Arch::Amd64));
    assert_eq!((amd64.packages.len(), arm64.packages.len()), (2, 1));
    assert_eq!((amd64.modules.len(), amd64.kernel_args.len()), (1, 0));
    assert_eq!((arm64.modules.len(), arm64.kernel_args.len()), (0, 1));
    // Twice is once.
    assert_eq!(amd64.resolved(Arch::Amd64).modules.len(), 1);
}

#[test]
fn kernel_settings_come_quoted_or_dotted_and_the_last_one_counts() {
    let base =
        "description = \"b\"\n[sysctl]\n\"vm.swappiness\" = 10\nnet.ipv4.ip_forward = true\n";
    let top = "description = \"t\"\nextends = \"base\"\n[sysctl]\nvm.swappiness = 1\n\
               \"net.ipv4.tcp_rmem\" = \"4096 87380 6291456\"\n";
    let recipe = read(&[("base.toml", base), ("top.toml", top)], "top.toml").unwrap();
    let all: Vec<(&str, &str)> = recipe
        .sysctl
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        all,
        [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.tcp_rmem", "4096 87380 6291456"),
            ("vm.swappiness", "1"),
        ]
    );
    let bad = |line: &str| {
        let text = format!("description = \"d\"\n[sysctl]\n{line}\n");
        read(&[("r.toml", &text)], "r.toml").unwrap_err()
    };
    let e = bad("\"../x\" = 1");
    assert!(
        e.starts_with("r.toml:3: sysctl: \"../x\" is no name"),
        "{e}"
    );
    let e = bad("vm.x = \"1\\n2\"");
    assert!(e.starts_with("r.toml:3: sysctl: \"vm.x\": "), "{e}");
    let e = bad("vm.x = 1.5");
    assert!(
        e.starts_with("r.toml:3: ") && e.contains("whole number"),
        "{e}"
    );
}

#[test]
fn k3s_is_added_to_without_naming_it_again() {
    let recipe = below_k3s(
        "[k3s]\ndisable = [\"traefik\", \"servicelb\"]\n[k3s.config]\nkubelet-arg = [\"max-pods=50\"]\n\
         [[k3s.manifest]]\nname = \"hello.yaml\"\ncontent = \"kind: X\"\n",
    )
    .unwrap();
    let k3s = recipe.k3s.unwrap();
    assert_eq!((k3s.version.as_str(), k3s.manifests.len()), ("v1", 1));
    assert!(k3s.assets.contains_key("amd64"));
    let yaml = k3s.config_yaml().unwrap();
    assert!(
        yaml.ends_with("kubelet-arg: [\"max-pods=50\"]\ndisable: [\"servicelb\",\"traefik\"]\n"),
        "{yaml}"
    );
}

#[test]
fn what_k3s_would_not_take_is_refused() {
    for (lines, told) in [
        (
            "[k3s]\ndisable = [\"traefk\"]",
            "top.toml:4: k3s.disable: \"traefk\" is none of",
        ),
        (
            "[k3s.config]\nnode-ip = \"1\"",
            "top.toml:4: k3s.config: \"node-ip\" is set by the agent",
        ),
        (
            "[k3s.config]\n\"node-label+\" = [\"a\"]",
            "top.toml:4: k3s.config: \"node-label\" is set",
        ),
        ("[k3s.config]\ndisable = [\"traefik\"]", "stands by itself"),
        ("[k3s.config]\nKubelet = 1", "is no key"),
        ("[k3s.config]\na.b = 1", "must be a text"),
        (
            "[[k3s.manifest]]\nname = \"a\"\ncontent = \"\"",
            "top.toml:4: k3s.manifest.name: \"a\" must",
        ),
        (
            "[[k3s.manifest]]\nname = \"../a.yaml\"\ncontent = \"\"",
            "must be a file name",
        ),
        (
            "[[k3s.manifest]]\nname = \"traefik.yaml\"\ncontent = \"\"",
            "one of k3s's own",
        ),
        (
            "[[k3s.manifest]]\nname = \"a.yaml\"",
            "needs either `content` or `source`",
        ),
        (
            "[[k3s.image]]\nname = \"a.tar\"\nsource = \"no.tar\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"",
            "top.toml:5: k3s.image.source: there is no no.tar",
        ),
        (
            "[[k3s.image]]\nname = \"a.img\"\nurl = \"u\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"",
            "must be a file name that ends in",
        ),
    ] {
        let e = below_k3s(lines).unwrap_err();
        assert!(e.contains(told), "{lines}: {e}");
    }
    let e = read(
        &[(
            "r.toml",
            "description = \"d\"\n[k3s]\ndisable = [\"traefik\"]\n",
        )],
        "r.toml",
    )
    .unwrap_err();
    assert!(e.starts_with("r.toml:2: k3s: no recipe below"), "{e}");
}
