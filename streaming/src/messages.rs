//! An answer as messages: what others read as the body of a response comes as the frames of a WebSocket, for clients that get
//! a body only once it is whole, such as a browser's.
//!
//! (`k8s.io/streaming/pkg/httpstream/wsstream/stream.go`; `k8s.io/apiserver/pkg/endpoints/handlers/watch.go`, `HandleWS`.)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request, upgrade};
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError, WebSocketWrite};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Empty;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::WriteHalf;
use tokio::sync::mpsc;

use crate::{Error, Result};

/// How many pings of a client wait to be answered; it needs no more answers than one.
const PING_QUEUE: usize = 1;
/// The largest message a client may send; none is looked at.
const MESSAGE_LIMIT_BYTES: usize = 64 * 1024;
/// WebSocket close code for a stream that ended as it should.
const NORMAL_CLOSURE: u16 = 1000;

/// How data stands in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As text.
    Text,
    /// As it is.
    Binary,
    /// As text, in base64.
    Base64,
}

/// A subprotocol by its name; the one without a name is for clients that ask for none.
pub type Protocol = (&'static str, Framing);

/// Whether a request wants its answer as messages.
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    is_upgrade_request(&with_headers(headers))
}

fn with_headers(headers: &HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    request.headers_mut().clone_from(headers);
    request
}

/// An accepted upgrade whose connection has not switched yet.
pub struct Pending {
    upgrade: UpgradeFut,
    framing: Framing,
}

/// Accepts a request. The response must be sent for [`Pending::open`] to complete, so open in a task of its own.
///
/// # Errors
/// [`Error::Subprotocol`] where the client offers none that is known, [`Error::WebSocket`] where it asks in another way.
pub fn accept(
    headers: &HeaderMap,
    connection: OnUpgrade,
    protocols: &[Protocol],
) -> Result<(Response<Empty<Bytes>>, Pending)> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    let known = |name: &str| protocols.iter().find(|(known, _)| *known == name);
    let (name, framing) = match offered.is_empty() {
        true => known(""),
        false => offered.iter().find_map(|name| known(name)),
    }
    .ok_or_else(|| Error::Subprotocol(offered.join(", ")))?;
    let mut request = with_headers(headers);
    request.extensions_mut().insert(connection);
    let (mut response, upgrade) = upgrade(&mut request)?;
    if !name.is_empty() {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok((response, Pending { upgrade, framing: *framing }))
}

impl Pending {
    /// Waits until the connection has switched.
    ///
    /// # Errors
    /// The connection's.
    pub async fn open(self) -> Result<Messages> {
        let mut socket = self.upgrade.await?;
        socket.set_max_message_size(MESSAGE_LIMIT_BYTES);
        let (from_client, writer) = socket.split(tokio::io::split);
        let (queue, pings) = mpsc::channel(PING_QUEUE);
        tokio::spawn(async move {
            let mut frames = FragmentCollectorRead::new(from_client);
            loop {
                // The library asks to send pongs; they go through the one writer.
                let mut answer = |frame: Frame<'_>| {
                    let pong = (frame.opcode == OpCode::Pong).then(|| frame.payload.to_vec());
                    let told = pong
                        .is_none_or(|pong| !matches!(queue.try_send(pong), Err(mpsc::error::TrySendError::Closed(_))));
                    async move { if told { Ok(()) } else { Err(WebSocketError::ConnectionClosed) } }
                };
                match frames.read_frame(&mut answer).await {
                    Ok(frame) if frame.opcode == OpCode::Close => return,
                    // Who only listens has nothing to say.
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Messages { writer, pings, framing: self.framing })
    }
}

/// An open channel to a client that listens.
pub struct Messages {
    writer: WebSocketWrite<WriteHalf<TokioIo<Upgraded>>>,
    pings: mpsc::Receiver<Vec<u8>>,
    framing: Framing,
}

impl Messages {
    /// The next ping of the client, for [`Messages::answer`]; `None` once it has gone. Cancel-safe.
    pub async fn ping(&mut self) -> Option<Vec<u8>> {
        self.pings.recv().await
    }

    /// Answers a ping.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn answer(&mut self, ping: Vec<u8>) -> Result<()> {
        self.write(Frame::pong(Payload::Owned(ping))).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(&mut self, data: &[u8]) -> Result<()> {
        let frame = match self.framing {
            Framing::Text => Frame::text(Payload::Borrowed(data)),
            Framing::Binary => Frame::binary(Payload::Borrowed(data)),
            Framing::Base64 => Frame::text(Payload::Owned(STANDARD.encode(data).into_bytes())),
        };
        self.write(frame).await
    }

    /// Says that there is no more.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn finish(mut self) -> Result<()> {
        self.write(Frame::close(NORMAL_CLOSURE, b"")).await
    }

    async fn write(&mut self, frame: Frame<'_>) -> Result<()> {
        self.writer.write_frame(frame).await?;
        Ok(self.writer.flush().await?)
    }
}
