//! CRI servers: simulated containers
