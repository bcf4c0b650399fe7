//! The promises of the sandbox network, tried with real packets. Each test has a small world of its own: a "host" network
//! namespace in which the rules live, an "internet" behind it and a container on a private bridge. Nothing touches the
//! namespace the tests are started in. `ip`, `nft` and `iptables` appear only here, as independent witnesses.

#![allow(clippy::unwrap_used)]

use infield_engine::net::{Net, NetConfig, NetError};
use infield_sys::netlink::{new_netns, with_netns};
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketType, ipproto};
use std::{
    collections::HashSet,
    fs,
    io::Read,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
    thread,
    time::{Duration, Instant},
};

const HOST: &str = "203.0.113.1";
const BRIDGE: &str = "172.30.0.1";
const CONTAINER: &str = "172.30.0.2";
const INTERNET: &str = "9.9.9.9";
const METADATA: &str = "169.254.169.254";
const RESOLVER: &str = "169.254.169.253";
/// An answer that must come may take this long on a busy machine.
const ANSWER: Duration = Duration::from_secs(20);
/// An answer that must not come is waited for this long.
const SILENCE: Duration = Duration::from_millis(400);

/// Namespaces go when their last descriptor does, and everything in them with it.
struct World {
    host: OwnedFd,
    internet: OwnedFd,
    container: OwnedFd,
    _servers: Vec<Server>,
}

impl World {
    fn new() -> Self {
        let (host, internet, container) = (new_netns().unwrap(), new_netns().unwrap(), new_netns().unwrap());
        with_netns(host.as_fd(), || {
            ip("link set lo up");
            ip(&format!("link add up0 type veth peer name eth0 netns {}", fd_path(&internet)));
            ip(&format!("addr add {HOST}/24 dev up0"));
            ip("link set up0 up");
            ip("link add br-test type bridge");
            ip(&format!("addr add {BRIDGE}/24 dev br-test"));
            ip("link set br-test up");
            ip(&format!("link add vc0 type veth peer name eth0 netns {}", fd_path(&container)));
            ip("link set vc0 master br-test up");
            ip("route add default via 203.0.113.2");
        })
        .unwrap();
        with_netns(internet.as_fd(), || {
            for address in [INTERNET, METADATA, RESOLVER, "100.100.100.200", "168.63.129.16"] {
                ip(&format!("addr add {address}/32 dev lo"));
            }
            ip("addr add 203.0.113.2/24 dev eth0");
            ip("link set lo up");
            ip("link set eth0 up");
        })
        .unwrap();
        with_netns(container.as_fd(), || {
            ip(&format!("addr add {CONTAINER}/24 dev eth0"));
            ip("link set eth0 up");
            ip(&format!("route add default via {BRIDGE}"));
        })
        .unwrap();
        let servers = vec![
            Server::start(&host, "0.0.0.0:8080"),
            Server::start(&host, "0.0.0.0:53"),
            Server::start(&internet, "0.0.0.0:80"),
            Server::start(&internet, "0.0.0.0:53"),
            Server::start(&container, "0.0.0.0:80"),
        ];
        Self { host, internet, container, _servers: servers }
    }

    fn open(&self, tag: &str, subnet: [u8; 4]) -> Net {
        with_netns(self.host.as_fd(), || Net::open(&config(tag, subnet))).unwrap().unwrap()
    }

    fn on_host<T>(&self, work: impl FnOnce() -> T) -> T {
        with_netns(self.host.as_fd(), work).unwrap()
    }

    fn links(&self, prefix: &str) -> Vec<String> {
        let out = self.on_host(|| output("ip", "-br link"));
        let names = out.lines().filter_map(|l| l.split(['@', ' ']).next());
        names.filter(|n| n.starts_with(prefix)).map(str::to_owned).collect()
    }

