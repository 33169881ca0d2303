//! The harness of the end-to-end tests: a built `minik8s`, a home of its own, real clients.
//!
//! ```no_run
//! use minik8s_tests::Cluster;
//!
//! let cluster = Cluster::start(&["--nodes", "3"]);
//! cluster.kubectl("create deployment web --image=nginx:1.27 --replicas=3").ok();
//! cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
//! let pods = cluster.kubectl("get pods -o json").json();
//! assert_eq!(pods["items"].as_array().unwrap().len(), 3);
//! ```
//!
//! A test is written as one would type it: [`Cluster::kubectl`] splits a line as a shell splits words, and
//! [`Output::ok`] fails the test with all that was printed. Nothing sleeps and hopes: [`Cluster::until`] asks again and
//! again until a deadline. The cluster is deleted when it goes out of scope.
//!
//! Reading order: [`tools`] (which kubectl), [`cluster`] (start, run, wait), [`output`], [`alone`] (components as processes of
//! their own), [`toolchains`] (clients in Go and Python).

pub mod alone;
pub mod cluster;
pub mod output;
pub mod toolchains;
pub mod tools;

pub use cluster::Cluster;
pub use output::Output;
