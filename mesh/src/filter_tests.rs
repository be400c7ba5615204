use super::*;
use proptest::prelude::*;
use std::time::Duration;

const US: u8 = 1;
const THEM: u8 = 2;

fn access(json: &str) -> Access {
    let rules: Vec<_> = serde_json::from_str(json).unwrap();
    let group = |n: &str| vec![n.parse().unwrap()];
    Access::between(&rules, &group("us"), &group("them"))
}

/// They may open TCP 80 and UDP 53 here; we may open TCP 443, UDP 123 and ping there.
fn some() -> Access {
    access(
        r#"[{"from":"them","to":"us","protocol":"tcp","ports":["80"]},
            {"from":"them","to":"us","protocol":"udp","ports":["53"]},
            {"from":"us","to":"them","protocol":"tcp","ports":["443"]},
            {"from":"us","to":"them","protocol":"udp","ports":["123"]},
            {"from":"us","to":"them","protocol":"icmp"}]"#,
    )
}

const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(100, 64, 0, THEM)),
    IpAddr::V6(Ipv6Addr::new(
        0xfdfd,
        0xfdfd,
        0xfdfd,
        0xfdfd,
        0xfdfd,
        0xfdfd,
        0xfdfd,
        0xfd00 | THEM as u16,
    )),
];

fn filter_of(access: Access) -> Filter {
    let mut own: HashMap<_, _> = ADDRESSES.map(|a| (a, access.clone())).into();
    // Others, so that there may be many flows.
    for host in [9, 10] {
        own.insert(Ipv4Addr::new(100, 64, 0, host).into(), access.clone());
    }
    Filter::alone(Rules {
        own,
        ..Rules::default()
    })
}

fn filter() -> Filter {
    filter_of(some())
}

fn v4(from: u8, to: u8, protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, (20 + body.len()) as u8, 0, 1];
    p.extend(fragment.to_be_bytes());
    p.extend([64, protocol, 0, 0, 100, 64, 0, from, 100, 64, 0, to]);
    p.extend(body);
    p
}

fn v6(from: u8, to: u8, next: u8, body: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0, 0, body.len() as u8, next, 64];
    for host in [from, to] {
        p.extend([0xfd; 15]);
        p.push(host);
    }
    p.extend(body);
    p
}

fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut b = [from.to_be_bytes(), to.to_be_bytes()].concat();
    b.extend([0; 9]);
    b.extend([flags, 0, 0, 0, 0, 0, 0]);
    b
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat()
}

/// The same in both families.
fn both(from: u8, to: u8, protocol: u8, body: &[u8]) -> [Vec<u8>; 2] {
    [
        v4(from, to, protocol, 0, body),
        v6(from, to, protocol, body),
    ]
}

fn admitted(access: &Access, packets: [Vec<u8>; 2]) -> bool {
    let (filter, now) = (filter(), Instant::now());
    let [four, six] = packets.map(|p| filter.admits(Some(access), &p, now));
    assert_eq!(four, six);
    four
}

#[test]
fn tcp_is_let_in_where_they_may_begin_or_we_have_begun() {
    let a = some();
    let seg = |from, to, flags| admitted(&a, both(THEM, US, TCP, &tcp(from, to, flags)));
    assert!(seg(5000, 80, SYN) && seg(5000, 80, ACK));
    assert!(!seg(5000, 81, SYN) && !seg(5000, 22, ACK));
    // Answers of the server that we may ask, and nothing that begins.
    assert!(seg(443, 5000, SYN | ACK) && seg(443, 5000, ACK) && seg(443, 5000, RST));
    assert!(!seg(443, 22, SYN) && !seg(443, 22, 0) && !seg(443, 22, 1));
    // A SYN with every other flag but ACK still begins a connection.
    assert!(!seg(443, 22, SYN | RST | 1 | 8));
}

