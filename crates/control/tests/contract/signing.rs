//! Signed URLs of files: the key's two routes, and what the directory makes of a signature.

use crate::world::World;
use infield_api::directory::{Credential, DirectoryError, SignedFile};
use serde_json::json;

const KEY: &str = "testsigningkey1234567890abcdefgh";
/// The published vector that never expires.
const FILE: SignedFile<'_> = SignedFile {
    method: "GET",
    route: "/files/download",
    path: Some(b"/home/user/report.pdf"),
    expires: "0",
    signature: "v1_lpj67Q-1iHxBviass5MZhGs36X80uk3DgCaRjjmyPrk",
};

#[tokio::test]
async fn the_key_is_bare_text_stays_and_is_replaced() {
    let w = World::new().await;
    let id = w.sandbox(json!({"name": "s"})).await["id"].as_str().unwrap().to_owned();
    let route = format!("/sandbox/{id}/signing-key");
    let first = w.get(&route).await;
    assert_eq!((first.status, first.text.len(), first.json.is_null()), (200, 32, true), "{}", first.text);
    assert!(first.headers["content-type"].to_str().unwrap().starts_with("text/"));
    assert_eq!(w.get("/sandbox/s/signing-key").await.text, first.text);
    let second = w.post(&format!("{route}/rotate"), json!({})).await;
    assert_eq!((second.status, second.text.len(), second.text == first.text), (200, 32, false));
    assert_eq!(w.get(&route).await.text, second.text);
    let reader = w.key_with("r", json!([])).await;
    assert_eq!(w.call("POST", &format!("{route}/rotate"), Some(&reader), "").await.status, 403);
    assert_eq!(w.call("GET", &route, Some(&reader), "").await.text, second.text);
    assert_eq!(w.call("GET", &route, None, "").await.status, 401);
    assert_eq!(w.get("/sandbox/absent/signing-key").await.status, 404);
    assert_eq!(w.post("/sandbox/absent/signing-key/rotate", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_signature_opens_until_its_key_is_replaced() {
    let w = World::new().await;
    let s = w.sandbox(json!({"name": "s"})).await;
    let (id, directory) = (s["id"].as_str().unwrap(), w.app.directory());
    let other = w.sandbox(json!({})).await["id"].as_str().unwrap().to_owned();
    let resolve = async |sandbox: &str, file| directory.resolve(sandbox, Credential::SignedFile(file)).await;
    let no = Err(DirectoryError::Unauthorized);
    assert_eq!(resolve(id, FILE).await, no, "nobody has asked for a key");
    let parsed = id.parse().unwrap();
    w.store.set_signing_key(parsed, KEY).await.unwrap();
    let target = resolve(id, FILE).await.unwrap();
    assert_eq!((target.sandbox, target.running), (parsed, true));
    assert!(resolve(id, SignedFile { method: "HEAD", ..FILE }).await.is_ok());
    for (sandbox, file) in [
        (id, SignedFile { path: Some(b"/home/user/other.pdf"), ..FILE }),
        (id, SignedFile { expires: "1", ..FILE }),
        (id, SignedFile { route: "/files/bulk-download", ..FILE }),
        (id, SignedFile { method: "POST", route: "/files/upload-v2", ..FILE }),
        (id, SignedFile { signature: "", ..FILE }),
        ("s", FILE),
        (&other, FILE),
        ("7c1f2c1e-7d6a-4c8e-9c7b-2f5a1a0d3e44", FILE),
    ] {
        assert_eq!(resolve(sandbox, file).await, no, "{sandbox}");
    }
    let incomplete = Err(DirectoryError::Incomplete("path"));
    assert_eq!(resolve(id, SignedFile { path: None, ..FILE }).await, incomplete);
    // The key outlives a stop; the directory says that nothing runs.
    w.post("/sandbox/s/stop", json!({})).await;
    assert!(!resolve(id, FILE).await.unwrap().running);
    w.until_state("s", "stopped").await;
    w.post("/sandbox/s/start", json!({})).await;
    assert!(resolve(id, FILE).await.unwrap().running);
    w.post("/sandbox/s/signing-key/rotate", json!({})).await;
    assert_eq!(resolve(id, FILE).await, no, "at once");
    w.store.set_signing_key(parsed, KEY).await.unwrap();
    w.delete("/sandbox/s").await;
    w.until("it is destroyed", async |w| w.store.signing_key(parsed).await.unwrap().is_none()).await;
    assert_eq!(resolve(id, FILE).await, no);
}
