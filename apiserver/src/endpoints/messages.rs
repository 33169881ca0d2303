//! Watches and logs over WebSockets: the answer's body, message by message.

use axum::body::Body;
use futures::StreamExt as _;
use http::Response;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use minik8s_api::status::Status;
use minik8s_clock::Clock;
use minik8s_streaming::messages::{self, Messages, Pending, Protocol};
use std::time::Duration;

/// A client that has not taken a message for so long is gone.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(90);

/// How a body becomes messages.
#[derive(Clone, Copy)]
pub struct Form {
    /// What the client may ask for.
    pub protocols: &'static [Protocol],
    /// Each line is a message, instead of each piece that comes.
    pub by_line: bool,
    /// An empty message tells the client that it is heard, before there is anything to say.
    pub greets: bool,
}

/// Turns an answer into messages where the request asks for them; gives it back where it does not.
pub fn instead_of_body(
    request: &Parts,
    clock: &Clock,
    form: Form,
    answer: Response<Body>,
) -> Result<Response<Body>, Status> {
    if !answer.status().is_success() || !messages::is_asked_for(&request.headers) {
        return Ok(answer);
    }
    let Some(connection) = request.extensions.get::<OnUpgrade>().cloned() else { return Ok(answer) };
    let accepted = messages::accept(&request.headers, connection, form.protocols);
    let (response, pending) = accepted.map_err(|error| Status::bad_request(error.to_string()))?;
    let clock = clock.clone();
    tokio::spawn(async move {
        if let Err(error) = send(pending, &clock, form, answer.into_body()).await {
            tracing::debug!(%error, "an answer by messages ended");
        }
    });
    Ok(response.map(Body::new))
}

async fn send(pending: Pending, clock: &Clock, form: Form, body: Body) -> minik8s_streaming::Result<()> {
    let mut messages = pending.open().await?;
    let mut body = body.into_data_stream();
    if form.greets && !in_time(clock, &mut messages, b"").await? {
        return Ok(());
    }
    loop {
        tokio::select! {
            biased;
            ping = messages.ping() => match ping {
                Some(ping) => messages.answer(ping).await?,
                None => return Ok(()),
            },
            piece = body.next() => {
                let Some(Ok(piece)) = piece else { return messages.finish().await };
                let parts: Vec<&[u8]> = match form.by_line {
                    true => piece.split_inclusive(|byte| *byte == b'\n').collect(),
                    false => vec![&piece[..]],
                };
                for part in parts {
                    if !in_time(clock, &mut messages, part).await? {
                        return Ok(());
                    }
                }
            }
        }
    }
}

async fn in_time(clock: &Clock, messages: &mut Messages, part: &[u8]) -> minik8s_streaming::Result<bool> {
    match clock.timeout(MESSAGE_TIMEOUT, messages.send(part)).await {
        Ok(sent) => sent.map(|()| true),
        Err(_) => Ok(false),
    }
}