#[test]
fn udp_is_let_in_where_they_may_begin_and_as_an_answer() {
    let (a, filter, now) = (some(), filter(), Instant::now());
    let pass = |body: &[u8], at: Instant| {
        let [four, six] = both(THEM, US, UDP, body);
        let four = filter.admits(Some(&a), &four, at);
        assert_eq!(four, filter.admits(Some(&a), &six, at));
        four
    };
    assert!(pass(&udp(9, 53), now) && !pass(&udp(9, 54), now));
    let answer = udp(123, 5000);
    assert!(!pass(&answer, now));
    for ask in both(US, THEM, UDP, &udp(5000, 123)) {
        filter.sent(&ask, now);
    }
    assert!(pass(&answer, now));
    // Not to another port, and not from one that the rules do not name.
    assert!(!pass(&udp(123, 5001), now));
    for ask in both(US, THEM, UDP, &udp(5000, 124)) {
        filter.sent(&ask, now);
    }
    assert!(!pass(&udp(124, 5000), now));
    // It lives as long as something passes, then not.
    let later = now + Duration::from_secs(100);
    assert!(pass(&answer, later));
    assert!(pass(&answer, later + Duration::from_secs(170)));
    assert!(!pass(&answer, later + Duration::from_secs(170 + 190)));
}

#[test]
fn many_flows_do_not_forget_a_busy_one() {
    let (a, filter, now) = (some(), filter(), Instant::now());
    let ask = |from: u16, host: u8| v4(US, host, UDP, 0, &udp(from, 123));
    let late = now + Duration::from_secs(5);
    for n in 0..30_000u16 {
        filter.sent(&ask(1024 + n, 9), now);
    }
    filter.sent(&ask(5000, THEM), late);
    for n in 0..10_000u16 {
        filter.sent(&ask(1024 + n, 10), now);
    }
    assert!(filter.admits(Some(&a), &v4(THEM, US, UDP, 0, &udp(123, 5000)), late));
}

#[test]
fn icmp_errors_always_pass_and_echoes_as_the_rules_say() {
    let a = some();
    let four = |kind: u8| {
        filter().admits(
            Some(&a),
            &v4(THEM, US, ICMP, 0, &[kind, 0, 0, 0]),
            Instant::now(),
        )
    };
    let six = |kind: u8| {
        filter().admits(
            Some(&a),
            &v6(THEM, US, ICMPV6, &[kind, 0, 0, 0]),
            Instant::now(),
        )
    };
    assert!(four(3) && four(11) && six(2) && six(1));
    assert!(!four(8) && !six(128) && four(0) && six(129));
    // Redirects and router advertisements are no errors.
    assert!(!four(5) && !six(134) && !six(137));
}

