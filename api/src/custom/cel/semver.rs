//! Versions as <https://semver.org> 2.0.0 has them, and their functions: `semver('1.2.3').isGreaterThan(semver('1.2.0'))`.
//! `k8s.io/apiserver/pkg/cel/library/semverlib.go`.

use std::cmp::Ordering;

/// A version. Two that differ in what was built only are equal.
#[derive(Clone, Debug)]
pub struct Version {
    core: [u64; 3],
    pre: Vec<Identifier>,
}

/// A part of what stands after the dash: numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl Version {
    /// Reads a version; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Version, String> {
        let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
        let parts: Vec<&str> = core.split('.').collect();
        let [major, minor, patch] = parts[..] else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let core = [number(major)?, number(minor)?, number(patch)?];
        let pre: Result<Vec<_>, _> = pre.into_iter().flat_map(|pre| pre.split('.')).map(identifier).collect();
        if let Some(bad) = build.into_iter().flat_map(|build| build.split('.')).find(|part| !is_word(part)) {
            return Err(format!("Invalid character(s) found in build meta data {bad:?}"));
        }
        Ok(Version { core, pre: pre? })
    }

    /// Reads what people write: with a `v` before it, zeros before numbers, and parts left out.
    pub fn parse_tolerant(text: &str) -> Result<Version, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err("short version cannot contain PreRelease/Build meta data".to_owned());
            }
            parts.resize(3, "0".to_owned());
        }
        Version::parse(&parts.join("."))
    }

    /// Major, minor or patch: the part at an index.
    pub fn part(&self, index: usize) -> u64 {
        self.core.get(index).copied().unwrap_or(0)
    }
}

fn without_zeros(part: &str) -> String {
    if part.len() <= 1 {
        return part.to_owned();
    }
    let rest = part.trim_start_matches('0');
    if rest.starts_with(|c: char| c.is_ascii_digit()) { rest.to_owned() } else { format!("0{rest}") }
}

fn is_word(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn number(part: &str) -> Result<u64, String> {
    if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in version number {part:?}"));
    }
    if part.len() > 1 && part.starts_with('0') {
        return Err(format!("Version number must not contain leading zeroes {part:?}"));
    }
    part.parse().map_err(|_| format!("version number {part:?} is out of range"))
}

fn identifier(part: &str) -> Result<Identifier, String> {
    if !is_word(part) {
        return Err(format!("Invalid character(s) found in prerelease {part:?}"));
    }
    if part.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(part).map(Identifier::Number);
    }
    Ok(Identifier::Word(part.to_owned()))
}

impl Ord for Version {
    /// What is about to be released comes before what is.
    fn cmp(&self, other: &Version) -> Ordering {
        let released = |version: &Version| version.pre.is_empty();
        self.core
            .cmp(&other.core)
            .then_with(|| released(self).cmp(&released(other)))
            .then_with(|| self.pre.cmp(&other.pre))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_version() {
        for text in ["1.2.3", "0.0.0", "1.2.3-alpha.1", "1.2.3-0a+build.007", "1.0.0--"] {
            assert!(Version::parse(text).is_ok(), "{text}");
        }
        for text in ["", "1.2", "01.2.3", "1.2.3-01", "1.2.3-", "1.2.3+", "v1.2.3", "1.2.3+a+b"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
        assert!(Version::parse_tolerant("v1.02").is_ok_and(|version| version.core == [1, 2, 0]));
    }

    #[test]
    fn which_comes_first() {
        let version = |text| Version::parse(text).expect("a version");
        let ordered = ["1.0.0-1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta", "1.0.0", "1.0.1", "1.10.0"];
        assert!(ordered.map(version).is_sorted());
        assert_eq!(version("1.0.0+a"), version("1.0.0+b"));
    }
}
