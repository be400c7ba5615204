//! Two machines as network namespaces, and programs that run there.

use holdfast_testnet::{Places, run, there};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// Both, and what runs there; gone when dropped.
pub struct Namespaces {
    pub names: [String; 2],
    /// What runs there.
    pub children: Vec<Child>,
    _places: Places,
}

impl Namespaces {
    /// Two namespaces joined by a veth pair, a persistent TUN in each.
    pub fn new() -> Self {
        let mut places = Places::new("mesh");
        let names = ["a", "b"].map(|name| places.add(name));
        let [a, b] = &names;
        run(&format!(
            "ip link add up0 netns {a} type veth peer name up0 netns {b}"
        ));
        for (name, n) in names.iter().zip(1..) {
            for line in [
                format!("addr add 10.99.0.{n}/24 dev up0"),
                format!("addr add fd99::{n}/64 dev up0 nodad"),
                "link set up0 up".into(),
                "tuntap add dev hf0 mode tun vnet_hdr".into(),
                format!("addr add 100.64.0.{n}/24 dev hf0"),
                format!("addr add fd00::{n}/64 dev hf0 nodad"),
                "link set hf0 mtu 1380 up".into(),
            ] {
                run(&format!("ip -n {name} {line}"));
            }
        }
        Self {
            names,
            children: vec![],
            _places: places,
        }
    }

    /// Runs this program again inside a namespace, until it says "ready".
    pub fn run(&mut self, place: usize, args: &[&str]) -> usize {
        let this = std::env::current_exe().expect("own path");
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.names[place]])
            .arg(this)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip runs");
        let output = child.stdout.take().expect("its output");
        self.children.push(child);
        let ready = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .any(|l| l == "ready");
        assert!(ready, "{args:?} ended early");
        self.children.len() - 1
    }

    /// Ends one without a word.
    pub fn kill(&mut self, child: usize) {
        // `ip netns exec` replaces itself by the program: its id is the child's. SIGKILL.
        let child = &mut self.children[child];
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs `body` inside a namespace.
pub fn inside<T: Send + 'static>(namespace: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    there(namespace, body).join().expect("the thread ends well")
}