    /// The independent witness empties the chains that filter; what passes now is what the rules held back.
    fn without_rules<T>(&self, net: &Net, tag: &str, work: impl FnOnce() -> T) -> T {
        self.on_host(|| {
            for chain in ["prerouting", "input", "forward"] {
                run("nft", &format!("flush chain inet infield_{tag} {chain}"));
            }
        });
        let result = work();
        match self.on_host(|| net.ensure_host_rules()) {
            Ok(()) | Err(NetError::SubnetTaken { .. }) => result,
            Err(e) => panic!("{e}"),
        }
    }
}

fn config(tag: &str, subnet: [u8; 4]) -> NetConfig {
    NetConfig { tag: tag.into(), subnet: (subnet.into(), 16), dns: Some(vec![RESOLVER.parse().unwrap()]) }
}

struct Server {
    listener: TcpListener,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Tells every caller the address it saw it come from.
    fn start(netns: &OwnedFd, address: &str) -> Self {
        let listener = with_netns(netns.as_fd(), || TcpListener::bind(address)).unwrap().unwrap();
        let accepting = listener.try_clone().unwrap();
        let thread = thread::spawn(move || {
            for stream in accepting.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.write_all(stream.peer_addr().unwrap().ip().to_string().as_bytes());
            }
        });
        Self { listener, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both); // accept() returns with an error
        self.thread.take().map(thread::JoinHandle::join);
    }
}

fn fd_path(fd: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

fn output(program: &str, args: &str) -> String {
    let done = Command::new(program).args(args.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
fn run(program: &str, args: &str) {
    output(program, args);
}
fn ip(args: &str) {
    run("ip", args);
}

/// What the server at `address` saw, when it can be reached from `netns`.
fn reach(netns: &OwnedFd, address: &str) -> Option<String> {
    ask(netns, address, ANSWER)
}

fn silent(netns: &OwnedFd, address: &str) -> bool {
    ask(netns, address, SILENCE).is_none()
}

fn ask(netns: &OwnedFd, address: &str, patience: Duration) -> Option<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = with_netns(netns.as_fd(), || TcpStream::connect_timeout(&address, patience)).unwrap().ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut seen = String::new();
    stream.read_to_string(&mut seen).ok()?;
    Some(seen)
}

fn hears(socket: &UdpSocket, patience: Duration) -> bool {
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.recv_from(&mut [0; 16]).is_ok()
}

fn plug(world: &World, net: &Net, slot: u32) -> OwnedFd {
    let netns = new_netns().unwrap();
    world.on_host(|| net.plug(slot, netns.as_fd())).unwrap();
    netns
}

/// Waits for something that the kernel does in the background.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn connections(world: &World) -> u64 {
    world.on_host(|| fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap().trim().parse().unwrap())
}

/// Sends one packet to each of many ports.
fn spray(netns: &OwnedFd, packets: u32) {
    with_netns(netns.as_fd(), || {
        let sockets: Vec<_> = (0..4).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
        for n in 0..packets {
            let port = 1_024 + (n / 4 % 60_000) as u16;
            let _ = sockets[n as usize % 4].send_to(b"x", (INTERNET, port));
        }
    })
    .unwrap();
}

#[test]
fn one_sandbox_cannot_fill_the_hosts_connection_table() {
    const BURST: u64 = 4_000;
    const FLOWS: u64 = 8_192;
    let world = World::new();
    let net = world.open("tst9", [10, 66, 0, 0]);
    let (noisy, quiet) = (plug(&world, &net, 0), plug(&world, &net, 1));
    let kept = with_netns(noisy.as_fd(), || TcpStream::connect((INTERNET, 80))).unwrap().unwrap();
    let start = Instant::now();
    spray(&noisy, 40_000);
    let (now, spent) = (connections(&world), start.elapsed().as_secs() + 1);
    assert!(now >= BURST / 2, "the test tried too little: {now}");
    assert!(now <= BURST + spent * 1_000 + 100, "{now} connections after {spent} s");
    // In time the rate would let any number in; the count does not.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        spray(&noisy, 10_000);
    }
    let now = connections(&world);
    assert!((BURST..=FLOWS + 100).contains(&now), "{now} connections");
    // Neighbours do not notice, and what was open stays so.
    assert_eq!(reach(&quiet, &format!("{INTERNET}:80")).as_deref(), Some(HOST));
    let mut seen = String::new();
    (&kept).read_to_string(&mut seen).unwrap();
    assert_eq!(seen, HOST);
    // A restart of the server is no new allowance, and the next sandbox of the slot starts afresh.
    drop(net);
    let net = world.open("tst9", [10, 66, 0, 0]);
    spray(&noisy, 10_000);
    assert!(connections(&world) <= FLOWS + 100);
    world.on_host(|| net.unplug(0)).unwrap();
    let next = plug(&world, &net, 0);
    eventually("the slot's next sandbox has its share", || {
        ask(&next, &format!("{INTERNET}:80"), Duration::from_secs(1)).as_deref() == Some(HOST)
    });
}

