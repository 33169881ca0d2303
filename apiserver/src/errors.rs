//! What can go wrong in the server itself, and how the store's errors become answers.
//!
//! Everything that concerns a request is a Kubernetes `Status` (`minik8s_api::status`); [`Error`] is for starting and serving.

use minik8s_api::status::Status;

/// Why a server does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watch cache could not be filled from the store.
    #[error("the watch cache cannot be filled: {0}")]
    Cache(String),
    /// What a new cluster holds could not be written.
    #[error("the cluster's initial objects cannot be written: {0}")]
    Bootstrap(String),
    /// The configuration makes no sense.
    #[error("configuration: {0}")]
    Config(String),
    /// The listener failed.
    #[error("listener: {0}")]
    Io(#[from] std::io::Error),
}

/// When a client should try an overloaded store again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The answer to a request that the store refused.
pub fn store_status(error: minik8s_store::Error) -> Status {
    use minik8s_store::Error as Store;
    match error {
        Store::Overloaded => Status::too_many_requests(
            "the store has too many writes waiting, please try again later",
            RETRY_AFTER_SECONDS,
        ),
        Store::TooLarge { limit, .. } => Status::too_large(limit),
        Store::Compacted { .. } => Status::expired("The provided continue parameter is too old"),
        Store::Closed => Status::service_unavailable("the server is shutting down"),
        Store::NoLeader => Status::service_unavailable("the store has no leader at the moment"),
        Store::OutcomeUnknown => {
            Status::timeout("the outcome of the write is unknown: the store's leader changed", RETRY_AFTER_SECONDS)
        }
        other => Status::internal_error(other.to_string()),
    }
}
