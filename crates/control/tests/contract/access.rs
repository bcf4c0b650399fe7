//! Who may do what; keys; the envelope; what is not built.

use crate::world::World;
use infield_api::directory::{Credential, DirectoryError};
use infield_store::{ApiKeyRow, OrganizationRow, UserRow};
use serde_json::json;

#[tokio::test]
async fn every_bad_credential_is_the_same_401() {
    let w = World::new().await;
    let mut bodies = Vec::new();
    for key in [None, Some("dtn_wrong"), Some("eyJa.eyJb.c"), Some(""), Some("x")] {
        let answer = w.call("GET", "/sandbox", key, "").await;
        assert_eq!(answer.status, 401, "{key:?}");
        bodies.push(answer.json["message"].clone());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
    assert_eq!(w.call("POST", "/sandbox", None, "{bad json").await.status, 401);
}

#[tokio::test]
async fn a_key_has_only_its_permissions() {
    let w = World::new().await;
    w.sandbox(json!({"name": "s"})).await;
    let reader = w.key_with("reader", json!([])).await;
    assert_eq!(w.call("GET", "/sandbox", Some(&reader), "").await.status, 200);
    assert_eq!(w.call("GET", "/snapshots", Some(&reader), "").await.status, 200);
    let refused = [
        ("POST", "/sandbox"),
        ("POST", "/sandbox/s/stop"),
        ("DELETE", "/sandbox/s"),
        ("POST", "/sandbox/s/exec"),
        ("POST", "/sandbox/s/autostop/1"),
        ("POST", "/snapshots"),
        ("GET", "/api-keys"),
        ("POST", "/api-keys"),
        ("DELETE", "/api-keys/default"),
    ];
    for (method, path) in refused {
        let body = r#"{"name":"x","permissions":[],"command":"x"}"#;
        assert_eq!(w.call(method, path, Some(&reader), body).await.status, 403, "{method} {path}");
    }
    let writer = w.key_with("writer", json!(["write:sandboxes", "manage:api_keys"])).await;
    assert_eq!(w.call("DELETE", "/sandbox/s", Some(&writer), "").await.status, 403);
    let more = r#"{"name":"more","permissions":["delete:sandboxes"]}"#;
    assert_eq!(w.call("POST", "/api-keys", Some(&writer), more).await.status, 403);
}

#[tokio::test]
async fn keys_are_shown_once_expire_and_can_be_revoked() {
    let w = World::new().await;
    let body = json!({"name": "ci", "permissions": ["write:sandboxes"], "expiresAt": "2999-01-01T00:00:00Z"});
    let made = w.post("/api-keys", body.clone()).await;
    assert_eq!((made.status, made.json["expiresAt"].as_str()), (201, Some("2999-01-01T00:00:00.000Z")));
    assert_eq!(w.post("/api-keys", body).await.status, 409);
    let value = made.json["value"].as_str().unwrap();
    assert_eq!(w.call("GET", "/sandbox", Some(value), "").await.status, 200);
    let masked = format!("dtn{}{}", "*".repeat(20), &value[65..]);
    let list = w.get("/api-keys").await;
    assert_eq!(list.json.as_array().unwrap().len(), 2);
    assert!(!list.text.contains(value) && list.text.contains(&masked));
    assert_eq!(w.get("/api-keys/ci").await.json["value"], *masked);
    assert_eq!(w.call("GET", "/api-keys/current", Some(value), "").await.json["name"], "ci");
    assert_eq!(w.delete("/api-keys/ci").await.status, 204);
    assert_eq!(w.call("GET", "/sandbox", Some(value), "").await.status, 401);
    assert_eq!(w.delete("/api-keys/ci").await.status, 404);
    assert_eq!(w.get("/api-keys/ci").await.status, 404);
    let past = json!({"name": "old", "permissions": [], "expiresAt": "2001-01-01T00:00:00Z"});
    let old = w.post("/api-keys", past).await.json["value"].as_str().unwrap().to_owned();
    assert_eq!(w.call("GET", "/sandbox", Some(&old), "").await.status, 401);
    let user = w.get("/users/me").await.json["id"].as_str().unwrap().to_owned();
    assert_eq!(w.delete(&format!("/api-keys/{user}/old")).await.status, 204);
    for bad in [
        json!({"name": "", "permissions": []}),
        json!({"name": "x", "permissions": ["fly"]}),
        json!({"name": "x", "permissions": [], "expiresAt": "soon"}),
        json!({"permissions": []}),
    ] {
        assert_eq!(w.post("/api-keys", bad.clone()).await.status, 400, "{bad}");
    }
}

/// A second organization with a key of its own.
async fn stranger(w: &World) -> String {
    let user = UserRow { id: "u2".into(), name: "n".into(), email: "e".into(), created_ms: 1 };
    let organization = OrganizationRow {
        id: "00000000-0000-4000-8000-000000000002".into(),
        name: "Other".into(),
        created_by: "u2".into(),
        personal: true,
        created_ms: 1,
        updated_ms: 1,
    };
    w.store.insert_user(&user, &organization).await.unwrap();
    let value = "dtn_stranger";
    let key = ApiKeyRow {
        organization_id: organization.id,
        user_id: "u2".into(),
        name: "k".into(),
        // SHA-256 of the value.
        hash: sha256(value),
        prefix: "dtn".into(),
        suffix: "ger".into(),
        permissions: infield_api::api_key::Permission::ALL.to_vec(),
        created_ms: 1,
        last_used_ms: None,
        expires_ms: None,
    };
    w.store.insert_api_key(&key).await.unwrap();
    value.to_owned()
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(text.as_bytes()))
}

