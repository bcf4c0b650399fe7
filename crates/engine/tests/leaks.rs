//! Many sandboxes come and go; nothing of them stays. Alone in its file, because it counts this process's descriptors.

#![allow(clippy::unwrap_used)]

mod support;

use infield_api::runner::Runner;
use std::time::Duration;
use support::{Footprint, World, eventually};

#[test]
fn two_hundred_cycles_leave_nothing() {
    let world = World::new("cycles");
    let cycle = |parallel: usize| {
        world.runtime.block_on(async {
            let tasks: Vec<_> = (0..parallel)
                .map(|_| {
                    let (engine, spec) = (world.engine().clone(), world.spec());
                    tokio::spawn(async move {
                        engine.create(spec.clone()).await?;
                        engine.destroy(spec.id).await
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
        });
    };
    cycle(10);
    // The pools fill themselves again and dead networks go in the background: compare when all are at rest. Of the four slots
    // each has a sandbox in it that is kept ready, and one more is empty.
    let at_rest = || {
        let now = Footprint::of(&world);
        (now.links == 5 && now.groups == 5 && now.disks == 4 && now.sockets == 4).then_some(now)
    };
    let mut before = None;
    eventually("the world comes to rest", || {
        before = at_rest();
        before.is_some()
    });
    (0..20).for_each(|_| cycle(10));
    eventually("everything is as before", || {
        std::thread::sleep(Duration::from_millis(100));
        at_rest() == before
    });
}
