//! The names of images.

use crate::{Error, Result};
use std::fmt;

/// An image name in full: `nginx` is `docker.io/library/nginx:latest` (`github.com/distribution/reference`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Registry and path: `docker.io/library/nginx`.
    pub repository: String,
    /// The tag; `latest` where the name has neither tag nor digest.
    pub tag: Option<String>,
    /// The digest: `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads a name as a user writes it.
    pub fn parse(name: &str) -> Result<Reference> {
        let invalid = || Error::InvalidReference(name.to_string());
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (name, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(invalid());
        }
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match rest[slash..].find(':') {
            Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) || !path.split('/').all(is_path_part) {
            return Err(invalid());
        }
        let repository = match path.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => path.to_string(),
            Some(_) => format!("docker.io/{path}"),
            None => format!("docker.io/library/{path}"),
        };
        let tag = tag.or(digest.is_none().then_some("latest")).map(str::to_string);
        Ok(Reference { repository, tag, digest: digest.map(str::to_string) })
    }

    /// The registry's host.
    pub fn host(&self) -> &str {
        self.repository.split('/').next().unwrap_or_default()
    }

    /// The path in the registry.
    pub fn path(&self) -> &str {
        self.repository.split_once('/').map_or("", |(_, path)| path)
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_path_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-:".contains(&byte);
    let host_like = text.contains(['.', ':']);
    !text.is_empty() && text.bytes().all(|byte| allowed(byte) || (host_like && byte.is_ascii_uppercase()))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expect: &str) {
        let outcome = Reference::parse(name).map_or_else(|error| error.to_string(), |reference| reference.to_string());
        assert_eq!(outcome, expect);
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        check("nginx", "docker.io/library/nginx:latest");
        check("curlimages/curl:8.5.0", "docker.io/curlimages/curl:8.5.0");
        check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
        check("localhost:5000/app", "localhost:5000/app:latest");
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        check(&digest, &format!("docker.io/library/{digest}"));
        check("Nginx", "invalid reference format: \"Nginx\"");
        check("nginx:", "invalid reference format: \"nginx:\"");
    }
}
