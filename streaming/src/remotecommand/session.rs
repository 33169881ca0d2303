//! The server's end of a remote command.

use super::{ExitStatus, Streams, Subprotocol, TerminalSize};
use crate::{Error, Result};
use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request, upgrade};
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError, WebSocketRead, WebSocketWrite};
use http::header::{SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, Response};
use http_body_util::Empty;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How many frames to the client wait before the process that writes them does.
pub const OUTGOING_FRAMES: usize = 64;
/// How many bytes of stdin wait before the client does.
const STDIN_BUFFER_BYTES: usize = 64 * 1024;
/// How many changes of the terminal's size wait; older ones are of no interest, so a full queue drops the newest.
const RESIZE_QUEUE: usize = 8;
/// The largest message a client may send (kubectl sends stdin in pieces of 32 KiB).
const MESSAGE_LIMIT_BYTES: usize = 4 * 1024 * 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// WebSocket close code for a stream that ended as it should.
const NORMAL_CLOSURE: u16 = 1000;

/// What waits to be written to the client.
enum Outgoing {
    Data(u8, Bytes),
    Control(OpCode, Vec<u8>),
    Finish,
}

/// An accepted upgrade whose connection has not switched yet.
pub struct Pending {
    upgrade: UpgradeFut,
    protocol: Subprotocol,
    streams: Streams,
}

/// Accepts a request for a remote command. The response must be sent for [`Pending::open`] to complete, so open in a task
/// of its own.
pub fn accept<B>(request: &mut Request<B>, streams: Streams) -> Result<(Response<Empty<Bytes>>, Pending)> {
    if !is_upgrade_request(request) {
        let asked = request.headers().get(UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
        let spdy = asked.to_ascii_uppercase().starts_with(b"SPDY/");
        return Err(if spdy { Error::Spdy } else { Error::NotAnUpgrade });
    }
    let streams = streams.checked()?;
    let protocol = Subprotocol::negotiate(request.headers())?;
    let (mut response, upgrade) = upgrade(request)?;
    if !protocol.name.is_empty() {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol.name));
    }
    Ok((response, Pending { upgrade, protocol, streams }))
}

impl Pending {
    /// Waits until the connection has switched, and opens the streams.
    pub async fn open(self) -> Result<Session> {
        let Pending { upgrade, protocol, streams } = self;
        let mut socket = upgrade.await?;
        socket.set_max_message_size(MESSAGE_LIMIT_BYTES);
        let (from_client, to_client) = socket.split(tokio::io::split);

        let (outgoing, queue) = mpsc::channel(OUTGOING_FRAMES);
        let (stdin, stdin_input) = streams.stdin.then(|| tokio::io::duplex(STDIN_BUFFER_BYTES)).unzip();
        let (sizes, resize) = mpsc::channel(RESIZE_QUEUE);
        let reader = Reader { protocol, stdin: stdin_input, sizes, outgoing: outgoing.clone() };
        let reading = Task(tokio::spawn(reader.run(from_client)));
        let writing = Task(tokio::spawn(write_frames(to_client, queue, protocol)));

        // An empty message tells the client that the streams are there, before the process says anything.
        let first = if streams.stdout {
            STDOUT
        } else if streams.stderr {
            STDERR
        } else {
            ERROR
        };
        let greeted = outgoing.send(Outgoing::Data(first, Bytes::new())).await;
        tracing::trace!(greeted = greeted.is_ok(), protocol = protocol.name, "remote command opened");

        let channel = |channel: u8| ChannelWriter { channel, outgoing: outgoing.clone() };
        let (stdout, stderr) = (streams.stdout.then(|| channel(STDOUT)), streams.stderr.then(|| channel(STDERR)));
        Ok(Session { stdin, stdout, stderr, resize, protocol, outgoing, reading, writing })
    }
}

/// The open streams of one remote command. Take what the process needs, then [`Session::finish`].
pub struct Session {
    /// What the client types, until it closes the channel or goes away.
    pub stdin: Option<DuplexStream>,
    /// Output to the client.
    pub stdout: Option<ChannelWriter>,
    /// Error output to the client.
    pub stderr: Option<ChannelWriter>,
    /// Sizes of the client's terminal; ends with the connection.
    pub resize: mpsc::Receiver<TerminalSize>,
    protocol: Subprotocol,
    outgoing: mpsc::Sender<Outgoing>,
    reading: Task,
    writing: Task,
}

