//! The core group, besides pods.
pub mod claim;
mod config;
mod endpoints;
mod event;
mod namespace;
mod node;
mod quota;
mod replication;
mod service;
mod volume;

pub use claim::{PersistentVolumeClaim, template_metadata};
pub use config::{ConfigMap, Secret, ServiceAccount};
pub use endpoints::{Endpoints, not_special_ip};
pub use event::Event;
pub use namespace::Namespace;
pub use node::Node;
pub use quota::{LimitRange, ResourceQuota};
pub use replication::{PodTemplate, ReplicationController};
pub use service::{Service, carry_over};
pub use volume::PersistentVolume;
