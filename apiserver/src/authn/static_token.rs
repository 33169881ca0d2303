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
            let mut columns = line.splitn(4, ',').map(|column| column.trim().trim_matches('"'));
            let (Some(token), Some(user), Some(uid)) = (columns.next(), columns.next(), columns.next()) else {
                return Err(bad);
            };
            if token.is_empty() || user.is_empty() {
                return Err(bad);
            }
            let groups = columns
                .next()
                .unwrap_or_default()
                .split(',')
                .map(str::trim)
                .filter(|group| !group.is_empty())
                .map(str::to_owned)
                .collect();
            let user = UserInfo { name: user.to_owned(), uid: uid.to_owned(), groups, ..UserInfo::default() };
            tokens.insert(token.to_owned(), user);
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
        assert_eq!(tokens.authenticate(""), None);
        assert_eq!(StaticTokens::parse("abc,ann,1\nabc").map(|_| ()), Err(BadTokenFile { line: 2 }));
        assert_eq!(StaticTokens::parse(",ann,1").map(|_| ()), Err(BadTokenFile { line: 1 }));
    }
}