#[tokio::test]
async fn what_belongs_to_others_is_not_found() {
    let w = World::new().await;
    let s = w.sandbox(json!({"name": "s"})).await;
    let stranger = stranger(&w).await;
    let id = s["id"].as_str().unwrap();
    for (method, path) in [
        ("GET", format!("/sandbox/{id}")),
        ("GET", "/sandbox/s".to_owned()),
        ("DELETE", format!("/sandbox/{id}")),
        ("POST", format!("/sandbox/{id}/stop")),
        ("POST", format!("/sandbox/{id}/last-activity")),
        ("GET", format!("/sandbox/{id}/toolbox-proxy-url")),
    ] {
        assert_eq!(w.call(method, &path, Some(&stranger), "").await.status, 404, "{method} {path}");
    }
    assert_eq!(w.call("GET", "/sandbox", Some(&stranger), "").await.json["items"], json!([]));
    let own = w.get("/organizations").await.json[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(w.get(&format!("/organizations/{own}")).await.status, 200);
    assert_eq!(w.call("GET", &format!("/organizations/{own}"), Some(&stranger), "").await.status, 403);
    let directory = w.app.directory();
    let resolved = directory.resolve(id, Credential::Bearer(&stranger)).await;
    assert_eq!(resolved, Err(DirectoryError::NotFound));
}

#[tokio::test]
async fn the_directory_opens_with_the_key_or_the_sandboxes_own_token() {
    let w = World::new().await;
    let s = w.sandbox(json!({"name": "s"})).await;
    let id = s["id"].as_str().unwrap();
    let directory = w.app.directory();
    let resolve = async |sandbox: &str, credential: Credential<'_>| directory.resolve(sandbox, credential).await;
    let target = resolve(id, Credential::Bearer(&w.key)).await.unwrap();
    assert_eq!((target.sandbox.to_string().as_str(), target.running, target.state), (id, true, "started"));
    assert_eq!(resolve("s", Credential::Bearer(&w.key)).await.unwrap(), target);
    // From memory now.
    assert_eq!(resolve("s", Credential::Bearer(&w.key)).await.unwrap(), target);
    let token = w.store.sandbox(target.sandbox).await.unwrap().unwrap().auth_token;
    assert_eq!(resolve(id, Credential::PreviewToken(&token)).await.unwrap(), target);
    for (sandbox, credential) in [
        (id, Credential::None),
        (id, Credential::Bearer("dtn_x")),
        (id, Credential::PreviewToken("x")),
        ("s", Credential::PreviewToken(&token)),
        ("7c1f2c1e-7d6a-4c8e-9c7b-2f5a1a0d3e44", Credential::PreviewToken(&token)),
    ] {
        assert_eq!(resolve(sandbox, credential).await, Err(DirectoryError::Unauthorized), "{sandbox}");
    }
    let stopped = w.post("/sandbox/s/stop", json!({})).await;
    assert_eq!(stopped.status, 200);
    assert!(!resolve("s", Credential::Bearer(&w.key)).await.unwrap().running);
    w.until_state("s", "stopped").await;
    w.post("/sandbox/s/start", json!({})).await;
    assert!(resolve("s", Credential::Bearer(&w.key)).await.unwrap().running);
    assert_eq!(resolve(id, Credential::PreviewToken(&token)).await, Err(DirectoryError::Unauthorized));
    w.delete("/sandbox/s").await;
    assert_eq!(resolve("s", Credential::Bearer(&w.key)).await, Err(DirectoryError::NotFound));
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let w = World::new().await;
    let nowhere = w.get("/nowhere").await;
    assert_eq!((nowhere.status, nowhere.json["path"].as_str()), (404, Some("/api/nowhere")));
    assert_eq!(nowhere.json["error"], "Not Found");
    for (method, path, operation) in [
        ("GET", "/warm-pools", "listWarmPools"),
        ("POST", "/sandbox/x/network-settings", "updateNetworkSettings"),
        ("GET", "/sandbox/x/build-logs", "getBuildLogs"),
        ("POST", "/organizations", "createOrganization"),
        ("POST", "/users/me/logins", "recordLogin"),
        ("DELETE", "/organizations/x", "deleteOrganization"),
        ("GET", "/preview/x/validate/y", "isValidAuthToken"),
    ] {
        let answer = w.call(method, path, Some(&w.key), "").await;
        assert_eq!(answer.status, 501, "{method} {path}");
        assert!(answer.json["message"].as_str().unwrap().contains(operation), "{}", answer.text);
        assert_eq!(answer.json["source"], "DAYTONA_API");
    }
    assert_eq!(w.call("PATCH", "/sandbox", Some(&w.key), "").await.status, 404);
    let huge = "x".repeat(5 << 20);
    assert_eq!(w.call("POST", "/sandbox", Some(&w.key), &huge).await.status, 413);
}

#[tokio::test]
async fn what_needs_no_key() {
    let w = World::new().await;
    assert_eq!(w.call("GET", "/health", None, "").await.json, json!({"status": "ok"}));
    let ready = w.call("GET", "/health/ready", None, "").await;
    assert_eq!((ready.status, ready.json["status"].as_str()), (200, Some("ok")));
    w.sim.host().down = true;
    let ready = || w.call("GET", "/health/ready", None, "");
    w.until("the runner is seen to be down", async |_| ready().await.status == 503).await;
    assert_eq!(ready().await.json["error"]["runner"]["status"], "down");
    w.sim.host().down = false;
    let config = w.call("GET", "/config", None, "").await.json;
    assert_eq!(config["proxyToolboxUrl"], format!("{}/toolbox", w.url));
    assert_eq!(config["maintananceMode"], false);
    // Required by clients newer than spec/api.json.
    assert!(config["oidc"]["provider"].is_string());
    let organization = w.get("/organizations").await.json[0].clone();
    assert_eq!(organization["scimEnabled"], false);
    assert!(organization.as_object().unwrap().contains_key("defaultQueueTimeout"));
    assert_eq!(w.call("GET", "/shared-regions", None, "").await.json[0]["id"], "us");
    assert_eq!(w.get("/regions").await.json[0]["regionType"], "shared");
    assert_eq!(w.get("/users/me").await.json["id"], "infield-admin");
    let openapi = w.call("GET", "/openapi.json", None, "").await.json;
    assert_eq!(openapi["paths"]["/sandbox"]["post"]["operationId"], "createSandbox");
    let preflight = w.call("OPTIONS", "/sandbox", None, "").await;
    assert_eq!(preflight.headers["access-control-allow-origin"], "*");
}

/// An answer that did not need the body leaves the connection usable, even when the body comes after the answer could have.
#[tokio::test]
async fn an_unread_body_does_not_cost_the_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let w = World::new().await;
    let mut stream =
        tokio::net::TcpStream::connect(w.url.trim_start_matches("http://").split('/').next().unwrap()).await.unwrap();
    let body = "x".repeat(70_000);
    for round in 0..3 {
        let head = format!("PUT /api/sandbox/a/state HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut part = [0; 4096];
            let got = stream.read(&mut part).await.unwrap();
            assert!(got > 0, "round {round}: the connection was closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..got]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 501"), "round {round}: {}", String::from_utf8_lossy(&answer));
    }
}
