//! HTTP of simulated servers.

use super::scripted::Voice;
use crate::image::{HttpAnswer, HttpServer};
use crate::pattern;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, SERVER, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik8s_cri::FileKind;
use minik8s_streaming::BoxedStream;
use std::convert::Infallible;
use std::sync::Arc;

/// A server as its profile describes it, with the container it runs in.
pub(crate) struct Server {
    pub http: HttpServer,
    pub voice: Voice,
}

/// Answers requests until the client closes the connection.
pub(crate) async fn serve_connection(server: Arc<Server>, stream: BoxedStream) {
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    tracing::trace!(?served, "simulated connection ended");
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_string();
        let (status, content_type, body) = self.content(&request, &path);
        let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("-");
        if let Some(line) = &self.http.access_log {
            let (status, bytes) = (status.as_u16().to_string(), body.len().to_string());
            let more = [
                ("method", request.method().as_str()),
                ("path", path.as_str()),
                ("status", &status),
                ("bytes", &bytes),
                ("agent", agent),
            ];
            self.voice.access(line, &more).await;
        }
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = [(CONTENT_TYPE, Some(content_type)), (SERVER, self.http.server.clone())];
        for (name, value) in headers {
            let value = value.map(|value| self.voice.render(&value, &[]));
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    fn content(&self, request: &Request<Incoming>, path: &str) -> (StatusCode, String, Bytes) {
        if let Some((_, answer)) = self.http.paths.iter().find(|(pattern, _)| pattern::matches(pattern, path)) {
            return self.described(answer, request, path);
        }
        if let Some(file) = self.http.root.as_ref().and_then(|root| self.file(root, path)) {
            return file;
        }
        if let Some(answer) = &self.http.default {
            return self.described(answer, request, path);
        }
        let server = self.http.server.as_ref().map(|server| self.voice.render(server, &[])).unwrap_or_default();
        let page = format!(
            "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n\
             <hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
        );
        (StatusCode::NOT_FOUND, "text/html".to_string(), page.into())
    }

    fn described(&self, answer: &HttpAnswer, request: &Request<Incoming>, path: &str) -> (StatusCode, String, Bytes) {
        let headers: String = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let more = [("method", request.method().as_str()), ("path", path), ("headers", headers.as_str())];
        let body = self.voice.render(&answer.body, &more);
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
        (status, answer.content_type.clone(), body.into())
    }

    /// A file below the document root; the index of a directory.
    fn file(&self, root: &str, path: &str) -> Option<(StatusCode, String, Bytes)> {
        let fs = &self.voice.world.fs;
        // A path that climbs out of the root is normalized back into it first.
        let mut file = format!("{root}{}", minik8s_cri::normalize(path));
        if fs.metadata(&file).ok()?.kind == FileKind::Directory {
            file = format!("{}/index.html", file.trim_end_matches('/'));
        }
        let content = fs.read(&file).ok()?;
        let content_type = match file.rsplit('.').next() {
            Some("html" | "htm") => "text/html",
            Some("css") => "text/css",
            Some("js") => "application/javascript",
            Some("json") => "application/json",
            Some("txt") => "text/plain",
            _ => "application/octet-stream",
        };
        Some((StatusCode::OK, content_type.to_string(), content))
    }
}
