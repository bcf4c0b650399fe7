//! Previews: a port of a sandbox under a host name of its own, who gets in, and what goes no further.

use infield_tests::{Api, Reply, World, eventually};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    time::Duration,
};

/// Tells what reached it, whatever was asked; a POST comes back as it was sent.
const APPLICATION: &str = r#"
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def say(self, body, kind='application/json'):
        self.send_response(200)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == '/redirect':
            self.send_response(302)
            self.send_header('Location', '/elsewhere')
            self.send_header('Content-Length', '0')
            return self.end_headers()
        heads = [[name.lower(), value] for name, value in self.headers.items()]
        self.say(json.dumps({'path': self.path, 'headers': heads}).encode())
    def do_POST(self):
        self.say(self.rfile.read(int(self.headers['Content-Length'])), 'application/octet-stream')
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(('127.0.0.1', 3000), Echo).serve_forever()
"#;

/// A sandbox with the application.
struct Preview {
    world: World,
    id: String,
}

impl Preview {
    fn start(name: &str) -> Self {
        let world = World::new(name);
        let id = world.sandbox();
        let preview = Self { world, id };
        preview.serve();
        preview
    }

    fn serve(&self) {
        let upload = format!("cat > /tmp/app.py <<'END'\n{APPLICATION}\nEND\n");
        self.world.sh(&self.id, &upload);
        self.world.sh(&self.id, "setsid python3 /tmp/app.py >/dev/null 2>&1 &");
        eventually("the application listens", Duration::from_secs(60), || {
            (self.world.toolbox(&self.id).get("/proxy/3000/").status == 200).then_some(())
        });
    }

    /// Somebody without any credential at a preview host.
    fn at(&self, port: u16, label: &str) -> Api {
        let host = format!("{port}-{label}.preview.test");
        self.world.api().at(self.world.url().replace("/api", "")).with_key(None).with_header("Host", &host)
    }

    fn anybody(&self) -> Api {
        self.at(3000, &self.id)
    }

    fn url(&self, port: u16) -> Value {
        self.world.api().get(&format!("/sandbox/{}/ports/{port}/preview-url", self.id)).expect(200).json()
    }

    fn token(&self) -> String {
        self.url(3000)["token"].as_str().unwrap().to_owned()
    }

    fn signed(&self, port: u16, query: &str) -> Value {
        let path = format!("/sandbox/{}/ports/{port}/signed-preview-url{query}", self.id);
        self.world.api().get(&path).expect(200).json()
    }
}

/// What the application was told in this header.
fn told(reply: &Reply, header: &str) -> Option<String> {
    let said = reply.json();
    let heads = said["headers"].as_array().unwrap_or_else(|| panic!("not from the application: {said}"));
    heads.iter().find(|pair| pair[0] == header).map(|pair| pair[1].as_str().unwrap().to_owned())
}

