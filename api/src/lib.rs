//! Kinds as data.
pub mod kinds;
pub mod schema;
pub mod decode;
pub mod protobuf;
pub mod status;
pub mod meta;
pub mod quantity;
pub mod time;
pub mod intstr;
pub mod selector;
pub mod patch;
pub mod managed;
pub mod strategy;
pub mod table;
