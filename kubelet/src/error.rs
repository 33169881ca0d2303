//! What can go wrong in a kubelet, by meaning.

/// Why a step of a kubelet failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container runtime refused or failed; its words are what users see.
    #[error(transparent)]
    Runtime(#[from] minik8s_cri::Error),
    /// The API server refused or could not be reached.
    #[error("{}", minik8s_client::words(.0))]
    Api(#[from] kube::Error),
    /// The node's file system failed.
    #[error("{0}")]
    Files(#[from] std::io::Error),
    /// A ConfigMap or Secret that a pod names is not there, or has not the key it names. The words are Kubernetes'.
    #[error("{0}")]
    MissingObject(String),
    /// A claim of the pod leads to no volume yet. The words are Kubernetes'.
    #[error("{0}")]
    Claim(String),
    /// The pod asks for something in a way that cannot be done.
    #[error("{0}")]
    InvalidPod(String),
    /// A call did not come back in time.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
}

/// The result of a step of a kubelet.
pub type Result<T, E = Error> = std::result::Result<T, E>;
