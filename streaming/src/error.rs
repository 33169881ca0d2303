//! What can go wrong with a stream.

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer broke HTTP, or went away in the middle of it.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// A header or an address that HTTP does not allow.
    #[error("{0}")]
    Request(#[from] http::Error),
    /// The peer broke the WebSocket protocol.
    #[error("{0}")]
    WebSocket(#[from] fastwebsockets::WebSocketError),
    /// A stream that should carry a remote command came without an upgrade.
    #[error("unable to upgrade: missing upgrade headers in request")]
    NotAnUpgrade,
    /// The client speaks SPDY/3.1, which ends here unserved.
    #[error("unable to upgrade: SPDY/3.1 is not served, use a client that speaks WebSocket (kubectl 1.31 or newer)")]
    Spdy,
    /// None of the channel protocols the client offers is known.
    #[error("unable to upgrade: none of the offered subprotocols is supported: {0}")]
    Subprotocol(String),
    /// Neither stdin nor stdout nor stderr was asked for.
    #[error("you must specify at least 1 of stdin, stdout, stderr")]
    NoStreams,
}

impl Error {
    /// The HTTP status with which a server refuses the request (`k8s.io/kubelet/pkg/cri/streaming/server.go` answers
    /// 400 to what it cannot upgrade).
    pub fn status(&self) -> http::StatusCode {
        match self {
            Error::Spdy => http::StatusCode::NOT_IMPLEMENTED,
            Error::Http(_) => http::StatusCode::BAD_GATEWAY,
            _ => http::StatusCode::BAD_REQUEST,
        }
    }
}
