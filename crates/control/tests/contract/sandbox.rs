//! The life of a sandbox through HTTP: the contract's acceptance assertions.

use crate::world::World;
use serde_json::json;

#[tokio::test]
async fn create_with_defaults_then_read_list_and_delete() {
    let w = World::new().await;
    let made = w.post("/sandbox", json!({})).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let s = &made.json;
    assert_eq!(s["name"], s["id"]);
    let expected = json!([1, 1, 3, 0, 15, 10080, -1, "daytona", {}, {}, false, "started", "started", "us"]);
    let keys = [
        "cpu",
        "memory",
        "disk",
        "gpu",
        "autoStopInterval",
        "autoArchiveInterval",
        "autoDeleteInterval",
        "user",
        "env",
        "labels",
        "kvm",
        "state",
        "desiredState",
        "target",
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

#[tokio::test]
async fn what_the_caller_gives_is_kept_and_reaches_the_host() {
    let w = World::new().await;
    let body = json!({
        "name": "my box", "env": {"A": "b"}, "labels": {"l": "m"}, "public": true, "networkBlockAll": true,
        "autoStopInterval": 0, "autoArchiveInterval": 0, "autoDeleteInterval": 7, "user": "daytona", "target": "us",
        "envVars": {"old": "key"}, "snapshot": "infield/base:1", "volumes": [], "networkAllowList": "",
    });
    let s = w.sandbox(body).await;
    let kept = json!(["my box", {"A": "b"}, {"l": "m"}, true, true, 0, 43200, 7, "infield/base:1"]);
    let keys = [
        "name",
        "env",
        "labels",
        "public",
        "networkBlockAll",
        "autoStopInterval",
        "autoArchiveInterval",
        "autoDeleteInterval",
        "snapshot",
    ];
    assert_eq!(json!(keys.map(|k| &s[k])), kept);
    assert_eq!(w.get("/sandbox/my%20box").await.json["id"], s["id"]);
    let spec = w.sim.host().sandboxes.values().next().unwrap().0.clone();
    assert_eq!((spec.name.as_str(), spec.cpu, spec.memory_mib, spec.disk_mib), ("my-box", 1, 1024, 3072));
    assert!(spec.network_block_all);
    assert_eq!(spec.user.as_deref(), Some("daytona"));
    assert_eq!(spec.env["A"], "b");
    assert_eq!(spec.env["DAYTONA_SANDBOX_ID"], s["id"].as_str().unwrap());
    assert_eq!(spec.env["DAYTONA_ORGANIZATION_ID"], s["organizationId"].as_str().unwrap());
    assert!(spec.image.starts_with("sha256:"));
}

#[tokio::test]
async fn bad_creates_are_refused_with_the_contracts_status() {
    let w = World::new().await;
    let cases = [
        (json!({"snapshot": "infield/base:1", "cpu": 1}), 400, "resources"),
        (json!({"cpu": 2}), 400, "resources"),
        (json!({"cpu": 100000}), 400, "maximum of 4"),
        (json!({"memory": 9999, "snapshot": "x"}), 400, "maximum of 8"),
        (json!({"disk": -1}), 400, "disk"),
        (json!({"disk": 1.5}), 400, "whole number"),
        (json!({"cpu": "many"}), 400, ""),
        (json!({"snapshot": "a:1", "buildInfo": {"dockerfileContent": "FROM x"}}), 400, "both"),
        (json!({"buildInfo": {"dockerfileContent": "FROM x"}, "linkedSandbox": "x"}), 400, "both"),
        (json!({"buildInfo": {"dockerfileContent": "FROM x"}, "cpu": 1}), 501, "Dockerfile"),
        (json!({"snapshot": "nope:1"}), 400, "not found"),
        (json!({"name": "<b>x</b>"}), 400, "name"),
        (json!({"name": "http://x"}), 400, "name"),
        (json!({"target": "mars"}), 404, "Region"),
        (json!({"autoStopInterval": -1}), 400, "Auto-stop"),
        (json!({"autoArchiveInterval": -1}), 400, "Auto-archive"),
        (json!({"networkAllowList": "10.0.0.0/8"}), 501, "egress"),
        (json!({"domainAllowList": "x.org"}), 501, "egress"),
        (json!({"outboundProxyUrl": "http://p"}), 501, "proxy"),
        (json!({"volumes": [{"volumeId": "v", "mountPath": "/v"}]}), 404, "Volume"),
        (json!({"secrets": [{"A": "s"}]}), 501, "secrets"),
        (json!({"linkedSandbox": "x"}), 400, "ephemeral"),
        (json!({"linkedSandbox": "x", "autoDeleteInterval": 0}), 404, "not found"),
        (json!({"ttlMinutes": -5}), 400, "ttlMinutes"),
        (json!({"gpu": 1}), 400, "GPU"),
        (json!({"gpuType": "H100"}), 400, "GPU"),
        (json!({"spot": true}), 400, "spot"),
        (json!({"kvm": true}), 400, "kvm"),
        (json!({"autoPauseInterval": 5, "autoStopInterval": 5}), 400, "autoPause"),
        (json!({"autoPauseInterval": 5, "autoDeleteInterval": 0}), 400, "autoPause"),
        (json!({"autoPauseInterval": -1}), 400, "Auto-pause"),
        (json!({"queueTimeout": 0}), 400, "queueTimeout"),
        (json!({"env": {"A=B": "c"}}), 400, "env"),
        (json!({"env": {"A": null}}), 400, ""),
        (json!([]), 400, ""),
    ];
    for (body, status, part) in cases {
        let answer = w.post("/sandbox", body.clone()).await;
        assert_eq!(answer.status, status, "{body} {}", answer.text);
        let message = answer.json["message"].as_str().unwrap();
        assert!(message.contains(part), "{body}: {message}");
    }
    assert_eq!(w.call("POST", "/sandbox", Some(&w.key), "{oops").await.status, 400);
    assert_eq!(w.sim.count("create"), 0);
}

#[tokio::test]
async fn names_are_unique_until_deleted() {
    let w = World::new().await;
    let first = w.sandbox(json!({"name": "twin"})).await;
    let second = w.post("/sandbox", json!({"name": "twin"})).await;
    assert_eq!(second.status, 409);
    assert!(second.json["message"].as_str().unwrap().contains("twin"));
    assert_eq!(w.delete("/sandbox/twin").await.status, 200);
    let again = w.sandbox(json!({"name": "twin"})).await;
    assert_ne!(first["id"], again["id"]);
    assert_eq!(w.get("/sandbox/twin").await.json["id"], again["id"]);
}

#[tokio::test]
async fn start_and_stop() {
    let w = World::new().await;
    let s = w.sandbox(json!({"name": "s"})).await;
    let id: infield_api::SandboxId = s["id"].as_str().unwrap().parse().unwrap();
    let token = || async { w.store.sandbox(id).await.unwrap().unwrap().auth_token };
    let first = token().await;
    assert_eq!(w.post("/sandbox/s/start", json!({})).await.status, 200);
    assert_eq!(w.sim.count("start"), 0);
    let stopped = w.call("POST", "/sandbox/s/stop?force=true", Some(&w.key), "").await;
    assert_eq!((stopped.status, stopped.json["state"].as_str()), (200, Some("stopping")));
    w.until_state("s", "stopped").await;
    assert_eq!(w.post("/sandbox/s/stop", json!({})).await.status, 400);
    assert_eq!(first, token().await);
    let started = w.post("/sandbox/s/start", json!({})).await;
    assert_eq!((started.status, started.json["state"].as_str()), (200, Some("started")));
    assert_ne!(first, token().await);
    assert_eq!(w.post("/sandbox/nope/start", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_transition_in_progress_is_a_conflict_and_visible() {
    use crate::world::sim::Trouble;
    let w = World::new().await;
    w.sandbox(json!({"name": "s"})).await;
    w.sim.trouble("stop", Trouble::Slow(std::time::Duration::from_secs(2)));
    w.post("/sandbox/s/stop", json!({})).await;
    assert_eq!(w.state("s").await, "stopping");
    assert_eq!(w.post("/sandbox/s/start", json!({})).await.status, 409);
    assert_eq!(w.post("/sandbox/s/stop", json!({})).await.status, 409);
    assert_eq!(w.delete("/sandbox/s").await.status, 409);
    w.until_state("s", "stopped").await;
    assert_eq!(w.delete("/sandbox/s").await.json["state"], "destroying");
}

#[tokio::test]
async fn an_ephemeral_sandbox_is_gone_once_it_stops() {
    let w = World::new().await;
    let s = w.sandbox(json!({"autoDeleteInterval": 0})).await;
    let id = s["id"].as_str().unwrap();
    let stopped = w.post(&format!("/sandbox/{id}/stop"), json!({})).await;
    assert_eq!((stopped.status, stopped.json["state"].as_str()), (200, Some("destroying")));
    w.until_state(id, "gone").await;
    w.until("the host forgot it", async |w| w.sim.host().sandboxes.is_empty()).await;
}

#[tokio::test]
async fn settings() {
    let w = World::new().await;
    w.sandbox(json!({"name": "s", "labels": {"a": "1", "b": "2"}})).await;
    let post = async |path: &str| w.post(&format!("/sandbox/s/{path}"), json!({})).await;
    assert_eq!(post("autostop/-1").await.status, 400);
    assert_eq!(post("autostop/x").await.status, 400);
    assert_eq!(post("autostop/5").await.json["autoStopInterval"], 5);
    assert_eq!(post("autoarchive/0").await.json["autoArchiveInterval"], 43200);
    assert_eq!(post("autoarchive/99999999").await.json["autoArchiveInterval"], 43200);
    assert_eq!(post("autoarchive/-1").await.status, 400);
    assert_eq!(post("autodelete/-1").await.json["autoDeleteInterval"], -1);
    assert_eq!(post("autopause/5").await.status, 400, "it stops when idle already");
    assert_eq!(post("autostop/0").await.status, 200);
    assert_eq!(post("autopause/5").await.json["autoPauseInterval"], 5);
    assert_eq!(post("autostop/5").await.status, 400);
    assert_eq!(post("autopause/0").await.json["autoPauseInterval"], 0);
    assert_eq!(post("autostop/5").await.status, 200);
    assert_eq!(post("ttl/-1").await.status, 400);
    assert!(post("ttl/5").await.json["autoDestroyAt"].is_string());
    assert!(post("ttl/0").await.json["autoDestroyAt"].is_null());
    assert_eq!(post("public/true").await.json["public"], true);
    assert_eq!(post("public/maybe").await.status, 400);
    assert_eq!(post("last-activity").await.status, 201);
    let body = r#"{"labels":{"c":"3"}}"#;
    let labels = w.call("PUT", "/sandbox/s/labels", Some(&w.key), body).await;
    assert_eq!((labels.status, &labels.json), (200, &json!({"labels": {"c": "3"}})));
    let now = w.get("/sandbox/s").await.json;
    assert_eq!(json!([now["labels"], now["autoStopInterval"], now["public"]]), json!([{"c": "3"}, 5, true]));
    assert_eq!(w.call("PUT", "/sandbox/s/labels", Some(&w.key), r#"{"labels":{"c":null}}"#).await.status, 400);
    assert_eq!(w.get("/sandbox/s/toolbox-proxy-url").await.json["url"], format!("{}/toolbox", w.url));
}

#[tokio::test]
async fn commands_and_clones_go_to_the_agent() {
    let w = World::new().await;
    let s = w.sandbox(json!({"name": "s"})).await;
    let ran = w.post("/sandbox/s/exec", json!({"cmd": "make all"})).await;
    assert_eq!((ran.status, &ran.json), (200, &json!({"exitCode": 3, "result": "make all"})));
    let by_id = format!("/sandbox/{}/clone", s["id"].as_str().unwrap());
    let cloned = w.post(&by_id, json!({"repo": "https://host/team/project.git", "branch": "main"})).await;
    assert_eq!((cloned.status, &cloned.json), (200, &json!({"path": "project"})));
    let refused = w.post(&by_id, json!({"url": "https://host/private.git"})).await;
    assert_eq!((refused.status, refused.json["message"].as_str()), (403, Some("repository needs credentials")));
    assert_eq!(w.post("/sandbox/s/exec", json!({})).await.status, 400);
    assert_eq!(w.post("/sandbox/s/clone", json!({})).await.status, 400);
    w.post("/sandbox/s/stop", json!({})).await;
    w.until_state("s", "stopped").await;
    assert_eq!(w.post("/sandbox/s/exec", json!({"cmd": "x"})).await.status, 400);
}
