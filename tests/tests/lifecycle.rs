//! One sandbox through its life over plain HTTP: the assertions of the contract that no SDK makes.

use infield_tests::{World, eventually};
use serde_json::json;
use std::time::Duration;

#[test]
fn create_answers_with_every_default() {
    let world = World::new("create");
    let sandbox = world.create(json!({}));
    assert_eq!(sandbox["name"], sandbox["id"]);
    for (field, value) in [
        ("cpu", json!(1)),
        ("memory", json!(1)),
        ("disk", json!(3)),
        ("gpu", json!(0)),
        ("autoStopInterval", json!(15)),
        ("autoArchiveInterval", json!(10080)),
        ("autoDeleteInterval", json!(-1)),
        ("user", json!("daytona")),
        ("env", json!({})),
        ("labels", json!({})),
        ("public", json!(false)),
        ("kvm", json!(false)),
        ("desiredState", json!("started")),
    ] {
        assert_eq!(sandbox[field], value, "{field}");
    }
    assert!(sandbox["toolboxProxyUrl"].as_str().unwrap().ends_with("/toolbox"), "{sandbox}");
    let id = sandbox["id"].as_str().unwrap();
    let by_id = world.api().get(&format!("/sandbox/{id}")).expect(200).json();
    let by_name = world.api().get(&format!("/sandbox/{}", sandbox["name"].as_str().unwrap())).expect(200).json();
    assert_eq!(by_id, by_name);
    let url = world.api().get(&format!("/sandbox/{id}/toolbox-proxy-url")).expect(200).json();
    assert_eq!(url["url"], sandbox["toolboxProxyUrl"]);
}

#[test]
fn start_and_stop_in_every_state() {
    let world = World::new("states");
    let api = world.api();
    let id = world.sandbox();
    let path = |verb: &str| format!("/sandbox/{id}/{verb}");
    assert_eq!(api.post(&path("start"), json!({})).expect(200).json()["state"], "started", "a no-op");
    world.sh(&id, "echo kept > kept.txt; (setsid sleep 1000 &) ; sync");
    let stopping = api.post(&path("stop"), json!({})).expect(200).json();
    assert_ne!(stopping["state"], "started", "right after stop");
    let state = || api.get(&format!("/sandbox/{id}")).expect(200).json()["state"].clone();
    eventually("stopped", Duration::from_secs(20), || (state() == "stopped").then_some(()));
    api.post(&path("stop"), json!({})).expect_error(400);
    let refused = world.toolbox(&id).post("/process/execute", json!({ "command": "true" }));
    assert!((400..600).contains(&refused.status), "exec in a stopped sandbox: {}", refused.text());
    let started = api.post(&path("start"), json!({})).expect(200).json();
    assert!(["starting", "started"].contains(&started["state"].as_str().unwrap()), "{started}");
    eventually("started", Duration::from_secs(20), || (state() == "started").then_some(()));
    assert_eq!(world.sh(&id, "cat kept.txt"), "kept\n");
    assert_eq!(world.exec(&id, "pgrep -f '[s]leep 1000'").0, 1, "processes do not outlive a stop");
}

#[test]
fn an_ephemeral_sandbox_is_gone_when_it_stops() {
    let world = World::new("ephemeral");
    let sandbox = world.create(json!({ "autoDeleteInterval": 0 }));
    let path = format!("/sandbox/{}", sandbox["id"].as_str().unwrap());
    world.api().post(&format!("{path}/stop"), json!({})).expect(200);
    eventually("gone", Duration::from_secs(20), || (world.api().get(&path).status == 404).then_some(()));
}

#[test]
fn labels_are_replaced_and_filter_lists() {
    let world = World::new("labels");
    let api = world.api();
    let ids: Vec<String> = (0..5)
        .map(|n| {
            let labels = json!({ "n": n.to_string(), "all": "yes" });
            world.create(json!({ "labels": labels }))["id"].as_str().unwrap().to_owned()
        })
        .collect();
    api.put(&format!("/sandbox/{}/labels", ids[0]), json!({ "labels": { "n": "9" } })).expect(200);
    let labels = api.get(&format!("/sandbox/{}", ids[0])).expect(200).json()["labels"].clone();
    assert_eq!(labels, json!({ "n": "9" }));
    let page = |query: &str| api.get(&format!("/sandbox?{query}")).expect(200).json();
    let filter = "labels=%7B%22all%22%3A%22yes%22%7D";
    assert_eq!(page(filter)["items"].as_array().unwrap().len(), 4);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = page(&format!("limit=2&sort=createdAt&order=asc{cursor}"));
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        assert!(page.as_object().unwrap().contains_key("nextCursor"), "present even when null");
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ids, "each once, in order of creation");
    let old = api.get("/sandbox/paginated?page=1&limit=3").expect(200).json();
    assert_eq!((old["total"].clone(), old["totalPages"].clone(), old["page"].clone()), (json!(5), json!(2), json!(1)));
}

