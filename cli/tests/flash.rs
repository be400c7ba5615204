//! `holdfast flash` onto files, as an ordinary user.

mod common;
#[path = "../../flash/tests/common/mod.rs"]
mod made;

use common::{Operator, is_root};
use made::{image_len, seed_on};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// An operator with an image for `x86-64` in a folder of their own.
struct Flasher(Operator);

impl Flasher {
    fn new() -> Self {
        let me = Self(Operator::new());
        let image = made::image(me.0.dir.path(), "x86-64");
        std::fs::rename(image, me.path("i.img")).unwrap();
        me
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.dir.path().join(name)
    }

    /// A file that this user owns.
    fn own(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        if is_root() {
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        }
        path
    }

    fn card(&self, name: &str) -> PathBuf {
        let file = File::create(self.path(name)).unwrap();
        file.set_len(image_len() + (1 << 20)).unwrap();
        self.own(name)
    }

    fn seed(&self, name: &str, token: u8, board: Option<&str>) -> String {
        let text = made::seed(token, board).to_toml().unwrap();
        std::fs::write(self.path(name), &text).unwrap();
        self.own(name);
        text
    }

    fn refused(&self, line: &str, code: i32, words: &str) {
        let (got, said) = self.0.fails(line);
        assert!(got == code && said.contains(words), "{line}: {got} {said}");
    }
}

fn is_empty(path: &Path) -> bool {
    let bytes = made::read(path, 0, 1 << 20);
    bytes.iter().all(|b| *b == 0)
}

#[test]
fn a_card_gets_image_and_seed_and_the_seed_is_used() {
    let me = Flasher::new();
    let card = me.card("card");
    let seed = me.seed("n1.toml", 3, None);
    me.refused("flash i.img card --seed n1.toml", 2, "--yes");
    assert!(is_empty(&card));
    let report = me.0.json("flash i.img card --seed n1.toml --yes");
    let done = &report["cards"][0];
    assert_eq!(
        (&report["board"], &done["seed"]),
        (&"x86-64".into(), &"n1.toml".into())
    );
    assert!(done["written"].as_u64().unwrap() > 5 << 20, "{report}");
    assert!(done["verify_seconds"].as_f64().is_some(), "{report}");
    assert_eq!(seed_on(&card).unwrap(), seed);
    let note = std::fs::read_to_string(me.path("n1.toml.used")).unwrap();
    assert!(note.contains(done["disk"].as_str().unwrap()), "{note}");
    me.refused("flash i.img card --seed n1.toml --yes", 4, "--reuse-seed");
    me.0.ok("flash i.img card --seed n1.toml --yes --reuse-seed --no-verify");
    // A file that does not exist is made.
    me.refused("flash i.img new --yes", 2, "there is no new");
    me.refused(
        "flash i.img new --yes --size 1G",
        4,
        "it has 1073741824 bytes",
    );
    assert!(!me.path("new").exists());
    me.0.ok("flash i.img new --size 4G");
    assert_eq!(std::fs::metadata(me.path("new")).unwrap().len(), 4 << 30);
    assert_eq!(seed_on(&me.path("new")), None);
    me.refused("flash i.img new --yes --size 5G", 2, "Leave --size out");
}

#[test]
fn what_does_not_fit_is_refused_before_a_byte_is_written() {
    let me = Flasher::new();
    let card = me.card("card");
    me.seed("pi.toml", 3, Some("rpi4"));
    me.seed("bad.toml", 4, None);
    std::fs::write(me.path("bad.toml"), "colour = 1\n").unwrap();
    std::fs::write(me.path("i.qcow2"), b"QFI\xfb\0\0\0\x03").unwrap();
    std::fs::write(me.path("small"), vec![0; 8192]).unwrap();
    me.own("small");
    for (line, code, words) in [
        ("i.img card --yes --seed pi.toml", 4, "rpi4"),
        ("i.img card --yes --seed bad.toml", 2, "bad.toml: line"),
        ("i.img card --yes --seed none.toml", 2, "there is no seed"),
        ("i.qcow2 card --yes", 1, "--formats raw"),
        ("none.img card --yes", 2, "there is no image"),
        ("i.img small --yes", 4, "it is too small: it has 8192 bytes"),
        (
            "i.img /dev/null --yes",
            2,
            "neither a disk nor a file: `holdfast flash --list`",
        ),
        ("i.img card --yes --count 2 --seed pi.toml", 4, "rpi4"),
    ] {
        me.refused(&format!("flash {line}"), code, words);
    }
    assert!(!me.path("pi.toml.used").exists());
    assert!(is_empty(&card));
    if is_root() {
        let theirs = File::create(me.path("theirs")).unwrap();
        theirs.set_len(image_len()).unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(me.path("theirs"), mode).unwrap();
        me.refused("flash i.img theirs --yes", 4, "sudo");
    }
    assert!(me.0.ok("flash").contains("DEVICE") || me.0.ok("flash").contains("plugged in"));
    let list = me.0.json("flash --list --allow-internal");
    for disk in list.as_array().unwrap() {
        assert!(
            disk["bytes"].is_u64() && disk["usable"].is_boolean(),
            "{disk}"
        );
    }
}

#[test]
fn an_installer_has_its_rules_in_the_seed() {
    let me = Flasher::new();
    let card = me.card("stick");
    me.seed("n1.toml", 3, None);
    let line =
        "flash i.img stick --yes --seed n1.toml --installer --install-bus nvme --install-erase";
    assert_eq!(me.0.json(line)["cards"][0]["installer"], true);
    let text = seed_on(&card).unwrap();
    let install = holdfast_core::seed::Seed::parse(&text)
        .unwrap()
        .install
        .unwrap();
    assert_eq!(install.bus, [holdfast_core::seed::Bus::Nvme]);
    assert!(install.erase && !install.reuse);
}

#[test]
fn a_stack_of_cards_gets_a_seed_each() {
    let me = Flasher::new();
    std::fs::create_dir(me.path("seeds")).unwrap();
    me.own("seeds");
    let seeds = [1, 2].map(|n| me.seed(&format!("seeds/n{n}.toml"), n, Some("x86-64")));
    me.refused(
        "flash i.img card --yes --count 3 --seed seeds",
        2,
        "3 cards need 3 seeds, here are 2",
    );
    me.card("card");
    let mut child =
        me.0.command("flash i.img card --yes --seed seeds --count 2 --output json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for = |words: &str| {
        said.by_ref()
            .map(Result::unwrap)
            .find(|l| l.contains(words))
            .unwrap_or_else(|| panic!("it never said {words:?}"))
    };
    // The first card is taken out, and the next one put in.
    let prompt = wait_for("1 of 2 done");
    assert!(prompt.contains("n2.toml"), "{prompt}");
    std::fs::rename(me.path("card"), me.path("first")).unwrap();
    wait_for("The reader is empty");
    me.card("next");
    std::fs::rename(me.path("next"), me.path("card")).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let cards = report["cards"].as_array().unwrap();
    assert_eq!(cards.len(), 2);
    assert_ne!(cards[0]["disk"], cards[1]["disk"]);
    for (card, (n, seed)) in ["first", "card"].iter().zip([1, 2].iter().zip(&seeds)) {
        assert_eq!(&seed_on(&me.path(card)).unwrap(), seed);
        assert!(me.path(&format!("seeds/n{n}.toml.used")).exists());
    }
    me.refused(
        "flash i.img card --yes --seed seeds",
        2,
        "no seed that is not used yet",
    );
}
