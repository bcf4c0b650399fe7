//! The relay against agents that behave well, badly and not at all.

mod support;

use futures_util::{SinkExt, StreamExt};
use std::sync::atomic::Ordering;
use support::{KEY, SIGNATURE, TOKEN, bench, echo_heads, read_head, read_reply};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

#[tokio::test]
async fn credentials_open_and_never_pass() {
    let bench = bench(true, |_, stream| echo_heads(stream)).await;
    let id = bench.id;
    let ask = |target: String, headers: &'static str| {
        let bench = &bench;
        async move { bench.raw(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n")).await }
    };
    let bearer = ask(format!("/toolbox/{id}/a"), "authorization: bearer dtn_good\r\n").await;
    assert_eq!(bearer.status, 200);
    assert!(!bearer.body.to_lowercase().contains("authorization"), "{}", bearer.body);
    let header = ask("/toolbox/".to_owned() + "box/a", "X-Daytona-Preview-Token: preview-token\r\n").await;
    assert_eq!(header.status, 200);
    assert!(!header.body.contains(TOKEN), "{}", header.body);
    let query = ask(format!("/toolbox/{id}/a?x=%2F&DAYTONA_SANDBOX_AUTH_KEY={TOKEN}"), "").await;
    assert_eq!(query.status, 200);
    assert!(query.body.starts_with("GET /a?x=%2F HTTP/1.1\r\n"), "{}", query.body);
    // A wrong bearer falls through to the next credential.
    let both = ask(format!("/toolbox/{id}/a?DAYTONA_SANDBOX_AUTH_KEY={TOKEN}"), "Authorization: Bearer app\r\n").await;
    assert_eq!(both.status, 200);

    for (target, headers, status) in [
        (format!("/toolbox/{id}/a"), "", 401),
        (format!("/toolbox/{id}/a"), "Authorization: Bearer no\r\n", 401),
        (format!("/toolbox/{id}/a"), "Authorization: Basic dtn_good\r\n", 401),
        ("/toolbox/nobody/a".into(), "Authorization: Bearer dtn_good\r\n", 404),
        ("/toolbox/".into(), "Authorization: Bearer dtn_good\r\n", 404),
    ] {
        let refused = ask(target, headers).await;
        assert_eq!(refused.status, status, "{}", refused.body);
        let body: serde_json::Value = serde_json::from_str(&refused.body).expect("an envelope");
        assert_eq!((&body["source"], &body["statusCode"]), (&"DAYTONA_PROXY".into(), &status.into()));
        assert!(body["message"].is_string() && body["timestamp"].is_string() && body["path"].is_string());
    }
}

#[tokio::test]
async fn a_signed_url_passes_only_what_was_signed() {
    let bench = bench(true, |_, stream| echo_heads(stream)).await;
    let ask = |query: String, headers: &'static str| {
        let (bench, target) = (&bench, format!("/toolbox/{}/files/x?{query}", bench.id));
        async move { bench.raw(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n")).await }
    };
    let signed = format!("path=%2Fa+b&expires=0&signature={SIGNATURE}");
    for (query, headers) in [(signed.clone(), ""), (format!("more=1&{signed}"), "Authorization: Bearer app\r\n")] {
        let reply = ask(query, headers).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert!(reply.body.starts_with("GET /files/x?path=%2Fa%20b HTTP/1.1\r\n"), "{}", reply.body);
    }
    // A good key decides before any signature; then the query is the client's own.
    let keyed = ask("path=c&signature=x".into(), "Authorization: Bearer dtn_good\r\n").await;
    assert!(keyed.body.starts_with("GET /files/x?path=c&signature=x HTTP/1.1\r\n"), "{}", keyed.body);
    for (query, status) in [
        (signed.replace("good", "bad"), 401),
        (format!("{signed}&path=c"), 401),
        (signed.replace("%2Fa+b", "c"), 401),
        (signed.replace("path=%2Fa+b&", ""), 400),
        ("path=%2Fa+b".into(), 401),
    ] {
        let refused = ask(query, "").await;
        assert_eq!(refused.status, status, "{}", refused.body);
        assert!(!refused.body.contains("v1_"), "{}", refused.body);
    }
}

#[tokio::test]
async fn a_stopped_sandbox_says_how_to_start_it() {
    let bench = bench(false, |_, stream| echo_heads(stream)).await;
    let reply = bench.get("/version", "").await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("not started (state stopped)") && reply.body.contains("/start"), "{}", reply.body);
    assert_eq!(bench.connects.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn raw_targets_and_forwarding_facts() {
    let bench = bench(true, |_, stream| echo_heads(stream)).await;
    let reply =
        bench.get("/files/a%2Fb%20c/?path=%2Fx%26y&z=%C3%A4", "X-Forwarded-For: 9.9.9.9\r\nTE: trailers\r\n").await;
    assert!(reply.body.starts_with("GET /files/a%2Fb%20c/?path=%2Fx%26y&z=%C3%A4 HTTP/1.1\r\n"), "{}", reply.body);
    let head = reply.body.to_lowercase();
    assert!(head.contains("x-forwarded-for: 9.9.9.9, 127.0.0.1\r\n"), "{head}");
    assert!(head.contains(&format!("x-forwarded-prefix: /toolbox/{}\r\n", bench.id)), "{head}");
    assert!(head.contains("x-forwarded-host: h\r\n") && !head.contains("\r\nte:"), "{head}");
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_activity_is_noted() {
    let bench = bench(true, |_, stream| echo_heads(stream)).await;
    let mut stream = bench.dial().await;
    for _ in 0..20 {
        let request = format!("GET /toolbox/box/v HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        assert_eq!(read_reply(&mut stream).await.status, 200);
    }
    assert_eq!(bench.connects.load(Ordering::SeqCst), 1);
    assert_eq!(bench.touches.load(Ordering::SeqCst), 20);
    bench.get("/v", "X-Daytona-Skip-Last-Activity-Update: true\r\n").await;
    assert_eq!(bench.touches.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn a_stale_connection_is_replaced_once() {
    let (closed, mut closings) = mpsc::unbounded_channel();
    // The first connection answers once; after the second head it closes without a word.
    let bench = bench(true, move |number, stream| {
        let closed = closed.clone();
        async move {
            let mut stream = BufReader::new(stream);
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("answer");
            if number == 0 {
                let head = read_head(&mut stream).await;
                closed.send(head).expect("send");
                return;
            }
            echo_heads(stream.into_inner()).await;
        }
    })
    .await;
    assert_eq!(bench.get("/one", "").await.body, "ok");
    let second = bench.get("/two", "").await;
    assert_eq!((second.status, second.body.as_str()), (200, "ok"), "{}", second.head);
    assert!(closings.recv().await.expect("closed").starts_with("GET /two "));
    assert_eq!(bench.connects.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_body_that_was_begun_is_not_sent_twice() {
    let bench = bench(true, |number, stream| async move {
        assert_eq!(number, 0, "no second connection");
        let mut stream = BufReader::new(stream);
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("answer");
        read_head(&mut stream).await;
        let mut begun = [0; 5];
        stream.read_exact(&mut begun).await.expect("body");
    })
    .await;
    bench.get("/one", "").await;
    let request = format!(
        "POST /toolbox/box/run HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 5\r\n\r\nhello"
    );
    let reply = bench.raw(&request).await;
    assert_eq!(reply.status, 502, "{}", reply.body);
    assert!(reply.body.contains("DAYTONA_PROXY"));
}

#[tokio::test]
async fn garbage_floods_of_headers_and_silence_become_502() {
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(2 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(500));
    for answer in ["SSH-2.0-hello\r\n\r\n".to_owned(), huge, many, String::new()] {
        let bench = bench(true, move |_, stream| {
            let answer = answer.clone();
            async move {
                let mut stream = BufReader::new(stream);
                read_head(&mut stream).await;
                // The gateway may hang up in the middle of the flood.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let reply = bench.get("/v", "").await;
        assert_eq!(reply.status, 502, "{}", reply.body);
        assert!(reply.body.contains("BAD_GATEWAY"), "{}", reply.body);
    }
}

#[tokio::test]
async fn an_agent_cannot_switch_protocols_unasked() {
    let bench = bench(true, |_, stream| async move {
        let mut stream = BufReader::new(stream);
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("answer");
        std::future::pending::<()>().await;
    })
    .await;
    assert_eq!(bench.get("/v", "").await.status, 502);
}

#[tokio::test]
async fn ambiguous_lengths_do_not_reach_an_agent_as_they_came() {
    let bench = bench(true, |_, stream| echo_heads(stream)).await;
    for lines in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: +3\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: identity\r\n",
    ] {
        let request = format!(
            "POST /toolbox/box/run HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\n{lines}\r\nabcGET /x HTTP/1.1\r\n\r\n"
        );
        assert_eq!(bench.raw(&request).await.status, 400, "{lines}");
    }
    // With both, chunked wins and the length ends here.
    let request = format!(
        "POST /toolbox/box/run HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 999\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    let reply = bench.raw(&request).await;
    let head = reply.body.to_lowercase();
    assert!(reply.status == 400 || !head.contains("content-length: 999"), "{}", reply.body);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    // The agent sends each chunk back as it comes, so a gateway that collects would wait for ever.
    let bench = bench(true, |_, stream| async move {
        let mut stream = BufReader::new(stream);
        let head = read_head(&mut stream).await;
        assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("head");
        let mut buffer = [0; 4096];
        loop {
            let n = stream.read(&mut buffer).await.expect("read");
            stream.write_all(&buffer[..n]).await.expect("echo");
            if n == 0 || buffer[..n].ends_with(b"0\r\n\r\n") {
                return;
            }
        }
    })
    .await;
    let mut stream = bench.dial().await;
    let head = format!(
        "POST /toolbox/box/echo HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("head");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200"));
    for word in ["one", "two", "six"] {
        let chunk = format!("3\r\n{word}\r\n");
        stream.write_all(chunk.as_bytes()).await.expect("chunk");
        let mut back = vec![0; chunk.len()];
        stream.read_exact(&mut back).await.expect("echo");
        assert_eq!(String::from_utf8_lossy(&back), chunk);
    }
    stream.write_all(b"0\r\n\r\n").await.expect("end");
    assert_eq!(read_head(&mut stream).await, "0\r\n\r\n");
}

#[tokio::test]
async fn redirects_and_cors() {
    let bench = bench(true, |_, stream| async move {
        let mut stream = BufReader::new(stream);
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /files/\r\nAccess-Control-Allow-Origin: *\r\n\
                      Connection: close\r\nKeep-Alive: x\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("answer");
    })
    .await;
    let reply = bench.get("/files", "Origin: https://app.example\r\n").await;
    let head = reply.head.to_lowercase();
    assert!(head.contains(&format!("location: /toolbox/{}/files/\r\n", bench.id)), "{head}");
    assert!(head.contains("access-control-allow-origin: https://app.example\r\n"), "{head}");
    assert!(head.contains("access-control-allow-credentials: true\r\n") && !head.contains("keep-alive"), "{head}");

    let preflight = bench
        .raw(
            "OPTIONS /toolbox/box/x HTTP/1.1\r\nHost: h\r\nOrigin: https://a\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,x-daytona-source\r\n\r\n",
        )
        .await;
    assert_eq!(preflight.status, 204);
    assert!(
        preflight.head.contains("access-control-allow-headers: authorization,x-daytona-source"),
        "{}",
        preflight.head
    );
}

#[tokio::test]
async fn websockets_pass_with_their_subprotocol() {
    let bench = bench(true, |_, stream| async move {
        #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let choose = |request: &http::Request<()>, mut response: http::Response<()>| {
            assert_eq!(request.uri().path(), "/process/pty");
            let offered = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", offered);
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose).await.expect("accept");
        while let Some(Ok(message)) = socket.next().await {
            if !message.is_close() {
                socket.send(message).await.expect("echo");
            }
        }
    })
    .await;
    let url = format!("ws://{}/toolbox/{}/process/pty?DAYTONA_SANDBOX_AUTH_KEY={TOKEN}", bench.address, bench.id);
    let mut request = url.into_client_request().expect("request");
    request.headers_mut().insert("sec-websocket-protocol", "X-Daytona-Pty-Exit-Control".parse().expect("value"));
    let tcp = tokio::net::TcpStream::connect(bench.address).await.expect("connect");
    let (mut socket, response) = tokio_tungstenite::client_async(request, tcp).await.expect("handshake");
    assert_eq!(response.headers()["sec-websocket-protocol"], "X-Daytona-Pty-Exit-Control");
    let big = Message::binary(vec![7u8; 1 << 20]);
    for message in [Message::text("hello"), big] {
        socket.send(message.clone()).await.expect("send");
        assert_eq!(socket.next().await.expect("some").expect("message"), message);
    }
    socket.close(None).await.expect("close");
}

#[tokio::test]
async fn a_refused_websocket_is_an_ordinary_answer() {
    let bench = bench(true, |_, stream| echo_heads(stream)).await;
    let reply =
        bench.get("/ws", "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n").await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.to_lowercase().contains("upgrade: websocket"), "{}", reply.body);
    assert_eq!(bench.get("/ws", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n").await.status, 200);
}
