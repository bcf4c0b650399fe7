//! A thousand sandboxes made, used and deleted, and everything back at the baseline.
//!
//! `INFIELD_SOAK_CYCLES` shortens it while developing; 1,000 is what counts.

use infield_tests::{World, eventually, footprint, process};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

const CYCLES: usize = 1000;
const IN_FLIGHT: usize = 8;
const WARM_UP: usize = 40;

/// What must not grow.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Level {
    mounts: usize,
    host_mounts: usize,
    links: usize,
    cgroups: usize,
    loops: usize,
    processes: usize,
    records: usize,
    sockets: usize,
    descriptors: usize,
    pool_mib: u64,
}

/// Sandboxes a server keeps ready when it is told nothing.
const KEPT_READY: usize = 64;
/// File descriptors may sit in keep-alive connections, disk bytes in a log; both are bounded, not exact.
const DESCRIPTOR_SLACK: usize = 24;
const POOL_SLACK_MIB: u64 = 16;

impl Level {
    fn now(world: &World) -> Self {
        let processes = footprint::processes(&world.data_dir, &world.tag);
        let descriptors = ["api-worker", "runner"].iter().filter_map(|role| world.role(role)).map(|p| p.pid);
        let descriptors = descriptors.chain([world.supervisor()]);
        let open = |pid: i32| footprint::files(format!("/proc/{pid}/fd").as_ref()).len();
        let mut cgroups = 0;
        for root in footprint::cgroups(&world.tag) {
            cgroups += 1 + footprint::files(&root).iter().filter(|path| path.is_dir()).count();
        }
        Self {
            mounts: footprint::mounts(&world.data_dir).len(),
            host_mounts: std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
            links: footprint::links(&world.tag).len(),
            cgroups,
            loops: footprint::loops(&world.data_dir).len(),
            processes: processes.len(),
            records: footprint::files(&world.data_dir.join("sandboxes")).len(),
            sockets: footprint::files(&world.data_dir.join("run/agents")).len(),
            descriptors: descriptors.map(open).sum(),
            pool_mib: used_mib(world),
        }
    }

    /// No worse than the baseline.
    fn is_back_at(&self, baseline: &Self) -> bool {
        self.mounts <= baseline.mounts
            && self.links <= baseline.links
            && self.cgroups <= baseline.cgroups
            && self.loops <= baseline.loops
            && self.processes <= baseline.processes
            && self.records == 0
            && self.sockets <= baseline.sockets
            && self.descriptors <= baseline.descriptors + DESCRIPTOR_SLACK
            && self.pool_mib <= baseline.pool_mib + POOL_SLACK_MIB
    }
}

/// Space in use on the file system of the sandboxes' disks.
fn used_mib(world: &World) -> u64 {
    let pool = world.data_dir.join("pool");
    let stat = rustix::fs::statvfs(&pool).unwrap();
    ((stat.f_blocks - stat.f_bfree) * stat.f_frsize) >> 20
}

fn cycles(world: &World, number: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..IN_FLIGHT {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < number {
                    let id = world.sandbox();
                    assert_eq!(world.sh(&id, "echo hi > f; cat f"), "hi\n");
                    world.api().delete(&format!("/sandbox/{id}")).expect(200);
                }
            });
        }
    });
    eventually("every sandbox is gone", Duration::from_secs(60), || world.listed().is_empty().then_some(()));
}

#[test]
fn a_thousand_cycles_leave_the_machine_as_it_was() {
    let world = World::new("soak");
    let number = std::env::var("INFIELD_SOAK_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(CYCLES);
    cycles(&world, WARM_UP);
    let mut baseline = Level::now(&world);
    eventually("the warm-up settles", Duration::from_secs(30), || {
        thread::sleep(Duration::from_millis(250));
        let previous = std::mem::replace(&mut baseline, Level::now(&world));
        (previous == baseline && baseline.records == 0 && baseline.sockets == KEPT_READY).then_some(())
    });
    let zombies = zombies();
    let start = Instant::now();
    cycles(&world, number);
    let took = start.elapsed();
    println!("{number} cycles in {took:?}: {:.0} each second", number as f64 / took.as_secs_f64());
    let mut last = baseline.clone();
    for _ in 0..120 {
        last = Level::now(&world);
        if last.is_back_at(&baseline) {
            break;
        }
        thread::sleep(Duration::from_millis(250));
    }
    println!("before {baseline:?}\nafter  {last:?}");
    assert!(last.is_back_at(&baseline), "before {baseline:?}\nafter  {last:?}");
    assert!(self::zombies() <= zombies, "dead processes that nobody waited for");
}

/// Dead children of this machine's processes that were not reaped.
fn zombies() -> usize {
    process::all().iter().filter(|p| p.arguments.is_empty() && state(p.pid) == Some('Z')).count()
}

fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}
