//! Which streams a request asks for, and in which dialect.

use crate::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde::Deserialize;

const SEC_WEBSOCKET_PROTOCOL: HeaderName = http::header::SEC_WEBSOCKET_PROTOCOL;

/// The streams of a process that the client wants connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    /// What the client types reaches the process.
    pub stdin: bool,
    /// The output of the process reaches the client.
    pub stdout: bool,
    /// The error output of the process reaches the client. Never set together with `tty`, which merges it into `stdout`.
    pub stderr: bool,
    /// The process runs on a terminal.
    pub tty: bool,
}

impl Streams {
    /// At least one stream, and none that a terminal cannot have (`NewOptions` of the kubelet's `remotecommand/httpstream.go`).
    pub fn checked(mut self) -> Result<Streams> {
        if self.tty {
            self.stderr = false;
        }
        if !(self.stdin || self.stdout || self.stderr) {
            return Err(Error::NoStreams);
        }
        Ok(self)
    }
}

/// The size of a terminal, in characters, as the client sends it on the resize channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A dialect of the channel protocol, as negotiated in `Sec-WebSocket-Protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subprotocol {
    /// Its name in the header; empty where the client offered none.
    pub name: &'static str,
    /// Frames are text: a digit for the channel, then base64.
    base64: bool,
    /// The error channel carries a `metav1.Status` instead of bare text.
    pub(super) status: bool,
    /// The client may end its stdin with a message on channel 255.
    pub(super) close: bool,
}

impl Subprotocol {
    const ALL: [Subprotocol; 6] = [
        Subprotocol { name: "v5.channel.k8s.io", base64: false, status: true, close: true },
        Subprotocol { name: "v4.channel.k8s.io", base64: false, status: true, close: false },
        Subprotocol { name: "v4.base64.channel.k8s.io", base64: true, status: true, close: false },
        Subprotocol { name: "channel.k8s.io", base64: false, status: false, close: false },
        Subprotocol { name: "base64.channel.k8s.io", base64: true, status: false, close: false },
        Subprotocol { name: "", base64: false, status: false, close: false },
    ];

    /// The first protocol of the client's list that is known; a client that lists none gets the oldest.
    pub fn negotiate(headers: &HeaderMap) -> Result<Subprotocol> {
        let offered: Vec<&str> = headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim))
            .collect();
        let wanted: &[&str] = if offered.is_empty() { &[""] } else { &offered };
        wanted
            .iter()
            .find_map(|name| Subprotocol::ALL.into_iter().find(|known| known.name == *name))
            .ok_or_else(|| Error::Subprotocol(offered.join(", ")))
    }

    /// A message on `channel` as the payload of a frame, and whether the frame is text.
    pub(super) fn encode(self, channel: u8, data: &[u8]) -> (Vec<u8>, bool) {
        let mut payload = Vec::with_capacity(1 + data.len());
        if self.base64 {
            payload.push(b'0' + channel);
            payload.extend_from_slice(STANDARD.encode(data).as_bytes());
        } else {
            payload.push(channel);
            payload.extend_from_slice(data);
        }
        (payload, self.base64)
    }

    /// The channel and data of a frame's payload; `None` for what this dialect does not allow.
    pub(super) fn decode(self, payload: &[u8]) -> Option<(u8, Bytes)> {
        let (&channel, data) = payload.split_first()?;
        if self.base64 {
            let channel = channel.checked_sub(b'0').filter(|channel| *channel <= 9)?;
            return Some((channel, STANDARD.decode(data).ok()?.into()));
        }
        Some((channel, Bytes::copy_from_slice(data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(offer: Option<&'static str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(offer) = offer {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offer.parse().expect("valid header"));
        }
        match Subprotocol::negotiate(&headers) {
            Ok(protocol) => format!("{:?}", protocol.name),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_first_known_protocol_wins() {
        assert_eq!(negotiate(Some("v5.channel.k8s.io, v4.channel.k8s.io")), "\"v5.channel.k8s.io\"");
        assert_eq!(negotiate(Some("v9.channel.k8s.io,v4.base64.channel.k8s.io")), "\"v4.base64.channel.k8s.io\"");
        assert_eq!(negotiate(None), "\"\"");
        assert_eq!(negotiate(Some("chat")), "unable to upgrade: none of the offered subprotocols is supported: chat");
    }

    #[test]
    fn base64_frames_are_text() {
        let protocol = Subprotocol::ALL[2];
        let (payload, text) = protocol.encode(1, b"hi\n");
        assert_eq!((payload.as_slice(), text), (b"1aGkK".as_slice(), true));
        assert_eq!(protocol.decode(&payload), Some((1, Bytes::from("hi\n"))));
        assert_eq!(protocol.decode(b"1***"), None);
        assert_eq!(protocol.decode(b""), None);
    }

    #[test]
    fn a_terminal_has_no_error_output_of_its_own() {
        let streams = Streams { stdin: true, stdout: true, stderr: true, tty: true };
        assert_eq!(streams.checked().ok(), Some(Streams { stderr: false, ..streams }));
        assert!(Streams { stderr: true, tty: true, ..Streams::default() }.checked().is_err());
    }
}
