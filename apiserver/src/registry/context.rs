//! On whose behalf, and how, the registry works.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::audit::AuditContext;
use crate::identity::UserInfo;

/// At most this many characters of warnings go into one answer (`k8s.io/apiserver/pkg/endpoints/filters/warning.go`).
const TOTAL_WARNING_CHARACTERS: usize = 4 * 1024;

/// Warnings collected for one answer, shared between the stages that may warn; duplicates are said once.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a warning.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.0.lock();
        let written: usize = warnings.iter().map(String::len).sum();
        if !text.is_empty() && !warnings.contains(&text) && written + text.len() <= TOTAL_WARNING_CHARACTERS {
            warnings.push(text);
        }
    }

    /// Takes all warnings.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Who writes, under which field manager, and what they are to be warned of.
#[derive(Debug, Clone)]
pub struct Context {
    /// The caller, after impersonation.
    pub user: UserInfo,
    /// Default name in `managedFields`: the user agent up to its first slash.
    pub manager: String,
    /// Collected warnings.
    pub warnings: Warnings,
    /// What the request leaves in the audit log.
    pub audit: AuditContext,
    /// A write of the server itself: admission is skipped.
    pub internal: bool,
}

impl Context {
    /// A caller's context.
    pub fn new(user: UserInfo, user_agent: &str) -> Context {
        Context {
            user,
            manager: manager_of(user_agent),
            warnings: Warnings::default(),
            audit: AuditContext::default(),
            internal: false,
        }
    }

    /// The server itself, which admission does not ask (`system:apiserver`, group `system:masters`).
    pub fn internal() -> Context {
        Context {
            user: UserInfo::api_server(),
            manager: "kube-apiserver".to_owned(),
            warnings: Warnings::default(),
            audit: AuditContext::default(),
            internal: true,
        }
    }
}

/// `kubectl/v1.37 (linux/amd64)` → `kubectl`
/// (`k8s.io/apiserver/pkg/endpoints/handlers/create.go` `managerOrUserAgent`, `prefixFromUserAgent`).
fn manager_of(user_agent: &str) -> String {
    const MAX_LENGTH: usize = 128;
    let prefix = user_agent.split('/').next().unwrap_or_default();
    prefix
        .chars()
        .filter(|c| !c.is_control())
        .scan(0, |length, c| {
            *length += c.len_utf8();
            (*length <= MAX_LENGTH).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_the_program_that_asks() {
        assert_eq!(manager_of("kubectl/v1.37.1 (linux/amd64) kubernetes/abc"), "kubectl");
        assert_eq!(manager_of("Python-urllib/3.11"), "Python-urllib");
        assert_eq!(manager_of(""), "");
        assert_eq!(manager_of(&"x".repeat(200)).len(), 128);
    }
}
