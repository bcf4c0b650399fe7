//! The same server on PostgreSQL.

use infield_tests::{Options, World, eventually, postgres::Postgres};
use serde_json::json;
use std::time::Duration;

#[test]
fn a_sandbox_lives_on_postgresql() {
    let postgres = Postgres::start();
    let environment = vec![("INFIELD_DATABASE_URL".to_owned(), postgres.url.clone())];
    let mut world = World::with("pg", Options { environment, ..Options::default() });
    let api = world.api();
    let id = world.create(json!({ "name": "on-pg", "labels": { "a": "b" } }))["id"].as_str().unwrap().to_owned();
    assert_eq!(world.sh(&id, "echo hi; echo kept > kept"), "hi\n");
    api.post("/sandbox", json!({ "name": "on-pg" })).expect_error(409);
    let listed = api.get("/sandbox?labels=%7B%22a%22%3A%22b%22%7D").expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert!(!world.data_dir.join("db/infield.db").exists(), "no second database");

    world.kill_server();
    world.restart();
    assert_eq!(world.sh(&id, "cat kept"), "kept\n");
    api.post(&format!("/sandbox/{id}/stop"), json!({})).expect(200);
    let state = || api.get("/sandbox/on-pg").expect(200).json()["state"].clone();
    eventually("stopped", Duration::from_secs(20), || (state() == "stopped").then_some(()));
    api.post(&format!("/sandbox/{id}/start"), json!({})).expect(200);
    assert_eq!(world.sh(&id, "cat kept"), "kept\n");
    world.delete(&id);
    drop(world);
}
