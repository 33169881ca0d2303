//! The three streams of a process.

use crate::fs::ContainerFs;
use async_trait::async_trait;
use bytes::Bytes;
use minik8s_streaming::remotecommand::ChannelWriter;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};

/// How many bytes a pipe between two processes holds, as Linux has it.
pub const PIPE_BYTES: usize = 64 * 1024;
/// How much of a command's output [`Capture`] keeps (`maxMsgSize` of the kubelet: a larger answer could not be sent).
pub const CAPTURE_LIMIT_BYTES: usize = 16 * 1024 * 1024;
/// The longest line an [`Input`] returns in one piece.
const LINE_LIMIT_BYTES: usize = 1024 * 1024;
const READ_CHUNK_BYTES: usize = 8 * 1024;

/// Where output goes.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Takes all of `data`, waiting where the reader is slow.
    async fn write(&self, data: &[u8]) -> io::Result<()>;
    /// Whether this is a terminal.
    fn is_terminal(&self) -> bool {
        false
    }
}

/// An output stream; clones write to the same place, and a pipe ends when the last clone is gone.
#[derive(Clone)]
pub struct Output(Arc<dyn Sink>);

impl Output {
    /// An output into any sink.
    pub fn new(sink: impl Sink + 'static) -> Output {
        Output(Arc::new(sink))
    }

    /// `/dev/null`.
    pub fn null() -> Output {
        Output::new(Null)
    }

    /// A pipe: what is written to the output is read from the input.
    pub fn pipe() -> (Output, Input) {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        (Output::new(Pipe(tokio::sync::Mutex::new(near))), Input::stream(far))
    }

    /// Appends to a file of the container.
    pub fn file(fs: Arc<ContainerFs>, path: String) -> Output {
        Output::new(FileSink { fs, path })
    }

    /// Writes all of `data`. A reader that has gone away is an error of kind `BrokenPipe`.
    pub async fn write(&self, data: impl AsRef<[u8]>) -> io::Result<()> {
        match data.as_ref() {
            [] => Ok(()),
            data => self.0.write(data).await,
        }
    }

    /// Writes a line.
    pub async fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        self.write(format!("{}\n", text.as_ref())).await
    }

    /// Whether this is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

struct Null;

#[async_trait]
impl Sink for Null {
    async fn write(&self, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

struct Pipe(tokio::sync::Mutex<DuplexStream>);

#[async_trait]
impl Sink for Pipe {
    async fn write(&self, data: &[u8]) -> io::Result<()> {
        self.0.lock().await.write_all(data).await
    }
}

struct FileSink {
    fs: Arc<ContainerFs>,
    path: String,
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&self, data: &[u8]) -> io::Result<()> {
        self.fs.append(&self.path, data)
    }
}

/// Output to the client of an exec or attach.
pub(crate) struct Channel(pub ChannelWriter);

#[async_trait]
impl Sink for Channel {
    async fn write(&self, data: &[u8]) -> io::Result<()> {
        match self.0.send(Bytes::copy_from_slice(data)).await {
            true => Ok(()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Keeps output in memory, up to [`CAPTURE_LIMIT_BYTES`]; what is over is dropped.
#[derive(Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    /// What was written so far.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock())
    }
}

#[async_trait]
impl Sink for Capture {
    async fn write(&self, data: &[u8]) -> io::Result<()> {
        let mut kept = self.0.lock();
        let room = CAPTURE_LIMIT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&data[..data.len().min(room)]);
        Ok(())
    }
}

/// An input stream. Clones share it: what one reads is gone for the others, as with an inherited file descriptor.
#[derive(Clone)]
pub struct Input {
    source: Arc<tokio::sync::Mutex<Source>>,
    terminal: bool,
}

struct Source {
    stream: Option<Box<dyn AsyncRead + Send + Unpin>>,
    buffer: Vec<u8>,
}

impl Input {
    /// An input that has ended.
    pub fn empty() -> Input {
        Input::bytes(Vec::new())
    }

    /// An input with this content.
    pub fn bytes(content: Vec<u8>) -> Input {
        Input { source: Arc::new(tokio::sync::Mutex::new(Source { stream: None, buffer: content })), terminal: false }
    }

    /// An input from a stream.
    pub fn stream(stream: impl AsyncRead + Send + Unpin + 'static) -> Input {
        let source = Source { stream: Some(Box::new(stream)), buffer: Vec::new() };
        Input { source: Arc::new(tokio::sync::Mutex::new(source)), terminal: false }
    }

    /// The same input, said to be a terminal.
    pub fn terminal(self) -> Input {
        Input { terminal: true, ..self }
    }

    /// Whether this is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The next bytes; empty at the end.
    pub async fn read(&self) -> io::Result<Vec<u8>> {
        let mut source = self.source.lock().await;
        if source.buffer.is_empty() {
            source.fill().await?;
        }
        Ok(std::mem::take(&mut source.buffer))
    }

    /// Up to `length` bytes; fewer at the end only.
    pub async fn read_exactly(&self, length: usize) -> io::Result<Vec<u8>> {
        let mut source = self.source.lock().await;
        while source.buffer.len() < length && source.fill().await? {}
        let length = length.min(source.buffer.len());
        Ok(source.buffer.drain(..length).collect())
    }

    /// The next line with its newline; `None` at the end. Bytes behind the line stay for the next reader.
    pub async fn line(&self) -> io::Result<Option<Vec<u8>>> {
        let mut source = self.source.lock().await;
        let mut searched = 0;
        loop {
            if let Some(at) = source.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                return Ok(Some(source.buffer.drain(..=searched + at).collect()));
            }
            searched = source.buffer.len();
            if searched > LINE_LIMIT_BYTES || !source.fill().await? {
                let rest = std::mem::take(&mut source.buffer);
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
        }
    }

    /// All that is left, up to [`CAPTURE_LIMIT_BYTES`].
    pub async fn rest(&self) -> io::Result<Vec<u8>> {
        let mut source = self.source.lock().await;
        while source.buffer.len() < CAPTURE_LIMIT_BYTES && source.fill().await? {}
        Ok(std::mem::take(&mut source.buffer))
    }
}

impl Source {
    /// Reads more into the buffer; false at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        let Some(stream) = self.stream.as_mut() else { return Ok(false) };
        let mut chunk = [0; READ_CHUNK_BYTES];
        let length = stream.read(&mut chunk).await?;
        if length == 0 {
            self.stream = None;
        }
        self.buffer.extend_from_slice(&chunk[..length]);
        Ok(length > 0)
    }
}
