//! What goes wrong: failing, slow, vanishing and restarting runners, dying servers, dying agents; and time passing.

use crate::world::{
    World,
    sim::{Sim, Trouble, image},
};
use infield_api::{SandboxId, runner::*};
use serde_json::json;
use std::time::Duration;

fn id_of(sandbox: &serde_json::Value) -> SandboxId {
    sandbox["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_create_that_fails_is_400_with_the_reason_and_can_be_deleted() {
    let w = World::new().await;
    w.sim.trouble("create", Trouble::Fail(RunnerErrorKind::Exhausted, "no space left on the pool"));
    let failed = w.post("/sandbox", json!({"name": "s"})).await;
    assert_eq!(failed.status, 400);
    assert!(failed.json["message"].as_str().unwrap().contains("no space left on the pool"), "{}", failed.text);
    let s = w.get("/sandbox/s").await.json;
    assert_eq!((&s["state"], &s["errorReason"]), (&json!("error"), &json!("no space left on the pool")));
    assert_eq!(w.post("/sandbox/s/start", json!({})).await.status, 400);
    assert_eq!(w.post("/sandbox/s/stop", json!({})).await.status, 400);
    assert_eq!(w.delete("/sandbox/s").await.status, 200);
    assert_eq!(w.state(s["id"].as_str().unwrap()).await, "gone");
    w.until("destroyed on the host too", async |w| w.sim.count("destroy") == 1).await;
    w.sim.trouble("create", Trouble::Fail(RunnerErrorKind::Internal, "the host broke"));
    let broken = w.post("/sandbox", json!({"name": "t"})).await;
    assert_eq!(broken.status, 500, "what the caller did not cause is no 400: {}", broken.text);
}

#[tokio::test]
async fn a_runner_that_restarts_is_waited_for() {
    let w = World::new().await;
    w.sim.host().down = true;
    let sim = w.sim.clone();
    let back = tokio::spawn(async move {
        while sim.count("create") < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sim.host().down = false;
    });
    w.sandbox(json!({"name": "s"})).await;
    back.await.unwrap();
    w.sim.trouble("create", Trouble::LoseAnswer);
    w.sandbox(json!({"name": "lost answer"})).await;
    w.sim.trouble("stop", Trouble::LoseAnswer);
    w.post("/sandbox/s/stop", json!({})).await;
    w.until_state("s", "stopped").await;
    w.sim.trouble("start", Trouble::Fail(RunnerErrorKind::Unavailable, "restarting"));
    assert_eq!(w.post("/sandbox/s/start", json!({})).await.json["state"], "started");
    for _ in 0..3 {
        w.sim.trouble("destroy", Trouble::Fail(RunnerErrorKind::Internal, "busy"));
    }
    w.delete("/sandbox/s").await;
    w.until("gone in the end", async |w| w.sim.host().sandboxes.len() == 1).await;
}

#[tokio::test]
async fn start_of_a_sandbox_whose_files_are_gone_is_an_error() {
    let w = World::new().await;
    let s = w.sandbox(json!({"name": "s"})).await;
    w.post("/sandbox/s/stop", json!({})).await;
    w.until_state("s", "stopped").await;
    w.sim.host().sandboxes.remove(&id_of(&s));
    let failed = w.post("/sandbox/s/start", json!({})).await;
    assert_eq!(failed.status, 400, "{}", failed.text);
    assert_eq!(w.state("s").await, "error");
}

#[tokio::test]
async fn killed_while_creating_the_sandbox_still_gets_there() {
    for trouble in [Trouble::Slow(Duration::from_secs(600)), Trouble::SlowAnswer(Duration::from_secs(600))] {
        let mut w = World::new().await;
        w.sim.trouble("create", trouble);
        tokio::select! {
            _ = w.post("/sandbox", json!({"name": "s"})) => unreachable!("the runner does not answer"),
            () = w.until("the runner was called", async |w| w.sim.count("create") == 1) => {}
        }
        w.kill();
        let w = w.restarted().await;
        w.until_state("s", "started").await;
        assert_eq!(w.sim.host().sandboxes.len(), 1);
    }
}

#[tokio::test]
async fn killed_while_stopping_or_deleting_it_still_happens() {
    let w = World::new().await;
    w.sandbox(json!({"name": "a"})).await;
    let b = w.sandbox(json!({"name": "b"})).await;
    w.sim.trouble("stop", Trouble::Slow(Duration::from_secs(600)));
    w.sim.trouble("destroy", Trouble::SlowAnswer(Duration::from_secs(600)));
    w.post("/sandbox/a/stop", json!({})).await;
    w.delete("/sandbox/b").await;
    w.until("both under way", async |w| w.sim.count("stop") == 1 && w.sim.count("destroy") == 1).await;
    let w = w.restarted().await;
    w.until_state("a", "stopped").await;
    w.until_state(b["id"].as_str().unwrap(), "gone").await;
}

#[tokio::test]
async fn a_hundred_creates_and_a_kill_leave_nothing_half_made() {
    let mut w = World::new().await;
    for _ in 0..30 {
        w.sim.trouble("create", Trouble::Slow(Duration::from_millis(20)));
    }
    let creates = futures_util::future::join_all((0..100).map(|_| async {
        let body = http_body_util::Full::new(bytes::Bytes::from("{}"));
        let _ = w.send("POST", "/sandbox", body).await;
    }));
    tokio::select! {
        _ = creates => {}
        () = w.until("some are made", async |w| w.sim.host().sandboxes.len() > 20) => {}
    }
    w.kill();
    let w = w.restarted().await;
    w.until("every row is settled", async |w| w.store.unsettled_sandboxes().await.unwrap().is_empty()).await;
    let known = w.store.known_sandboxes().await.unwrap();
    w.until("the host holds what the rows say", async |w| w.sim.host().sandboxes.len() == known.len()).await;
    for (id, pair) in known {
        assert_eq!(pair.0.as_str(), "started");
        assert_eq!(w.sim.observed(id), Some(ObservedState::Running));
    }
}

#[tokio::test]
async fn sandboxes_that_die_by_themselves_are_noticed() {
    let w = World::new().await;
    let ids: Vec<SandboxId> = {
        let mut ids = Vec::new();
        for name in ["died", "exited", "vanished", "lives"] {
            ids.push(id_of(&w.sandbox(json!({"name": name})).await));
        }
        ids
    };
    {
        let mut host = w.sim.host();
        host.sandboxes.get_mut(&ids[0]).unwrap().1 = ObservedState::Failed { reason: "agent was killed (OOM)".into() };
        host.sandboxes.get_mut(&ids[1]).unwrap().1 = ObservedState::Stopped;
        host.sandboxes.remove(&ids[2]);
    }
    w.until_state("died", "error").await;
    assert_eq!(w.get("/sandbox/died").await.json["errorReason"], "agent was killed (OOM)");
    w.until_state("exited", "stopped").await;
    assert_eq!(w.get("/sandbox/exited").await.json["desiredState"], "stopped");
    w.until_state("vanished", "error").await;
    assert_eq!(w.state("lives").await, "started");
}

#[tokio::test]
async fn sandboxes_without_a_row_are_destroyed_but_not_when_the_database_is_new() {
    let sim = Sim::new();
    let spec = |name: &str| SandboxSpec {
        id: SandboxId::random(),
        name: name.to_owned(),
        image: "x".into(),
        user: None,
        env: Default::default(),
        labels: Default::default(),
        cpu: 1,
        memory_mib: 1,
        disk_mib: 1,
        network_block_all: false,
        entrypoint: vec![],
        volumes: vec![],
    };
    let (precious, orphan) = (spec("precious"), spec("orphan"));
    sim.host().sandboxes.insert(precious.id, (precious.clone(), ObservedState::Running));
    let w = World::quiet(sim).await.with_background().await;
    let lists = w.sim.count("list");
    w.until("it compared again", async |w| w.sim.count("list") > lists).await;
    assert_eq!(w.sim.count("destroy"), 0);
    w.sim.host().sandboxes.remove(&precious.id);
    w.sandbox(json!({})).await;
    w.sim.host().sandboxes.insert(orphan.id, (orphan.clone(), ObservedState::Running));
    w.until("the orphan is gone", async |w| w.sim.observed(orphan.id).is_none()).await;
    assert_eq!(w.sim.host().sandboxes.len(), 1);
}

const MINUTE_MS: i64 = 60_000;

#[tokio::test]
async fn idle_sandboxes_stop_and_touched_ones_do_not() {
    let w = World::quiet(Sim::new()).await;
    let idle = id_of(&w.sandbox(json!({"name": "idle", "autoStopInterval": 1})).await);
    let ephemeral = w.sandbox(json!({"autoStopInterval": 1, "autoDeleteInterval": 0})).await;
    w.sandbox(json!({"name": "never", "autoStopInterval": 0})).await;
    let busy = id_of(&w.sandbox(json!({"name": "busy", "autoStopInterval": 1})).await);
    let clock = async |id| w.store.sandbox(id).await.unwrap().unwrap().activity_ms;
    let (first, began, busy_began) = (clock(idle).await, clock(id_of(&ephemeral)).await, clock(busy).await);
    w.sweep(first + MINUTE_MS - 1).await;
    assert_eq!(w.state("idle").await, "started");
    // Touched until its clock is later than the others'.
    w.until("touched", async |w| {
        w.app.directory().touch(busy);
        w.sweep(0).await;
        clock(busy).await > busy_began.max(began)
    })
    .await;
    w.sweep(clock(busy).await + MINUTE_MS - 1).await;
    w.until_state("idle", "stopped").await;
    w.until_state(ephemeral["id"].as_str().unwrap(), "gone").await;
    assert_eq!(w.state("busy").await, "started");
    assert_eq!(w.state("never").await, "started");
    assert!(clock(idle).await > began);
}

#[tokio::test]
async fn stopped_sandboxes_are_deleted_after_their_interval_and_forgotten_after_a_day() {
    let w = World::quiet(Sim::new()).await;
    let s = w.sandbox(json!({"name": "s", "autoDeleteInterval": 5})).await;
    let id = id_of(&s);
    w.post("/sandbox/s/stop", json!({})).await;
    w.until_state("s", "stopped").await;
    let stopped = w.store.sandbox(id).await.unwrap().unwrap().activity_ms;
    w.sweep(stopped + 5 * MINUTE_MS - 1).await;
    assert_eq!(w.state("s").await, "stopped");
    w.sweep(stopped + 5 * MINUTE_MS).await;
    w.until_state(s["id"].as_str().unwrap(), "gone").await;
    w.until("destroyed", async |w| w.sim.host().sandboxes.is_empty()).await;
    w.until("written", async |w| {
        w.store.sandbox(id).await.unwrap().is_some_and(|row| row.state.as_str() == "destroyed")
    })
    .await;
    let destroyed = w.store.sandbox(id).await.unwrap().unwrap().updated_ms;
    w.sweep(destroyed + 24 * 60 * MINUTE_MS).await;
    assert!(w.store.sandbox(id).await.unwrap().is_some());
    w.sweep(destroyed + 24 * 60 * MINUTE_MS + 1).await;
    assert!(w.store.sandbox(id).await.unwrap().is_none());
}

#[tokio::test]
async fn an_image_that_left_the_host_is_no_snapshot_any_more() {
    let w = World::new().await;
    w.sim.host().images.push(image("old:1", None));
    let w = w.restarted().await;
    w.until("there", async |w| w.get("/snapshots/old:1").await.status == 200).await;
    w.sim.host().images.retain(|i| i.references[0] != "old:1");
    let w = w.restarted().await;
    w.until("gone", async |w| w.get("/snapshots/old:1").await.status == 404).await;
}
