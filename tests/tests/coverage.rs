//! `spec/coverage.json` tells the truth of a running server: what works stands in its own OpenAPI document, and what is
//! not built yet answers 501 with the standard error body.

use infield_tests::{World, process::repository};
use serde_json::Value;

/// Fills `{name}` segments so that a path can be asked for; the id is one that exists for sandbox routes.
fn fill(path: &str, sandbox: &str) -> String {
    path.split('/')
        .map(|part| match part {
            "{sandboxIdOrName}" | "{sandboxId}" => sandbox,
            "{port}" => "3000",
            "{interval}" | "{ttlMinutes}" => "5",
            "{isPublic}" => "true",
            _ if part.starts_with('{') => "6d0ac7a2-45ae-4d0a-8ae0-9a2c1c3f7b11",
            _ => part,
        })
        .collect::<Vec<_>>()
        .join("/")
}

fn rows(section: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(repository().join("spec/coverage.json")).unwrap();
    let coverage: Value = serde_json::from_str(&text).unwrap();
    coverage[section].as_array().unwrap().clone()
}

fn word<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

#[test]
fn what_works_stands_in_the_servers_own_document() {
    let world = World::new("openapi");
    let document = world.api().with_key(None).get("/openapi.json").expect(200).json();
    let paths = document["paths"].as_object().unwrap();
    let known = |method: &str, path: &str| {
        [path.to_owned(), format!("/api{path}")]
            .iter()
            .any(|path| paths.get(path).is_some_and(|item| item.get(method).is_some()))
    };
    let mut missing = Vec::new();
    for row in rows("api").iter().filter(|row| row["status"] != "not-yet") {
        if !known(&word(row, "method").to_lowercase(), word(row, "path")) {
            missing.push(format!("{} {}", word(row, "method"), word(row, "path")));
        }
    }
    assert!(missing.is_empty(), "not in /api/openapi.json: {missing:#?}");
}

#[test]
fn what_is_not_built_yet_says_so() {
    let world = World::new("notyet");
    let id = world.sandbox();
    let mut wrong = Vec::new();
    let mut asked = 0;
    let toolbox = world.toolbox(&id);
    let api = world.api();
    for section in ["api", "toolbox", "extras"] {
        for row in rows(section).iter().filter(|row| row["status"] == "not-yet") {
            let (method, path) = (word(row, "method"), fill(word(row, "path"), &id));
            let on_toolbox =
                section == "toolbox" || row["group"].as_str().is_some_and(|group| group.starts_with("toolbox"));
            let caller = if on_toolbox { &toolbox } else { &api };
            let body = (method != "GET" && method != "DELETE").then(|| b"{}".to_vec());
            let reply = caller.call(method, &path, body);
            asked += 1;
            let told = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
            let wanted = row["answers"].as_u64().unwrap_or(501);
            if u64::from(reply.status) != wanted || told["statusCode"] != wanted || !told["message"].is_string() {
                wrong.push(format!("{method} {path}: {} {}", reply.status, reply.text()));
            }
        }
    }
    println!("{asked} operations asked");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
