//! The Container Runtime Interface: types, client, and the node file system