fn cookie_of(reply: &Reply) -> String {
    let cookie = reply.header("set-cookie").expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("Path=/"), "{cookie}");
    assert!(!cookie.contains("Domain"), "other sandboxes' hosts do not get it: {cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

#[test]
fn each_credential_opens_and_goes_no_further() {
    let preview = Preview::start("preview");
    let (key, token) = (preview.world.api().key.unwrap(), preview.token());
    let anybody = preview.anybody();
    anybody.get("/").expect_error(401);
    anybody.with_key(Some("dtn_wrong")).get("/").expect_error(401);
    anybody.with_header("X-Daytona-Preview-Token", "wrong").get("/").expect_error(401);

    let keyed = anybody.with_key(Some(&key)).get("/a%2Fb//c?x=1&y=%20").expect(200);
    assert_eq!(keyed.json()["path"], "/a%2Fb//c?x=1&y=%20");
    assert_eq!(told(&keyed, "authorization"), None);
    assert_eq!(told(&keyed, "host").unwrap(), format!("3000-{}.preview.test", preview.id));
    assert_eq!(told(&keyed, "x-forwarded-prefix"), None);

    let own = anybody.with_key(Some("the application's own")).with_header("X-Daytona-Preview-Token", &token);
    let own = own.with_header("X-Forwarded-Host", "evil.test").get("/").expect(200);
    assert_eq!(told(&own, "authorization").unwrap(), "Bearer the application's own");
    assert_eq!(told(&own, "x-daytona-preview-token"), None);
    assert_eq!(told(&own, "x-forwarded-host"), told(&own, "host"));

    let queried = anybody.get(&format!("/p?DAYTONA_SANDBOX_AUTH_KEY={token}&z=1")).expect(200);
    assert_eq!(queried.json()["path"], "/p?z=1");
    let cookie = cookie_of(&queried);
    let again = anybody.with_header("Cookie", &format!("mine=1; {cookie}")).get("/q").expect(200);
    assert_eq!(told(&again, "cookie").unwrap(), "mine=1");
    anybody.with_header("Cookie", &format!("{cookie}x")).get("/q").expect_error(401);

    let redirected = anybody.with_key(Some(&key)).get("/redirect").expect(302);
    assert_eq!(redirected.header("location"), Some("/elsewhere"));
    let body = vec![7; 3 << 20];
    assert_eq!(anybody.with_key(Some(&key)).call("POST", "/", Some(body.clone())).expect(200).body, body);
    // The path is the application's, whatever it looks like.
    assert_eq!(anybody.with_key(Some(&key)).get("/api/sandbox").expect(200).json()["path"], "/api/sandbox");
    assert_eq!(anybody.with_key(Some(&key)).get("/toolbox/x/y").expect(200).json()["path"], "/toolbox/x/y");
}

#[test]
fn another_sandboxs_credentials_open_nothing() {
    let preview = Preview::start("previewtwo");
    let other = preview.world.sandbox();
    let theirs = preview.world.api().get(&format!("/sandbox/{other}/ports/3000/preview-url")).expect(200).json();
    let token = theirs["token"].as_str().unwrap();
    preview.anybody().with_header("X-Daytona-Preview-Token", token).get("/").expect_error(401);
    preview.anybody().get(&format!("/?DAYTONA_SANDBOX_AUTH_KEY={token}")).expect_error(401);
    // Their cookie, under our name.
    let at_theirs = preview.at(2280, &other).get(&format!("/version?DAYTONA_SANDBOX_AUTH_KEY={token}")).expect(200);
    let renamed = cookie_of(&at_theirs).replacen(&other, &preview.id, 1);
    preview.anybody().with_header("Cookie", &renamed).get("/").expect_error(401);
    preview.at(3000, "00000000-0000-4000-8000-000000000000").get("/").expect_error(401);
}

#[test]
fn what_is_public_is_open_but_for_the_toolbox() {
    let preview = Preview::start("previewpublic");
    let api = preview.world.api();
    preview.anybody().get("/").expect_error(401);
    api.post(&format!("/sandbox/{}/public/true", preview.id), json!({})).expect(200);
    let open = preview.anybody().with_key(Some("anything")).get("/").expect(200);
    assert_eq!(told(&open, "authorization").unwrap(), "Bearer anything");
    for port in [2280, 22222, 33333] {
        preview.at(port, &preview.id).get("/version").expect_error(401);
    }
    let token = preview.token();
    let toolbox = preview.at(2280, &preview.id).with_header("X-Daytona-Preview-Token", &token);
    assert!(toolbox.get("/version").expect(200).json()["version"].is_string());
    preview.at(22222, &preview.id).with_header("X-Daytona-Preview-Token", &token).get("/").expect_error(501);
    api.post(&format!("/sandbox/{}/public/false", preview.id), json!({})).expect(200);
    preview.anybody().get("/").expect_error(401);
}

#[test]
fn a_link_opens_its_port_until_it_is_ended() {
    let preview = Preview::start("previewlink");
    let api = preview.world.api();
    let link = preview.signed(3000, "?expiresInSeconds=600");
    let token = link["token"].as_str().unwrap();
    assert_eq!((link["port"].as_u64(), token.len()), (Some(3000), 16));
    assert!(link["url"].as_str().unwrap().contains(&format!("//3000-{token}.")), "{link}");
    let opened = preview.at(3000, token).get("/x").expect(200);
    assert_eq!(opened.json()["path"], "/x");
    preview.at(3001, token).get("/").expect_error(403);
    preview.at(3000, "abcdefghij012345").get("/").expect_error(403);

    // The cookie a browser gets opens this link's port and nothing else of the sandbox.
    let cookie = cookie_of(&opened);
    preview.at(3000, token).with_header("Cookie", &cookie).get("/").expect(200);
    for (port, label) in [(2280, preview.id.as_str()), (3000, &preview.id), (3001, token), (2280, token)] {
        let renamed = cookie.replacen(token, label, 1);
        let reply = preview.at(port, label).with_header("Cookie", &renamed).get("/version");
        assert!([401, 403].contains(&reply.status), "{port}-{label}: {}", reply.text());
    }

    let expire = format!("/sandbox/{}/ports/3000/signed-preview-url/{token}/expire", preview.id);
    api.post(&expire, json!({})).expect(200);
    api.post(&expire, json!({})).expect(200);
    let page = preview.at(3000, token).with_header("Accept", "text/html").get("/").expect(403);
    assert!(page.header("content-type").unwrap().starts_with("text/html") && page.text().contains("expired"));
    let short = preview.signed(3000, "?expiresInSeconds=1");
    let short = short["token"].as_str().unwrap();
    eventually("the link expires", Duration::from_secs(30), || {
        (preview.at(3000, short).get("/").status == 403).then_some(())
    });
}

#[test]
fn people_are_told_why_nothing_is_shown() {
    let preview = Preview::start("previewpages");
    let (api, token) = (preview.world.api(), preview.token());
    let browser = |port| preview.at(port, &preview.id).with_header("Accept", "text/html,*/*;q=0.8");
    let private = browser(3000).get("/").expect(401);
    assert!(private.text().contains("private") && private.header("content-security-policy").is_some());
    let keyed = |port| browser(port).with_header("X-Daytona-Preview-Token", &token);
    let empty = keyed(4000).get("/").expect(502).text();
    assert!(empty.contains("Nothing listens on port 4000") && empty.contains("3000"), "{empty}");
    let plain = preview.at(4000, &preview.id).with_header("X-Daytona-Preview-Token", &token).get("/");
    assert!(plain.expect(502).json()["message"].as_str().unwrap().contains("4000"));

    let link = preview.signed(3000, "?expiresInSeconds=600");
    api.post(&format!("/sandbox/{}/stop", preview.id), json!({})).expect(200);
    eventually("it stopped", Duration::from_secs(60), || {
        let now = api.get(&format!("/sandbox/{}", preview.id)).expect(200).json();
        (now["state"] == "stopped").then_some(())
    });
    let stopped = keyed(3000).get("/").expect(400).text();
    assert!(stopped.contains("does not run"), "{stopped}");
    preview.anybody().with_header("X-Daytona-Preview-Token", &token).get("/").expect_error(400);
    // A start makes a new token; links go on.
    api.post(&format!("/sandbox/{}/start", preview.id), json!({})).expect(200);
    preview.serve();
    assert_ne!(preview.token(), token);
    eventually("the old token is worth nothing", Duration::from_secs(30), || {
        (keyed(3000).get("/").status == 401).then_some(())
    });
    preview.at(3000, link["token"].as_str().unwrap()).get("/").expect(200);
}

#[test]
fn addresses_that_cannot_be_made() {
    let world = World::new("previewbad");
    let (api, id) = (world.api(), world.sandbox());
    for port in ["0", "65536", "-1", "x", "80.5"] {
        api.get(&format!("/sandbox/{id}/ports/{port}/preview-url")).expect_error(400);
        api.get(&format!("/sandbox/{id}/ports/{port}/signed-preview-url")).expect_error(400);
    }
    for seconds in ["0", "86401", "-5", "x"] {
        api.get(&format!("/sandbox/{id}/ports/80/signed-preview-url?expiresInSeconds={seconds}")).expect_error(400);
    }
    api.get("/sandbox/nothing/ports/80/preview-url").expect_error(404);
    let url = api.get(&format!("/sandbox/{id}/ports/80/preview-url")).expect(200).json();
    assert!(url["url"].as_str().unwrap().starts_with(&format!("http://80-{id}.localhost:")), "{url}");
    let template = api.get("/config").expect(200).json();
    assert!(template["proxyTemplateUrl"].as_str().unwrap().starts_with("http://{{PORT}}-{{sandboxId}}.localhost:"));
}

/// As it stands on the wire; answers with the first line.
fn raw(world: &World, request: &str) -> String {
    let address = world.url().trim_start_matches("http://").trim_end_matches("/api").to_owned();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_request_names_one_host() {
    let world = World::new("previewhosts");
    let id = world.sandbox();
    let line = |request: String| raw(&world, &format!("{request}Connection: close\r\n\r\n"));
    let ours = format!("Host: 2280-{id}.x\r\n");
    assert!(line("GET /api/health HTTP/1.1\r\nHost: localhost\r\n".into()).contains(" 200 "));
    // Whoever names two is not asked which one was meant.
    assert!(line(format!("GET /api/health HTTP/1.1\r\nHost: localhost\r\n{ours}")).contains(" 400 "));
    assert!(line(format!("GET /api/health HTTP/1.1\r\n{ours}Host: localhost\r\n")).contains(" 400 "));
    // A request line that names a host itself wins over the header.
    assert!(line(format!("GET http://2280-{id}.x/version HTTP/1.1\r\nHost: localhost\r\n")).contains(" 401 "));
    assert!(line(format!("GET http://localhost/api/health HTTP/1.1\r\n{ours}")).contains(" 200 "));
    assert!(line("GET /api/health HTTP/1.0\r\n".into()).contains(" 200 "));
}
