//! `/proxy/{port}/…` against real servers on loopback: an ordinary one, a WebSocket, and those that misbehave.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::{Agent, read_answer};
use futures_util::{SinkExt, StreamExt};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

/// Serves one connection with `answer` and gives what it got.
fn once<T: Send + 'static>(answer: impl FnOnce(TcpStream) -> T + Send + 'static) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, std::thread::spawn(move || answer(listener.accept().unwrap().0)))
}

fn head(stream: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    head
}

fn line<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v))
}

#[test]
fn a_request_arrives_as_it_was_sent() {
    let agent = Agent::start();
    let (port, server) = once(|stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let head = head(&mut reader);
        let mut body = vec![0; 5];
        reader.read_exact(&mut body).unwrap();
        let answer = "HTTP/1.1 418 Teapot\r\nX-Custom: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nKeep-Alive: timeout=1\r\n\
                      Connection: keep-alive, X-Hop\r\nX-Hop: h\r\nContent-Length: 3\r\n\r\nhey";
        (&stream).write_all(answer.as_bytes()).unwrap();
        (head, body)
    });
    let headers = [("X-Thing", "t"), ("Proxy-Authorization", "secret"), ("Keep-Alive", "300"), ("Cookie", "k=v")];
    let target = format!("/proxy/{port}/a%2Fb//c%20d/?x=%2F&y=+");
    let answer = agent.request("PURGE", &target, &headers, b"hello");
    assert_eq!((answer.status, answer.text().as_str(), answer.whole), (418, "hey", true));
    assert_eq!(answer.header("x-custom"), Some("1"));
    assert_eq!(answer.head.matches("et-cookie: ").count() + answer.head.matches("et-Cookie: ").count(), 2);
    assert_eq!((answer.header("x-hop"), answer.header("keep-alive")), (None, None));
    let (head, body) = server.join().unwrap();
    assert!(head.starts_with("PURGE /a%2Fb//c%20d/?x=%2F&y=+ HTTP/1.1\r\n"), "{head}");
    assert_eq!(body, b"hello");
    assert_eq!((line(&head, "x-thing"), line(&head, "cookie")), (Some("t"), Some("k=v")));
    assert_eq!((line(&head, "host"), line(&head, "x-forwarded-host")), (Some("agent"), Some("agent")));
    for gone in ["proxy-authorization", "keep-alive", "connection", "transfer-encoding"] {
        assert_eq!(line(&head, gone), None, "{head}");
    }
}

#[test]
fn both_directions_stream() {
    let agent = Agent::start();
    let (port, server) = once(|stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let head = head(&mut reader);
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        (&stream).write_all(answer.as_bytes()).unwrap();
        // An answer piece for every request piece, while the request still comes.
        for _ in 0..3 {
            let mut size = String::new();
            reader.read_line(&mut size).unwrap();
            let mut piece = vec![0; usize::from_str_radix(size.trim(), 16).unwrap() + 2];
            reader.read_exact(&mut piece).unwrap();
            (&stream).write_all(size.as_bytes()).unwrap();
            (&stream).write_all(&piece).unwrap();
        }
        (&stream).write_all(b"0\r\n\r\n").unwrap();
        head
    });
    let mut stream = agent.connect();
    let request =
        format!("POST /proxy/{port}/up HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for round in 0..3 {
        stream.write_all(format!("4\r\nab{round}\n\r\n").as_bytes()).unwrap();
        if round == 0 {
            assert!(head(&mut reader).starts_with("HTTP/1.1 200"));
        }
        let mut piece = [0; 9];
        reader.read_exact(&mut piece).unwrap();
        assert_eq!(String::from_utf8_lossy(&piece), format!("4\r\nab{round}\n\r\n"));
    }
    assert_eq!(line(&server.join().unwrap(), "transfer-encoding"), Some("chunked"));
}

