//! Recipes that are read, and what is said of those that are not.

use super::*;
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
        e.starts_with("r.toml:2: ") && e.contains("`packages`"),
        "{e}"
    );
    let e = one("packages = [\"Socat=1\"]");
    assert!(e.starts_with("r.toml:2: packages: \"Socat=1\""), "{e}");
    let e = one("extends = \"bas\"");
    assert!(
        e.starts_with("r.toml:2: extends: there is no bas.toml"),
        "{e}"
    );
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
