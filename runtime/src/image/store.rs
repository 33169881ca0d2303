//! The images of one node.

use super::profile::Available;
use super::{ImageProfile, Profiles, Reference};
use crate::{Error, Result};
use minik8s_clock::Clock;
use minik8s_cri::proto::{Image, ImageSpec, Int64Value};
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

/// An image that was pulled.
#[derive(Debug, Clone)]
pub struct PulledImage {
    /// `sha256:…` of its configuration: the image's identity.
    pub id: String,
    /// What it does.
    pub profile: Arc<ImageProfile>,
    /// The version that its tag names.
    pub version: String,
    /// The name under which it can be pulled again: `docker.io/library/nginx@sha256:…`.
    pub repo_digest: String,
    tags: BTreeSet<String>,
    pinned: bool,
}

/// The images of one node.
pub struct ImageStore {
    clock: Clock,
    profiles: Arc<Profiles>,
    images: RwLock<BTreeMap<String, PulledImage>>,
}

impl ImageStore {
    /// A node without images, which can pull those that the profiles describe.
    pub fn new(clock: Clock, profiles: Arc<Profiles>) -> ImageStore {
        ImageStore { clock, profiles, images: RwLock::default() }
    }

    /// Pulls an image, in the time it takes; returns its id, under which containers refer to it.
    pub async fn pull(&self, name: &str) -> Result<String> {
        let reference = Reference::parse(name)?;
        let available = self.profiles.resolve(&reference)?;
        self.clock.sleep(available.pull).await;
        Ok(self.add(&reference, available))
    }

    /// Puts an image on the node without a pull.
    pub fn preload(&self, name: &str) -> Result<()> {
        let reference = Reference::parse(name)?;
        let available = self.profiles.resolve(&reference)?;
        self.add(&reference, available);
        Ok(())
    }

    fn add(&self, reference: &Reference, available: Available) -> String {
        // The same tag is the same image on every node and in every run.
        let name = format!("{}:{}", reference.repository, reference.tag.as_deref().unwrap_or_default());
        let digest = reference.digest.clone().unwrap_or_else(|| sha256(&format!("manifest {name}")));
        let id = sha256(&format!("config {}@{digest}", reference.repository));
        let mut images = self.images.write();
        // A tag belongs to one image.
        for image in images.values_mut() {
            image.tags.remove(&reference.to_string());
        }
        let Available { profile, version, .. } = available;
        let image = images.entry(id.clone()).or_insert_with(|| PulledImage {
            id: id.clone(),
            profile,
            version,
            repo_digest: format!("{}@{digest}", reference.repository),
            tags: BTreeSet::new(),
            pinned: reference.repository.ends_with("/pause"),
        });
        if reference.tag.is_some() && reference.digest.is_none() {
            image.tags.insert(reference.to_string());
        }
        id
    }

    /// An image by id, tag or digest.
    pub fn get(&self, name: &str) -> Option<PulledImage> {
        let images = self.images.read();
        if let Some(image) = images.get(name).or_else(|| images.get(&format!("sha256:{name}"))) {
            return Some(image.clone());
        }
        let reference = Reference::parse(name).ok()?;
        let full = reference.to_string();
        let by_digest = reference.digest.as_ref().map(|digest| format!("{}@{digest}", reference.repository));
        let named = |image: &&PulledImage| image.tags.contains(&full) || Some(&image.repo_digest) == by_digest.as_ref();
        images.values().find(named).cloned()
    }

    /// An image that a container is to be made of.
    pub fn require(&self, name: &str) -> Result<PulledImage> {
        self.get(name).ok_or_else(|| Error::ImageMissing(name.to_string()))
    }

    /// Removes an image; one that is not there is gone already.
    pub fn remove(&self, name: &str) {
        if let Some(image) = self.get(name) {
            self.images.write().remove(&image.id);
        }
    }

    /// All images.
    pub fn list(&self) -> Vec<PulledImage> {
        self.images.read().values().cloned().collect()
    }

    /// Bytes of all images.
    pub fn used_bytes(&self) -> u64 {
        self.images.read().values().map(|image| image.profile.size).sum()
    }
}

impl PulledImage {
    /// As CRI shows it.
    pub fn to_cri(&self) -> Image {
        let user = self.profile.user.as_deref().unwrap_or("0");
        let uid = user.split(':').next().and_then(|uid| uid.parse().ok());
        Image {
            id: self.id.clone(),
            repo_tags: self.tags.iter().cloned().collect(),
            repo_digests: vec![self.repo_digest.clone()],
            size: self.profile.size,
            uid: uid.map(|value| Int64Value { value }),
            username: if uid.is_none() { user.to_string() } else { String::new() },
            spec: Some(ImageSpec::default()),
            pinned: self.pinned,
        }
    }

    /// The name it is shown under: its first tag, or its digest.
    pub fn name(&self) -> String {
        self.tags.iter().next().unwrap_or(&self.repo_digest).clone()
    }
}

fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold("sha256:".to_string(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _written = write!(hex, "{byte:02x}");
        hex
    })
}
