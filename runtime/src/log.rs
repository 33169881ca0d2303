//! The log file of a container, in the format of CRI.
//!
//! `2026-01-01T00:00:00.000000000Z stdout F text`: time, stream, `F` for a whole line or `P` for a part of one, text
//! (`k8s.io/design-proposals-archive/node/kubelet-cri-logging.md`).

use crate::process::Sink;
use async_trait::async_trait;
use minik8s_clock::Clock;
use minik8s_cri::NodeFs;
use minik8s_streaming::remotecommand::ChannelWriter;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// Longer lines are written in parts (`max_container_log_line_size` of containerd).
const LINE_LIMIT_BYTES: usize = 16 * 1024;
/// How many clients may be attached to one container.
const ATTACHED_LIMIT: usize = 64;

/// Which of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Writes one container's log, and passes its output to attached clients.
pub struct ContainerLog {
    clock: Clock,
    fs: Arc<dyn NodeFs>,
    /// Empty for a container without a log.
    path: String,
    partial: Mutex<[Vec<u8>; 2]>,
    attached: Mutex<Vec<(LogStream, ChannelWriter)>>,
}

impl ContainerLog {
    /// A log at a path of the node; its directory is created with the first line.
    pub fn new(clock: Clock, fs: Arc<dyn NodeFs>, path: String) -> ContainerLog {
        ContainerLog { clock, fs, path, partial: Mutex::default(), attached: Mutex::default() }
    }

    /// The path on the node.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Creates the file, so that a follower finds it before the first line, and again after it was renamed.
    pub fn open(&self) -> io::Result<()> {
        if self.path.is_empty() {
            return Ok(());
        }
        self.fs.create_dir_all(minik8s_cri::parent(&self.path))?;
        self.fs.append(&self.path, b"")
    }

    /// Passes what is written from now on to a client too; false when there are too many.
    pub fn attach(&self, stream: LogStream, client: ChannelWriter) -> bool {
        let mut attached = self.attached.lock();
        let room = attached.len() < ATTACHED_LIMIT;
        if room {
            attached.push((stream, client));
        }
        room
    }

    /// Writes the end of a line that was never ended, and lets attached clients go.
    pub fn close(&self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let rest = std::mem::take(&mut self.partial.lock()[stream as usize]);
            if !rest.is_empty() {
                // As with containerd: it is a part of a line, whose end never came.
                self.write_lines(&[self.line(stream, 'P', &rest)].concat());
            }
        }
        self.attached.lock().clear();
    }

    fn line(&self, stream: LogStream, tag: char, text: &[u8]) -> Vec<u8> {
        let name = match stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        };
        let mut line = format!("{:.9} {name} {tag} ", self.clock.now()).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        line
    }

    fn write(&self, stream: LogStream, data: &[u8]) {
        let mut lines = Vec::new();
        {
            let mut partial = self.partial.lock();
            let pending = &mut partial[stream as usize];
            for piece in data.split_inclusive(|byte| *byte == b'\n') {
                match piece.strip_suffix(b"\n") {
                    Some(end) => {
                        pending.extend_from_slice(end);
                        lines.extend(self.split_long(stream, pending, 'F'));
                        pending.clear();
                    }
                    None => pending.extend_from_slice(piece),
                }
                let whole = pending.len() - pending.len() % LINE_LIMIT_BYTES;
                if whole > 0 {
                    lines.extend(self.split_long(stream, &pending[..whole], 'P'));
                    pending.drain(..whole);
                }
            }
        }
        if !lines.is_empty() {
            self.write_lines(&lines);
        }
    }

    fn split_long(&self, stream: LogStream, text: &[u8], last_tag: char) -> Vec<u8> {
        if text.is_empty() {
            return self.line(stream, last_tag, b"");
        }
        let count = text.len().div_ceil(LINE_LIMIT_BYTES);
        let tag = |index: usize| if index + 1 == count { last_tag } else { 'P' };
        let parts = text.chunks(LINE_LIMIT_BYTES).enumerate();
        parts.flat_map(|(index, part)| self.line(stream, tag(index), part)).collect()
    }

    fn write_lines(&self, lines: &[u8]) {
        if self.path.is_empty() {
            return;
        }
        // As with containerd, a full disk costs the log and not the container.
        if let Err(error) = self.fs.append(&self.path, lines) {
            tracing::warn!(%error, path = self.path, "container log cannot be written");
        }
    }
}

/// One output stream of a container.
pub struct LogSink {
    /// The log.
    pub log: Arc<ContainerLog>,
    /// Which stream.
    pub stream: LogStream,
}

#[async_trait]
impl Sink for LogSink {
    async fn write(&self, data: &[u8]) -> io::Result<()> {
        self.log.write(self.stream, data);
        let clients: Vec<ChannelWriter> = {
            let attached = self.log.attached.lock();
            let ours = attached.iter().filter(|(stream, _)| *stream == self.stream);
            ours.map(|(_, client)| client.clone()).collect()
        };
        let mut gone = false;
        for client in clients {
            gone |= !client.send(bytes::Bytes::copy_from_slice(data)).await;
        }
        if gone {
            self.log.attached.lock().retain(|(_, client)| !client.is_closed());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_cri::MemoryFs;

    #[test]
    fn lines_and_parts_of_lines_are_marked() {
        let (clock, _) = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("a time"));
        let fs = Arc::new(MemoryFs::new(clock.clone(), 1 << 20));
        let log = ContainerLog::new(clock, fs.clone(), "/var/log/pods/x/0.log".to_string());
        log.open().expect("created");
        log.write(LogStream::Stdout, b"one\ntw");
        log.write(LogStream::Stderr, b"oops\n");
        log.write(LogStream::Stdout, b"o\n");
        log.write(LogStream::Stdout, &[b'x'; LINE_LIMIT_BYTES + 1]);
        log.close();
        let text = String::from_utf8(fs.read("/var/log/pods/x/0.log").expect("written").to_vec()).expect("text");
        let lines: Vec<String> = text.lines().map(|line| line.chars().take(44).collect()).collect();
        assert_eq!(
            lines,
            [
                "2026-01-01T00:00:00.000000000Z stdout F one",
                "2026-01-01T00:00:00.000000000Z stderr F oops",
                "2026-01-01T00:00:00.000000000Z stdout F two",
                "2026-01-01T00:00:00.000000000Z stdout P xxxx",
                "2026-01-01T00:00:00.000000000Z stdout P x",
            ]
        );
    }
}
