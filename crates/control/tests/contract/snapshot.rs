//! Snapshots.

use crate::world::{
    World,
    sim::{Trouble, image},
};
use infield_api::runner::RunnerErrorKind;
use serde_json::json;

#[tokio::test]
async fn images_of_the_host_are_snapshots_of_everybody() {
    let w = World::new().await;
    let list = w.get("/snapshots").await.json;
    assert_eq!((&list["total"], &list["items"][0]["name"]), (&json!(1), &json!("infield/base:1")));
    let base = w.get("/snapshots/infield%2Fbase:1").await.json;
    assert_eq!((&base["general"], &base["state"], &base["size"]), (&json!(true), &json!("active"), &json!(0.5)));
    assert!(base["organizationId"].is_null());
    let id = base["id"].as_str().unwrap();
    assert_eq!(w.get(&format!("/snapshots/{id}")).await.json["name"], "infield/base:1");
    assert_eq!(w.delete("/snapshots/infield%2Fbase:1").await.status, 400);
    assert_eq!(w.delete(&format!("/snapshots/{id}")).await.status, 403);
    // One imported behind the server's back is found when it is asked for.
    w.sim.host().images.push(image("tools:2", None));
    w.until("it is found", async |w| w.post("/sandbox", json!({"snapshot": "tools:2"})).await.status == 200).await;
    let made = w.get("/sandbox?snapshots=tools:2").await.json;
    assert_eq!(made["items"][0]["user"], "root");
}

#[tokio::test]
async fn a_snapshot_is_pulled_then_active() {
    let w = World::new().await;
    let body = json!({"name": "mine", "imageName": "registry:5000/deb:12", "cpu": 2, "memory": 3, "disk": 5,
        "entrypoint": ["sleep", "9"]});
    w.sim.trouble("pull_image", Trouble::Slow(std::time::Duration::from_millis(300)));
    let made = w.post("/snapshots", body.clone()).await;
    assert_eq!((made.status, made.json["state"].as_str()), (200, Some("pending")), "{}", made.text);
    assert_eq!(w.post("/snapshots", body).await.status, 409);
    assert_eq!(w.post("/sandbox", json!({"snapshot": "mine"})).await.status, 400);
    w.until("active", async |w| w.get("/snapshots/mine").await.json["state"] == "active").await;
    let s = w.sandbox(json!({"snapshot": "mine"})).await;
    assert_eq!(json!([s["cpu"], s["memory"], s["disk"], s["snapshot"]]), json!([2, 3, 5, "mine"]));
    // The image is the caller's alone: no snapshot of everybody.
    assert_eq!(w.get("/snapshots/registry:5000%2Fdeb:12").await.status, 404);
    assert_eq!(w.post("/sandbox", json!({"snapshot": "registry:5000/deb:12"})).await.status, 400);
    let spec = w.sim.host().sandboxes.values().next().unwrap().0.clone();
    assert_eq!((spec.cpu, spec.entrypoint), (2, vec!["sleep".to_owned(), "9".to_owned()]));
    let id = w.get("/snapshots/mine").await.json["id"].as_str().unwrap().to_owned();
    assert_eq!(w.delete(&format!("/snapshots/{id}")).await.status, 200);
    assert_eq!(w.get("/snapshots/mine").await.status, 404);
    w.until("its image is gone", async |w| w.sim.host().images.len() == 1).await;
    assert_eq!(w.state(s["id"].as_str().unwrap()).await, "started");
}

#[tokio::test]
async fn a_failed_pull_says_why_and_a_cut_off_one_begins_again() {
    let w = World::new().await;
    w.sim.trouble("pull_image", Trouble::Fail(RunnerErrorKind::Invalid, "manifest unknown"));
    w.post("/snapshots", json!({"name": "bad", "imageName": "x:1"})).await;
    w.until("error", async |w| w.get("/snapshots/bad").await.json["state"] == "error").await;
    let reason = w.get("/snapshots/bad").await.json["errorReason"].as_str().unwrap().to_owned();
    assert!(reason.contains("manifest unknown"), "{reason}");
    assert_eq!(w.post("/sandbox", json!({"snapshot": "bad"})).await.status, 400);
    w.sim.trouble("pull_image", Trouble::Slow(std::time::Duration::from_secs(600)));
    w.post("/snapshots", json!({"name": "cut", "imageName": "y:1"})).await;
    w.until("pulling", async |w| w.get("/snapshots/cut").await.json["state"] == "pulling").await;
    let w = w.restarted().await;
    w.until("active", async |w| w.get("/snapshots/cut").await.json["state"] == "active").await;
}

#[tokio::test]
async fn bad_snapshots_are_refused() {
    let w = World::new().await;
    let digest = format!("x@sha256:{}", "a".repeat(64));
    for (body, status) in [
        (json!({"name": "a"}), 400),
        (json!({"name": "a", "imageName": "x:1", "buildInfo": {"dockerfileContent": "FROM x"}}), 400),
        (json!({"name": "a", "buildInfo": {"dockerfileContent": "FROM x"}, "entrypoint": ["x"]}), 400),
        (json!({"name": "a", "buildInfo": {"dockerfileContent": "FROM x"}}), 501),
        (json!({"name": "a", "imageName": "x"}), 400),
        (json!({"name": "a", "imageName": "x:latest"}), 400),
        (json!({"name": "a b", "imageName": "x:1"}), 400),
        (json!({"imageName": "x:1"}), 400),
        (json!({"name": "a", "imageName": "x:1", "cpu": 5000}), 400),
        (json!({"name": "a", "imageName": "x:1", "disk": 0}), 400),
        (json!({"name": "a", "imageName": "x:1", "gpu": 1}), 400),
        (json!({"name": "a", "imageName": "x:1", "sandboxClass": "windows"}), 400),
        (json!({"name": "a", "imageName": "x:1", "regionId": "mars"}), 404),
        (json!({"name": "digest", "imageName": digest}), 200),
    ] {
        let answer = w.post("/snapshots", body.clone()).await;
        assert_eq!(answer.status, status, "{body} {}", answer.text);
    }
    assert_eq!(w.delete("/snapshots/7c1f2c1e-7d6a-4c8e-9c7b-2f5a1a0d3e44").await.status, 404);
    for query in ["page=0", "limit=201", "sort=color", "order=up"] {
        assert_eq!(w.get(&format!("/snapshots?{query}")).await.status, 400, "{query}");
    }
    assert_eq!(w.get("/snapshots?sourceSandboxId=x").await.json["total"], 0);
}
