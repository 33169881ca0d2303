//! The files of a container.
//!
//! ```text
//!  mounts            volumes, by host path in the node's file system, or the files of an image
//!  special files     /dev and /proc, made up as they are read
//!  upper             what the container wrote; in memory, made with the first write
//!  layers            what the image brings; shared by all containers of the image
//! ```
//! The first that has a path decides, as with overlayfs; what is removed from a layer is remembered as removed.

mod container_fs;
mod device;
mod layer;
mod proc;

pub use container_fs::{ContainerFs, Filesystem, ImageTree, Mount, WRITABLE_LAYER_BYTES};
pub use device::Device;
pub use layer::{Layer, LayerNode};
