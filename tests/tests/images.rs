//! Images from a tar and from a registry, down to one that holds a single program.

use infield_tests::{
    Options, World,
    process::{run, succeeded},
    registry::{Registry, one_program},
};
use serde_json::json;
use std::time::Duration;

const IMAGE_MAX: Duration = Duration::from_secs(120);

/// A world whose image store is its own: these tests add and remove images.
fn world(name: &str) -> World {
    World::with(name, Options { own_images: true, ..Options::default() })
}

fn infield(world: &World, arguments: &[&str]) -> String {
    let mut command = world.command("infield");
    command.args(arguments).arg("--data-dir").arg(&world.data_dir);
    succeeded(&run(&mut command, IMAGE_MAX))
}

/// What must hold in a sandbox of the one-program image.
fn one_program_image(world: &World, snapshot: &str) {
    let id = world.create(json!({ "snapshot": snapshot }))["id"].as_str().unwrap().to_owned();
    let toolbox = world.toolbox(&id);
    let listed = toolbox.get("/files?path=/").expect(200).text();
    assert!(listed.contains("hello"), "{listed}");
    assert_eq!(toolbox.get("/files/download?path=/hello").expect(200).body.get(1..4), Some(&b"ELF"[..]));
    // There is no shell; the answer says so instead of pretending.
    let reply = toolbox.post("/process/execute", json!({ "command": "echo hi" }));
    let said = reply.text();
    assert!(reply.status != 200 || reply.json()["exitCode"] != 0, "{said}");
    assert!(said.contains("shell") || said.contains("/bin/sh"), "it names what is missing: {said}");
    world.delete(&id);
}

#[test]
fn a_tar_with_one_program() {
    let world = world("import");
    let tar = world.scratch("tar").join("hello.tar");
    std::fs::write(&tar, one_program()).unwrap();
    infield(&world, &["image", "import", tar.to_str().unwrap(), "--name", "hello:1"]);
    assert!(infield(&world, &["image", "list"]).contains("hello:1"));
    one_program_image(&world, "hello:1");
    infield(&world, &["image", "remove", "hello:1"]);
    infield(&world, &["image", "gc"]);
    assert!(!infield(&world, &["image", "list"]).contains("hello:1"));
}

#[test]
fn a_registry_through_the_command_line() {
    let registry = Registry::start();
    let reference = registry.push("tiny/hello", "1", &one_program(), json!({ "config": {} }));
    let world = world("pull");
    infield(&world, &["image", "pull", &reference]);
    assert!(infield(&world, &["image", "list"]).contains(&reference));
    one_program_image(&world, &reference);
    let missing = format!("{}/no/such:1", registry.host);
    let mut command = world.command("infield");
    let failed = run(command.args(["image", "pull", &missing, "--data-dir"]).arg(&world.data_dir), IMAGE_MAX);
    assert!(!failed.status.success());
    assert!(String::from_utf8_lossy(&failed.stderr).contains("no/such"), "the error names what it could not get");
}

#[test]
fn a_registry_through_the_api() {
    let registry = Registry::start();
    let reference = registry.push("tiny/hello", "2", &one_program(), json!({ "config": { "Env": ["A=b"] } }));
    let world = world("apipull");
    let api = world.api();
    // Whoever only has a key sends the server nowhere near itself, unless its operator named the registry.
    let near = api.post("/snapshots", json!({ "name": "near", "imageName": reference })).expect(200).json();
    let near = near["id"].as_str().unwrap().to_owned();
    infield_tests::eventually("the pull is refused", IMAGE_MAX, || {
        let now = api.get(&format!("/snapshots/{near}")).expect(200).json();
        assert!(now["state"] != "active", "{now}");
        (now["state"] == "error" && now["errorReason"].as_str()?.contains("registries.json")).then_some(())
    });
    let registries = json!({ "plain_http": [registry.host] });
    std::fs::write(world.data_dir.join("registries.json"), registries.to_string()).unwrap();
    let made = api.post("/snapshots", json!({ "name": "mine", "imageName": reference })).expect(200).json();
    let id = made["id"].as_str().unwrap().to_owned();
    infield_tests::eventually("the snapshot is active", IMAGE_MAX, || {
        let now = api.get(&format!("/snapshots/{id}")).expect(200).json();
        assert!(now["state"] != "error", "{now}");
        (now["state"] == "active").then_some(())
    });
    one_program_image(&world, "mine");
    api.post("/snapshots", json!({ "name": "mine", "imageName": reference })).expect_error(409);
    api.delete(&format!("/snapshots/{id}")).expect(200);
    api.get("/snapshots/mine").expect_error(404);
    api.post("/sandbox", json!({ "snapshot": "mine" })).expect_error(400);
    // It was pulled for this caller alone: it was no snapshot of everybody, and nothing of it stays.
    api.get(&format!("/snapshots/{}", reference.replace('/', "%2F"))).expect_error(404);
    infield_tests::eventually("the image is gone", IMAGE_MAX, || {
        (!infield(&world, &["image", "list"]).contains(&reference)).then_some(())
    });
}

#[test]
fn what_a_caller_had_pulled_stays_when_the_operator_pulls_it_too() {
    let registry = Registry::start();
    let reference = registry.push("tiny/both", "1", &one_program(), json!({ "config": { "Env": ["A=b"] } }));
    let world = world("bothpull");
    let api = world.api();
    std::fs::write(world.data_dir.join("registries.json"), json!({ "plain_http": [registry.host] }).to_string())
        .unwrap();
    let made = api.post("/snapshots", json!({ "name": "mine", "imageName": reference })).expect(200).json();
    let id = made["id"].as_str().unwrap().to_owned();
    infield_tests::eventually("the snapshot is active", IMAGE_MAX, || {
        (api.get(&format!("/snapshots/{id}")).expect(200).json()["state"] == "active").then_some(())
    });
    let general = format!("/snapshots/{}", reference.replace('/', "%2F"));
    api.get(&general).expect_error(404);
    infield(&world, &["image", "pull", &reference]);
    // A name the server does not know makes it ask the host again.
    let made = infield_tests::eventually("it is everybody's", IMAGE_MAX, || {
        let reply = api.post("/sandbox", json!({ "snapshot": reference }));
        (reply.status == 200).then(|| reply.json()["id"].as_str().unwrap().to_owned())
    });
    world.delete(&made);
    assert_eq!(api.get(&general).expect(200).json()["general"], true);
    api.delete(&format!("/snapshots/{id}")).expect(200);
    api.get("/snapshots/mine").expect_error(404);
    one_program_image(&world, &reference);
    assert!(infield(&world, &["image", "list"]).contains(&reference));
}
