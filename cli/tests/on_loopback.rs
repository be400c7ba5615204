//! A cluster, its lighthouse and seeds on this machine's loopback, as an ordinary user; no node.

use serde_json::Value;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `nobody`, where the tests themselves run as root.
const NOBODY: u32 = 65534;

struct Operator {
    dir: tempfile::TempDir,
    program: PathBuf,
    cluster: PathBuf,
}

impl Operator {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A copy: an ordinary user may not reach the build folder of root.
        let program = dir.path().join("holdfast");
        std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let cluster = dir.path().join("home");
        Self {
            dir,
            program,
            cluster,
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOLDFAST_PASSPHRASE", "correct horse")
            .env("HOLDFAST_CLUSTER", &self.cluster)
            .env("XDG_STATE_HOME", self.dir.path())
            .stdin(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let out = self.run(line);
        assert!(out.status.success(), "{line}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --output json"))).unwrap()
    }

    /// The exit code, and what was said on standard error.
    fn fails(&self, line: &str) -> (i32, String) {
        let out = self.run(line);
        assert!(!out.status.success(), "{line}: {out:?}");
        (
            out.status.code().unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    }

    fn new_cluster(&self) -> (u16, Value) {
        let https = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let udp = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let line = format!(
            "cluster new home --dir {} --lighthouse 10.0.2.2 --reach 127.0.0.1 --listen 127.0.0.1 --https-port {https} --udp-port {udp}",
            self.cluster.display()
        );
        (https, self.json(&line))
    }

    fn lighthouse(&self, https: u16) -> Running {
        let child = self
            .command("lighthouse run")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", https)).is_err() {
            if let Some(status) = running.0.try_wait().unwrap() {
                let mut said = String::new();
                std::io::Read::read_to_string(running.0.stderr.as_mut().unwrap(), &mut said)
                    .unwrap();
                panic!("the lighthouse ended: {status}: {said}");
            }
            assert!(Instant::now() < deadline, "the lighthouse does not listen");
            std::thread::yield_now();
        }
        running
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn from_nothing_to_a_seed_and_back() {
    let me = Operator::new();
    let (https, made) = me.new_cluster();
    assert_eq!(made["printed_root"].as_array().unwrap().len(), 13);
    assert_eq!(mode(&me.cluster), 0o700);
    for key in ["root", "operator", "release"] {
        assert_eq!(
            mode(&me.cluster.join(format!("keys/{key}.age"))),
            0o600,
            "{key}"
        );
    }
    assert_eq!(mode(&me.cluster.join("lighthouse/keys.toml")), 0o600);
    let (code, said) = me.fails(&format!("cluster new home --dir {}", me.cluster.display()));
    assert!(code == 2 && said.contains("not empty"), "{code} {said}");

    // Nobody there: nothing is made, and the way out is named.
    let (code, said) = me.fails("seed new --role bare --name n1 --out n1.toml");
    assert!(code == 3 && said.contains("--offline"), "{code} {said}");
    assert!(!me.dir.path().join("n1.toml").exists());
    me.ok("seed new --role agent --uses 3 --offline --out shelf.toml");

    let lighthouse = me.lighthouse(https);
    let seed = me.json("seed new --role bare --name n1 --expires 1h --group edge --out n1.toml");
    assert_eq!(seed["pushed"], true);
    assert_eq!(mode(&me.dir.path().join("n1.toml")), 0o600);
    let text = std::fs::read(me.dir.path().join("n1.toml")).unwrap();
    let parsed = holdfast_core::seed::Seed::from_bytes(&text).unwrap();
    assert_eq!(parsed.grant.as_str(), seed["grant"]);
    assert_eq!(parsed.lighthouses[0].https, [format!("10.0.2.2:{https}")]);
    let (code, said) = me.fails("seed new --role bare --name n1 --out n1.toml");
    assert!(code == 2 && said.contains("--force"), "{code} {said}");

    assert_eq!(me.json("token push").as_array().unwrap().len(), 1);
    let tokens = me.json("token list");
    let tokens = tokens.as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    assert!(
        tokens
            .iter()
            .all(|t| t["used"] == 0 && t["state"] == "open"),
        "{tokens:?}"
    );
    assert_eq!(me.json("nodes"), serde_json::json!([]));
    let (code, said) = me.fails("status n1");
    assert!(
        code == 1 && said.contains("no node is called n1"),
        "{code} {said}"
    );

    // A revocation outlives a lighthouse that was killed.
    me.ok("token revoke n1");
    drop(lighthouse);
    let (code, _) = me.fails("nodes");
    assert_eq!(code, 3);
    let _lighthouse = me.lighthouse(https);
    let tokens = me.json("token list");
    let states: Vec<_> = tokens
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (&t["name"], &t["state"]))
        .collect();
    assert!(
        states.iter().any(|(n, s)| **n == "n1" && **s == "revoked"),
        "{states:?}"
    );
    assert!(states.iter().any(|(_, s)| **s == "open"), "{states:?}");
    assert_eq!(me.json("cluster show")["policy"]["generation"], 2);

    // An operator of another cluster gets nothing, and this one's own passphrase is needed.
    let wrong = me
        .command("nodes")
        .env("HOLDFAST_PASSPHRASE", "wrong")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(4));
    let stranger = Operator::new();
    stranger.new_cluster();
    let toml = stranger.cluster.join("cluster.toml");
    let theirs = std::fs::read_to_string(&toml).unwrap();
    let api = theirs.lines().find(|l| l.starts_with("api")).unwrap();
    std::fs::write(
        &toml,
        theirs.replace(api, &format!("api = [\"127.0.0.1:{https}\"]")),
    )
    .unwrap();
    let (code, said) = stranger.fails("nodes");
    assert!(code == 4 && said.contains("pinned"), "{code} {said}");
}

#[test]
fn the_printed_root_is_as_good_as_the_kept_one() {
    use std::io::Write as _;
    let me = Operator::new();
    let (https, made) = me.new_cluster();
    let groups: Vec<_> = made["printed_root"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g.as_str().unwrap())
        .collect();
    std::fs::remove_file(me.cluster.join("keys/root.age")).unwrap();
    let restore = |typed: &str| {
        let mut child = me
            .command("cluster restore-root")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(typed.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let mut wrong = groups.clone();
    wrong.swap(2, 3);
    let out = restore(&wrong.join(" "));
    assert_eq!(out.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("group 3"),
        "{out:?}"
    );
    assert!(restore(&groups.join("\n").to_lowercase()).status.success());

    let _lighthouse = me.lighthouse(https);
    me.ok("seed new --role bare --name n1 --out n1.toml");
    me.ok("token revoke n1");
    assert_eq!(me.json("token list")[0]["state"], "revoked");
}
