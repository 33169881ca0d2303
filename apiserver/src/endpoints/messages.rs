//! Watches and logs over WebSockets: the answer's body, message by message.

use axum::body::Body;
use futures::StreamExt as _;
use http::Response;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use minik8s_api::status::Status;
use minik8s_streaming::messages::{self, Pending, Protocol};

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
///
/// A client that takes no message may rest, as with any answer that has no end; when it goes, the answer ends.
pub fn instead_of_body(request: &Parts, form: Form, answer: Response<Body>) -> Result<Response<Body>, Status> {
    if !answer.status().is_success() || !messages::is_asked_for(&request.headers) {
        return Ok(answer);
    }
    let Some(connection) = request.extensions.get::<OnUpgrade>().cloned() else { return Ok(answer) };
    let accepted = messages::accept(&request.headers, connection, form.protocols);
    let (response, pending) = accepted.map_err(|error| Status::bad_request(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = send(pending, form, answer.into_body()).await {
            tracing::debug!(%error, "an answer by messages ended");
        }
    });
    Ok(response.map(Body::new))
}

async fn send(pending: Pending, form: Form, body: Body) -> minik8s_streaming::Result<()> {
    let mut messages = pending.open().await?;
    let mut body = body.into_data_stream();
    if form.greets {
        messages.send(b"").await?;
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
                    messages.send(part).await?;
                }
            }
        }
    }
}