#[test]
fn fragments_and_extension_headers() {
    let a = some();
    let in4 = |p: &[u8]| filter().admits(Some(&a), p, Instant::now());
    let whole = tcp(5000, 80, SYN);
    let more = 0x2000;
    assert!(in4(&v4(THEM, US, TCP, more, &whole)));
    assert!(!in4(&v4(THEM, US, TCP, more, &whole[..8])));
    assert!(in4(&v4(THEM, US, TCP, 3, &[0; 8])) && !in4(&v4(THEM, US, TCP, 1, &[0; 8])));
    assert!(!in4(&v4(THEM, US, TCP, more, &tcp(5000, 22, SYN))));
    assert!(!in4(&v4(THEM, US, 47, 3, &[0; 8])));

    let behind = |header: &[u8], next, body: &[u8]| {
        let all = [header, body].concat();
        in4(&v6(THEM, US, next, &all))
    };
    let options = [TCP, 0, 0, 0, 0, 0, 0, 0];
    assert!(behind(&options, 60, &whole) && behind(&options, 0, &whole));
    assert!(!behind(&options, 60, &tcp(5000, 22, SYN)));
    // A routing header, an authentication header's place taken by nothing known.
    assert!(!behind(&options, 43, &whole) && !behind(&options, 139, &whole));
    let first = [TCP, 0, 0, 1, 0, 0, 0, 7];
    let later = [TCP, 0, 0, 8 * 4, 0, 0, 0, 7];
    assert!(behind(&first, 44, &whole) && behind(&later, 44, &[0; 8]));
    assert!(!behind(&first, 44, &whole[..8]) && !behind(&first, 44, &tcp(1, 22, SYN)));
    // More headers than are walked.
    let mut long = vec![];
    for _ in 0..HEADERS + 1 {
        long.extend([60, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert!(!behind(&long, 60, &whole));
}

#[test]
fn the_lighthouse_and_strangers() {
    let (filter, now) = (filter(), Instant::now());
    let lighthouse = Access::lighthouse();
    let control = v4(
        THEM,
        US,
        TCP,
        0,
        &tcp(5000, holdfast_core::cluster::CONTROL_PORT, SYN),
    );
    let ssh = v4(THEM, US, TCP, 0, &tcp(5000, 22, SYN));
    assert!(filter.admits(Some(&lighthouse), &control, now));
    assert!(!filter.admits(Some(&lighthouse), &ssh, now));
    assert!(!filter.admits(Some(&lighthouse), &v4(THEM, US, UDP, 0, &udp(1, 53)), now));
    assert!(!filter.admits(None, &control, now));
    assert!(filter.admits(Some(&Access::open()), &ssh, now));
}

#[test]
fn plain_clients_get_what_the_rules_let_others_send_them() {
    let now = Instant::now();
    let (client, other) = (ADDRESSES[0], IpAddr::from([100, 64, 0, US]));
    let between = |access: Access, one: IpAddr, two: IpAddr| {
        Filter::alone(Rules {
            through: Some(HashMap::from([((one, two), access)])),
            clients: HashSet::from([one]),
            ..Rules::default()
        })
    };
    // The client is the one that `some` calls us.
    let filter = between(some(), client, other);
    let to = |protocol, body: &[u8]| v4(US, THEM, protocol, 0, body);
    let from = |protocol, body: &[u8]| v4(THEM, US, protocol, 0, body);
    assert!(filter.forwards(other, &to(TCP, &tcp(5000, 80, SYN)), now));
    assert!(!filter.forwards(other, &to(TCP, &tcp(5000, 81, SYN)), now));
    assert!(filter.forwards(other, &to(TCP, &tcp(443, 5000, ACK)), now));
    // What the client sends is judged where it arrives; its answer comes back.
    assert!(!filter.forwards(other, &to(UDP, &udp(123, 5000)), now));
    assert!(filter.forwards(client, &from(UDP, &udp(5000, 123)), now));
    assert!(filter.forwards(other, &to(UDP, &udp(123, 5000)), now));
    // To whom no rule leads it sends nothing.
    assert!(!filter.forwards(client, &v4(THEM, 9, TCP, 0, &tcp(5000, 80, SYN)), now));
    // One that no rule connects with it, and no rules at all.
    let stranger = IpAddr::from([100, 64, 0, 9]);
    assert!(!filter.forwards(stranger, &v4(9, THEM, TCP, 0, &tcp(5000, 80, SYN)), now));
    assert!(Filter::alone(Rules::default()).forwards(other, &to(TCP, &tcp(1, 2, SYN)), now));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_bytes_are_judged(mut packet in proptest::collection::vec(any::<u8>(), 0..120), six: bool) {
        if let Some(first) = packet.first_mut() {
            *first = if six { 0x60 } else { 0x45 };
        }
        let (filter, now) = (filter(), Instant::now());
        filter.sent(&packet, now);
        let _ = filter.admits(Some(&some()), &packet, now);
        prop_assert!(!filter.admits(Some(&Access::default()), &packet, now) || is_harmless(&packet));
    }
}

/// With nothing allowed at all only errors pass.
fn is_harmless(packet: &[u8]) -> bool {
    see(packet).is_some_and(|s| matches!(s.body, Body::Icmp(kind) if is_error(s.protocol, kind)))
}
