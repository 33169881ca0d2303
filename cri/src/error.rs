//! Errors of a runtime, in the words a kubelet shows.

pub use tonic::Code;

/// Results of calls to a runtime.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between a kubelet and a runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The runtime answered with an error. It reads as grpc-go prints it, because events and container statuses carry the
    /// text: `rpc error: code = NotFound desc = …`.
    #[error("rpc error: code = {} desc = {message}", code_name(*code))]
    Rpc {
        /// The gRPC code.
        code: Code,
        /// What the runtime says.
        message: String,
    },
    /// The runtime's answer lacks a part that CRI requires.
    #[error("{call}: the runtime's answer has no {field}")]
    Incomplete {
        /// The call.
        call: &'static str,
        /// The missing field.
        field: &'static str,
    },
}

impl Error {
    /// Whether the runtime does not know what was asked for; removing such a thing has succeeded.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Rpc { code: Code::NotFound, .. })
    }

    /// Whether the runtime does not have the call at all. containerd 2.2 says so of one call in words only
    /// (`kuberuntime_container.go`, `updatePodSandboxResources`).
    pub fn is_unimplemented(&self) -> bool {
        match self {
            Error::Rpc { code: Code::Unimplemented, .. } => true,
            Error::Rpc { code: Code::Unknown, message } => message.contains("not implemented"),
            _ => false,
        }
    }

    /// The runtime's own words, without the gRPC code in front.
    pub fn message(&self) -> String {
        match self {
            Error::Rpc { message, .. } => message.clone(),
            incomplete => incomplete.to_string(),
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        Error::Rpc { code: status.code(), message: status.message().to_string() }
    }
}

/// The names grpc-go gives to codes (`google.golang.org/grpc/codes/code_string.go`).
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_grpc_go_prints_them() {
        let error =
            Error::from(tonic::Status::not_found("an error occurred when try to find container \"x\": not found"));
        assert_eq!(
            error.to_string(),
            "rpc error: code = NotFound desc = an error occurred when try to find container \"x\": not found"
        );
        assert!(error.is_not_found());
        let cancelled = Error::from(tonic::Status::cancelled("context canceled"));
        assert_eq!(cancelled.to_string(), "rpc error: code = Canceled desc = context canceled");
    }
}
