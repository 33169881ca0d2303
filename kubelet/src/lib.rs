//! The kubelet: pod workers over CRI, volumes, status, its HTTP API
