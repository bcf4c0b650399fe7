//! Volumes: directories that outlive sandboxes and are seen by many.

use infield_tests::{Api, World, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn ready(api: &Api, name: &str) -> String {
    let made = api.post("/volumes", json!({ "name": name })).expect(200).json();
    assert_eq!((made["state"].as_str(), made["name"].as_str()), (Some("pending_create"), Some(name)), "{made}");
    let id = made["id"].as_str().unwrap().to_owned();
    is_ready(api, &id);
    id
}

fn is_ready(api: &Api, id: &str) {
    eventually("the volume is ready", SOON, || {
        let now = api.get(&format!("/volumes/{id}")).expect(200).json();
        assert_ne!(now["state"], "error", "{now}");
        (now["state"] == "ready").then_some(())
    });
}

fn with(world: &World, volumes: Value) -> String {
    world.create(json!({ "volumes": volumes }))["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_volume_is_shared_and_outlives_its_sandboxes() {
    let mut world = World::new("volumes");
    let api = world.api();
    let id = ready(&api, "shared");
    let one = with(&world, json!([{ "volumeId": "shared", "mountPath": "/home/daytona/data" }]));
    let two = with(&world, json!([{ "volumeId": id, "mountPath": "/mnt/a/b", "subpath": "users/alice" }]));
    let seen = api.get(&format!("/sandbox/{one}")).expect(200).json();
    assert_eq!(seen["volumes"], json!([{ "volumeId": id, "mountPath": "/home/daytona/data" }]));
    // The sandbox's ordinary user writes, and each sees what the other wrote.
    world.sh(&one, "id -un && mkdir -p data/users/alice && echo one > data/users/alice/note && echo top > data/top");
    assert_eq!(world.sh(&two, "cat /mnt/a/b/note && echo two > /mnt/a/b/reply && ls /mnt/a/b"), "one\nnote\nreply\n");
    assert_eq!(world.sh(&one, "cat ~/data/users/alice/reply && stat -c %U ~/data/users/alice/reply"), "two\ndaytona\n");
    assert!(api.get(&format!("/volumes/{id}")).expect(200).json()["lastUsedAt"].is_string());

    api.delete(&format!("/volumes/{id}")).expect_error(409);
    // It is there again after a stop and a start, and after the server died.
    world.kill_server();
    world.restart();
    api.post(&format!("/sandbox/{one}/stop"), json!({})).expect(200);
    eventually("it stopped", SOON, || {
        (api.get(&format!("/sandbox/{one}")).expect(200).json()["state"] == "stopped").then_some(())
    });
    api.post(&format!("/sandbox/{one}/start"), json!({})).expect(200);
    assert_eq!(world.sh(&one, "cat data/top"), "top\n");
    world.delete(&one);
    world.delete(&two);
    let three = with(&world, json!([{ "volumeId": "shared", "mountPath": "/v" }]));
    assert_eq!(world.sh(&three, "cat /v/top /v/users/alice/reply"), "top\ntwo\n");
    world.delete(&three);

    api.delete(&format!("/volumes/{id}")).expect(200);
    eventually("its name is free", SOON, || (api.get("/volumes/by-name/shared").status == 404).then_some(()));
    let deleted = api.get("/volumes?includeDeleted=true").expect(200).json();
    assert_eq!((&deleted[0]["state"], &deleted[0]["name"]), (&json!("deleted"), &json!("shared-deleted")));
    assert_eq!(api.get("/volumes").expect(200).json(), json!([]));
    let again = ready(&api, "shared");
    let fresh = with(&world, json!([{ "volumeId": again, "mountPath": "/v" }]));
    assert_eq!(world.sh(&fresh, "ls -A /v"), "");
    world.delete(&fresh);
    api.delete(&format!("/volumes/{again}")).expect(200);
}

#[test]
fn a_new_volume_outlives_a_kill() {
    let mut world = World::new("volumekill");
    let api = world.api();
    let made = api.post("/volumes", json!({})).expect(200).json();
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["name"], made["id"]);
    world.kill_server();
    world.restart();
    is_ready(&api, id);
    api.delete(&format!("/volumes/{id}")).expect(200);
    world.kill_server();
    world.restart();
    eventually("it is deleted", SOON, || (api.get("/volumes").expect(200).json() == json!([])).then_some(()));
}

#[test]
fn what_cannot_be_mounted_is_said_before_anything_is_made() {
    let world = World::new("volumebad");
    let api = world.api();
    let id = ready(&api, "v");
    api.post("/volumes", json!({ "name": "v" })).expect_error(400);
    api.post("/volumes", json!({ "name": "<b>x</b>" })).expect_error(400);
    let create = |mount: Value| api.post("/sandbox", json!({ "volumes": [mount] }));
    create(json!({ "volumeId": "nothing", "mountPath": "/v" })).expect_error(404);
    for path in ["v", "/", "/etc/x", "/a/../b", "/a//b", "/proc"] {
        create(json!({ "volumeId": id, "mountPath": path })).expect_error(400);
    }
    for subpath in ["/a", "..", "a/../../b"] {
        create(json!({ "volumeId": id, "mountPath": "/v", "subpath": subpath })).expect_error(400);
    }
    let twice = json!({ "volumeId": id, "mountPath": "/v" });
    api.post("/sandbox", json!({ "volumes": [twice, twice] })).expect_error(400);
    // A place that only turns out to be none when it is tried: nothing is left of that sandbox but its error.
    let tried = create(json!({ "volumeId": id, "mountPath": "/usr/bin/python3" }));
    assert!(tried.expect_error(400).contains("/usr/bin/python3"));
    for sandbox in world.listed() {
        assert_eq!(sandbox["state"], "error", "{sandbox}");
        world.delete(sandbox["id"].as_str().unwrap());
    }
    let reader = api.post("/api-keys", json!({ "name": "r", "permissions": ["write:sandboxes"] })).expect(201).json();
    let reader = api.with_key(reader["value"].as_str());
    reader.get("/volumes").expect_error(403);
    reader.post("/volumes", json!({ "name": "w" })).expect_error(403);
    reader.delete(&format!("/volumes/{id}")).expect_error(403);
    api.get("/volumes/nothing").expect_error(404);
    api.delete("/volumes/nothing").expect_error(404);
    api.delete(&format!("/volumes/{id}")).expect(200);
}
