//! How the end of a command is told to the client.

use serde_json::{Value, json};

/// How a remote command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ran and exited with 0.
    Success,
    /// It ran and exited with another code.
    Code {
        /// The exit code, as a shell shows it.
        code: i32,
        /// What the runtime says about it; kubectl shows the code only.
        message: String,
    },
    /// It could not be run, or was lost; the words are for the user.
    Failed(String),
}

impl ExitStatus {
    /// The `metav1.Status` of protocols 4 and 5; kubectl takes its own exit code from the cause `ExitCode`
    /// (`k8s.io/client-go/tools/remotecommand/v4.go`).
    pub fn status(&self) -> Value {
        match self {
            ExitStatus::Success => json!({"metadata": {}, "status": "Success"}),
            ExitStatus::Code { code, message } => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: {message}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            ExitStatus::Failed(message) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {message}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": message}]},
                "code": 500,
            }),
        }
    }

    /// The text of the protocols before 4; nothing for success.
    pub fn text(&self) -> Option<String> {
        match self {
            ExitStatus::Success => None,
            ExitStatus::Code { message, .. } => Some(format!("command terminated with non-zero exit code: {message}")),
            ExitStatus::Failed(message) => Some(format!("Internal error occurred: {message}")),
        }
    }
}
