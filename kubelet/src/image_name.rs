//! Image names: whether one is well formed, and its default tag.
//!
//! (The reference grammar of the container registries; kubelet: `image_manager.go`, `applyDefaultImageTag`.)

/// The longest repository name.
const NAME_MAX: usize = 255;
/// The longest tag.
const TAG_MAX: usize = 128;

/// The name with `:latest` where it has neither tag nor digest.
///
/// # Errors
/// Why the name is not well formed, in the reference parser's words.
pub fn with_default_tag(image: &str) -> Result<String, String> {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let path_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[path_start..].rfind(':') {
        Some(colon) => (&rest[..path_start + colon], Some(&rest[path_start + colon + 1..])),
        None => (rest, None),
    };
    let is_well_formed = is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
    if !is_well_formed {
        let lower = name.to_lowercase();
        if lower != name && is_name(&lower) && tag.is_none_or(is_tag) {
            let repository = if domain(name).is_some() { name.to_owned() } else { normalized(name) };
            let repository = repository.trim_start_matches("docker.io/");
            return Err(format!("invalid reference format: repository name ({repository}) must be lowercase"));
        }
        return Err("invalid reference format".to_owned());
    }
    if name.len() > NAME_MAX {
        return Err(format!("repository name must not be more than {NAME_MAX} characters"));
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

fn normalized(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("library/{name}") }
}

/// The first component, if it names a registry.
fn domain(name: &str) -> Option<&str> {
    let (first, _) = name.split_once('/')?;
    (first.contains('.') || first.contains(':') || first == "localhost" || first.to_lowercase() != first)
        .then_some(first)
}

fn is_name(name: &str) -> bool {
    let path = match domain(name) {
        Some(domain) => {
            if !is_domain(domain) {
                return false;
            }
            &name[domain.len() + 1..]
        }
        None => name,
    };
    !path.is_empty() && path.split('/').all(is_path_component)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()))
}

/// Lowercase letters and digits, separated by one dot, one or two underscores or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alphanumeric) || !component.ends_with(alphanumeric) {
        return false;
    }
    component
        .split(alphanumeric)
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_MAX && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty()
            && algorithm.chars().all(|c| c.is_ascii_alphanumeric() || "+._-".contains(c))
            && hex.len() >= 32
            && hex.chars().all(|c| c.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_tags_and_refusals() {
        let check = |image: &str, expect: Result<&str, &str>| {
            assert_eq!(with_default_tag(image).as_deref(), expect.map_err(str::to_owned).as_ref().copied(), "{image}");
        };
        check("nginx", Ok("nginx:latest"));
        check("nginx:1.27", Ok("nginx:1.27"));
        check("localhost:5000/a/b", Ok("localhost:5000/a/b:latest"));
        check("registry.k8s.io/pause:3.10", Ok("registry.k8s.io/pause:3.10"));
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        check(&digest, Ok(&digest));
        check("Nginx", Err("invalid reference format: repository name (library/Nginx) must be lowercase"));
        check("nginx:", Err("invalid reference format"));
        check("", Err("invalid reference format"));
        check("nginx::1", Err("invalid reference format"));
        check("my image", Err("invalid reference format"));
        check("a..b/c", Err("invalid reference format"));
    }
}
