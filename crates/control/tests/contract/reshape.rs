//! Pause, archive, resize, fork and snapshot from a sandbox; clocks of pause, archive and end of life; links; usage.

use crate::world::{
    World,
    sim::{Sim, Trouble},
};
use infield_api::{SandboxId, runner::*};
use serde_json::{Value, json};
use std::time::Duration;

const MINUTE_MS: i64 = 60_000;

fn id_of(sandbox: &Value) -> SandboxId {
    sandbox["id"].as_str().unwrap().parse().unwrap()
}

async fn act(w: &World, name: &str, verb: &str) -> (u16, Value) {
    let answer = w.post(&format!("/sandbox/{name}/{verb}"), json!({})).await;
    (answer.status, answer.json)
}

#[tokio::test]
async fn pause_and_resume() {
    let w = World::new().await;
    let id = id_of(&w.sandbox(json!({"name": "s"})).await);
    let token = async || w.store.sandbox(id).await.unwrap().unwrap().auth_token;
    let first = token().await;
    let (status, paused) = act(&w, "s", "pause").await;
    assert_eq!((status, &paused["state"], &paused["desiredState"]), (200, &json!("paused"), &json!("paused")));
    assert_eq!(w.sim.observed(id), Some(ObservedState::Paused));
    assert_eq!(act(&w, "s", "pause").await.0, 400);
    assert_eq!(act(&w, "s", "resize").await.0, 400);
    assert_eq!(act(&w, "s", "start").await.1["state"], "started");
    assert_eq!(w.sim.observed(id), Some(ObservedState::Running));
    assert_eq!(token().await, first, "a resume keeps the preview token");
    act(&w, "s", "pause").await;
    let (status, stopping) = act(&w, "s", "stop").await;
    assert_eq!((status, &stopping["state"]), (200, &json!("stopping")));
    w.until_state("s", "stopped").await;
    assert_eq!(act(&w, "s", "pause").await.0, 400);
    assert_eq!(act(&w, "s", "start").await.0, 200);
    act(&w, "s", "pause").await;
    assert_eq!(w.delete("/sandbox/s").await.json["state"], "paused", "as stored");
    w.until_state(&id.to_string(), "gone").await;
}

#[tokio::test]
async fn a_pause_or_resume_that_fails_leaves_what_was_and_says_why() {
    let w = World::new().await;
    let id = id_of(&w.sandbox(json!({"name": "s"})).await);
    w.sim.trouble("pause", Trouble::Fail(RunnerErrorKind::Internal, "the freezer is broken"));
    let (status, error) = act(&w, "s", "pause").await;
    assert_eq!((status, &error["message"]), (500, &json!("the freezer is broken")));
    assert_eq!(w.state("s").await, "started");
    w.sim.trouble("pause", Trouble::LoseAnswer);
    assert_eq!(act(&w, "s", "pause").await.1["state"], "paused", "asked again");
    w.sim.trouble("resume", Trouble::Fail(RunnerErrorKind::Internal, "the freezer is broken"));
    assert_eq!(act(&w, "s", "start").await.0, 500);
    assert_eq!(w.state("s").await, "paused");
    // The host did it and said it did not: what it shows counts.
    w.sim.host().sandboxes.get_mut(&id).unwrap().1 = ObservedState::Running;
    w.until_state("s", "started").await;
    w.sim.host().sandboxes.get_mut(&id).unwrap().1 = ObservedState::Paused;
    w.until_state("s", "paused").await;
    w.sim.host().sandboxes.get_mut(&id).unwrap().1 = ObservedState::Stopped;
    w.until_state("s", "stopped").await;
}

#[tokio::test]
async fn archive_and_restore() {
    let w = World::new().await;
    let id = id_of(&w.sandbox(json!({"name": "s"})).await);
    assert_eq!(act(&w, "s", "archive").await.0, 400, "it runs");
    act(&w, "s", "stop").await;
    w.until_state("s", "stopped").await;
    let (status, s) = act(&w, "s", "archive").await;
    assert_eq!((status, &s["state"], &s["desiredState"]), (200, &json!("archiving"), &json!("archived")));
    w.until_state("s", "archived").await;
    assert!(w.get("/sandbox/s").await.json["runnerId"].is_null());
    assert_eq!(w.sim.observed(id), Some(ObservedState::Archived));
    assert_eq!(act(&w, "s", "archive").await.0, 400);
    assert_eq!(act(&w, "s", "stop").await.0, 400);
    w.sim.trouble("start", Trouble::Slow(Duration::from_millis(300)));
    let (status, s) = act(&w, "s", "start").await;
    assert_eq!((status, &s["state"]), (200, &json!("restoring")), "nobody waits for it");
    assert!(s["runnerId"].is_string());
    assert_eq!(w.delete("/sandbox/s").await.status, 409);
    w.until_state("s", "started").await;
    assert_eq!(w.sim.observed(id), Some(ObservedState::Running));
    let ephemeral = w.sandbox(json!({"name": "e"})).await;
    act(&w, "e", "stop").await;
    w.until_state("e", "stopped").await;
    act(&w, "e", "autodelete/0").await;
    assert_eq!(act(&w, "e", "archive").await.0, 400, "{ephemeral}");
}

