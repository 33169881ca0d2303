//! The API server in one process, on a memory store: what a client sees.

mod aggregation;
mod answers;
mod audit;
mod bounds;
mod collections;
mod conversion;
mod connections;
mod custom;
mod encryption;
mod figures;
mod fortress;
mod fuzz;
mod issuers;
mod nobody;
mod objects;
mod policies;
mod priorities;
mod remote;
mod server;
mod strangers;
mod surface;
mod watches;
mod webhooks;
