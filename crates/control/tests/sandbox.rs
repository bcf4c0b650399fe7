//! The life of a sandbox through HTTP: the contract's acceptance assertions.

mod world;

use serde_json::json;
use world::World;

#[tokio::test]
async fn create_with_defaults_then_read_list_and_delete() {
    let w = World::new().await;
    let made = w.post("/sandbox", json!({})).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let s = &made.json;
    assert_eq!(s["name"], s["id"]);
    let expected = json!([1, 1, 3, 0, 15, 10080, -1, "daytona", {}, {}, false, "started", "started", "us"]);
    let keys = [
        "cpu", "memory", "disk", "gpu", "autoStopInterval", "autoArchiveInterval", "autoDeleteInterval", "user", "env",
        "labels", "kvm", "state", "desiredState", "target",
    ];
    assert_eq!(json!(keys.map(|k| &s[k])), expected);
    assert_eq!(s["toolboxProxyUrl"], format!("{}/toolbox", w.url));
    let timing = made.headers["server-timing"].to_str().unwrap();
    for phase in ["auth;", "db;", "runner;", "engine-rootfs;", "total;"] {
        assert!(timing.contains(phase), "{timing}");
    }
    let id = s["id"].as_str().unwrap();
    assert_eq!(w.get(&format!("/sandbox/{id}")).await.json["id"], *id);
    let list = w.get("/sandbox").await;
    assert_eq!((list.json["items"][0]["id"].as_str(), &list.json["nextCursor"]), (Some(id), &json!(null)));
    let gone = w.delete(&format!("/sandbox/{id}")).await;
    assert_eq!((gone.status, gone.json["state"].as_str()), (200, Some("destroying")));
    assert!(gone.json["name"].as_str().unwrap().starts_with(&format!("DESTROYED_{id}_")));
    w.until_state(id, "gone").await;
    assert_eq!(w.sim.host().sandboxes.len(), 0);
}
