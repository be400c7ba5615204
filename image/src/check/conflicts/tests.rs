//! One conflict of each kind, and recipes without any.

use std::{fs, path::Path};

use super::*;

const BOARD: &str = r#"description = "d"
arch = "amd64"
console = ["ttyS0", "tty0"]
[kernel]
package = "linux-image-cloud-amd64"
args = ["panic=10", "quiet"]
[boot]
stub_package = "systemd-boot-efi"
stub = "usr/lib/stub"
loader = "EFI/BOOT/BOOTX64.EFI"
[modules]
boot = ["dm_verity"]
"#;

const BASE: &str = "description = \"b\"\npackages = [\"socat\"]\nexclude = [\"perl\"]\n\
    [sysctl]\nvm.swappiness = 10\n[[file]]\npath = \"/etc/a\"\ncontent = \"\"\n\
    [[service]]\nname = \"echo\"\nexec = [\"/bin/socat\"]\n\
    [k3s]\nversion = \"v1\"\n[k3s.amd64]\nurl = \"u\"\n\
    sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n";

fn contents() -> Contents {
    Contents {
        files: [
            ("usr/bin/socat", "socat"),
            ("etc/iscsi/iscsid.conf", "open-iscsi"),
        ]
        .map(|(path, package)| (path.to_owned(), package.to_owned()))
        .into(),
        modules: ["tun", "dm_crypt"].map(str::to_owned).into(),
        bytes: 1 << 20,
    }
}

/// `lines` in a recipe on top of `BASE`.
fn found(lines: &str, contents: Option<&Contents>) -> Vec<Conflict> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("board.toml", BOARD);
    write("base.toml", BASE);
    write(
        "top.toml",
        &format!("description = \"t\"\nextends = \"base\"\n{lines}\n"),
    );
    let board = Board::read(&dir.path().join("board.toml")).unwrap();
    let recipe = Recipe::read(&dir.path().join("top.toml")).unwrap();
    let mut found = conflicts(&recipe, &board, contents);
    for place in found.iter_mut().flat_map(|c| &mut c.places) {
        let name = Path::new(&place.file).file_name().unwrap();
        place.file = name.to_string_lossy().into_owned();
    }
    found
}

/// The one conflict that `lines` make.
fn only(lines: &str) -> (Kind, String, String) {
    let all = found(lines, Some(&contents()));
    assert_eq!(all.len(), 1, "{lines}: {all:?}");
    let places: Vec<String> = all[0].places.iter().map(ToString::to_string).collect();
    (all[0].kind, all[0].message.clone(), places.join(" "))
}

#[test]
fn recipes_that_only_add_have_none() {
    for lines in [
        "",
        "packages = [\"perl\"]\nmodules = [\"dm-crypt\", \"tun x=1\"]\nkernel_args = [\"console=ttyS1\", \"quiet\"]",
        "[sysctl]\nvm.swappiness = 10",
        "[[file]]\npath = \"/etc/a\"\ncontent = \"x\"\nreplace = true",
        "[[link]]\npath = \"/etc/iscsi/iscsid.conf\"\ntarget = \"/x\"\nreplace = true",
    ] {
        assert_eq!(found(lines, Some(&contents())), [], "{lines}");
    }
}

#[test]
fn every_kind_is_found_with_its_places() {
    let cases = [
        (
            "[[file]]\npath = \"/etc/a\"\ncontent = \"x\"",
            Kind::Path,
            "/etc/a is given 2 times",
            "base.toml:7 top.toml:4",
        ),
        (
            "[[file]]\npath = \"/etc/iscsi/iscsid.conf\"\ncontent = \"x\"",
            Kind::Path,
            "package open-iscsi",
            "top.toml:4",
        ),
        (
            "[[file]]\npath = \"/usr/lib/holdfast/x\"\ncontent = \"\"",
            Kind::Path,
            "the system's own",
            "top.toml:4",
        ),
        (
            "kernel_args = [\"panic=0\"]",
            Kind::KernelArgument,
            "panic=10 and panic=0",
            "board.toml:6 top.toml:3",
        ),
        (
            "modules = [\"dm_crpyt\"]",
            Kind::Module,
            "did you mean \"dm_crypt\"",
            "top.toml:3",
        ),
        (
            "[[service]]\nname = \"echo\"\nexec = [\"/bin/socat\"]",
            Kind::Service,
            "2 times",
            "base.toml:10 top.toml:4",
        ),
        (
            "[[service]]\nname = \"e\"\nexec = [\"/usr/bin/none\"]",
            Kind::Service,
            "brings /usr/bin/none",
            "top.toml:4",
        ),
        (
            "exclude = [\"socat\"]",
            Kind::Package,
            "socat is wanted and excluded",
            "base.toml:2 top.toml:3",
        ),
        (
            "[sysctl]\nvm.swappiness = 1",
            Kind::Sysctl,
            "set to 10 and to 1",
            "base.toml:5 top.toml:4",
        ),
        (
            "[[k3s.manifest]]\nname = \"a.yaml\"\ncontent = \"\"\n[[k3s.manifest]]\nname = \"a.json\"\ncontent = \"\"",
            Kind::K3s,
            "one add-on a",
            "top.toml:4 top.toml:7",
        ),
        (
            "[[k3s.image]]\nname = \"a.tar\"\narch = \"arm64\"\nurl = \"u\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"",
            Kind::Board,
            "none of them is for amd64",
            "top.toml:4",
        ),
        ("[k3s]\nversion = \"v2\"", Kind::Board, "[k3s.amd64]", ""),
    ];
    for (lines, kind, message, places) in cases {
        let (got, told, at) = only(lines);
        assert_eq!(got, kind, "{lines}: {told}");
        assert!(told.contains(message), "{lines}: {told}");
        assert_eq!(at, places, "{lines}");
    }
}

#[test]
fn without_the_packages_only_what_the_files_tell_is_found() {
    let lines = "modules = [\"none\"]\n[[service]]\nname = \"e\"\nexec = [\"/usr/bin/none\"]";
    assert_eq!(found(lines, None), []);
    assert_eq!(found(lines, Some(&contents())).len(), 2);
}

#[test]
fn a_root_that_cannot_fit_is_found() {
    let mut large = contents();
    large.bytes = 5 << 30;
    let all = found("", Some(&large));
    assert_eq!((all.len(), all[0].kind), (1, Kind::Size));
}