#[test]
fn a_one_way_stream_of_packets_is_one_connection() {
    let world = World::new();
    let net = world.open("tsta", [10, 66, 0, 0]);
    let netns = plug(&world, &net, 0);
    let receiver = with_netns(world.internet.as_fd(), || UdpSocket::bind((INTERNET, 7_777))).unwrap().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let sender = with_netns(netns.as_fd(), || UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let mut got = 0;
    for _ in 0..12_000 {
        sender.send_to(b"x", (INTERNET, 7_777)).unwrap();
        while receiver.recv(&mut [0; 8]).is_ok() {
            got += 1;
        }
    }
    assert!(got > 11_000, "{got} of 12000 packets came through");
    assert!(connections(&world) < 100);
}

#[test]
fn sandboxes_reach_the_internet_and_nothing_of_the_host() {
    let world = World::new();
    let net = world.open("tst1", [10, 66, 0, 0]);
    let (one, two) = (plug(&world, &net, 0), plug(&world, &net, 7));
    let _inside = Server::start(&two, "0.0.0.0:8000");
    world.on_host(|| {
        run("nft", "add table ip published");
        run("nft", "add chain ip published pre { type nat hook prerouting priority -100 ; }");
        run("nft", &format!("add rule ip published pre ip daddr {HOST} tcp dport 8081 dnat to {CONTAINER}:80"));
    });
    // The gateway address of the subnet exists only here, so that there is something to be kept from.
    world.on_host(|| ip("addr add 10.66.0.1/32 dev lo"));
    let forbidden = [
        format!("{HOST}:8080"),
        format!("{BRIDGE}:8080"),
        format!("{HOST}:53"),
        format!("{HOST}:8081"), // published by address translation
        format!("{CONTAINER}:80"),
        format!("{}:8000", net.address(7)),
        format!("{METADATA}:80"),
        "100.100.100.200:80".to_owned(),
        "168.63.129.16:80".to_owned(),
        format!("{RESOLVER}:80"),
        "10.66.0.1:8080".to_owned(),
    ];
    let passed = world.without_rules(&net, "tst1", || forbidden.iter().filter(|a| reach(&one, a).is_some()).count());
    assert_eq!(passed, forbidden.len(), "control: without the rules everything answers");
    for address in &forbidden {
        assert!(silent(&one, address), "{address} must not answer");
    }
    assert_eq!(
        reach(&one, &format!("{INTERNET}:80")).as_deref(),
        Some(HOST),
        "the internet, seen from the host's address"
    );
    assert_eq!(reach(&two, &format!("{INTERNET}:80")).as_deref(), Some(HOST));
    assert!(
        reach(&one, &format!("{RESOLVER}:53")).is_some(),
        "the resolver answers on its port though it is link-local"
    );
    assert!(reach(&world.host, &format!("{}:8000", net.address(7))).is_some(), "the host reaches the sandbox");
    assert!(silent(&world.internet, &format!("{}:8000", net.address(7))));
    assert!(silent(&world.container, &format!("{}:8000", net.address(7))), "containers do not reach sandboxes");
}

#[test]
fn blocked_slots_have_no_egress_but_answer_the_host() {
    let world = World::new();
    let net = world.open("tst2", [10, 66, 0, 0]);
    let sandbox = plug(&world, &net, 3);
    let _inside = Server::start(&sandbox, "0.0.0.0:8000");
    let internet = format!("{INTERNET}:80");
    assert!(reach(&sandbox, &internet).is_some());

    // An open connection is cut too.
    let address: SocketAddr = format!("{INTERNET}:7").parse().unwrap();
    let listener = with_netns(world.internet.as_fd(), || TcpListener::bind(address)).unwrap().unwrap();
    let mut open = with_netns(sandbox.as_fd(), || TcpStream::connect_timeout(&address, ANSWER)).unwrap().unwrap();
    let (mut seen, _) = listener.accept().unwrap();
    open.write_all(b"a").unwrap();
    seen.read_exact(&mut [0]).unwrap();
    seen.set_read_timeout(Some(SILENCE)).unwrap();
    net.set_blocked(3, true).unwrap();
    open.write_all(b"b").unwrap();
    assert!(seen.read_exact(&mut [0]).is_err(), "bytes of an open connection still arrive");

    assert!(silent(&sandbox, &internet));
    assert!(silent(&sandbox, &format!("{RESOLVER}:53")), "no resolver either");
    assert!(reach(&world.host, &format!("{}:8000", net.address(3))).is_some());
    net.set_blocked(3, true).unwrap();
    drop(net);
    let net = world.open("tst2", [10, 66, 0, 0]);
    assert!(silent(&sandbox, &internet), "still blocked after a restart");
    net.set_blocked(3, false).unwrap();
    assert!(reach(&sandbox, &internet).is_some());
    assert!(matches!(net.set_blocked(4, true), Err(NetError::NotPlugged { slot: 4 })));
}

/// An IPv4 + UDP packet as a raw socket sends it; the kernel fills in the checksums it insists on.
fn packet(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend_from_slice(&from.octets());
    bytes.extend_from_slice(&to.octets());
    bytes.extend_from_slice(&[0x12, 0x34, 0x15, 0xb3, 0, 9, 0, 0, b'!']); // 4660 -> 5555, no checksum
    bytes
}

#[test]
fn spoofed_sources_and_ipv6_go_nowhere() {
    let world = World::new();
    let net = world.open("tst3", [10, 66, 0, 0]);
    let (one, _two) = (plug(&world, &net, 1), plug(&world, &net, 2));
    let target: Ipv4Addr = INTERNET.parse().unwrap();
    let ears = with_netns(world.internet.as_fd(), || UdpSocket::bind((target, 5555))).unwrap().unwrap();
    let raw = with_netns(one.as_fd(), || {
        rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap()
    })
    .unwrap();
    let heard = |from: Ipv4Addr, patience| {
        let to = SocketAddr::from((target, 0));
        rustix::net::sendto(&raw, &packet(from, target), SendFlags::empty(), &to).unwrap();
        hears(&ears, patience)
    };
    assert!(heard(net.address(1), ANSWER), "control: its own address arrives");
    let spoofed = net.address(2);
    assert!(
        world.without_rules(&net, "tst3", || heard(spoofed, ANSWER)),
        "control: without the rules a spoofed source arrives"
    );
    for source in [spoofed, Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(10, 66, 9, 9)] {
        assert!(!heard(source, SILENCE), "{source} left slot 1");
    }

    with_netns(one.as_fd(), || ip("-6 addr add fd00:66::2/64 dev eth0 nodad")).unwrap();
    world.on_host(|| {
        ip("link set iftst3v1 arp on"); // without it the host does not even tell where it is
        ip("-6 addr add fd00:66::1/64 dev iftst3v1 nodad");
    });
    let _six = Server::start(&world.host, "[fd00:66::1]:8066");
    assert!(world.without_rules(&net, "tst3", || reach(&one, "[fd00:66::1]:8066")).is_some(), "control: IPv6 works");
    assert!(silent(&one, "[fd00:66::1]:8066"));
}

#[test]
fn servers_on_one_host_keep_their_sandboxes_apart_and_unknown_links_are_denied() {
    let world = World::new();
    let (a, b) = (world.open("tsta", [10, 66, 0, 0]), world.open("tstb", [10, 67, 0, 0]));
    let (in_a, in_b) = (plug(&world, &a, 0), plug(&world, &b, 0));
    let _servers = [Server::start(&in_a, "0.0.0.0:8000"), Server::start(&in_b, "0.0.0.0:8000")];
    assert!(silent(&in_a, &format!("{}:8000", b.address(0))));
    assert!(silent(&in_b, &format!("{}:8000", a.address(0))));
    for netns in [&in_a, &in_b] {
        assert!(reach(netns, &format!("{INTERNET}:80")).is_some());
    }
    // A link of our name that nobody plugged.
    let stray = new_netns().unwrap();
    world.on_host(|| {
        ip(&format!("link add iftstav99 type veth peer name eth0 netns {}", fd_path(&stray)));
        ip("link set iftstav99 up");
        ip("route add 10.66.0.101/32 dev iftstav99");
    });
    with_netns(stray.as_fd(), || {
        ip("addr add 10.66.0.101/32 dev eth0");
        ip("link set eth0 up");
        let gateway_mac = world.on_host(|| fs::read_to_string("/sys/class/net/iftstav99/address")).ok();
        let gateway_mac = gateway_mac.map_or_else(|| mac_of(&world, "iftstav99"), |m| m.trim().to_owned());
        ip(&format!("neigh add 169.254.1.1 lladdr {gateway_mac} dev eth0 nud permanent"));
        ip("route add default via 169.254.1.1 dev eth0 onlink");
    })
    .unwrap();
    assert!(silent(&stray, &format!("{INTERNET}:80")));
    assert!(silent(&stray, &format!("{HOST}:8080")));
    assert!(world.without_rules(&a, "tsta", || reach(&stray, &format!("{INTERNET}:80"))).is_some(), "control");
}

fn mac_of(world: &World, link: &str) -> String {
    let out = world.on_host(|| output("ip", &format!("-br link show {link}")));
    out.split_whitespace().nth(2).unwrap().to_owned()
}

#[test]
fn a_host_that_drops_forwarded_packets_lets_sandboxes_through() {
    let world = World::new();
    let net = world.open("tst4", [10, 66, 0, 0]);
    let sandbox = plug(&world, &net, 0);
    let internet = format!("{INTERNET}:80");
    let ours = || world.on_host(|| output("iptables", "-S")).lines().filter(|l| l.contains("iftst4v+")).count();
    world.on_host(|| run("iptables", "-P FORWARD DROP"));
    assert!(silent(&sandbox, &internet), "control: the policy bites");
    for _ in 0..3 {
        world.on_host(|| net.ensure_host_rules()).unwrap();
        assert!(reach(&sandbox, &internet).is_some());
        assert_eq!(ours(), 2, "iptables still reads its table, and finds our two rules once");
    }
    // Docker arrives later.
    world.on_host(|| {
        run("iptables", "-N DOCKER-USER");
        run("iptables", "-A DOCKER-USER -j RETURN");
        run("iptables", "-I FORWARD -j DROP");
        run("iptables", "-I FORWARD -j DOCKER-USER");
    });
    assert!(silent(&sandbox, &internet));
    world.on_host(|| net.ensure_host_rules()).unwrap();
    assert!(reach(&sandbox, &internet).is_some());
    let rules = world.on_host(|| output("iptables", "-S DOCKER-USER"));
    assert_eq!(rules.lines().nth(1).map(|l| l.contains("iftst4v+ ")), Some(true), "{rules}");
    assert!(silent(&sandbox, &format!("{CONTAINER}:80")), "the opening is not one to containers");
    drop(sandbox);
    net.unplug(0).unwrap();
    eventually("the link goes with its namespace", || world.links("iftst4v").is_empty());
    assert!(net.close().unwrap());
    assert_eq!(ours(), 0);
    assert!(world.on_host(|| output("nft", "list tables")).lines().all(|l| !l.contains("infield_tst4")));
}

#[test]
fn a_restart_keeps_live_sandboxes_and_a_flush_is_repaired() {
    const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
    let world = World::new();
    world.on_host(|| fs::write(IP_FORWARD, "0")).unwrap();
    let net = world.open("tst5", [10, 66, 0, 0]);
    assert!(net.forwarding_was_off());
    assert_eq!(world.on_host(|| fs::read_to_string(IP_FORWARD)).unwrap().trim(), "1");
    let (one, two) = (plug(&world, &net, 1), plug(&world, &net, 2));
    let internet = format!("{INTERNET}:80");
    drop(net);
    assert!(reach(&one, &internet).is_some(), "sandboxes outlive the server");
    let net = world.open("tst5", [10, 66, 0, 0]);
    assert!(reach(&one, &internet).is_some());

    world.on_host(|| run("nft", "flush ruleset"));
    world.on_host(|| net.ensure_host_rules()).unwrap();
    assert!(reach(&one, &internet).is_some(), "the running server knows what was there");
    assert!(silent(&one, &format!("{HOST}:8080")));

    world.on_host(|| run("nft", "flush ruleset"));
    let three = plug(&world, &net, 3);
    assert!(reach(&one, &internet).is_some() && reach(&three, &internet).is_some(), "a new slot brings the rules back");
    assert!(silent(&three, &format!("{HOST}:8080")));
    world.on_host(|| run("nft", "flush ruleset"));
    let net = {
        drop((net, three));
        world.open("tst5", [10, 66, 0, 0])
    };
    assert!(silent(&one, &internet), "who came back without rules is blocked until told otherwise");
    net.set_blocked(1, false).unwrap();
    assert!(reach(&one, &internet).is_some());

    net.unplug(3).unwrap();
    eventually("slot 3 goes with its namespace", || world.links("iftst5v3").is_empty());
    assert_eq!(net.sweep(&HashSet::from([1])).unwrap(), 1, "slot 2 goes");
    assert_eq!(world.links("iftst5v"), ["iftst5v1"]);
    assert!(silent(&two, &internet));
    assert!(!net.close().unwrap(), "slot 1 is still there");
    assert!(reach(&one, &internet).is_some());
    // The uplink changes its name, as when a VPN or another card takes over.
    world.on_host(|| {
        ip("link set up0 down");
        ip("link set up0 name wan9");
        ip("link set wan9 up");
        ip("route add default via 203.0.113.2");
    });
    world.on_host(|| net.ensure_host_rules()).unwrap();
    assert!(reach(&one, &internet).is_some());
}

#[test]
fn a_host_full_of_sandboxes_restarts() {
    const SLOTS: u32 = 16_384;
    let world = World::new();
    let net = world.open("tstg", [10, 66, 0, 0]);
    let elements: Vec<_> = (0..SLOTS).map(|slot| format!("\"iftstgv{slot}\" . {}", net.address(slot))).collect();
    let file = std::env::temp_dir().join(format!("infield-net-{}.nft", std::process::id()));
    fs::write(&file, format!("add element inet infield_tstg slots {{ {} }}", elements.join(","))).unwrap();
    world.on_host(|| run("nft", &format!("-f {}", file.display())));
    fs::remove_file(&file).unwrap();
    drop(net);
    let net = world.open("tstg", [10, 66, 0, 0]);
    world.on_host(|| run("nft", "flush ruleset"));
    world.on_host(|| net.ensure_host_rules()).unwrap();
    let set = world.on_host(|| output("nft", "list set inet infield_tstg slots"));
    assert_eq!(set.matches("iftstgv").count(), SLOTS as usize);
    assert_eq!(net.sweep(&HashSet::from([7])).unwrap(), SLOTS as usize - 1);
}

#[test]
fn taken_subnets_and_bad_settings_are_explained() {
    let world = World::new();
    world.on_host(|| ip("route add 10.66.7.0/24 via 203.0.113.2"));
    let error = world.on_host(|| Net::open(&config("tst6", [10, 66, 0, 0]))).unwrap_err().to_string();
    assert!(error.contains("--subnet") && error.contains("10.66.7.0/24"), "{error}");
    let tables = world.on_host(|| output("nft", "list tables"));
    assert!(tables.is_empty(), "a refused start leaves nothing: {tables}");
    let _first = world.open("tst7", [10, 68, 0, 0]);
    assert!(world.on_host(|| Net::open(&config("tst8", [10, 68, 0, 0]))).is_err(), "another server's subnet");
    for tag in ["", "toolong", "a/b!", "ABCD"] {
        assert!(matches!(world.on_host(|| Net::open(&config(tag, [10, 70, 0, 0]))), Err(NetError::Config(_))), "{tag}");
    }
}

#[test]
fn slots_are_plugged_again_and_bad_ones_leave_nothing() {
    let world = World::new();
    let net = world.open("tst9", [10, 66, 0, 0]);
    let first = plug(&world, &net, 5);
    let second = plug(&world, &net, 5); // while the first namespace still lives
    assert!(reach(&second, &format!("{INTERNET}:80")).is_some());
    assert!(silent(&first, &format!("{INTERNET}:80")));
    assert!(matches!(net.plug(net.slots_max(), second.as_fd()), Err(NetError::SlotOutOfRange { .. })));
    let not_a_namespace: OwnedFd = fs::File::open("/dev/null").unwrap().into();
    assert!(net.plug(6, not_a_namespace.as_fd()).is_err());
    assert!(world.on_host(|| net.plug(6, second.as_fd())).is_err(), "eth0 is taken");
    assert_eq!(world.links("iftst9v"), ["iftst9v5"]);
    assert!(!world.on_host(|| output("nft", "list set inet infield_tst9 slots")).contains("iftst9v6"));
    net.unplug(6).unwrap();
    net.unplug(5).unwrap();
    net.unplug(5).unwrap();
    assert!(silent(&second, &format!("{INTERNET}:80")), "unplugged is cut off before the link goes");
}

/// What a slot's former inhabitant agreed with a stranger must not open a way to the next one.
#[test]
fn connections_of_a_former_inhabitant_are_forgotten() {
    let world = World::new();
    let mut net = world.open("tstd", [10, 66, 0, 0]);
    let stranger = with_netns(world.internet.as_fd(), || UdpSocket::bind((INTERNET, 6000))).unwrap().unwrap();
    stranger.set_read_timeout(Some(ANSWER)).unwrap();
    for restart in [false, true] {
        let port = if restart { 4001 } else { 4000 };
        let inhabit = |net: &Net| {
            let netns = plug(&world, net, 1);
            let socket = with_netns(netns.as_fd(), || UdpSocket::bind(("0.0.0.0", port))).unwrap().unwrap();
            (netns, socket)
        };
        let (netns, socket) = inhabit(&net);
        socket.send_to(b"hello", (INTERNET, 6000)).unwrap();
        let (_, way_in) = stranger.recv_from(&mut [0; 8]).unwrap();
        stranger.send_to(b"answer", way_in).unwrap();
        assert!(hears(&socket, ANSWER), "control: the way in is open");
        drop((netns, socket));
        net.unplug(1).unwrap();
        if restart {
            eventually("the link goes", || world.links("iftstdv").is_empty());
            drop(net);
            net = world.open("tstd", [10, 66, 0, 0]);
        }
        let (_netns, socket) = inhabit(&net);
        stranger.send_to(b"surprise", way_in).unwrap();
        assert!(!hears(&socket, SILENCE), "restart {restart}: a stranger reached the next inhabitant");
    }
}

#[test]
fn the_host_is_mute_to_arp() {
    let world = World::new();
    let net = world.open("tste", [10, 66, 0, 0]);
    let sandbox = plug(&world, &net, 0);
    let asked = |address: &str| {
        with_netns(sandbox.as_fd(), || {
            ip(&format!("route replace {address}/32 dev eth0"));
            let _ = TcpStream::connect_timeout(&format!("{address}:1").parse().unwrap(), SILENCE);
            output("ip", &format!("neigh show {address}"))
        })
        .unwrap()
    };
    assert!(!asked(BRIDGE).contains("lladdr"), "the host told that it has {BRIDGE}");
    world.on_host(|| ip("link set iftstev0 arp on"));
    assert!(asked(HOST).contains("lladdr"), "control: with ARP on it tells");
}

#[test]
fn the_first_packet_to_a_new_slot_arrives() {
    let world = World::new();
    let net = world.open("tstf", [10, 66, 0, 0]);
    let sender = with_netns(world.host.as_fd(), || UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let lost = (0..50u32).filter(|slot| {
        let netns = plug(&world, &net, *slot);
        let socket = with_netns(netns.as_fd(), || UdpSocket::bind("0.0.0.0:4000")).unwrap().unwrap();
        sender.send_to(b"first", (net.address(*slot), 4000)).unwrap();
        !hears(&socket, SILENCE)
    });
    assert_eq!(lost.count(), 0);
}

#[test]
fn a_hundred_slots_at_once_and_no_leak() {
    let world = World::new();
    let net = world.open("tstc", [10, 66, 0, 0]);
    let plugged: Vec<OwnedFd> = thread::scope(|scope| {
        let workers: Vec<_> = (0..10u32)
            .map(|worker| {
                let (world, net) = (&world, &net);
                scope.spawn(move || (0..10).map(|i| plug(world, net, worker * 10 + i)).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    assert_eq!(world.links("iftstcv").len(), 100);
    for netns in [&plugged[0], &plugged[57], &plugged[99]] {
        assert!(reach(netns, &format!("{INTERNET}:80")).is_some());
    }
    drop(plugged);
    for slot in 0..100 {
        net.unplug(slot).unwrap();
    }
    eventually("all links are gone", || world.links("iftstcv").is_empty());
    let routes = world.on_host(|| output("ip", "route"));
    assert!(!routes.contains("iftstcv"), "{routes}");
    for set in ["slots", "egress"] {
        assert!(!world.on_host(|| output("nft", &format!("list set inet infield_tstc {set}"))).contains("iftstcv"));
    }
    assert!(net.close().unwrap());
    assert!(!world.on_host(|| output("ip", "route")).contains("10.66."));
}

/// Prints medians; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn measure() {
    let world = World::new();
    let net = world.open("tstm", [10, 66, 0, 0]);
    let namespaces: Vec<_> = (0..200).map(|_| new_netns().unwrap()).collect();
    let time = |work: &dyn Fn(u32)| {
        let mut took: Vec<_> = (0..200)
            .map(|slot| {
                let start = Instant::now();
                work(slot);
                start.elapsed()
            })
            .collect();
        took.sort();
        (took[100], took[190])
    };
    world.on_host(|| {
        println!("plug p50, p95: {:?}", time(&|s| net.plug(s, namespaces[s as usize].as_fd()).unwrap()));
        println!("set_blocked: {:?}", time(&|s| net.set_blocked(s, true).unwrap()));
        println!("ensure_host_rules with 200 slots: {:?}", time(&|_| net.ensure_host_rules().unwrap()));
        println!("unplug: {:?}", time(&|s| net.unplug(s).unwrap()));
        let again: Vec<_> = (0..200).map(|_| new_netns().unwrap()).collect();
        drop(namespaces);
        eventually("links are gone", || world.links("iftstmv").is_empty());
        println!("plug of a used slot: {:?}", time(&|s| net.plug(s, again[s as usize].as_fd()).unwrap()));
    });
}
