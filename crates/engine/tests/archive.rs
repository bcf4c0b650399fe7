//! Sandboxes put away and brought back, on the real kernel.

#![allow(clippy::unwrap_used)]

mod support;

use infield_api::SandboxId;
use infield_api::runner::{ObservedState, Runner, RunnerErrorKind, RunnerRequest, SandboxSpec};
use infield_engine::disk::Backend;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use support::process::{RunnerProcess, connect, receive, send};
use support::{Footprint, World, eventually};

/// Deleted and replaced files of the image, links, holes, odd names and modes.
const MAKE: &str = "rm /bin/mknod; mkdir -p /d/e; echo text > /d/e/f; ln /d/e/f /d/hard; ln -s e/f /d/soft; \
                    echo x > '/d/a b'; head -c 3000000 /dev/urandom > /d/random; head -c 1000 /dev/zero > /d/zero; \
                    umask 077; mkdir /d/private; echo secret > /d/private/x; rm -rf /usr/bin; mkdir /usr/bin";

/// Everything of the writable layer that can be seen, without what every start writes anew.
fn seen(world: &World, id: SandboxId) -> String {
    let script = "cd \"$1\" && find . -path ./etc -prune -o -type c -printf '%p|c|%m\\n' -o -printf '%p|%y|%m|%U:%G|%T@|%l|%n\\n' | sort && \
                  find . -path ./etc -prune -o -type f -print0 | sort -z | xargs -0 sha256sum";
    let upper = world.data.join(format!("pool/{id}/u"));
    let out = Command::new("sh").args(["-c", script, "sh"]).arg(upper).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn file(world: &World, id: SandboxId) -> PathBuf {
    world.data.join(format!("archive/{id}.tar.zst"))
}

fn stopped(world: &World) -> SandboxSpec {
    let spec = world.sandbox();
    assert_eq!(world.sh(spec.id, MAKE).0, 0);
    world.runtime.block_on(world.engine().stop(spec.id, true)).unwrap();
    spec
}

fn archive(world: &World, id: SandboxId) {
    world.runtime.block_on(world.engine().archive(id)).unwrap();
}

fn start(world: &World, spec: &SandboxSpec) {
    world.runtime.block_on(world.engine().start(spec.clone())).unwrap();
}

fn there_and_back(backend: Backend, name: &str) {
    let mut world = World::empty(name);
    world.backend = backend;
    world.open();
    let spec = stopped(&world);
    let id = spec.id;
    // What no shell of the image can make.
    let hole = std::fs::File::create(world.data.join(format!("pool/{id}/u/d/hole"))).unwrap();
    hole.set_len(64 << 20).unwrap();
    drop(hole);
    let before = seen(&world, id);
    assert!(before.contains("./bin/mknod|c|") && before.contains("./d/hard|f|644|0:0|"), "{before}");
    archive(&world, id);
    archive(&world, id);
    assert_eq!(world.state(id), ObservedState::Archived);
    let size = std::fs::metadata(file(&world, id)).unwrap().len();
    assert!((3_000_000..3_500_000).contains(&size), "{size}");
    assert!(!world.data.join(format!("pool/{id}/u")).exists());
    let engine = world.engine();
    world.runtime.block_on(async {
        let kind = |error: infield_api::runner::RunnerError| error.kind;
        let conflict = Err(RunnerErrorKind::Conflict);
        assert_eq!(engine.connect(id).await.map(drop).map_err(kind), conflict);
        assert_eq!(engine.pause(id).await.map_err(kind), conflict);
        assert_eq!(engine.fork(id, world.spec()).await.map(drop).map_err(kind), conflict);
        engine.stop(id, true).await.unwrap();
        engine.resize(SandboxSpec { disk_mib: 300, ..spec.clone() }).await.unwrap();
        assert_eq!(engine.stats(id).await.unwrap().disk_bytes, 0);
    });
    world.leave();
    world.open();
    assert_eq!(world.state(id), ObservedState::Archived);
    start(&world, &spec);
    assert_eq!(seen(&world, id), before);
    assert!(!file(&world, id).exists());
    let (_, out) = world.sh(id, "cat /d/e/f /d/soft '/d/a b'; ls /bin/mknod /usr/bin 2> /dev/null; cat /etc/hostname");
    assert_eq!(out, "text\ntext\nx\n/usr/bin:\ntest-box\n");
    // A second round, and then it goes for good.
    world.runtime.block_on(world.engine().stop(id, true)).unwrap();
    archive(&world, id);
    world.runtime.block_on(world.engine().destroy(id)).unwrap();
    assert!(!file(&world, id).exists());
    assert_eq!(std::fs::read_dir(world.data.join("archive")).unwrap().count(), 0);
    assert!(world.runtime.block_on(world.engine().list()).unwrap().is_empty());
}

#[test]
fn archives_hold_everything() {
    there_and_back(Backend::Auto, "archive");
}

#[test]
fn archives_of_images_hold_everything() {
    there_and_back(Backend::Ext4Loop, "archive-ext4");
}

#[test]
fn what_cannot_be_put_away_or_brought_back_is_not_lost() {
    let world = World::new("noarchive");
    let running = world.sandbox();
    let kind = |error: infield_api::runner::RunnerError| error.kind;
    let archived = |id| world.runtime.block_on(world.engine().archive(id)).map_err(kind);
    let started =
        |spec: &SandboxSpec| world.runtime.block_on(world.engine().start(spec.clone())).map(drop).map_err(kind);
    assert_eq!(archived(running.id), Err(RunnerErrorKind::Conflict));
    assert_eq!(archived(SandboxId::random()), Err(RunnerErrorKind::NotFound));
    let spec = stopped(&world);
    let before = seen(&world, spec.id);
    // No room for the archive.
    let folder = world.data.join("archive");
    std::fs::create_dir_all(&folder).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "infield-test"]).arg(&folder).status();
    assert!(mount.unwrap().success());
    let full = archived(spec.id);
    assert!(Command::new("umount").arg(&folder).status().unwrap().success());
    assert_eq!(full, Err(RunnerErrorKind::Exhausted));
    assert_eq!((world.state(spec.id), seen(&world, spec.id)), (ObservedState::Stopped, before.clone()));
    // An archive that cannot be read, and an image that cannot be found.
    archive(&world, spec.id);
    let path = file(&world, spec.id);
    let whole = std::fs::read(&path).unwrap();
    for damaged in
        [&whole[..whole.len() / 2], &whole[..whole.len() - 3], &[&whole[..1000], &[0; 9], &whole[1009..]].concat()]
    {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(started(&spec), Err(RunnerErrorKind::Internal));
        assert_eq!(world.state(spec.id), ObservedState::Archived);
        assert!(!world.data.join(format!("pool/{}/u", spec.id)).exists());
    }
    std::fs::write(&path, &whole).unwrap();
    start(&world, &spec);
    assert_eq!(seen(&world, spec.id), before);
}

