//! Volumes on the real kernel: they outlive sandboxes, many see them at once, their limit bites, and nothing a sandbox
//! arranged leads a mount astray.

#![allow(clippy::unwrap_used)]

mod support;

use infield_api::SandboxId;
use infield_api::runner::{Runner, RunnerError, RunnerErrorKind, SandboxSpec, VolumeMount};
use support::World;

const MINE: &str = "6b1f2c1e-7d6a-4c8e-9c7b-2f5a1a0d3e44";

fn at(path: &str, subpath: Option<&str>) -> VolumeMount {
    VolumeMount { volume: MINE.into(), path: path.into(), subpath: subpath.map(str::to_owned) }
}

trait Volumes {
    fn make(&self, size_mib: u64) -> Result<(), RunnerError>;
    fn unmake(&self) -> Result<(), RunnerError>;
    fn with(&self, volumes: Vec<VolumeMount>) -> Result<SandboxId, RunnerError>;
    fn run<T>(&self, verb: impl Future<Output = Result<T, RunnerError>>) -> Result<T, RunnerError>;
}

impl Volumes for World {
    fn make(&self, size_mib: u64) -> Result<(), RunnerError> {
        self.run(self.engine().create_volume(MINE.into(), size_mib))
    }
    fn unmake(&self) -> Result<(), RunnerError> {
        self.run(self.engine().remove_volume(MINE.into()))
    }
    fn with(&self, volumes: Vec<VolumeMount>) -> Result<SandboxId, RunnerError> {
        let spec = SandboxSpec { volumes, ..self.spec() };
        self.run(self.engine().create(spec.clone())).map(|_| spec.id)
    }
    fn run<T>(&self, verb: impl Future<Output = Result<T, RunnerError>>) -> Result<T, RunnerError> {
        self.runtime.block_on(verb)
    }
}

#[test]
fn many_see_one_volume_and_it_outlives_them() {
    let mut world = World::new("volumes");
    world.make(64).unwrap();
    world.make(64).unwrap();
    let one = world.with(vec![at("/mnt/deep/data", None)]).unwrap();
    let two = world.with(vec![at("/data", None), at("/part", Some("a/b"))]).unwrap();
    assert_eq!(world.sh(one, "echo hello > /mnt/deep/data/file && ls -ln /mnt/deep/data/file").0, 0);
    let (_, seen) = world.sh(two, "cat /data/file; ls -ldn /data/file");
    assert!(seen.starts_with("hello\n") && seen.contains(" 0 0 "), "its owner is root in both: {seen}");
    assert_eq!(world.sh(two, "echo part > /part/x && cat /data/a/b/x").1, "part\n");
    let (_, mounts) = world.sh(two, "cat /proc/self/mountinfo");
    assert!(mounts.contains(" /data rw,nosuid,nodev"), "{mounts}");

    let error = world.unmake().unwrap_err();
    assert_eq!(error.kind, RunnerErrorKind::Conflict, "{error}");
    // A stopped sandbox finds it again, and so does another runner.
    world.run(world.engine().stop(one, true)).unwrap();
    world.leave();
    world.open();
    let spec = SandboxSpec { id: one, volumes: vec![at("/mnt/deep/data", None)], ..world.spec() };
    world.run(world.engine().start(spec)).unwrap();
    assert_eq!(world.sh(one, "cat /mnt/deep/data/file").1, "hello\n");
    for id in [one, two] {
        world.run(world.engine().destroy(id)).unwrap();
    }
    let three = world.with(vec![at("/data", None)]).unwrap();
    assert_eq!(world.sh(three, "cat /data/file /data/a/b/x").1, "hello\npart\n");
    world.run(world.engine().destroy(three)).unwrap();
    world.unmake().unwrap();
    world.unmake().unwrap();
    assert_eq!(world.with(vec![at("/data", None)]).unwrap_err().kind, RunnerErrorKind::NotFound);
}

#[test]
fn the_limit_bites_and_the_sandboxs_own_disk_stays_usable() {
    let world = World::new("volumefull");
    world.make(32).unwrap();
    let id = world.with(vec![at("/data", None)]).unwrap();
    let (code, out) = world.sh(id, "head -c 67108864 /dev/zero > /data/big; echo $?; echo own > /own && cat /own");
    assert!(code == 0 && out.starts_with("1\nown\n"), "{out}");
    world.run(world.engine().destroy(id)).unwrap();
    world.unmake().unwrap();
}

#[test]
fn a_mount_goes_where_it_was_wanted_or_nowhere() {
    let world = World::new("volumebad");
    world.make(32).unwrap();
    let invalid = |mount: VolumeMount| {
        let error = world.with(vec![mount]).unwrap_err();
        assert_eq!(error.kind, RunnerErrorKind::Invalid, "{error}");
    };
    for path in ["relative", "/", "", "/a/../etc", "/./a", "/bin/sh", "/bin/sh/x"] {
        invalid(at(path, None));
    }
    for subpath in ["../x", "a/../../x", "."] {
        invalid(at("/data", Some(subpath)));
    }
    invalid(VolumeMount { volume: "../images".into(), ..at("/data", None) });

    // Links that somebody left on either side lead nowhere.
    let id = world.with(vec![at("/data", None)]).unwrap();
    let (code, out) = world.sh(id, "ln -s / /data/root; ln -s ../../etc /data/etc; mkdir /new; ln -s /new /way");
    assert_eq!(code, 0, "{out}");
    invalid(at("/data", Some("root")));
    invalid(at("/data", Some("etc/x")));
    world.run(world.engine().stop(id, true)).unwrap();
    let astray = SandboxSpec { id, volumes: vec![at("/way/data", None)], ..world.spec() };
    assert_eq!(world.run(world.engine().start(astray)).unwrap_err().kind, RunnerErrorKind::Invalid);
    let back = SandboxSpec { id, volumes: vec![at("/new/data", None)], ..world.spec() };
    world.run(world.engine().start(back)).unwrap();
    assert_eq!(world.sh(id, "ls /new/data").1, "etc\nroot\n");
    world.run(world.engine().destroy(id)).unwrap();
    world.unmake().unwrap();
}
