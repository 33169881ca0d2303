//! Formats of names in `resource.k8s.io`: of pools, devices, attributes, and how many there may be.
//!
//! Each exists twice, with words of its own: once by hand (`pkg/apis/resource/validation/validation.go`), once among the
//! declarative formats (`apimachinery/pkg/api/validate/strfmt.go`), which say `bytes` for `characters`.
use std::collections::BTreeSet;

use super::super::field::{Errors, Field};
use super::super::names;

/// Longest name of a driver, and of the domain of an attribute, in bytes.
pub const DOMAIN_MAX: usize = 63;
const ID_MAX: usize = 32;
const POOL_NAME_MAX: usize = 253;

/// The name of a pool: subdomains between slashes.
pub fn pool_name(name: &Field<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    if name.len() > POOL_NAME_MAX {
        errors.push(name.too_long(POOL_NAME_MAX));
    }
    for part in name.str().split('/') {
        at(name, part, names::dns1123_subdomain(part), errors);
    }
}

/// `k8s-resource-pool-name`
pub fn declared_pool_name(name: &Field<'_>, errors: &mut Errors) {
    if name.len() > POOL_NAME_MAX {
        errors.push(name.too_long(POOL_NAME_MAX));
    }
    for (index, part) in name.str().split('/').enumerate() {
        if part.is_empty() {
            errors.push(name.invalid(format!("segment {index}: must not be empty")));
        } else {
            let complaints = names::long_name(part).into_iter().map(|text| format!("segment {index}: {text}"));
            at(name, part, complaints.collect(), errors);
        }
    }
}

/// The name of an attribute or capacity, which is a key of the map that is `place`.
pub fn qualified_name(name: &str, place: &Field<'_>, errors: &mut Errors) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(id, place, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(place.invalid_as("", "the domain must not be empty"));
            } else {
                if domain.len() > DOMAIN_MAX {
                    errors.push(place.too_long(DOMAIN_MAX));
                }
                at(place, domain, names::dns1123_subdomain(&domain.to_lowercase()), errors);
            }
            if id.is_empty() {
                errors.push(place.invalid_as("", "the name must not be empty"));
            } else {
                identifier(id, place, errors);
            }
        }
        // Kubernetes takes more than one slash, too.
        _ => {}
    }
}

/// `k8s-resource-fully-qualified-name`
pub fn declared_fully_qualified_name(name: &Field<'_>, errors: &mut Errors) {
    match name.str().split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(id, name, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(name.invalid_as("", "prefix must not be empty"));
            } else {
                if domain.len() > DOMAIN_MAX {
                    errors.push(name.too_long(DOMAIN_MAX));
                }
                let complaints = names::long_name(domain).into_iter().map(|text| format!("prefix: {text}"));
                at(name, domain, complaints.collect(), errors);
            }
            if id.is_empty() {
                errors.push(name.invalid_as("", "name must not be empty"));
            } else {
                identifier(id, name, errors);
            }
        }
        _ => {}
    }
    if !name.str().contains('/') {
        errors.push(name.invalid("a fully qualified name must be a domain and a name separated by a slash"));
    }
}

/// `k8s-long-name-caseless` of at most 63 characters: the name of a driver.
pub fn declared_driver_name(name: &Field<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    name.check(names::long_name_caseless(name.str()), errors);
    if name.str().chars().count() > DOMAIN_MAX {
        let mut error = name.too_long(DOMAIN_MAX);
        error.detail = format!("may not be more than {DOMAIN_MAX} characters");
        errors.push(error);
    }
}

/// `k8s-uuid`
pub fn declared_uuid(uuid: &Field<'_>, errors: &mut Errors) {
    let text = uuid.str().as_bytes();
    let fits = text.len() == 36
        && text.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        });
    if !fits {
        errors.push(uuid.invalid("must be a lowercase UUID in 8-4-4-4-12 format"));
    }
}

/// `k8s-extended-resource-name`
pub fn declared_extended_resource_name(name: &Field<'_>, errors: &mut Errors) {
    const OWN_DOMAIN: &str = "kubernetes.io/";
    const QUOTA_PREFIX: &str = "requests.";
    if !name.str().contains('/') {
        errors.push(name.invalid("a name must be a domain-prefixed path, such as 'example.com/my-prop'"));
    } else if name.str().contains(OWN_DOMAIN) {
        errors.push(name.invalid(format!("must not have {OWN_DOMAIN:?} domain")));
    }
    if name.str().starts_with(QUOTA_PREFIX) {
        errors.push(name.invalid(format!("must not have {QUOTA_PREFIX:?} prefix")));
    }
    name.check(names::qualified_name(&format!("{QUOTA_PREFIX}{}", name.str())), errors);
}

fn identifier(id: &str, place: &Field<'_>, errors: &mut Errors) {
    if id.len() > ID_MAX {
        errors.push(place.too_long(ID_MAX));
    }
    at(place, id, names::c_identifier(id), errors);
}

/// Complaints about a part of what stands at a place.
fn at(place: &Field<'_>, part: &str, complaints: Vec<String>, errors: &mut Errors) {
    errors.extend(complaints.into_iter().map(|complaint| place.invalid_as(part, complaint)));
}

/// Whether a list has so many elements that none of them is looked at. Most such limits are declared; those that are not
/// are told here.
pub fn is_too_long(list: &Field<'_>, most: usize, declared: bool, errors: &mut Errors) -> bool {
    let too_long = list.len() > most;
    if too_long && !declared {
        errors.push(list.too_many(most));
    }
    too_long
}

/// Elements that say again what one before them says.
pub fn duplicates(list: &Field<'_>, key: impl Fn(&Field<'_>) -> String, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for item in list.items() {
        let key = key(&item);
        if seen.contains(&key) {
            errors.push(item.duplicate_as(key));
        } else {
            seen.insert(key);
        }
    }
}
