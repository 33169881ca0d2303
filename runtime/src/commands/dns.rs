//! Tools that ask name servers: `nslookup`.

use super::network::RESOLVE_TIMEOUT;
use super::{Options, complain_usage};
use crate::network::ResolveError;
use crate::process::Process;
use std::io;

pub(super) async fn nslookup(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &[], &["type", "query", "timeout"]) {
        Ok(options) => options,
        Err(_) => Options::operands(process.arguments().iter().filter(|word| !word.starts_with('-'))),
    };
    let Some(name) = options.operands.first() else {
        return complain_usage(&process, "usage: nslookup HOST [DNS_SERVER]".to_string()).await;
    };
    let server = options.operands.get(1).or(process.world.network.dns_servers.first()).cloned();
    let server = server.unwrap_or_else(|| "127.0.0.1".to_string());
    let resolving = process.world.network.resolve(name);
    let answer = process.world.clock.timeout(RESOLVE_TIMEOUT, resolving).await.unwrap_or(Err(ResolveError::NoServer));
    if answer != Err(ResolveError::NoServer) {
        process.stdout.line(format!("Server:\t\t{server}\nAddress:\t{server}:53\n")).await?;
    }
    match answer {
        Ok(addresses) => {
            for address in addresses {
                process.stdout.line(format!("Name:\t{name}\nAddress: {address}")).await?;
            }
            process.stdout.write("\n").await?;
            Ok(0)
        }
        Err(ResolveError::NoSuchName) => {
            process.stdout.line(format!("** server can't find {name}: NXDOMAIN\n")).await?;
            Ok(1)
        }
        Err(ResolveError::NoServer) => {
            process.stdout.line(";; connection timed out; no servers could be reached\n").await?;
            Ok(1)
        }
    }
}
