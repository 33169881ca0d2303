//! Whether other pods see a pod under its own address: `no-snat-test`, `no-snat-test-proxy`.

use super::flags::Flag;
use super::server::{self, Received};
use super::{Call, client, servers};
use http::StatusCode;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long another pod is waited for.
const TIMEOUT: Duration = Duration::from_secs(130);

pub(super) const FLAGS: &[Flag] =
    &[Flag::string("port", "8080", "The port to serve /checknosnat and /whoami endpoints on.")];
pub(super) const PROXY_FLAGS: &[Flag] = &[Flag::string("port", "31235", "The port to serve /checknosnat endpoint on.")];

/// Tells clients under what address they came, and asks other pods the same.
pub(super) async fn no_snat_test(call: Arc<Call>) -> i32 {
    let mut addresses = Vec::new();
    for name in ["POD_IP", "NODE_IP"] {
        let failure = match call.env.get(name) {
            Some(value) if value.parse::<IpAddr>().is_ok() => {
                addresses.push(value.clone());
                continue;
            }
            Some(value) => format!("{name} env var contained {value:?}, which is not an IP address"),
            None => format!("{name} env var was not present in the environment"),
        };
        let _told = call.stderr.line(failure).await;
        return 1;
    }
    let addresses = Arc::new(addresses);
    let answering = call.clone();
    let port = call.flags.port("port");
    servers::serve_port(call, port, move |request: Received| {
        let (call, addresses) = (answering.clone(), addresses.clone());
        async move {
            match request.path.as_str() {
                "/whoami" => server::ok(request.peer.to_string()),
                "/checknosnat" => {
                    let mut errors = Vec::new();
                    for target in request.query("ips").split(',') {
                        errors.extend(check(&call, target, &addresses[0], &addresses[1]).await.err());
                    }
                    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
                    server::text(status, errors.join(", "))
                }
                _ => server::not_found(),
            }
        }
    })
    .await
}

async fn check(call: &Call, target: &str, pod: &str, node: &str) -> Result<(), String> {
    let seen = client::get(call, &format!("http://{target}/whoami"), TIMEOUT).await?.text();
    let seen = seen.rsplit_once(':').map_or(seen.as_str(), |(address, _)| address);
    let seen = seen.trim_start_matches('[').trim_end_matches(']');
    match seen {
        seen if seen == pod => Ok(()),
        seen if seen == node => {
            Err(format!("Returned ip {seen:?} != my Pod ip {pod:?}, == my Node ip {node:?} - SNAT"))
        }
        seen => Err(format!(
            "Returned ip {seen:?} != my Pod ip {pod:?} or my Node ip {node:?} - SNAT to unexpected ip (possible SNAT \
             through unexpected interface on the way into another node)"
        )),
    }
}

/// Passes the question on to another pod.
pub(super) async fn no_snat_test_proxy(call: Arc<Call>) -> i32 {
    let answering = call.clone();
    let port = call.flags.port("port");
    servers::serve_port(call, port, move |request: Received| {
        let call = answering.clone();
        async move {
            if request.path != "/checknosnat" {
                return server::not_found();
            }
            let url = format!("http://{}/checknosnat?ips={}", request.query("target"), request.query("ips"));
            match client::get(&call, &url, TIMEOUT).await {
                Ok(answer) => server::text(answer.status, answer.body),
                Err(error) => {
                    let message = format!("error querying {url:?}, err: {error}");
                    server::text(StatusCode::INTERNAL_SERVER_ERROR, message)
                }
            }
        }
    })
    .await
}
