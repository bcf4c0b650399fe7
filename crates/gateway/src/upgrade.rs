//! WebSockets: after both handshakes agree, bytes are copied both ways until either side is done.
//!
//! Frames are not read here; subprotocols and extensions are between the client and the agent.

use crate::activity::Open;
use http::{
    header::{CONNECTION, UPGRADE},
    request,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

/// Copy buffer of each direction of a spliced connection.
const SPLICE_BUFFER_BYTES: usize = 64 << 10;

/// Whether the client asks for a WebSocket. Other upgrades (h2c) are not passed on.
pub fn wanted(parts: &request::Parts) -> bool {
    let names = |name, wanted: &str| {
        parts
            .headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case(wanted))
    };
    names(UPGRADE, "websocket") && names(CONNECTION, "upgrade")
}

/// Joins the two sides in the background. `open` lives as long as they do.
pub fn splice(client: OnUpgrade, agent: OnUpgrade, open: Open) {
    tokio::spawn(async move {
        let _open = open;
        let (Ok(client), Ok(agent)) = tokio::join!(client, agent) else { return };
        let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
        // Either side may vanish at any time; that is how connections end, not an error worth a line.
        let _ =
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut agent, SPLICE_BUFFER_BYTES, SPLICE_BUFFER_BYTES)
                .await;
    });
}
