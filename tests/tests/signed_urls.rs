//! Signed URLs of files, made as the contract says with a key from the API: what they open, and everything they do not.

use infield_tests::{Api, Reply, World, process};
use serde_json::json;
use std::{process::Command, time::Duration};

/// Prints the query of a signed URL: key, method, path, expiry. Not this project's own code, so that it cannot agree with it
/// in an error.
const SIGN: &str = "
import base64, hashlib, hmac, sys, urllib.parse
key, method, path, expires = sys.argv[1:]
mac = hmac.new(key.encode(), f'v1:files:{method}:{path}:{expires}'.encode(), hashlib.sha256).digest()
signature = 'v1_' + base64.urlsafe_b64encode(mac).rstrip(b'=').decode()
print(urllib.parse.urlencode({'path': path, 'expires': expires, 'signature': signature}), end='')
";
const NEVER: &str = "0";
const LONG_AGO: &str = "1000000000";
const FAR_AWAY: &str = "32503680000";

fn signed(key: &str, method: &str, path: &str, expires: &str) -> String {
    let mut python = Command::new("python3");
    let output = process::run(python.args(["-c", SIGN, key, method, path, expires]), Duration::from_secs(60));
    process::succeeded(&output)
}

/// The relay's own error body; the signature is not repeated in it.
#[track_caller]
fn refused(reply: &Reply, status: u16) {
    reply.expect_error(status);
    assert_eq!(reply.json()["source"], "DAYTONA_PROXY", "{}", reply.text());
    assert!(!reply.text().contains("v1_"), "{}", reply.text());
}

struct Key<'a> {
    api: &'a Api,
    id: &'a str,
}

impl Key<'_> {
    fn now(&self) -> String {
        let reply = self.api.get(&format!("/sandbox/{}/signing-key", self.id)).expect(200);
        assert!(reply.header("content-type").unwrap().starts_with("text/"), "{:?}", reply.headers);
        reply.text()
    }

    fn rotate(&self) -> String {
        self.api.post(&format!("/sandbox/{}/signing-key/rotate", self.id), json!({})).expect(200).text()
    }
}

#[test]
fn a_signed_url_opens_one_file_until_the_key_is_replaced() {
    let mut world = World::new("signed");
    let id = world.sandbox();
    let api = world.api();
    let key = Key { api: &api, id: &id };
    let first = key.now();
    assert_eq!((first.len(), key.now() == first), (32, true));
    let anybody = world.toolbox(&id).with_key(None);
    let down = |query: &str| anybody.get(&format!("/files/download?{query}"));
    let up = |query: &str, content: &str| {
        anybody.call("POST", &format!("/files/upload-v2?{query}"), Some(content.as_bytes().to_vec()))
    };

    let path = "a folder/ünïcödé & more?.txt";
    up(&signed(&first, "POST", path, NEVER), "content").expect(200);
    let good = signed(&first, "GET", path, FAR_AWAY);
    let reply = down(&good).expect(200);
    assert_eq!(reply.text(), "content");
    assert!(reply.header("content-disposition").unwrap().starts_with("attachment"), "{:?}", reply.headers);
    assert_eq!(anybody.call("HEAD", &format!("/files/download?{good}"), None).status, 200);

    // Everything but that: another time, file, method, version, key, operation, spelling.
    refused(&down(&signed(&first, "GET", path, LONG_AGO)), 401);
    refused(&down(&good.replace("32503680000", "32503680001")), 401);
    refused(&down(&good.replace("more", "less")), 401);
    refused(&down(&signed(&first, "POST", path, NEVER)), 401);
    refused(&up(&good, "x"), 401);
    refused(&down(&good.replace("v1_", "v2_")), 401);
    refused(&down(&signed(&first.replace(|c: char| c.is_ascii_lowercase(), "x"), "GET", path, NEVER)), 401);
    refused(&down(&format!("{good}&path=/etc/passwd")), 401);
    refused(&down(&format!("path=/etc/passwd&{good}")), 401);
    refused(&down(good.split_once('&').unwrap().1), 400);
    refused(&down("path=x"), 401);
    for other in ["/files", "/files/info", "/files/%64ownload", "/files/search", "/process/session", "/"] {
        refused(&anybody.get(&format!("{other}?{good}")), 401);
    }
    refused(&anybody.call("DELETE", &format!("/files?{good}"), None), 401);
    refused(&anybody.call("POST", &format!("/files/upload?{}", signed(&first, "POST", path, NEVER)), None), 401);
    let other = world.sandbox();
    refused(&world.toolbox(&other).with_key(None).get(&format!("/files/download?{good}")), 401);
    refused(&world.toolbox("absent").with_key(None).get(&format!("/files/download?{good}")), 401);
    assert_eq!(world.sh(&id, &format!("cat '{path}'")), "content");

    // It outlives the sandbox's stop and the server's end, but not its key.
    api.post(&format!("/sandbox/{id}/stop"), json!({})).expect(200);
    infield_tests::eventually("it is stopped", Duration::from_secs(60), || {
        (api.get(&format!("/sandbox/{id}")).json()["state"] == "stopped").then_some(())
    });
    refused(&down(&good), 400);
    world.kill_server();
    world.restart();
    api.post(&format!("/sandbox/{id}/start"), json!({})).expect(200);
    infield_tests::eventually("it runs again", Duration::from_secs(60), || {
        (api.get(&format!("/sandbox/{id}")).json()["state"] == "started").then_some(())
    });
    assert_eq!(down(&good).expect(200).text(), "content");
    let second = key.rotate();
    assert_ne!(second, first);
    refused(&down(&good), 401);
    assert_eq!(down(&signed(&second, "GET", path, NEVER)).expect(200).text(), "content");
}
