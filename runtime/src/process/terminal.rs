//! A terminal between a client that sends raw keys and a process that reads lines.
//!
//! kubectl puts the user's terminal into raw mode, so that echo, line editing and Ctrl-C are ours to do, as the kernel's
//! line discipline does them (`N_TTY`).

use super::{Input, Output, Signal, Sink};
use async_trait::async_trait;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The longest line that can be typed (`N_TTY_BUF_SIZE`).
const LINE_LIMIT_BYTES: usize = 4096;
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const CTRL_BACKSLASH: u8 = 28;
const ESCAPE: u8 = 27;
const DELETE: u8 = 127;

/// Opens a terminal over raw streams; `signal` is called for Ctrl-C and its like. The terminal is closed when `keys` ends.
pub fn open(
    keys: impl AsyncRead + Send + Unpin + 'static,
    screen: Output,
    signal: impl Fn(Signal) + Send + Sync + 'static,
) -> (Input, Output) {
    let (lines, reader) = tokio::io::duplex(super::PIPE_BYTES);
    let output = Output::new(TerminalOutput(screen));
    let discipline =
        LineDiscipline { line: Vec::new(), escape: Escape::None, lines: Some(lines), echo: output.clone() };
    tokio::spawn(discipline.run(keys, signal));
    (Input::stream(reader).terminal(), output)
}

/// Ends lines with a carriage return too (`ONLCR`).
struct TerminalOutput(Output);

#[async_trait]
impl Sink for TerminalOutput {
    async fn write(&self, data: &[u8]) -> io::Result<()> {
        let mut cooked = Vec::with_capacity(data.len() + 16);
        for byte in data {
            if *byte == b'\n' {
                cooked.push(b'\r');
            }
            cooked.push(*byte);
        }
        self.0.write(&cooked).await
    }

    fn is_terminal(&self) -> bool {
        true
    }
}

/// Where in an escape sequence (an arrow key, say) the input stands; they are swallowed.
#[derive(PartialEq, Eq)]
enum Escape {
    None,
    Started,
    Inside,
}

struct LineDiscipline {
    line: Vec<u8>,
    escape: Escape,
    lines: Option<DuplexStream>,
    echo: Output,
}

impl LineDiscipline {
    async fn run(mut self, mut keys: impl AsyncRead + Unpin, signal: impl Fn(Signal)) {
        let mut chunk = [0; 1024];
        while let Ok(length @ 1..) = keys.read(&mut chunk).await {
            for byte in &chunk[..length] {
                let typed = match *byte {
                    CTRL_C => self.interrupt("^C\n", Signal::Int, &signal).await,
                    CTRL_BACKSLASH => self.interrupt("^\\\n", Signal::Quit, &signal).await,
                    byte => self.key(byte).await,
                };
                if typed.is_err() {
                    return;
                }
            }
        }
    }

    async fn interrupt(&mut self, shown: &str, kind: Signal, signal: &impl Fn(Signal)) -> io::Result<()> {
        self.line.clear();
        self.echo.write(shown).await?;
        signal(kind);
        Ok(())
    }

    async fn key(&mut self, byte: u8) -> io::Result<()> {
        match (&self.escape, byte) {
            (Escape::Started, b'[' | b'O') => self.escape = Escape::Inside,
            (Escape::Started, _) => self.escape = Escape::None,
            (Escape::Inside, 0x40..=0x7e) => self.escape = Escape::None,
            (Escape::Inside, _) => {}
            (Escape::None, ESCAPE) => self.escape = Escape::Started,
            (Escape::None, b'\r' | b'\n') => {
                self.line.push(b'\n');
                self.echo.write("\n").await?;
                self.submit().await?;
            }
            (Escape::None, CTRL_D) if self.line.is_empty() => self.lines = None,
            (Escape::None, CTRL_D) => self.submit().await?,
            (Escape::None, BACKSPACE | DELETE) => self.rub_out(1).await?,
            (Escape::None, CTRL_U) => self.rub_out(usize::MAX).await?,
            (Escape::None, b'\t' | 32..) if self.line.len() < LINE_LIMIT_BYTES => {
                self.line.push(byte);
                self.echo.write([byte]).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Removes the last characters of the line, which may be several bytes each.
    async fn rub_out(&mut self, most: usize) -> io::Result<()> {
        for _ in 0..most {
            let Some(last) = self.line.pop() else { break };
            if last & 0xc0 == 0x80 {
                while self.line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            self.echo.write("\u{8} \u{8}").await?;
        }
        Ok(())
    }

    async fn submit(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        match self.lines.as_mut() {
            Some(lines) => lines.write_all(&line).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Capture;

    #[tokio::test]
    async fn keys_are_echoed_edited_and_passed_on_line_by_line() {
        let screen = Capture::default();
        let (mut keys, raw) = tokio::io::duplex(1024);
        let (interrupts, mut interrupted) = tokio::sync::mpsc::unbounded_channel();
        let (input, output) =
            open(raw, Output::new(screen.clone()), move |signal| interrupts.send(signal).expect("the test listens"));
        keys.write_all(b"ls -x\x7fl\x1b[A\rjunk\x03\x04").await.expect("typed");
        assert_eq!(input.line().await.expect("read"), Some(b"ls -l\n".to_vec()));
        assert_eq!(interrupted.recv().await, Some(Signal::Int));
        assert_eq!(input.line().await.expect("read"), None);
        output.write("bye\n").await.expect("written");
        let shown = String::from_utf8(screen.take()).expect("text");
        assert_eq!(shown, "ls -x\u{8} \u{8}l\r\njunk^C\r\nbye\r\n");
    }
}
