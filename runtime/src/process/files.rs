//! Opening files by name, devices among them.

use super::{Input, Output, Process, World};
use crate::fs::Device;
use minik8s_clock::Random;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

impl Process {
    /// Opens a file for reading.
    pub fn open_input(&self, path: &str) -> io::Result<Input> {
        open_input(&self.world, &self.path(path), &self.stdin)
    }

    /// Opens a file for writing, emptying it unless it is to be appended to.
    pub fn open_output(&self, path: &str, append: bool) -> io::Result<Output> {
        open_output(&self.world, &self.path(path), append, &self.stdout, &self.stderr)
    }
}

/// Opens an absolute path for reading, for a process with this standard input.
pub(crate) fn open_input(world: &World, path: &str, stdin: &Input) -> io::Result<Input> {
    match world.fs.device(path) {
        Some(Device::Stdin | Device::Tty) => Ok(stdin.clone()),
        Some(Device::Zero | Device::Full) => Ok(Input::stream(tokio::io::repeat(0))),
        Some(Device::Random) => Ok(Input::stream(RandomBytes(world.random.fork()))),
        Some(_) => Ok(Input::empty()),
        None => Ok(Input::bytes(world.fs.read(path)?.to_vec())),
    }
}

/// Opens an absolute path for writing, for a process with these outputs.
pub(crate) fn open_output(
    world: &World,
    path: &str,
    append: bool,
    stdout: &Output,
    stderr: &Output,
) -> io::Result<Output> {
    match world.fs.device(path) {
        Some(Device::Stdout | Device::Tty) => return Ok(stdout.clone()),
        Some(Device::Stderr) => return Ok(stderr.clone()),
        Some(Device::InitStdout) => return Ok(world.stdout.clone()),
        Some(Device::Null | Device::Zero | Device::Random | Device::Stdin) => return Ok(Output::null()),
        Some(Device::Full) | None => {}
    }
    match append {
        true => world.fs.append(path, b"")?,
        false => world.fs.write(path, b"")?,
    }
    Ok(Output::file(world.fs.clone(), path.to_string()))
}

struct RandomBytes(Random);

impl AsyncRead for RandomBytes {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.bytes(buffer.initialize_unfilled());
        buffer.set_filled(buffer.capacity());
        Poll::Ready(Ok(()))
    }
}
