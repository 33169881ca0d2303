//! Tokens of a file, read once: for a user who wants a password-like credential in a lab
//! (`k8s.io/apiserver/pkg/authentication/token/tokenfile`).

use std::collections::BTreeMap;

use crate::identity::UserInfo;

/// Users by token.
#[derive(Debug, Clone, Default)]
pub struct StaticTokens(BTreeMap<String, UserInfo>);

/// A line that is no `token,user,uid[,"group1,group2"]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token file, line {line}: expected token,user,uid[,\"group1,group2\"]")]
pub struct BadTokenFile {
    /// Counted from 1.
    pub line: usize,
}

impl StaticTokens {
    /// Reads the lines of a token file: `token,user,uid[,"group1,group2"]`. Empty lines and those that start with `#` are skipped.
    pub fn parse(text: &str) -> Result<StaticTokens, BadTokenFile> {
        let mut tokens = BTreeMap::new();
        for (index, line) in
            text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        {
            let bad = BadTokenFile { line: index + 1 };
            let columns = columns(line).ok_or_else(|| bad.clone())?;
            let (Some(token), Some(user), Some(uid)) = (columns.first(), columns.get(1), columns.get(2)) else {
                return Err(bad);
            };
            if token.is_empty() || user.is_empty() {
                return Err(bad);
            }
            let groups = columns.get(3).map(|groups| groups.split(',').map(str::trim)).into_iter().flatten();
            let groups = groups.filter(|group| !group.is_empty()).map(str::to_owned).collect();
            let user = UserInfo { name: user.clone(), uid: uid.clone(), groups, ..UserInfo::default() };
            tokens.insert(token.clone(), user);
        }
        Ok(StaticTokens(tokens))
    }

    /// Adds one token.
    pub fn with(mut self, token: impl Into<String>, user: UserInfo) -> StaticTokens {
        self.0.insert(token.into(), user);
        self
    }

    pub(super) fn authenticate(&self, token: &str) -> Option<UserInfo> {
        self.0.get(token).cloned()
    }
}

/// The columns of a line of comma-separated values; nothing where its quotes are wrong.
fn columns(line: &str) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    let mut rest = line;
    loop {
        let (column, after) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let mut column = String::new();
                let mut from = quoted;
                loop {
                    let end = from.find('"')?;
                    column.push_str(&from[..end]);
                    from = &from[end + 1..];
                    // Two quotes are one of the text.
                    match from.strip_prefix('"') {
                        Some(more) => {
                            column.push('"');
                            from = more;
                        }
                        None => break,
                    }
                }
                (column, from.trim_start())
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let column = rest[..end].trim();
                if column.contains('"') {
                    return None;
                }
                (column.to_owned(), &rest[end..])
            }
        };
        columns.push(column);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return after.is_empty().then_some(columns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_users_and_bad_lines_are_named() {
        let tokens = StaticTokens::parse("# lab\nabc,ann,1,\"dev,ops\"\n\nxyz,bob,2\n").expect("tokens");
        assert_eq!(
            tokens.authenticate("abc").map(|user| (user.name, user.groups)),
            Some(("ann".into(), vec!["dev".into(), "ops".into()]))
        );
        assert_eq!(tokens.authenticate("xyz").map(|user| user.groups), Some(vec![]));
        let odd = StaticTokens::parse("\"a,\"\"b\", ann ,1,\"g\",system:masters\n").expect("tokens");
        let ann = odd.authenticate("a,\"b").expect("ann");
        assert_eq!((ann.name.as_str(), ann.groups), ("ann", vec!["g".to_owned()]));
        for bad in ["a,b,1,\"g", "a,b,1,g\"h\"", "a,b,1,\"g\"h"] {
            assert!(StaticTokens::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(tokens.authenticate(""), None);
        assert_eq!(StaticTokens::parse("abc,ann,1\nabc").map(|_| ()), Err(BadTokenFile { line: 2 }));
        assert_eq!(StaticTokens::parse(",ann,1").map(|_| ()), Err(BadTokenFile { line: 1 }));
    }
}
