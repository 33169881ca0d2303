//! Files of `/dev`.

/// A device file that containers are given (`libcontainer/specconv/spec_linux.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// Swallows all, holds nothing.
    Null,
    /// Zeros without end.
    Zero,
    /// Zeros without end; refuses to be written.
    Full,
    /// Random bytes without end.
    Random,
    /// The process's own standard input.
    Stdin,
    /// The process's own standard output.
    Stdout,
    /// The process's own standard error.
    Stderr,
    /// The terminal.
    Tty,
    /// The standard output of the container's first process.
    InitStdout,
}

const DEVICES: [(&str, Device); 13] = [
    ("/dev/null", Device::Null),
    ("/dev/zero", Device::Zero),
    ("/dev/full", Device::Full),
    ("/dev/random", Device::Random),
    ("/dev/urandom", Device::Random),
    ("/dev/stdin", Device::Stdin),
    ("/dev/stdout", Device::Stdout),
    ("/dev/stderr", Device::Stderr),
    ("/dev/tty", Device::Tty),
    ("/proc/self/fd/1", Device::Stdout),
    ("/proc/self/fd/2", Device::Stderr),
    ("/proc/1/fd/1", Device::InitStdout),
    ("/proc/1/fd/2", Device::InitStdout),
];

impl Device {
    /// The device at a path.
    pub(super) fn at(path: &str) -> Option<Device> {
        DEVICES.iter().find(|(name, _)| *name == path).map(|(_, device)| *device)
    }

    /// Names of devices in a directory.
    pub(super) fn names(directory: &str) -> impl Iterator<Item = &'static str> {
        DEVICES
            .iter()
            .filter(move |(path, _)| minik8s_cri::parent(path) == directory)
            .map(|(path, _)| path.rsplit('/').next().unwrap_or(path))
    }
}
