//! What the filter costs for each packet, where the rules allow single ports: TCP in, and UDP out
//! and in again. `cargo run --release -p holdfast-mesh --example bench-filter`

use holdfast_core::access::Access;
use holdfast_mesh::{Filter, Rules};
use std::collections::HashMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

const ROUNDS: u32 = 5;
const PACKETS: u32 = 4_000_000;

fn packet(from: u8, to: u8, protocol: u8, ports: [u16; 2]) -> Vec<u8> {
    let mut p = vec![0x45, 0, 5, 0x64, 0, 0, 0, 0, 64, protocol, 0, 0];
    p.extend([100, 64, 0, from, 100, 64, 0, to]);
    p.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    p.resize(1380, 0);
    // ACK.
    p[33] = 16;
    p
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rules: Vec<_> = serde_json::from_str(
        r#"[{"from":"them","to":"us","protocol":"tcp","ports":["80","443","8000-8080"]},
            {"from":"us","to":"them","protocol":"udp","ports":["53","123"]}]"#,
    )?;
    let access = Access::between(&rules, &["us".parse()?], &["them".parse()?]);
    let them = IpAddr::from([100, 64, 0, 2]);
    let filter = Filter::alone(Rules {
        own: HashMap::from([(them, access)]),
        ..Rules::default()
    });
    let open = Access::open();
    let now = Instant::now();
    let tcp = packet(2, 1, 6, [5000, 8080]);
    let (ask, answer) = (packet(1, 2, 17, [5000, 123]), packet(2, 1, 17, [123, 5000]));
    let measure = |name: &str, work: &dyn Fn() -> bool| {
        let mut all: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let begun = Instant::now();
                let good = (0..PACKETS).filter(|_| work()).count();
                assert_eq!(good, PACKETS as usize, "{name}");
                begun.elapsed().as_secs_f64() * 1e9 / f64::from(PACKETS)
            })
            .collect();
        all.sort_by(f64::total_cmp);
        println!("{name}: {:.1} ns a packet (median of {ROUNDS})", all[2]);
    };
    measure("everything allowed", &|| {
        filter.admits(Some(black_box(&open)), black_box(&tcp), now)
    });
    measure("TCP in", &|| {
        filter.admits(filter.of(black_box(them)), black_box(&tcp), now)
    });
    measure("UDP out", &|| {
        filter.sent(black_box(&ask), now);
        true
    });
    measure("UDP in, an answer", &|| {
        filter.admits(filter.of(black_box(them)), black_box(&answer), now)
    });
    Ok(())
}
