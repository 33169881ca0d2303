//! `connect`: tries to reach a port, and says in one word why it could not.

use super::flags::Flag;
use super::{Call, client, go_format};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection is waited for where `--timeout` does not say it: Linux gives up after about two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(130);

pub(super) const FLAGS: &[Flag] = &[
    Flag::duration("timeout", "0s", "Maximum time before returning an error"),
    Flag::string("protocol", "tcp", "The protocol to use to perform the connection, can be tcp, udp or sctp"),
    Flag::string("udp-data", "hostname", "The UDP payload send to the server"),
    Flag::string("sctp-data", "hostname", "The SCTP payload send to the server"),
];

/// Tries once.
pub(super) async fn run(call: Arc<Call>) -> i32 {
    let [target] = &call.flags.operands[..] else {
        let received = call.flags.operands.len();
        return failed(&call, format!("Error: accepts 1 arg(s), received {received}")).await;
    };
    match call.flags.text("protocol") {
        "" | "tcp" => tcp(&call, target).await,
        "udp" => udp(&call, target).await,
        "sctp" => call.unsupported("--protocol=sctp: SCTP").await,
        protocol => failed(&call, format!("Unsupported protocol\n{protocol}")).await,
    }
}

async fn failed(call: &Call, message: String) -> i32 {
    // With its standard error gone, a process has nobody to complain to.
    let _told = call.stderr.line(message).await;
    1
}

async fn tcp(call: &Call, target: &str) -> i32 {
    let (host, port) = match client::split_host_port(target) {
        Ok(parts) => parts,
        Err(error) => return failed(call, format!("UNKNOWN: {error}")).await,
    };
    let address = match client::resolve(call, host, port).await {
        Ok(address) => address,
        Err(error) => return failed(call, format!("DNS: {error}")).await,
    };
    let timeout = Some(call.flags.duration("timeout")).filter(|timeout| !timeout.is_zero());
    let error = match client::connect(call, address, timeout.unwrap_or(CONNECT_TIMEOUT)).await {
        Ok(_) => return 0,
        Err(error) => error,
    };
    let word = match error.kind() {
        io::ErrorKind::TimedOut => "TIMEOUT".to_string(),
        io::ErrorKind::ConnectionRefused => "REFUSED".to_string(),
        _ => format!("OTHER: {}", go_format::dial_error("tcp", address, &error)),
    };
    failed(call, word).await
}

async fn udp(call: &Call, target: &str) -> i32 {
    let address = match client::split_host_port(target) {
        Ok((host, port)) => client::resolve(call, host, port).await,
        Err(error) => Err(error),
    };
    let address = match address {
        Ok(address) => address,
        Err(error) => return failed(call, format!("DNS: {error}")).await,
    };
    let datagram = format!("{}\n", call.flags.text("udp-data")).into();
    let timeout = Some(call.flags.duration("timeout")).filter(|timeout| !timeout.is_zero());
    let error = match client::exchange_udp(call, address, datagram, timeout).await {
        Ok(answer) if answer.is_empty() => {
            let reason = "No data received from the server. Cannot guarantee the server received the request.";
            return failed(call, format!("OTHER: {reason}")).await;
        }
        Ok(_) => return 0,
        Err(error) => error,
    };
    let word = match error.kind() {
        io::ErrorKind::TimedOut => format!("TIMEOUT: read udp {address}: i/o timeout"),
        io::ErrorKind::ConnectionRefused => format!("REFUSED: read udp {address}: read: connection refused"),
        _ => format!("UNKNOWN: {}", go_format::errno(&error)),
    };
    failed(call, word).await
}
