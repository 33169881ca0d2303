//! `nc`.

use super::network::{CONNECT_TIMEOUT, resolve, seconds};
use super::{Options, complain_usage};
use crate::process::{Process, errno_text};
use std::io;
use std::net::SocketAddr;

pub(super) async fn nc(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["z", "v", "n", "u"], &["w"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let target = options.operands.first().zip(options.operands.get(1).and_then(|port| port.parse::<u16>().ok()));
    let Some((host, port)) = target else {
        return complain_usage(&process, "usage: nc [-vz] [-w SEC] HOST PORT".to_string()).await;
    };
    let limit = seconds(options.value(&["w"])).unwrap_or(CONNECT_TIMEOUT);
    let ip = match resolve(&process, host, limit).await {
        Ok(ip) => ip,
        Err(_) => {
            process.complain(format!("bad address '{host}'")).await;
            return Ok(1);
        }
    };
    let connecting = process.world.network.connect(SocketAddr::new(ip, port));
    let connected = process.world.clock.timeout(limit, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) => {
            process.complain(format!("{host} ({ip}:{port}): {}", errno_text(&error))).await;
            return Ok(1);
        }
    };
    if options.has(&["v"]) {
        process.stderr.line(format!("{host} ({ip}:{port}) open")).await?;
    }
    if options.has(&["z"]) {
        return Ok(0);
    }
    let (reader, mut writer) = tokio::io::split(stream);
    let reader = crate::process::Input::stream(reader);
    let sending = async {
        loop {
            let chunk = process.stdin.read().await?;
            if chunk.is_empty() {
                return tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
            }
            tokio::io::AsyncWriteExt::write_all(&mut writer, &chunk).await?;
        }
    };
    let receiving = async {
        loop {
            let chunk = reader.read().await?;
            if chunk.is_empty() {
                return Ok::<(), io::Error>(());
            }
            process.stdout.write(chunk).await?;
        }
    };
    let (sent, received) = tokio::join!(sending, receiving);
    Ok(i32::from(sent.is_err() || received.is_err()))
}
