//! `nc`, as far as the one of OpenBSD and that of busybox agree.

use super::network::{CONNECT_TIMEOUT, resolve, seconds};
use super::{Options, complain_usage};
use crate::network::UdpFlow;
use crate::process::{Input, Process, errno_text};
use minik8s_streaming::BoxedStream;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const FLAGS: [&str; 12] = ["z", "v", "n", "u", "t", "l", "k", "N", "4", "6", "d", "r"];
const VALUES: [&str; 6] = ["w", "p", "q", "i", "s", "W"];

pub(super) async fn nc(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &FLAGS, &VALUES) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    if options.has(&["l"]) {
        return listen(&process, &options).await;
    }
    let target = options.operands.first().zip(options.operands.get(1).and_then(|port| port.parse::<u16>().ok()));
    let Some((host, port)) = target else {
        return complain_usage(&process, "usage: nc [-tuvz] [-w SEC] HOST PORT".to_string()).await;
    };
    let idle = seconds(options.value(&["w"]));
    let limit = idle.unwrap_or(CONNECT_TIMEOUT);
    let ip = match resolve(&process, host, limit).await {
        Ok(ip) => ip,
        Err(_) => {
            process.complain(format!("bad address '{host}'")).await;
            return Ok(1);
        }
    };
    let address = SocketAddr::new(ip, port);
    if options.has(&["u"]) {
        return datagrams(&process, &options, host, address, idle).await;
    }
    let connecting = process.world.network.connect(address);
    let connected = process.world.clock.timeout(limit, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) => return refused(&process, host, address, &error).await,
    };
    open(&process, &options, host, address).await?;
    if options.has(&["z"]) {
        return Ok(0);
    }
    copy(&process, stream, idle).await
}

async fn refused(process: &Process, host: &str, address: SocketAddr, error: &io::Error) -> io::Result<i32> {
    process.complain(format!("{host} ({address}): {}", errno_text(error))).await;
    Ok(1)
}

async fn open(process: &Process, options: &Options, host: &str, address: SocketAddr) -> io::Result<()> {
    match options.has(&["v"]) {
        true => process.stderr.line(format!("{host} ({address}) open")).await,
        false => Ok(()),
    }
}

/// Sends standard input, and prints what comes back until the other end closes or says nothing for a while.
async fn copy(process: &Process, stream: BoxedStream, idle: Option<Duration>) -> io::Result<i32> {
    let (reader, mut writer) = tokio::io::split(stream);
    let reader = Input::stream(reader);
    let sending = async {
        loop {
            let chunk = process.stdin.read().await?;
            if chunk.is_empty() {
                return writer.shutdown().await;
            }
            writer.write_all(&chunk).await?;
        }
    };
    let receiving = async {
        loop {
            let reading = reader.read();
            let chunk = match idle {
                Some(idle) => process.world.clock.timeout(idle, reading).await.unwrap_or(Ok(Vec::new()))?,
                None => reading.await?,
            };
            if chunk.is_empty() {
                return Ok::<(), io::Error>(());
            }
            process.stdout.write(chunk).await?;
        }
    };
    let (sent, received) = match idle {
        None => tokio::join!(sending, receiving),
        // Who says nothing for a while is not waited for, whatever there is still to send.
        Some(_) => {
            tokio::pin!(sending);
            let mut sent = None;
            let received = {
                tokio::pin!(receiving);
                loop {
                    tokio::select! {
                        biased;
                        received = &mut receiving => break received,
                        result = &mut sending, if sent.is_none() => sent = Some(result),
                    }
                }
            };
            (sent.unwrap_or(Ok(())), received)
        }
    };
    Ok(i32::from(sent.is_err() || received.is_err()))
}

/// Sends standard input piece by piece, and prints the answers: for ever, or until none came for a while.
async fn datagrams(
    process: &Process,
    options: &Options,
    host: &str,
    address: SocketAddr,
    idle: Option<Duration>,
) -> io::Result<i32> {
    let mut flow = match process.world.network.connect_udp(address).await {
        Ok(flow) => flow,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return refused(process, host, address, &error).await;
        }
        // What reaches nobody is lost without a word.
        Err(_) => UdpFlow::lost(),
    };
    open(process, options, host, address).await?;
    if options.has(&["z"]) {
        return Ok(0);
    }
    let mut more = true;
    loop {
        let waited = async {
            match idle {
                Some(idle) => process.world.clock.sleep(idle).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = flow.receive() => match answer {
                Some(answer) => process.stdout.write(answer).await?,
                None => return Ok(1),
            },
            chunk = process.stdin.read(), if more => match chunk? {
                chunk if chunk.is_empty() => more = false,
                chunk => {
                    if let Err(error) = flow.send(chunk.into()) {
                        return refused(process, host, address, &error).await;
                    }
                }
            },
            () = waited => return Ok(0),
        }
    }
}

/// Serves one connection or flow; with `-k` one after another.
async fn listen(process: &Process, options: &Options) -> io::Result<i32> {
    let port = options.value(&["p"]).or(options.operands.last().map(String::as_str));
    let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) else {
        return complain_usage(process, "usage: nc -l [-ku] [-p] PORT".to_string()).await;
    };
    let idle = seconds(options.value(&["w"]));
    let failed = |error: io::Error| async move {
        process.complain(format!("bind: {}", errno_text(&error))).await;
        Ok(1)
    };
    if options.has(&["u"]) {
        let mut listener = match process.world.network.listen_udp(port) {
            Ok(listener) => listener,
            Err(error) => return failed(error).await,
        };
        loop {
            let (mut flow, _) = listener.accept().await;
            while let Some(datagram) = flow.receive().await {
                process.stdout.write(datagram).await?;
            }
            if !options.has(&["k"]) {
                return Ok(0);
            }
        }
    }
    let mut listener = match process.world.network.listen(port) {
        Ok(listener) => listener,
        Err(error) => return failed(error).await,
    };
    loop {
        let connection = listener.accept().await;
        let code = copy(process, connection.stream, idle).await?;
        if !options.has(&["k"]) {
            return Ok(code);
        }
    }
}