#[tokio::test]
async fn archiving_can_be_given_up_deleted_and_fail() {
    let w = World::new().await;
    for name in ["back", "gone", "broken"] {
        w.sandbox(json!({"name": name})).await;
        act(&w, name, "stop").await;
        w.until_state(name, "stopped").await;
    }
    w.sim.trouble("archive", Trouble::Slow(Duration::from_millis(300)));
    act(&w, "back", "archive").await;
    assert_eq!(act(&w, "back", "start").await.1["state"], "archiving");
    w.until_state("back", "started").await;
    w.sim.trouble("archive", Trouble::Slow(Duration::from_millis(300)));
    act(&w, "gone", "archive").await;
    let gone = w.delete("/sandbox/gone").await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    w.until_state(gone.json["id"].as_str().unwrap(), "gone").await;
    w.sim.trouble("archive", Trouble::Fail(RunnerErrorKind::Invalid, "no room in the archive"));
    act(&w, "broken", "archive").await;
    w.until_state("broken", "error").await;
    let s = w.get("/sandbox/broken").await.json;
    assert_eq!(s["recoverable"], true);
    assert!(s["errorReason"].as_str().unwrap().contains("no room in the archive"), "{s}");
    assert_eq!(act(&w, "broken", "recover").await.1["state"], "started");
}

#[tokio::test]
async fn resize_in_the_contracts_order_of_checks() {
    let w = World::new().await;
    let id = id_of(&w.sandbox(json!({"name": "s"})).await);
    let resize = async |body: Value| w.post("/sandbox/s/resize", body).await;
    let cases = [
        (json!({}), "Give"),
        (json!({"cpu": 0}), "less than 1"),
        (json!({"disk": 5}), "stop it first"),
        (json!({"cpu": 1}), "already"),
        (json!({"cpu": 99}), "maximum of 4"),
    ];
    for (body, part) in &cases {
        let answer = resize(body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json["message"].as_str().unwrap().contains(part), "{}", answer.text);
    }
    let bigger = resize(json!({"cpu": 2, "memory": 2})).await;
    assert_eq!((bigger.status, &bigger.json["cpu"], &bigger.json["memory"]), (200, &json!(2), &json!(2)));
    assert_eq!(bigger.json["state"], "started");
    assert_eq!(w.sim.host().sandboxes[&id].0.memory_mib, 2048);
    assert_eq!(resize(json!({"cpu": 1})).await.status, 400, "not smaller while it runs");
    act(&w, "s", "stop").await;
    w.until_state("s", "stopped").await;
    assert_eq!(resize(json!({"disk": 2})).await.status, 400);
    let other = resize(json!({"cpu": 1, "disk": 5})).await;
    assert_eq!((other.status, &other.json["disk"], &other.json["state"]), (200, &json!(5), &json!("stopped")));
    w.sim.trouble("resize", Trouble::Fail(RunnerErrorKind::Exhausted, "no room"));
    assert_eq!(resize(json!({"disk": 6})).await.status, 400);
    let now = w.get("/sandbox/s").await.json;
    assert_eq!((&now["disk"], &now["state"]), (&json!(5), &json!("stopped")));
}

