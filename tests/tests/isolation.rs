//! The escape checklist, tried from inside a sandbox, and what must still work there.
//!
//! Each check runs as the default user and, where root could do more, under `sudo` as root inside.

use infield_tests::World;
use std::{net::TcpListener, process::Command};

/// The command must fail, as user and as root inside.
#[track_caller]
fn refused(world: &World, id: &str, command: &str) {
    for prefix in ["", "sudo -n "] {
        let (code, output) = world.exec(id, &format!("{prefix}sh -c '{command}'"));
        assert_ne!(code, 0, "`{prefix}{command}` succeeded: {output}");
    }
}

#[test]
fn the_kernel_is_out_of_reach() {
    let world = World::new("walls");
    let id = world.sandbox();
    let sys_admin = world.sh(&id, "sudo grep CapEff /proc/self/status");
    let caps = u64::from_str_radix(sys_admin.split_whitespace().last().unwrap(), 16).unwrap();
    // Docker's default set and nothing more.
    assert_eq!(caps & !0xa80425fb, 0, "root inside holds {caps:#x}");
    for command in [
        "mount -t tmpfs none /mnt",
        "mount --bind / /mnt",
        "umount /proc",
        "mknod /tmp/sda b 8 0",
        "mknod /tmp/kmsg c 1 11",
        "unshare --user --map-root-user true",
        "unshare --mount true",
        "echo 1 > /proc/sys/kernel/panic",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo b > /proc/sysrq-trigger",
        "echo core > /proc/sys/kernel/core_pattern",
        "cat /proc/kcore | head -c 1 | grep -q .",
        "cat /proc/kmsg",
        "dmesg",
        "ls /sys/fs/cgroup/*/cgroup.procs && echo 1 > /sys/fs/cgroup/cgroup.procs",
        "touch /sys/kernel/x",
        "test -w /sys/kernel/uevent_helper",
        "date -s 2000-01-01",
        "reboot -f",
        "insmod /dev/null",
        "ip link set eth0 down",
        "nsenter --target 1 --mount true",
    ] {
        refused(&world, &id, command);
    }
    assert!(!world.sh(&id, "hostname; true").trim().is_empty());
    assert!(world.sh(&id, "cat /proc/1/status | grep ^Pid").contains('1'));
    let uid_map = world.sh(&id, "cat /proc/self/uid_map");
    assert_ne!(uid_map.split_whitespace().nth(1), Some("0"), "root inside is nobody outside");
}

#[test]
fn system_calls_that_reach_outside_are_refused() {
    let world = World::new("calls");
    let id = world.sandbox();
    // (name, number on x86-64): each must answer with an error, never with success.
    let script = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
calls = {"keyctl": (250, 0, -3, 0, 0, 0), "add_key": (248, 0, 0, 0, 0, 0), "bpf": (321, 0, 0, 0, 0, 0),
  "ptrace_pid1": (101, 16, 1, 0, 0, 0), "unshare_user": (272, 0x10000000, 0, 0, 0, 0), "kexec_load": (246, 0, 0, 0, 0, 0),
  "init_module": (175, 0, 0, 0, 0, 0), "open_by_handle_at": (304, 0, 0, 0, 0, 0), "userfaultfd": (323, 0, 0, 0, 0, 0),
  "perf_event_open": (298, 0, 0, -1, -1, 0), "io_uring_setup": (425, 1, 0, 0, 0, 0), "fsopen": (430, 0, 0, 0, 0, 0),
  "open_tree": (428, -100, 0, 1, 0, 0), "move_mount": (429, 0, 0, 0, 0, 0), "setns": (308, 0, 0, 0, 0, 0),
  "pivot_root": (155, 0, 0, 0, 0, 0), "acct": (163, 0, 0, 0, 0, 0), "quotactl": (179, 0, 0, 0, 0, 0),
  "process_vm_readv": (310, 1, 0, 0, 0, 0), "settimeofday": (164, 0, 0, 0, 0, 0), "clone3": (435, 0, 0, 0, 0, 0)}
bad = []
for name, words in calls.items():
    ctypes.set_errno(0)
    if libc.syscall(*[ctypes.c_long(w) for w in words]) != -1:
        bad.append(name)
    elif name == "clone3" and ctypes.get_errno() != 38:
        bad.append("clone3 answers %d, not ENOSYS" % ctypes.get_errno())
print("reached:", bad)
"#;
    world
        .toolbox(&id)
        .post("/process/code-run", serde_json::json!({ "code": script, "language": "python" }))
        .expect(200);
    let run = |prefix: &str| {
        let file = format!("cat > /tmp/calls.py <<'PY'{script}PY\n{prefix}python3 /tmp/calls.py");
        world.sh(&id, &file)
    };
    assert_eq!(run("").trim(), "reached: []");
    assert_eq!(run("sudo -n ").trim(), "reached: []");
}

#[test]
fn the_agent_is_out_of_reach() {
    let world = World::new("pid1");
    let id = world.sandbox();
    for command in
        ["readlink /proc/1/exe", "ls /proc/1/root/", "ls /proc/1/fd/", "cat /proc/1/environ", "cat /proc/1/mem"]
    {
        let (code, output) = world.exec(&id, command);
        assert!(code != 0 || output.trim().is_empty(), "`{command}`: {output}");
    }
    world.exec(&id, "kill -9 1; kill -TERM 1; sudo -n kill -9 1; sudo -n kill -STOP 1");
    assert_eq!(world.sh(&id, "echo still here"), "still here\n");
    // Whatever the agent keeps open must not reach its children.
    let fds = world.sh(&id, "ls -l /proc/self/fd | grep -c socket: || true");
    assert_eq!(fds.trim(), "0", "a command inherits a socket of the agent");
}

