//! `inclusterclient`: asks the API server for its health again and again, and logs whose token it shows.

use super::Call;
use super::flags::Flag;
use super::in_cluster::InCluster;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

pub(super) const FLAGS: &[Flag] = &[Flag::int("poll-interval", "30", "poll interval of call to /healthz in seconds")];

/// Polls for ever.
pub(super) async fn run(call: Arc<Call>) -> i32 {
    call.klog('I', "main.go:60", "started").await;
    let cluster = match InCluster::of(&call) {
        Ok(cluster) => cluster,
        Err(error) => return call.fatal(format!("err: {error}")).await,
    };
    // A ticker needs some time to tick in.
    let interval = u64::try_from(call.flags.number("poll-interval")).unwrap_or_default().max(1);
    loop {
        call.world.clock.sleep(Duration::from_secs(interval)).await;
        call.klog('I', "main.go:79", "calling /healthz").await;
        match cluster.token() {
            Ok(token) => {
                // Two tokens can be told apart without being told.
                let hash = Sha256::digest(format!("salt|Bearer {token}"));
                call.klog('I', "main.go:99", format!("authz_header={}", URL_SAFE_NO_PAD.encode(hash))).await;
            }
            Err(_) => call.klog('E', "main.go:101", "authz_header=<empty>").await,
        }
        let answer = match cluster.get("/healthz").await {
            Ok(answer) if answer.status.is_success() => continue,
            Ok(answer) => format!("the server answered with {}\n{}", answer.status, answer.text()),
            Err(error) => error,
        };
        call.klog('E', "main.go:82", "status=failed").await;
        call.klog('E', "main.go:83", format!("error checking /healthz: {answer}")).await;
    }
}
