//! How each component is put together: once, for a cluster in one process ([`crate::cluster`]) and for a process of its own
//! (`minik8s apiserver`, `controllers`, `scheduler`, `kubelet`).
//!
//! ```text
//!                    in one process                      a process each
//!   API server       api_server ◄── store, Nodes         api_server ◄── store, KubeletDialer ──TLS──► kubelet's port
//!   scheduler        clients    ◄── in-process clients   clients    ◄── ApiAccess (kubeconfig), leader election
//!   controllers      clients    ◄── in-process clients   clients    ◄── ApiAccess, tokens of ServiceAccounts
//!   kubelet          machine    ◄── in-process client    machine    ◄── ApiAccess; kubelet_port ◄── Guard
//! ```
//! What differs is how the parts reach each other, and that comes from outside: a client, a `NodeConnector`, a listener.
//!
//! Read in this order: [`api_server`], [`clients`], [`machine`]; then what only processes of their own need: [`access`]
//! (kubeconfigs), [`leadership`], [`listener`], [`guard`] (who may ask a component something), [`kubelet_port`],
//! [`secure_port`], [`kubelet_dialer`].

pub mod access;
pub mod api_server;
pub mod clients;
pub mod guard;
pub mod kubelet_dialer;
pub mod kubelet_port;
pub mod leadership;
pub mod listener;
pub mod machine;
pub mod secure_port;
