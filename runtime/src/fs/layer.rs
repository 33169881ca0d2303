//! The read-only content of an image.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerNode {
    /// A directory.
    Directory,
    /// A file with its permission bits.
    File(Bytes, u32),
    /// A symbolic link.
    Symlink(String),
}

/// Files by absolute path, shared by all containers of an image.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    nodes: BTreeMap<String, LayerNode>,
}

impl Layer {
    /// Adds a directory and those above it.
    pub fn add_directory(&mut self, path: &str) {
        let path = minik8s_cri::normalize(path);
        let mut at = path.as_str();
        while at != "/" {
            self.nodes.entry(at.to_string()).or_insert(LayerNode::Directory);
            at = minik8s_cri::parent(at);
        }
    }

    /// Adds an entry, and the directories above it.
    pub fn add(&mut self, path: &str, node: LayerNode) {
        let path = minik8s_cri::normalize(path);
        self.add_directory(minik8s_cri::parent(&path));
        self.nodes.insert(path, node);
    }

    /// What stands at a normalized path.
    pub fn get(&self, path: &str) -> Option<&LayerNode> {
        self.nodes.get(path)
    }

    /// Names in a directory given by its normalized path.
    pub fn names<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = (&'a str, &'a LayerNode)> {
        let prefix = format!("{}/", directory.trim_end_matches('/'));
        let start = prefix.len();
        self.nodes
            .range::<str, _>((Bound::Excluded(prefix.as_str()), Bound::Unbounded))
            .take_while({
                let prefix = prefix.clone();
                move |(path, _)| path.starts_with(&prefix)
            })
            .filter(move |(path, _)| !path[start..].contains('/'))
            .map(move |(path, node)| (&path[start..], node))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// How many bytes its files hold.
    pub fn size(&self) -> u64 {
        let size = |node: &LayerNode| match node {
            LayerNode::File(content, _) => content.len() as u64,
            _ => 0,
        };
        self.nodes.values().map(size).sum()
    }
}