#[test]
fn the_clock_stops_an_idle_sandbox() {
    let world = World::new("idle");
    let id = world.create(json!({ "autoStopInterval": 1 }))["id"].as_str().unwrap().to_owned();
    let state = || world.api().get(&format!("/sandbox/{id}")).expect(200).json()["state"].clone();
    // One minute of idleness and the janitor's period.
    eventually("the idle sandbox stops", Duration::from_secs(100), || (state() == "stopped").then_some(()));
}

#[test]
fn users_keys_organizations_and_snapshots_can_be_read() {
    let world = World::new("read");
    let api = world.api();
    let me = api.get("/users/me").expect(200).json();
    assert!(me["id"].is_string() && me["publicKeys"].is_array(), "{me}");
    let organizations = api.get("/organizations").expect(200).json();
    let organization = &organizations.as_array().unwrap()[0];
    assert_eq!(organization["personal"], true);
    let id = organization["id"].as_str().unwrap();
    assert_eq!(&api.get(&format!("/organizations/{id}")).expect(200).json(), organization);
    let current = api.get("/api-keys/current").expect(200).json();
    let name = current["name"].as_str().unwrap();
    assert_eq!(api.get(&format!("/api-keys/{name}")).expect(200).json()["name"], name);
    let masked = current["value"].as_str().unwrap();
    assert!(masked.starts_with("dtn") && masked.contains(&"*".repeat(20)), "{masked}");
    let snapshots = api.get("/snapshots").expect(200).json();
    let first = &snapshots["items"].as_array().unwrap()[0];
    assert_eq!((first["name"].clone(), first["state"].clone()), (json!("infield/base:1"), json!("active")));
    let by_name = api.get("/snapshots/infield%2Fbase%3A1").expect(200).json();
    let by_id = api.get(&format!("/snapshots/{}", first["id"].as_str().unwrap())).expect(200).json();
    assert_eq!(by_name, by_id);
    api.delete("/snapshots/some-name").expect_error(400);
    for image in ["x", "x:latest"] {
        api.post("/snapshots", json!({ "name": "n", "imageName": image })).expect_error(400);
    }
    assert!(api.get("/health/ready").status == 200, "ready");
}

#[test]
fn the_first_requests_after_a_start_find_the_default_snapshot() {
    let world = World::new("first");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| world.sandbox());
        }
    });
    assert_eq!(world.listed().len(), 8);
}

#[test]
fn what_a_container_cannot_do_and_where_it_is() {
    let world = World::new("class");
    let api = world.api();
    let id = world.sandbox();
    assert_eq!(api.post(&format!("/sandbox/{id}/public/true"), json!({})).expect(200).json()["public"], true);
    assert_eq!(api.get(&format!("/sandbox/{id}")).expect(200).json()["public"], true);
    let region = api.get(&format!("/sandbox/{id}")).expect(200).json()["target"].clone();
    for path in ["/regions", "/shared-regions"] {
        assert_eq!(api.get(path).expect(200).json()[0]["id"], region, "{path}");
    }
}

#[test]
fn clone_and_exec_on_the_control_plane() {
    let git = infield_tests::GitServer::start();
    let world = World::new("mission");
    let url = git.repository("project", &[("Makefile", "all:\n\techo built\n")]);
    let id = world.sandbox();
    let api = world.api();
    let cloned = api.post(&format!("/sandbox/{id}/clone"), json!({ "url": url, "branch": "main", "path": "project" }));
    assert!((200..300).contains(&cloned.status), "{}", cloned.text());
    let done = api.post(&format!("/sandbox/{id}/exec"), json!({ "command": "make -s -C project all" })).expect(200);
    let body = done.json();
    assert_eq!(body["exitCode"], 0, "{body}");
    assert!(body["result"].as_str().unwrap().contains("built"), "{body}");
}