/// A task that ends with its session.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Completes when the client has gone away; what runs for it may then be stopped.
    pub async fn closed(&mut self) {
        // A reader that failed is as gone as one that ended.
        let _ended = (&mut self.reading.0).await;
    }

    /// Tells the client how the command ended, after all output written so far, and closes the connection: it is left to
    /// the client to do so first, whose last bytes would else be answered with a reset that can overtake the exit.
    pub async fn finish(self, exit: ExitStatus) {
        let Session { stdin, stdout, stderr, resize, protocol, outgoing, mut reading, mut writing } = self;
        drop((stdin, stdout, stderr, resize));
        let message = if protocol.status { Some(exit.status().to_string()) } else { exit.text() };
        if let Some(message) = message {
            // A client that is gone needs no answer.
            let _told = outgoing.send(Outgoing::Data(ERROR, message.into())).await;
        }
        let _told = outgoing.send(Outgoing::Finish).await;
        let _written = (&mut writing.0).await;
        let _closed = (&mut reading.0).await;
    }
}

/// Writes one output channel of a session.
#[derive(Clone)]
pub struct ChannelWriter {
    channel: u8,
    outgoing: mpsc::Sender<Outgoing>,
}

impl ChannelWriter {
    /// Whether the client is gone.
    pub fn is_closed(&self) -> bool {
        self.outgoing.is_closed()
    }

    /// Sends a piece of output, waiting while the client is slow; false when the client is gone.
    pub async fn send(&self, data: Bytes) -> bool {
        data.is_empty() || self.outgoing.send(Outgoing::Data(self.channel, data)).await.is_ok()
    }
}

/// Sorts what the client sends into streams.
struct Reader {
    protocol: Subprotocol,
    stdin: Option<DuplexStream>,
    sizes: mpsc::Sender<TerminalSize>,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Reader {
    async fn run<S: AsyncRead + Unpin>(mut self, socket: WebSocketRead<S>) {
        let mut frames = FragmentCollectorRead::new(socket);
        let outgoing = self.outgoing.clone();
        loop {
            // The library asks to send pongs and the echo of a close; they go through the one writer.
            let mut answer = |frame: Frame<'_>| {
                let control = Outgoing::Control(frame.opcode, frame.payload.to_vec());
                let outgoing = outgoing.clone();
                async move { outgoing.send(control).await.map_err(|_| WebSocketError::ConnectionClosed) }
            };
            let frame = match frames.read_frame(&mut answer).await {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::debug!(%error, "remote command connection ended");
                    return;
                }
            };
            match frame.opcode {
                OpCode::Close => return,
                OpCode::Binary | OpCode::Text => match self.protocol.decode(&frame.payload) {
                    Some((channel, data)) => self.dispatch(channel, &data).await,
                    None => {
                        tracing::debug!("remote command message that {} does not allow", self.protocol.name);
                        return;
                    }
                },
                _ => {}
            }
        }
    }

    async fn dispatch(&mut self, channel: u8, data: &[u8]) {
        match channel {
            STDIN => {
                let Some(stdin) = self.stdin.as_mut() else {
                    return;
                };
                if stdin.write_all(data).await.is_err() {
                    // The process has closed its stdin; what follows is for nobody.
                    self.stdin = None;
                }
            }
            RESIZE => match serde_json::from_slice(data) {
                Ok(size) => drop(self.sizes.try_send(size)),
                Err(error) => tracing::debug!(%error, "terminal size that cannot be read"),
            },
            CLOSE if self.protocol.close && data.first() == Some(&STDIN) => self.stdin = None,
            other => tracing::debug!(channel = other, "message on a channel that clients do not write"),
        }
    }
}

async fn write_frames<S: AsyncWrite + Unpin>(
    mut socket: WebSocketWrite<S>,
    mut queue: mpsc::Receiver<Outgoing>,
    protocol: Subprotocol,
) {
    while let Some(outgoing) = queue.recv().await {
        let finish = matches!(outgoing, Outgoing::Finish);
        let frame = match outgoing {
            Outgoing::Data(channel, data) => {
                let (payload, text) = protocol.encode(channel, &data);
                let payload = Payload::Owned(payload);
                if text { Frame::text(payload) } else { Frame::binary(payload) }
            }
            Outgoing::Control(opcode, payload) => Frame::new(true, opcode, None, Payload::Owned(payload)),
            Outgoing::Finish => Frame::close(NORMAL_CLOSURE, b""),
        };
        let written = match socket.write_frame(frame).await {
            Ok(()) => socket.flush().await,
            failed => failed,
        };
        if let Err(error) = written {
            tracing::debug!(%error, "remote command client is gone");
            return;
        }
        if finish {
            return;
        }
    }
}