#[test]
fn what_goes_wrong_upstream_is_502() {
    let agent = Agent::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = agent.get(&format!("/proxy/{free}/x"));
    assert_eq!((refused.status, refused.code()), (502, String::new()));
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("proxy upstream error: nothing answers on port"), "{message}");
    for nonsense in ["", "hello\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let (port, server) = once(move |stream| {
            head(&mut BufReader::new(stream.try_clone().unwrap()));
            (&stream).write_all(nonsense.as_bytes()).unwrap();
        });
        assert_eq!(agent.get(&format!("/proxy/{port}/")).status, 502, "{nonsense:?}");
        server.join().unwrap();
    }
    let (port, server) = once(|stream| {
        head(&mut BufReader::new(stream.try_clone().unwrap()));
        // Ends when the agent has had enough of it.
        let endless = b"X-A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n".repeat(64);
        let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\n");
        while (&stream).write_all(&endless).is_ok() {}
    });
    assert_eq!(agent.get(&format!("/proxy/{port}/")).status, 502);
    server.join().unwrap();
    let (port, server) = once(|stream| {
        head(&mut BufReader::new(stream.try_clone().unwrap()));
        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").unwrap();
    });
    let cut = agent.get(&format!("/proxy/{port}/"));
    assert!(cut.status == 200 && !cut.whole, "an answer that breaks off breaks off for the client as well");
    server.join().unwrap();
    for wrong in ["/proxy/0/", "/proxy/65536/", "/proxy/web/"] {
        assert_eq!(agent.get(wrong).code(), "BAD_REQUEST", "{wrong}");
    }
}

#[test]
fn a_client_that_goes_away_is_noticed_upstream() {
    let agent = Agent::start();
    let (port, server) = once(|mut stream| {
        head(&mut BufReader::new(stream.try_clone().unwrap()));
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let mut client = agent.connect();
    client.write_all(format!("GET /proxy/{port}/wait HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
    // The server has the request before the client leaves, else there is nothing to notice.
    client.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    assert!(client.read(&mut [0]).is_err());
    drop(client);
    server.join().unwrap();
}

#[test]
fn the_other_loopback_address_and_old_servers_work() {
    let agent = Agent::start();
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        head(&mut BufReader::new(stream.try_clone().unwrap()));
        (&stream).write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end").unwrap();
    });
    let answer = agent.get(&format!("/proxy/{port}?q"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "until the end"));
    server.join().unwrap();
}

#[tokio::test]
async fn websockets_pass_through() {
    let agent = Agent::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut socket = tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                break;
            }
            socket.send(message).await.unwrap();
        }
    });
    let stream = tokio::net::UnixStream::connect(&agent.socket).await.unwrap();
    let url = format!("ws://agent/proxy/{port}/chat");
    let (mut socket, answer) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    assert_eq!(answer.status(), 101);
    let large = Message::binary(vec![7; 300_000]);
    for message in [Message::text("hello"), large] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    server.await.unwrap();
}

#[test]
fn an_upgrade_that_the_server_refuses_is_an_ordinary_answer() {
    let agent = Agent::start();
    let (port, server) = once(|stream| {
        let head = head(&mut BufReader::new(stream.try_clone().unwrap()));
        (&stream).write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").unwrap();
        head
    });
    let mut stream = agent.connect();
    let request = format!(
        "GET /proxy/{port}/ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let answer = head(&mut reader);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    drop((reader, stream));
    let head = server.join().unwrap();
    assert_eq!((line(&head, "connection"), line(&head, "upgrade")), (Some("Upgrade"), Some("websocket")));
    let (port, server) = once(|stream| {
        head_only(&stream);
        (&stream).write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n").unwrap();
    });
    let mut stream = agent.connect();
    stream
        .write_all(format!("GET /proxy/{port}/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(read_answer(stream).status, 502, "nobody asked for another protocol");
    server.join().unwrap();
}

#[test]
fn raw_bytes_reach_a_port_and_each_side_ends_for_itself() {
    let agent = Agent::start();
    let (port, server) = once(|mut stream| {
        let mut seen = String::new();
        stream.read_to_string(&mut seen).unwrap();
        stream.write_all(b"bye").unwrap();
        seen
    });
    let ask = |target: &str, protocol: &str| {
        let mut stream = agent.connect();
        let head =
            format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, close\r\nUpgrade: {protocol}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let mut stream = ask(&format!("/port/{port}/connect"), "tcp");
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let answer = head(&mut reader);
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    stream.write_all(b"hello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!((said.as_str(), server.join().unwrap().as_str()), ("bye", "hello"));
    for (target, protocol, status) in
        [("/port/0/connect", "tcp", 400), ("/port/x/connect", "tcp", 400), ("/port/80/connect", "websocket", 400)]
    {
        assert_eq!(read_answer(ask(target, protocol)).status, status, "{target}");
    }
    // Nobody listens there any more.
    assert_eq!(read_answer(ask(&format!("/port/{port}/connect"), "tcp")).status, 502);
}

fn head_only(stream: &TcpStream) {
    head(&mut BufReader::new(stream.try_clone().unwrap()));
}
