//! The Kubernetes API server
