//! What callers get wrong, and the status and body that the contract promises for it. Nothing here may leave a sandbox.

use infield_tests::World;
use serde_json::json;

/// An id of the right form that nobody has.
const NOBODY: &str = "6d0ac7a2-45ae-4d0a-8ae0-9a2c1c3f7b11";

#[test]
fn credentials() {
    let world = World::new("badkey");
    let api = world.api();
    let wrong = format!("dtn_{}", "0".repeat(64));
    for key in [None, Some("nonsense"), Some(wrong.as_str())] {
        let caller = api.with_key(key);
        caller.get("/sandbox").expect_error(401);
        caller.post("/sandbox", json!({})).expect_error(401);
        caller.get(&format!("/sandbox/{NOBODY}")).expect_error(401);
        let toolbox = world.toolbox(NOBODY).with_key(key);
        assert_eq!(toolbox.get("/version").status, 401, "the toolbox relay asks for the same credentials");
    }
    // What needs no credentials.
    api.with_key(None).get("/health").expect(200);
    api.with_key(None).get("/config").expect(200);
}

#[test]
fn a_key_has_only_its_permissions() {
    let world = World::new("perm");
    let api = world.api();
    let reader = api.post("/api-keys", json!({ "name": "reader", "permissions": [] })).expect(201).json();
    let secret = reader["value"].as_str().unwrap();
    let reader = api.with_key(Some(secret));
    reader.get("/sandbox").expect(200);
    reader.post("/sandbox", json!({})).expect_error(403);
    let listed = api.get("/api-keys").expect(200).text();
    assert!(!listed.contains(secret), "a key's value is shown once");
    api.post("/api-keys", json!({ "name": "reader", "permissions": [] })).expect_error(409);
    api.delete("/api-keys/reader").expect(204);
    reader.get("/sandbox").expect_error(401);
    api.post("/api-keys", json!({ "name": "another", "permissions": [] })).expect(201);
    let user = api.get("/users/me").expect(200).json()["id"].as_str().unwrap().to_owned();
    api.delete(&format!("/api-keys/{user}/another")).expect(204);
    api.get("/api-keys/another").expect_error(404);
}

#[test]
fn unknown_things() {
    let world = World::new("unknown");
    let api = world.api();
    for path in [format!("/sandbox/{NOBODY}"), "/sandbox/no-such-name".into(), format!("/snapshots/{NOBODY}")] {
        api.get(&path).expect_error(404);
    }
    for verb in ["start", "stop"] {
        api.post(&format!("/sandbox/{NOBODY}/{verb}"), json!({})).expect_error(404);
    }
    api.delete(&format!("/sandbox/{NOBODY}")).expect_error(404);
    api.get("/no-such-route").expect_error(404);
    assert_eq!(world.toolbox(NOBODY).get("/version").status, 404);
}

#[test]
fn create_requests_that_cannot_be_met() {
    let world = World::new("badcreate");
    let api = world.api();
    let default = api.get("/config").expect(200).json()["defaultSnapshot"].as_str().unwrap().to_owned();
    let refused = [
        json!({ "snapshot": "no/such-snapshot:1" }),
        json!({ "snapshot": default, "cpu": 2 }),
        json!({ "snapshot": default, "buildInfo": { "dockerfileContent": "FROM x:1\n" } }),
        json!({ "buildInfo": { "dockerfileContent": "FROM infield/base:1\n" }, "cpu": 100_000 }),
        json!({ "buildInfo": { "dockerfileContent": "FROM infield/base:1\n" }, "memory": 9_000_000 }),
        json!({ "cpu": -1 }),
        json!({ "memory": "a lot" }),
        json!({ "autoStopInterval": -1 }),
        json!({ "env": ["A"] }),
        json!({ "name": "<script>" }),
    ];
    for body in refused {
        let reply = api.post("/sandbox", body.clone());
        assert_eq!(reply.status, 400, "{body} got {}", reply.text());
        reply.expect_error(400);
    }
    assert!(world.listed().is_empty(), "a refused request leaves no row");
}

#[test]
fn malformed_bodies() {
    let world = World::new("badjson");
    let api = world.api();
    for body in ["{", "not json", "[]", "\"text\"", "{\"env\":"] {
        api.call("POST", "/sandbox", Some(body.into())).expect_error(400);
    }
    let id = world.sandbox();
    for body in ["{", "[]"] {
        let reply = world.toolbox(&id).call("POST", "/process/execute", Some(body.into()));
        assert_eq!(reply.status, 400, "{}", reply.text());
    }
    api.put(&format!("/sandbox/{id}/labels"), json!({ "labels": "no map" })).expect_error(400);
    // Keys that nobody knows are ignored, as old clients send some.
    let kept = world.create(json!({ "envVars": { "A": "b" }, "somethingNew": 7 }));
    assert_eq!(kept["env"], json!({}));
}

#[test]
fn a_name_is_taken_once_and_free_after_delete() {
    let world = World::new("taken");
    let first = world.create(json!({ "name": "mine" }));
    let message = world.api().post("/sandbox", json!({ "name": "mine" })).expect_error(409);
    assert!(message.contains("mine"), "{message}");
    let gone = world.api().delete("/sandbox/mine").expect(200).json();
    assert!(gone["name"].as_str().unwrap().starts_with("DESTROYED_mine_"), "{gone}");
    let second = world.create(json!({ "name": "mine" }));
    assert_ne!(first["id"], second["id"]);
}

#[test]
fn query_parameters() {
    let world = World::new("query");
    let api = world.api();
    for query in ["limit=0", "limit=201", "limit=x", "cursor=%21%21", "states=destroyed", "labels=%7Bnope"] {
        api.get(&format!("/sandbox?{query}")).expect_error(400);
    }
    let id = world.sandbox();
    for (path, status) in [("autostop/-1", 400), ("autostop/x", 400), ("autoarchive/-1", 400), ("autostop/30", 200)] {
        assert_eq!(api.post(&format!("/sandbox/{id}/{path}"), json!({})).status, status, "{path}");
    }
    let long = api.post(&format!("/sandbox/{id}/autoarchive/99999999"), json!({})).expect(200).json();
    assert_eq!(long["autoArchiveInterval"], 43200);
}
