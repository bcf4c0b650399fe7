//! A shell or command on a terminal: a PTY of the toolbox, made for one channel and gone with it.

use super::{
    agent::{Agent, Socket},
    command::{EXIT_BROKEN, FORGOTTEN, IDLE_MAX, complain, finish},
    connection::{Output, Size, What, Wish},
    inbox::Inbox,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

/// What the agent allows.
const SIDE_MAX: u32 = 1000;
/// The agent takes no longer message.
const INPUT_BYTES_MAX: usize = 32 << 10;
const EXIT_CONTROL: &str = "X-Daytona-Pty-Exit-Control";
const VARIABLES: &str = "X-Daytona-Pty-Envs~";

pub async fn run(agent: Agent, mut wish: Wish, what: What, output: Output, inbox: Arc<Inbox>) {
    let id = name();
    let code = match begin(&agent, &mut wish, what, &id).await {
        Ok(socket) => {
            // Everything on the terminal ends with the channel, however that ends.
            let _end = End { agent: agent.clone(), id: id.clone() };
            let (sink, stream) = socket.split();
            tokio::select! {
                code = follow(stream, &output, &inbox) => code,
                () = inbox.idle(IDLE_MAX) => complain(&output, FORGOTTEN).await,
                () = feed(sink, &inbox) => EXIT_BROKEN,
                () = resize(&agent, &id, &mut wish.size) => EXIT_BROKEN,
            }
        }
        Err(why) => complain(&output, &why).await,
    };
    finish(&output, code).await;
}

/// Nobody else's: other clients of the toolbox see it in their list.
fn name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_micros());
    format!("ssh-{}-{since:x}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

async fn begin(agent: &Agent, wish: &mut Wish, what: What, id: &str) -> Result<Socket, String> {
    let (columns, rows) = shown(*wish.size.borrow_and_update());
    let mut path = format!("/process/pty/create-connect?id={id}&cols={columns}&rows={rows}");
    if let What::Command(command) = &what {
        path.push_str("&command=");
        path.extend(utf8_percent_encode(command, NON_ALPHANUMERIC));
    }
    let mut variables = wish.variables.clone();
    variables.extend(wish.terminal.take().filter(|term| !term.is_empty()).map(|term| ("TERM".to_owned(), term)));
    let variables = serde_json::to_vec(&variables).map_err(|e| e.to_string())?;
    let protocols = format!("{EXIT_CONTROL}, {VARIABLES}{}", URL_SAFE_NO_PAD.encode(variables));
    agent.socket(&path, Some(&protocols)).await
}

/// Clients say 0 for "unknown".
fn shown((columns, rows): Size) -> Size {
    let side = |n: u32, default| if n == 0 { default } else { n.min(SIDE_MAX) };
    (side(columns, 80), side(rows, 24))
}

async fn follow(mut stream: SplitStream<Socket>, output: &Output, inbox: &Inbox) -> u32 {
    while let Some(Ok(message)) = stream.next().await {
        inbox.touch();
        match message {
            Message::Binary(bytes) => {
                let sent = output.data_bytes(bytes).await;
                if sent.is_err() {
                    return EXIT_BROKEN;
                }
            }
            Message::Text(text) => match Control::of(&text) {
                Some(Control::Exited(code)) => return code,
                Some(Control::Error(why)) => return complain(output, &why).await,
                None => {}
            },
            Message::Close(Some(why)) => return complain(output, &why.reason).await,
            _ => {}
        }
    }
    complain(output, "the sandbox's agent broke off").await
}

#[derive(Debug, PartialEq, Eq)]
enum Control {
    Exited(u32),
    Error(String),
}

impl Control {
    fn of(text: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        match value["status"].as_str()? {
            "exited" => {
                let code = value["exitCode"].as_u64().and_then(|code| u32::try_from(code).ok());
                Some(Self::Exited(code.unwrap_or(EXIT_BROKEN)))
            }
            "error" => Some(Self::Error(value["error"].as_str().unwrap_or_default().to_owned())),
            _ => None,
        }
    }
}

/// Passes on what is typed. A client that stops typing does not end the terminal.
async fn feed(mut sink: SplitSink<Socket, Message>, inbox: &Inbox) {
    while let Some(mut bytes) = inbox.next().await {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(INPUT_BYTES_MAX));
            if sink.send(Message::Binary(piece)).await.is_err() {
                return std::future::pending().await;
            }
        }
    }
    std::future::pending().await
}

async fn resize(agent: &Agent, id: &str, size: &mut watch::Receiver<Size>) {
    while size.changed().await.is_ok() {
        let (columns, rows) = shown(*size.borrow_and_update());
        let body = serde_json::json!({ "cols": columns, "rows": rows }).to_string();
        // A size that does not arrive is followed by another one, or by the terminal's end.
        let _ = agent.tell(Method::POST, &format!("/process/pty/{id}/resize"), body).await;
    }
    std::future::pending().await
}

struct End {
    agent: Agent,
    id: String,
}

impl Drop for End {
    fn drop(&mut self) {
        let (agent, path) = (self.agent.clone(), format!("/process/pty/{}", self.id));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { agent.tell(Method::DELETE, &path, String::new()).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_says() {
        let exited = Control::of(r#"{"type":"control","status":"exited","exitCode":7,"exitReason":"x"}"#);
        assert_eq!(exited, Some(Control::Exited(7)));
        assert_eq!(Control::of(r#"{"status":"exited","exitCode":-1}"#), Some(Control::Exited(255)));
        assert_eq!(Control::of(r#"{"status":"error","error":"no"}"#), Some(Control::Error("no".to_owned())));
        assert_eq!(Control::of(r#"{"status":"connected"}"#), None);
        assert_eq!(Control::of("x"), None);
        assert_eq!((shown((0, 0)), shown((5000, 30))), ((80, 24), (1000, 30)));
    }
}
