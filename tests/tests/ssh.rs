//! The SSH gateway, with the clients people have: ssh, scp, sftp, git.

use infield_tests::{
    Options, World, eventually,
    process::{self, text},
    world::free_port,
};
use serde_json::Value;
use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A sandbox, and a token for it.
struct Guest<'a> {
    world: &'a World,
    id: String,
    token: String,
    port: u64,
    known_hosts: PathBuf,
}

impl<'a> Guest<'a> {
    fn new(world: &'a World) -> Self {
        let id = world.sandbox();
        Self::of(world, id)
    }

    fn of(world: &'a World, id: String) -> Self {
        let access = world.api().post(&format!("/sandbox/{id}/ssh-access"), serde_json::json!(null)).expect(200).json();
        let token = access["token"].as_str().unwrap().to_owned();
        let config = config(world);
        let port = config["sshGatewayPort"].as_u64().unwrap();
        assert_eq!(access["sshCommand"], format!("ssh -p {port} {token}@127.0.0.1"));
        let known_hosts = world.scratch("ssh").join("known_hosts");
        let line = format!("[127.0.0.1]:{port} {}\n", config["sshGatewayHostKeys"][0].as_str().unwrap());
        std::fs::write(&known_hosts, line).unwrap();
        Self { world, id, token, port, known_hosts }
    }

    /// Options that ssh, scp and sftp share; nothing of this machine's user counts.
    fn options(&self) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.known_hosts.display());
        let fixed = ["StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR"];
        let words = fixed.iter().map(|word| (*word).to_owned()).chain([known, format!("Port={}", self.port)]);
        ["-F", "none"].map(str::to_owned).into_iter().chain(words.flat_map(|word| ["-o".to_owned(), word])).collect()
    }

    fn address(&self) -> String {
        format!("{}@127.0.0.1", self.token)
    }

    fn ssh(&self, options: &[&str], command: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(self.options()).args(options).arg(self.address()).args(command);
        ssh
    }

    fn run(&self, command: &str) -> Output {
        process::run(&mut self.ssh(&[], &[command]), LIMIT)
    }

    /// What a successful command printed.
    #[track_caller]
    fn says(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command}: {} {}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// What a client is told that does not get in.
    #[track_caller]
    fn refused(&self) -> String {
        let output = self.run("true");
        assert_eq!(output.status.code(), Some(255));
        text(&output.stderr)
    }

    /// Whether a process of this command line is in the sandbox.
    fn has_process(&self, line: &str) -> bool {
        self.world.sh(&self.id, "ps -eo args").lines().any(|seen| seen.trim() == line)
    }
}

fn config(world: &World) -> Value {
    world.api().get("/config").expect(200).json()
}

