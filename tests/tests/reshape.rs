//! What a sandbox can become beside running and stopped: paused, larger, forked, archived; on the real engine.

use infield_tests::{Api, World, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);

fn state(api: &Api, id: &str) -> Value {
    api.get(&format!("/sandbox/{id}")).expect(200).json()["state"].clone()
}

fn becomes(api: &Api, id: &str, wanted: &str) {
    eventually(wanted, SOON, || {
        let now = api.get(&format!("/sandbox/{id}")).expect(200).json();
        assert_ne!(now["state"], "error", "{now}");
        (now["state"] == wanted).then_some(())
    });
}

fn ask(api: &Api, id: &str, verb: &str, body: Value) -> Value {
    api.post(&format!("/sandbox/{id}/{verb}"), body).expect(200).json()
}

#[test]
fn a_paused_process_keeps_its_memory_and_goes_on() {
    let mut world = World::new("pause");
    let (api, id) = (world.api(), world.sandbox());
    // Counts in memory and says where it is.
    let count = "import time\nn = 0\nwhile True:\n n += 1\n open('/tmp/n', 'w').write(str(n))\n time.sleep(0.01)";
    world.sh(&id, &format!("setsid python3 -c \"{count}\" >/dev/null 2>&1 & echo started"));
    let at = || world.sh(&id, "sleep 0.1; cat /tmp/n").parse::<u64>().unwrap_or(0);
    assert!(at() > 0);
    ask(&api, &id, "pause", json!({}));
    becomes(&api, &id, "paused");
    assert_eq!(world.toolbox(&id).get("/version").status, 400);
    world.kill_server();
    world.restart();
    assert_eq!(state(&api, &id), "paused");
    ask(&api, &id, "start", json!({}));
    becomes(&api, &id, "started");
    let before = world.sh(&id, "cat /tmp/n").parse::<u64>().unwrap_or(0);
    eventually("it counts on", SOON, || {
        let now: u64 = world.sh(&id, "cat /tmp/n").parse().unwrap_or(0);
        (now > before).then_some(())
    });
    // From paused a sandbox may be stopped or deleted at once.
    ask(&api, &id, "pause", json!({}));
    becomes(&api, &id, "paused");
    ask(&api, &id, "stop", json!({}));
    becomes(&api, &id, "stopped");
    world.delete(&id);
}

#[test]
fn a_fork_has_its_parents_files_and_its_own_life() {
    let world = World::new("fork");
    let (api, id) = (world.api(), world.sandbox());
    world.sh(&id, "echo parent > ~/file && mkdir ~/dir && ln -s ../file ~/dir/link && sudo touch /etc/mark");
    let child = ask(&api, &id, "fork", json!({ "name": "child" }));
    let child = child["id"].as_str().unwrap().to_owned();
    becomes(&api, &child, "started");
    becomes(&api, &id, "started");
    assert_eq!(world.sh(&child, "cat ~/dir/link; ls /etc/mark; hostname"), "parent\n/etc/mark\nchild\n");
    world.sh(&child, "echo child > ~/file");
    assert_eq!(world.sh(&id, "cat ~/file"), "parent\n");
    let parent = api.get(&format!("/sandbox/{child}/parent")).expect(200).json();
    assert_eq!(parent["id"], id.as_str());
    api.delete(&format!("/sandbox/{id}")).expect_error(400);
    world.delete(&child);
    world.delete(&id);
}

#[test]
fn an_archived_sandbox_comes_back_as_it_was() {
    let mut world = World::new("archive");
    let (api, id) = (world.api(), world.sandbox());
    world
        .sh(&id, "head -c 5000000 /dev/urandom > ~/data && sudo rm /etc/motd && chmod 600 ~/data && ln ~/data ~/again");
    let look = "sha256sum ~/data; stat -c '%a %U %h %Y' ~/data; ls /etc/motd 2>&1";
    let before = world.exec(&id, look);
    ask(&api, &id, "stop", json!({}));
    becomes(&api, &id, "stopped");
    ask(&api, &id, "archive", json!({}));
    becomes(&api, &id, "archived");
    world.kill_server();
    world.restart();
    assert_eq!(state(&api, &id), "archived");
    ask(&api, &id, "start", json!({}));
    becomes(&api, &id, "started");
    assert_eq!(world.exec(&id, look), before);
    world.delete(&id);
}

#[test]
fn a_sandbox_grows() {
    let world = World::new("grow");
    let (api, id) = (world.api(), world.sandbox());
    let memory = || world.toolbox(&id).get("/system/metrics").expect(200).json()["memTotal"].clone();
    let before = memory();
    let grown = ask(&api, &id, "resize", json!({ "cpu": 2, "memory": 2 }));
    assert_eq!((&grown["cpu"], &grown["memory"]), (&json!(2), &json!(2)), "{grown}");
    becomes(&api, &id, "started");
    println!("memory before {before}, after {}", memory());
    api.post(&format!("/sandbox/{id}/resize"), json!({ "memory": 1 })).expect_error(400);
    api.post(&format!("/sandbox/{id}/resize"), json!({ "disk": 5 })).expect_error(400);
    ask(&api, &id, "stop", json!({}));
    becomes(&api, &id, "stopped");
    ask(&api, &id, "resize", json!({ "disk": 5 }));
    eventually("its disk is larger", SOON, || {
        let now = api.get(&format!("/sandbox/{id}")).expect(200).json();
        (now["disk"] == 5 && now["state"] == "stopped").then_some(())
    });
    ask(&api, &id, "start", json!({}));
    becomes(&api, &id, "started");
    // What would not have fitted before.
    world.sh(&id, "fallocate -l 3600M ~/big && rm ~/big");
    world.delete(&id);
}
