//! Which Kubernetes this is.

use serde_json::{Value, json};

/// The version of Kubernetes whose API is served.
pub const GIT_VERSION: &str = "v1.37.2";

/// What `/version` says (`k8s.io/apimachinery/pkg/version`).
pub fn info() -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "emulationMajor": "1",
        "emulationMinor": "37",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none: minik8s is written in Rust",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