#[track_caller]
fn done(command: &mut Command) -> Output {
    let output = process::run(command, LIMIT);
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

#[test]
fn commands_have_their_code_and_their_streams() {
    let world = World::new("sshexec");
    let guest = Guest::new(&world);
    let active = || world.api().get(&format!("/sandbox/{}", guest.id)).expect(200).json()["lastActivityAt"].clone();
    let before = active();
    assert_eq!(guest.says("echo hello"), "hello\n");
    eventually("SSH counts as activity", LIMIT, || (active() != before).then_some(()));
    assert_eq!(guest.run("exit 7").status.code(), Some(7));
    let both = guest.run("echo out; echo err >&2; exit 3");
    assert_eq!((text(&both.stdout), text(&both.stderr)), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(both.status.code(), Some(3));
    assert_eq!(guest.says("pwd; id -un"), "/home/daytona\ndaytona\n");

    let set = ["-o", "SetEnv=LC_MINE=yes LD_PRELOAD=/x", "-o", "SendEnv=NOTHING"];
    let seen = done(&mut guest.ssh(&set, &["echo \"$LC_MINE-$LD_PRELOAD\""]));
    assert_eq!(text(&seen.stdout), "yes-\n");

    // No command and no terminal: a shell reads its script.
    let script = b"cd /tmp\npwd\nexit 5\n".to_vec();
    let shell = process::run_with_input(&mut guest.ssh(&["-T"], &[]), script, LIMIT);
    assert_eq!((text(&shell.stdout), shell.status.code()), ("/tmp\n".to_owned(), Some(5)));
}

#[test]
fn one_connection_carries_many_commands() {
    let world = World::new("sshmany");
    let guest = Guest::new(&world);
    let path = world.scratch("mux").join("s");
    let socket = format!("ControlPath={}", path.display());
    let mut master = guest.ssh(&["-N", "-o", "ControlMaster=yes", "-o", &socket], &[]);
    let mut master = master.stdin(Stdio::null()).spawn().unwrap();
    eventually("the connection is there", LIMIT, || path.exists().then_some(()));
    for n in 0..150 {
        let seen = done(&mut guest.ssh(&["-o", &socket], &[&format!("echo {n}")]));
        assert_eq!((text(&seen.stdout), text(&seen.stderr)), (format!("{n}\n"), String::new()));
    }
    master.kill().unwrap();
    master.wait().unwrap();
}

#[test]
fn much_data_goes_both_ways_at_once() {
    let world = World::new("sshdata");
    let guest = Guest::new(&world);
    let body: Vec<u8> = (0..10 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let back = process::run_with_input(&mut guest.ssh(&[], &["cat"]), body.clone(), LIMIT);
    assert!(back.status.success() && back.stdout == body, "{} of {}", back.stdout.len(), body.len());
    // A reader that comes late: the client is held back meanwhile, and everything arrives.
    let mut late = guest.ssh(&[], &["sleep 2; wc -c; echo done"]);
    let late = process::run_with_input(&mut late, body.repeat(3), LIMIT);
    assert_eq!(text(&late.stdout), format!("{}\ndone\n", 30 << 20));
    // One that never reads.
    let never = process::run_with_input(&mut guest.ssh(&[], &["echo fine"]), body, LIMIT);
    assert_eq!(text(&never.stdout), "fine\n");
    assert_eq!(guest.says("head -c 50000000 /dev/zero | tr '\\0' x").len(), 50_000_000);
}

#[test]
fn terminals_have_a_size_and_a_name() {
    let world = World::new("sshpty");
    let guest = Guest::new(&world);
    let inner = guest.ssh(&["-t"], &["'tty; stty size; echo $TERM; exit 4'"]);
    let words: Vec<String> = inner.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
    let line = format!("stty rows 33 cols 101; ssh {}; echo code $?", words.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "vt100").env("SHELL", "/bin/sh");
    let seen = text(&process::run(&mut script, LIMIT).stdout).replace('\r', "");
    for wanted in ["/dev/pts/", "33 101\n", "vt100\n", "code 4"] {
        assert!(seen.contains(wanted), "{wanted:?} in {seen}");
    }
    // A shell that is typed to, and its code.
    let typed = b"echo $((6*7)); exit 9\n".to_vec();
    let shell = process::run_with_input(&mut guest.ssh(&["-tt"], &[]), typed, LIMIT);
    assert_eq!(shell.status.code(), Some(9), "{}", text(&shell.stderr));
    assert!(text(&shell.stdout).contains("42"), "{}", text(&shell.stdout));
}

#[test]
fn files_are_copied_and_listed() {
    let world = World::new("sshfiles");
    let guest = Guest::new(&world);
    let folder = world.scratch("files");
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::create_dir_all(folder.join("tree/below")).unwrap();
    std::fs::write(folder.join("tree/below/a b"), &body).unwrap();
    std::fs::write(folder.join("tree/small"), "small").unwrap();
    let scp = |from: &str, to: &str, more: &[&str]| {
        done(Command::new("scp").args(guest.options()).args(more).args(["-r", "-p", from, to]));
    };
    let (local, remote) = (folder.display().to_string(), guest.address());
    // The protocol that is usual today, and the one before, which is the image's own scp.
    for (name, more) in [("new", &[][..]), ("old", &["-O"][..])] {
        scp(&format!("{local}/tree"), &format!("{remote}:{name}"), more);
        assert_eq!(guest.says(&format!("cat {name}/small; wc -c < '{name}/below/a b'")), "small3000000\n");
        scp(&format!("{remote}:{name}"), &format!("{local}/back-{name}"), more);
        assert_eq!(std::fs::read(folder.join(format!("back-{name}/below/a b"))).unwrap(), body);
    }
    let batch = "mkdir d\nput tree/small d/one\nrename d/one d/two\nsymlink two d/link\nchmod 600 d/two\nls -l d\n\
                 get d/two fetched\nrm d/two\nrm d/link\nrmdir d\nls nothing-here\n";
    let mut sftp = Command::new("sftp");
    sftp.args(guest.options()).args(["-b", "-", &remote]).current_dir(&folder);
    let output = process::run_with_input(&mut sftp, batch.as_bytes().to_vec(), LIMIT);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.contains("-rw-------") && out.contains("lrwx"), "{out}{err}");
    assert!(err.contains("not found") && !output.status.success(), "only the last step fails: {out}{err}");
    assert_eq!(std::fs::read(folder.join("fetched")).unwrap(), b"small");
    assert_eq!(guest.says("ls -d d 2>/dev/null || echo none"), "none\n");
}

#[test]
fn a_repository_is_cloned_and_pushed_to() {
    let world = World::new("sshgit");
    let guest = Guest::new(&world);
    guest.says(
        "git init -q -b main repo && cd repo && echo one > file && git add file && \
         git -c user.name=a -c user.email=a@b commit -qm one && git config receive.denyCurrentBranch updateInstead",
    );
    let clone = world.scratch("git").join("clone");
    let ssh = format!("ssh {}", guest.options().join(" "));
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*"]).args(arguments);
        git.env("GIT_SSH_COMMAND", &ssh).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        done(&mut git);
    };
    let at = clone.display().to_string();
    git(&["clone", "-q", &format!("ssh://{}/home/daytona/repo", guest.address()), &at]);
    assert_eq!(std::fs::read_to_string(clone.join("file")).unwrap(), "one\n");
    std::fs::write(clone.join("file"), "two\n").unwrap();
    git(&["-C", &at, "commit", "-qam", "two"]);
    git(&["-C", &at, "push", "-q", "origin", "main"]);
    assert_eq!(guest.says("cat repo/file"), "two\n");
}

#[test]
fn ports_of_the_sandbox_are_forwarded_and_no_others() {
    let world = World::new("sshports");
    let (guest, other) = (Guest::new(&world), Guest::new(&world));
    guest.says("mkdir www && echo inside > www/index.html");
    guest.says("cd www && setsid python3 -m http.server 3000 --bind 127.0.0.1 >/dev/null 2>&1 < /dev/null &");
    let (ours, foreign) = (free_port(), free_port());
    let address = other.says("hostname -i");
    let forwards = [
        format!("-L{ours}:localhost:3000"),
        format!("-L{foreign}:{}:22", address.split_whitespace().next().unwrap_or("10.0.0.1")),
    ];
    let mut ssh = guest.ssh(&["-N", &forwards[0], &forwards[1]], &[]);
    let mut ssh = ssh.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let get = |port: u16| world.api().at(format!("http://127.0.0.1:{port}")).try_call("GET", "/", None);
    let body = eventually("the port answers", LIMIT, || get(ours).ok().filter(|reply| reply.status == 200));
    assert_eq!(body.text(), "inside\n");
    assert!(get(foreign).is_err());
    ssh.kill().unwrap();
    ssh.wait().unwrap();
    // Neither the other direction nor the client's agent.
    let back = guest.ssh(&["-o", "ExitOnForwardFailure=yes", "-R3001:localhost:22"], &["true"]).output().unwrap();
    assert_eq!(back.status.code(), Some(255), "{}", text(&back.stderr));
    let agent = done(&mut guest.ssh(&["-A"], &["echo agent:$SSH_AUTH_SOCK"]));
    assert_eq!(text(&agent.stdout), "agent:\n");
}

#[test]
fn tokens_open_their_own_sandbox_as_long_as_they_are_worth_something() {
    let world = World::new("sshtoken");
    let (mut guest, other) = (Guest::new(&world), Guest::new(&world));
    let validate = |token: &str| {
        let found = world.api().get(&format!("/sandbox/ssh-access/validate?token={token}")).expect(200).json();
        (found["valid"].as_bool().unwrap(), found["sandboxId"].as_str().unwrap().to_owned())
    };
    assert_eq!(validate(&guest.token), (true, guest.id.clone()));
    assert_eq!(validate("nothing"), (false, String::new()));
    world.api().get("/sandbox/ssh-access/validate").expect_error(400);
    guest.says("echo mine > /tmp/mark");
    assert_eq!(other.says("ls /tmp/mark 2>/dev/null || echo none"), "none\n");

    // A second one ends the first.
    let first = std::mem::replace(&mut guest, Guest::of(&world, other.id.clone()));
    assert_eq!((validate(&other.token).0, validate(&guest.token).0), (false, true));
    assert!(other.refused().contains("unknown or expired"));
    let path = format!("/sandbox/{}/ssh-access", guest.id);
    world.api().delete(&format!("{path}?token={}", first.token)).expect(200);
    assert!(validate(&guest.token).0 && validate(&first.token).0, "another sandbox's token is none of this one's");
    world.api().delete(&path).expect(200);
    assert_eq!(validate(&guest.token), (false, String::new()));
    assert!(guest.refused().contains("unknown or expired"));

    for bad in ["0", "-1", "1.5", "x", "99999999"] {
        world.api().post(&format!("{path}?expiresInMinutes={bad}"), serde_json::json!({})).expect_error(400);
    }
    world.api().post("/sandbox/nobody/ssh-access", serde_json::json!({})).expect_error(404);

    // What does not run cannot be entered, and says so.
    world.api().post(&format!("/sandbox/{}/stop", first.id), serde_json::json!({})).expect(200);
    let why = eventually("it is stopped", LIMIT, || Some(first.refused()).filter(|why| why.contains("stopped")));
    assert!(why.contains(&first.id) && why.contains("start it first"), "{why}");
}

#[test]
fn the_server_is_known_again_after_a_restart() {
    let mut world = World::new("sshkey");
    let before = config(&world);
    let key = world.data_dir.join("db/ssh_host_ed25519_key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let id = world.sandbox();
    let token = Guest::of(&world, id.clone()).token;
    world.kill_server();
    world.restart();
    let after = config(&world);
    for field in ["sshGatewayHostKeys", "sshGatewayHostKeyFingerprints", "sshGatewayHost"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert!(before["sshGatewayHostKeyFingerprints"][0].as_str().unwrap().starts_with("SHA256:"));
    // Tokens are kept, too.
    let found = world.api().get(&format!("/sandbox/ssh-access/validate?token={token}")).expect(200).json();
    assert_eq!(found["valid"], true);
    assert_eq!(Guest::of(&world, id).says("echo again"), "again\n");
}

#[test]
fn a_server_without_ssh_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap().to_string();
    for listen in ["off", &taken_at] {
        let environment = vec![("INFIELD_SSH_LISTEN".to_owned(), listen.to_owned())];
        let world = World::with("sshoff", Options { environment, ..Options::default() });
        assert_eq!(config(&world)["sshGatewayPort"], Value::Null);
        let id = world.sandbox();
        let why = world.api().post(&format!("/sandbox/{id}/ssh-access"), serde_json::json!({})).expect_error(503);
        assert!(why.contains("--ssh-listen"), "{why}");
        let log = std::fs::read_to_string(world.log()).unwrap();
        assert_eq!(log.contains(&format!("cannot listen for SSH on {listen}")), listen != "off", "{log}");
    }
}

#[test]
fn what_a_client_started_ends_with_it() {
    let world = World::new("sshend");
    let guest = Guest::new(&world);
    for (options, seconds) in [(&[][..], 4241), (&["-tt"][..], 4242)] {
        let line = format!("sleep {seconds}");
        let mut ssh = guest.ssh(options, &[&line]);
        let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the command runs", LIMIT, || guest.has_process(&line).then_some(()));
        ssh.kill().unwrap();
        ssh.wait().unwrap();
        eventually("the command is gone", LIMIT, || (!guest.has_process(&line)).then_some(()));
    }
    assert!(!guest.world.sh(&guest.id, "ps -eo args").contains("sftp-server"));
}