#[tokio::test]
async fn a_fork_has_the_files_and_settings_of_its_parent() {
    let w = World::new().await;
    let body = json!({"name": "p", "env": {"A": "b"}, "labels": {"l": "m"}, "autoStopInterval": 7, "ttlMinutes": 9});
    let parent = w.sandbox(body).await;
    w.sim.host().files.insert(id_of(&parent), vec![1, 2]);
    let forked = w.post("/sandbox/p/fork", json!({"name": "c"})).await;
    assert_eq!(forked.status, 200, "{}", forked.text);
    let child = &forked.json;
    assert_eq!(
        json!([child["state"], child["name"], child["env"], child["labels"]]),
        json!(["started", "c", {"A": "b"}, {"l": "m"}])
    );
    assert_eq!((child["autoStopInterval"].as_i64(), child["autoDestroyAt"].is_null()), (Some(7), true));
    assert_eq!(w.sim.host().files[&id_of(child)], [1, 2]);
    assert_eq!(w.state("p").await, "started");
    assert_eq!(w.post("/sandbox/p/fork", json!({"name": "c"})).await.status, 409);
    let grandchild = w.post("/sandbox/c/fork", json!({})).await.json;
    assert_eq!(grandchild["name"], grandchild["id"]);
    let forks = w.get("/sandbox/p/forks").await.json;
    assert_eq!((forks.as_array().unwrap().len(), &forks[0]["id"]), (1, &child["id"]));
    assert_eq!(w.get("/sandbox/c/parent").await.json["name"], "p");
    assert_eq!(w.get("/sandbox/p/parent").await.status, 404);
    let of = format!("/sandbox/{}/ancestors", grandchild["id"].as_str().unwrap());
    let names: Vec<Value> = w.get(&of).await.json.as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names, ["p", "c"]);
    let refused = w.delete("/sandbox/p").await;
    assert_eq!((refused.status, refused.json["message"].as_str().unwrap().contains("forks")), (400, true));
    for name in [grandchild["id"].as_str().unwrap(), "c", "p"] {
        assert_eq!(w.delete(&format!("/sandbox/{name}")).await.status, 200);
    }
    w.until("gone", async |w| w.sim.host().sandboxes.is_empty()).await;
    assert_eq!(w.get("/sandbox/p/forks").await.status, 404);
    w.sandbox(json!({"name": "q"})).await;
    act(&w, "q", "stop").await;
    w.until_state("q", "stopped").await;
    assert_eq!(act(&w, "q", "fork").await.0, 400);
}

#[tokio::test]
async fn a_fork_that_fails_or_is_cut_off_wedges_nobody() {
    let mut w = World::new().await;
    w.sandbox(json!({"name": "p"})).await;
    w.sim.trouble("fork", Trouble::Fail(RunnerErrorKind::Exhausted, "no room"));
    let failed = w.post("/sandbox/p/fork", json!({"name": "c"})).await;
    assert_eq!((failed.status, failed.json["message"].as_str().unwrap().contains("no room")), (400, true));
    assert_eq!((w.state("p").await, w.state("c").await), ("started".into(), "error".into()));
    assert_eq!(w.delete("/sandbox/c").await.status, 200);
    w.sim.trouble("fork", Trouble::SlowAnswer(Duration::from_secs(600)));
    tokio::select! {
        _ = w.post("/sandbox/p/fork", json!({"name": "d"})) => unreachable!("the runner does not answer"),
        () = w.until("the runner was called", async |w| w.sim.count("fork") == 2) => {}
    }
    assert_eq!((w.state("p").await, w.state("d").await), ("forking".into(), "creating".into()));
    w.kill();
    let w = w.restarted().await;
    w.until_state("d", "started").await;
    w.until_state("p", "started").await;
    assert_eq!(w.sim.host().sandboxes.len(), 2);
}

#[tokio::test]
async fn a_snapshot_of_a_sandbox_is_the_callers_alone_and_sandboxes_are_made_from_it() {
    let w = World::new().await;
    let s = w.sandbox(json!({"name": "s"})).await;
    w.sim.host().files.insert(id_of(&s), vec![7]);
    w.sim.trouble("snapshot", Trouble::Slow(Duration::from_millis(300)));
    let begun = w.post("/sandbox/s/snapshot", json!({"name": "mine:1"})).await;
    assert_eq!((begun.status, &begun.json["state"]), (200, &json!("snapshotting")), "{}", begun.text);
    let made = w.get("/snapshots/mine:1").await.json;
    assert_eq!((&made["state"], &made["sourceSandboxId"]), (&json!("snapshotting"), &s["id"]));
    assert_eq!(w.post("/sandbox/s/snapshot", json!({"name": "other"})).await.status, 400);
    w.until("active", async |w| w.get("/snapshots/mine:1").await.json["state"] == "active").await;
    w.until_state("s", "started").await;
    let made = w.get("/snapshots/mine:1").await.json;
    assert_eq!((&made["general"], &made["cpu"]), (&json!(false), &json!(1)));
    assert_eq!(w.post("/sandbox/s/snapshot", json!({"name": "mine:1"})).await.status, 409);
    assert_eq!(w.post("/sandbox/s/snapshot", json!({"name": "m", "includeMemory": true})).await.status, 400);
    let from = w.sandbox(json!({"snapshot": "mine:1"})).await;
    assert_eq!(w.sim.host().files[&id_of(&from)], [7]);
    assert_eq!(w.delete(&format!("/snapshots/{}", made["id"].as_str().unwrap())).await.status, 200);
    w.until("its image is gone", async |w| w.sim.host().images.iter().all(|i| i.pulled.is_empty())).await;
    w.sim.trouble("snapshot", Trouble::Fail(RunnerErrorKind::Internal, "no room"));
    assert_eq!(w.post("/sandbox/s/snapshot", json!({"name": "lost"})).await.status, 200);
    w.until("error", async |w| w.get("/snapshots/lost").await.json["state"] == "error").await;
    w.until_state("s", "started").await;
}