#[test]
fn sandboxes_and_the_host_cannot_be_reached_over_the_network() {
    let world = World::new("net");
    let (one, two) = (world.sandbox(), world.sandbox());
    let address = world.sh(&two, "hostname -I 2>/dev/null | cut -d' ' -f1");
    let address = address.trim();
    assert!(address.starts_with("10.213."), "an address of the server's range: {address}");
    world.sh(&two, "cd /tmp && (setsid python3 -m http.server 8000 >/dev/null 2>&1 &); for i in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:8000 && exit 0; sleep 0.05; done; exit 1");
    world.sh(&two, &format!("curl -s -o /dev/null --max-time 5 http://{address}:8000"));
    let reach = |url: &str| world.exec(&one, &format!("curl -s -o /dev/null --max-time 3 '{url}'")).0;
    assert_ne!(reach(&format!("http://{address}:8000")), 0, "one sandbox reaches another");

    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    host.set_nonblocking(true).unwrap();
    let gateway = world.sh(&one, "awk '$2 == \"00000000\" { print $3 }' /proc/net/route | head -1");
    let raw = u32::from_str_radix(gateway.trim(), 16).unwrap();
    let mut addresses = vec![std::net::Ipv4Addr::from(raw.to_le_bytes()).to_string()];
    let listed = Command::new("ip").args(["-4", "-o", "addr", "show", "scope", "global"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    addresses.extend(listed.split_whitespace().filter_map(|w| w.split_once('/')).map(|(a, _)| a.to_owned()));
    for address in &addresses {
        assert_ne!(reach(&format!("http://{address}:{port}")), 0, "the host's {address} answers");
        assert_ne!(reach(&format!("http://{address}:{}", world.port)), 0, "the API answers on {address}");
    }
    assert!(host.accept().is_err(), "nothing ever arrived at the host's port");
    for metadata in ["http://169.254.169.254/", "http://[fd00:ec2::254]/"] {
        assert_ne!(reach(metadata), 0, "{metadata}");
    }
    let six = TcpListener::bind("[::]:0").unwrap();
    let port = six.local_addr().unwrap().port();
    six.set_nonblocking(true).unwrap();
    let neighbour = "sudo -n ip -6 neigh 2>/dev/null; cat /proc/net/if_inet6";
    world.exec(&one, neighbour);
    for host_side in link_local_addresses() {
        world.exec(&one, &format!("curl -s -g -o /dev/null --max-time 2 'http://[{host_side}%25eth0]:{port}'"));
    }
    assert!(six.accept().is_err(), "the host answers over IPv6");
}

/// Link-local addresses of the host's interfaces.
fn link_local_addresses() -> Vec<String> {
    let output = Command::new("ip").args(["-6", "-o", "addr", "show", "scope", "link"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter_map(|w| w.split_once('/')).map(|(a, _)| a.to_owned()).take(6).collect()
}

#[test]
fn what_people_do_every_day_works() {
    let world = World::new("daily");
    let id = world.sandbox();
    assert_eq!(world.sh(&id, "sudo -n id -u"), "0\n");
    assert_eq!(world.sh(&id, "id -un; pwd"), "daytona\n/home/daytona\n");
    world.sh(&id, "ping -c 1 -W 2 127.0.0.1");
    world.sh(&id, "sudo -n chown nobody /tmp && sudo -n useradd -m somebody && sudo -n -u somebody id");
    world.sh(&id, "python3 -c 'import threading; t = threading.Thread(target=print); t.start(); t.join()'");
    world.sh(&id, "df -h / && test -c /dev/null && test -e /dev/shm && test -c /dev/ptmx && echo x > /dev/null");
    world.sh(&id, "grep -q localhost /etc/hosts && test -s /etc/resolv.conf");
    assert_eq!(world.sh(&id, "git --version | cut -d' ' -f1; node -e 'console.log(1+1)'"), "git\n2\n");
    // What the image is promised to hold, by what a person types.
    let programs = "python python3 pip git curl bash sudo ssh gcc make node npm ps less vi pylsp tsc ts-node \
                    typescript-language-server";
    assert_eq!(world.sh(&id, &format!("for p in {programs}; do command -v $p > /dev/null || echo $p; done")), "");
    world.sh(&id, "python3 -m venv /tmp/venv && /tmp/venv/bin/pip --version");
    world.sh(&id, "test -s /etc/ssl/certs/ca-certificates.crt && python3 -c 'import numpy, matplotlib'");
}

#[test]
fn packages_install_over_the_network() {
    let world = World::new("apt");
    let id = world.sandbox();
    let toolbox = world.toolbox(&id);
    let command =
        "sudo -n apt-get -qq update && sudo -n apt-get -qq install --yes --no-install-recommends hello && hello";
    let body = serde_json::json!({ "command": command, "timeout": 110 });
    let done = toolbox.post("/process/execute", body).expect(200).json();
    assert_eq!(done["exitCode"], 0, "{done}");
    assert!(done["result"].as_str().unwrap().contains("Hello, world!"), "{done}");
}

#[test]
fn no_egress_when_asked_for_none() {
    let git = infield_tests::GitServer::start();
    let world = World::new("block");
    let open = world.sandbox();
    world.sh(&open, &format!("curl -s -o /dev/null --max-time 5 {}", git.url));
    let closed = world.create(serde_json::json!({ "networkBlockAll": true }))["id"].as_str().unwrap().to_owned();
    assert_ne!(world.exec(&closed, &format!("curl -s -o /dev/null --max-time 3 {}", git.url)).0, 0);
}
