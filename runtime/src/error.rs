//! Why a call fails, in the words of containerd.

use tonic::{Code, Status};

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call fails. Texts are containerd's (`internal/cri`, `core/remotes`), because pod statuses and events show them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A profile file cannot be used.
    #[error("image profiles {file}: {message}")]
    InvalidProfile {
        /// The file.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A name that no image can have.
    #[error("invalid reference format: {0:?}")]
    InvalidReference(String),
    /// The repository has no such tag.
    #[error("failed to pull and unpack image {image:?}: failed to resolve reference {image:?}: {image}: not found")]
    ImageNotFound {
        /// The image's name in full.
        image: String,
    },
    /// The registry does not hand it out, or does not exist.
    #[error("failed to pull and unpack image {image:?}: failed to resolve reference {image:?}: {reason}")]
    PullRefused {
        /// The image's name in full.
        image: String,
        /// What the registry says.
        reason: String,
    },
    /// A container is to be made of an image that was not pulled.
    #[error("failed to resolve image {0:?}: not found")]
    ImageMissing(String),
    /// There is no such sandbox or container.
    #[error("an error occurred when try to find {kind} {id:?}: not found")]
    NotFound {
        /// `sandbox` or `container`.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// A sandbox or container of that name exists.
    #[error("failed to reserve {kind} name {name:?}: name {name:?} is reserved for {id:?}")]
    NameReserved {
        /// `sandbox` or `container`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The pod network is not set up, or has no address left.
    #[error("failed to setup network for sandbox {sandbox:?}: {reason}")]
    Network {
        /// The sandbox.
        sandbox: String,
        /// Why.
        reason: String,
    },
    /// A part of the request is missing or cannot be read.
    #[error("{0}")]
    InvalidRequest(String),
    /// The container is not in the state that the call needs.
    #[error("{0}")]
    WrongState(String),
    /// The command of a container cannot be executed.
    #[error(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable \
         to start container process: error during container init: {0}: unknown"
    )]
    Start(String),
    /// A command cannot be executed in a container.
    #[error(
        "failed to exec in container: failed to start exec {id:?}: OCI runtime exec failed: exec failed: unable to start \
         container process: {reason}: unknown"
    )]
    Exec {
        /// The exec's own id.
        id: String,
        /// Why.
        reason: String,
    },
    /// A command took longer than it may.
    #[error("failed to exec in container: timeout {0}s exceeded: context deadline exceeded")]
    ExecTimeout(i64),
    /// What this runtime does not do.
    #[error("{0}")]
    Unimplemented(String),
    /// The node is switched off.
    #[error("connection error: desc = \"transport: Error while dialing: the runtime of node {0} is stopped\"")]
    Stopped(String),
    /// A file of the node cannot be written.
    #[error("{0}")]
    Io(String),
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = match &error {
            Error::ImageNotFound { .. } | Error::ImageMissing(_) | Error::NotFound { .. } => Code::NotFound,
            Error::InvalidReference(_) | Error::InvalidRequest(_) => Code::InvalidArgument,
            Error::NameReserved { .. } => Code::AlreadyExists,
            Error::ExecTimeout(_) => Code::DeadlineExceeded,
            Error::Unimplemented(_) => Code::Unimplemented,
            Error::Stopped(_) => Code::Unavailable,
            Error::WrongState(_)
            | Error::PullRefused { .. }
            | Error::Network { .. }
            | Error::Start(_)
            | Error::Exec { .. }
            | Error::InvalidProfile { .. }
            | Error::Io(_) => Code::Unknown,
        };
        Status::new(code, error.to_string())
    }
}
