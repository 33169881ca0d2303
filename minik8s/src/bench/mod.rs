//! `minik8s bench`: how fast an API server is, measured from outside, over real connections.
//!
//! ```text
//!   target      whose API: read from a kubeconfig
//!   connection  one HTTP/2 connection a client, as client-go has
//!   workloads   pod creates, gets, lists, watch fan-out, a Deployment to available and back
//!   report      a table of rates and latencies
//! ```
//!
//! The same run against another cluster's kubeconfig makes two tables that can be put side by side. Everything happens in
//! a namespace of its own, which is deleted at the end.

pub mod connection;
pub mod report;
pub mod target;
pub mod workloads;