#[tokio::test]
async fn a_crash_while_resizing_or_making_a_snapshot_is_made_good() {
    let mut w = World::new().await;
    for name in ["r", "s"] {
        w.sandbox(json!({"name": name})).await;
    }
    w.sim.trouble("resize", Trouble::SlowAnswer(Duration::from_secs(600)));
    w.sim.trouble("snapshot", Trouble::Slow(Duration::from_secs(600)));
    assert_eq!(w.post("/sandbox/s/snapshot", json!({"name": "mine"})).await.status, 200);
    tokio::select! {
        _ = w.post("/sandbox/r/resize", json!({"cpu": 3})) => unreachable!("the runner does not answer"),
        () = w.until("called", async |w| w.sim.count("resize") == 1 && w.sim.count("snapshot") == 1) => {}
    }
    w.kill();
    let w = w.restarted().await;
    w.until_state("r", "started").await;
    w.until_state("s", "started").await;
    assert_eq!(w.get("/sandbox/r").await.json["cpu"], 3);
    assert_eq!(w.get("/snapshots/mine").await.json["state"], "active");
}

#[tokio::test]
async fn clocks_pause_archive_and_end_lives() {
    let w = World::quiet(Sim::new()).await;
    let idle = id_of(&w.sandbox(json!({"name": "idle", "autoPauseInterval": 1})).await);
    assert_eq!(w.get("/sandbox/idle").await.json["autoStopInterval"], 0);
    let clock = async |id| w.store.sandbox(id).await.unwrap().unwrap().activity_ms;
    w.sweep(clock(idle).await + MINUTE_MS - 1).await;
    assert_eq!(w.state("idle").await, "started");
    w.sweep(clock(idle).await + MINUTE_MS).await;
    w.until_state("idle", "paused").await;
    let old = id_of(&w.sandbox(json!({"name": "old", "autoStopInterval": 0, "autoArchiveInterval": 2})).await);
    act(&w, "old", "stop").await;
    w.until_state("old", "stopped").await;
    w.sweep(clock(old).await + 2 * MINUTE_MS - 1).await;
    assert_eq!(w.state("old").await, "stopped");
    w.sweep(clock(old).await + 2 * MINUTE_MS).await;
    w.until_state("old", "archived").await;
    // Auto-delete does not count for what is archived, a time to live does.
    act(&w, "old", "autodelete/1").await;
    w.sweep(clock(old).await + 100 * MINUTE_MS).await;
    assert_eq!(w.state("old").await, "archived");
    let ends = w.post("/sandbox/old/ttl/3", json!({})).await.json["autoDestroyAt"].clone();
    assert!(ends.is_string());
    w.sweep(clock(old).await + 200 * MINUTE_MS).await;
    w.until_state(&old.to_string(), "gone").await;
}

#[tokio::test]
async fn what_is_linked_goes_with_its_target() {
    let w = World::quiet(Sim::new()).await;
    let target = w.sandbox(json!({"name": "t"})).await;
    let body = |link: &str| json!({"linkedSandbox": link, "autoDeleteInterval": 0});
    let follower = w.sandbox(body("t")).await;
    assert_eq!(follower["linkedSandboxId"], target["id"]);
    assert_eq!(w.post("/sandbox", body(follower["id"].as_str().unwrap())).await.status, 400);
    assert_eq!(w.delete("/sandbox/t").await.status, 200);
    w.until_state(follower["id"].as_str().unwrap(), "gone").await;
    w.until("nothing is left", async |w| w.sim.host().sandboxes.is_empty()).await;
}

#[tokio::test]
async fn usage_is_metered_and_told() {
    let w = World::new().await;
    let s = w.sandbox(json!({"name": "s"})).await;
    let of = format!("/organizations/{}/usage", s["organizationId"].as_str().unwrap());
    let usage = w.get(&of).await;
    assert_eq!(usage.status, 200, "{}", usage.text);
    let region = &usage.json["regionUsage"][0];
    assert_eq!(
        json!([region["currentCpuUsage"], region["currentMemoryUsage"], region["currentDiskUsage"]]),
        json!([1, 1, 3])
    );
    act(&w, "s", "stop").await;
    w.until_state("s", "stopped").await;
    let region = w.get(&of).await.json["regionUsage"][0].clone();
    assert_eq!(json!([region["currentCpuUsage"], region["currentDiskUsage"]]), json!([0, 3]));
    let w = w.restarted().await;
    assert_eq!(w.store.usage_of(id_of(&s)).await.unwrap().len(), 2, "a restart opens and closes nothing");
    assert_eq!(w.get("/organizations/other/usage").await.status, 403);
    assert_eq!(w.post("/sandbox/s/backup", json!({})).await.json["backupState"], "None");
}
