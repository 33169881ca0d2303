//! What a pod knows of names: `dns-suffix`, `dns-server-list`, `etc-hosts`.

use super::{Call, go_format};
use std::sync::Arc;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// The exit code of a Go program that panics.
const PANICKED: i32 = 2;

/// Prints the search domains.
pub(super) async fn dns_suffix(call: Arc<Call>) -> i32 {
    resolv_conf(&call, "search").await
}

/// Prints the name servers.
pub(super) async fn dns_server_list(call: Arc<Call>) -> i32 {
    resolv_conf(&call, "nameserver").await
}

/// Prints the host names that need no server.
pub(super) async fn etc_hosts(call: Arc<Call>) -> i32 {
    match read(&call, HOSTS).await {
        Ok(text) => {
            call.say(text).await;
            0
        }
        Err(code) => code,
    }
}

/// Prints the values of a keyword, with commas between them.
async fn resolv_conf(call: &Call, keyword: &str) -> i32 {
    let text = match read(call, RESOLV_CONF).await {
        Ok(text) => text,
        Err(code) => return code,
    };
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let values = lines.filter(|words| words.first() == Some(&keyword)).flat_map(|words| words[1..].to_vec());
    call.say(values.collect::<Vec<_>>().join(",")).await;
    0
}

async fn read(call: &Call, path: &str) -> Result<String, i32> {
    match call.world.read_text(path) {
        Ok(text) => Ok(text),
        Err(error) => {
            let panic = format!("panic: {}", go_format::path_error("open", path, &error));
            let _told = call.stderr.line(panic).await;
            Err(PANICKED)
        }
    }
}