#[test]
fn a_runner_killed_at_any_moment_leaves_one_good_copy() {
    let mut world = World::new("killarchive");
    let spec = stopped(&world);
    let before = seen(&world, spec.id);
    let mut found = [0, 0];
    for round in 0..16 {
        world.leave();
        let runner = RunnerProcess::start(&world);
        let mut stream = connect(&world);
        send(&mut stream, 0, RunnerRequest::Archive { id: spec.id });
        std::thread::sleep(Duration::from_millis(round * 3));
        if round % 4 == 3 {
            receive(&mut stream);
            send(&mut stream, 1, RunnerRequest::Start(Box::new(spec.clone())));
            std::thread::sleep(Duration::from_millis(round * 2));
        }
        runner.kill();
        let recovery = world.open();
        let archived = match world.state(spec.id) {
            ObservedState::Archived => true,
            ObservedState::Stopped | ObservedState::Running => false,
            ObservedState::Failed { reason } => panic!("{reason} {recovery:?}"),
            ObservedState::Paused => panic!("paused"),
        };
        found[usize::from(archived)] += 1;
        let left: Vec<_> = std::fs::read_dir(world.data.join("archive")).into_iter().flatten().flatten().collect();
        assert_eq!(left.len(), usize::from(archived), "{left:?}");
        assert_eq!(world.data.join(format!("pool/{}/u", spec.id)).exists(), !archived);
        start(&world, &spec);
        assert_eq!(seen(&world, spec.id), before, "round {round}");
        world.runtime.block_on(world.engine().stop(spec.id, true)).unwrap();
    }
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    world.runtime.block_on(world.engine().destroy(spec.id)).unwrap();
    eventually("only the pool is left", || Footprint::of(&world).groups <= 5);
}
