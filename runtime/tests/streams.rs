//! Exec and attach over their streaming addresses, spoken as kubectl does: WebSocket, `v5.channel.k8s.io`.

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket};
use http::{Request, Uri};
use hyper_util::rt::TokioIo;
use minik8s_clock::{Clock, Random};
use minik8s_cri::proto::*;
use minik8s_cri::{Client, MemoryFs, StreamConnector};
use minik8s_runtime::image::Profiles;
use minik8s_runtime::{SimConfig, SimRuntime, Unreachable};
use minik8s_streaming::http_over;
use std::collections::BTreeMap;
use std::sync::Arc;

type Socket = FragmentCollector<TokioIo<hyper::upgrade::Upgraded>>;

struct Node {
    client: Client,
    connector: Arc<dyn StreamConnector>,
    container: String,
}

/// A node with one running container.
async fn node(image: &str, command: &[&str], tty: bool) -> Node {
    let clock = Clock::real();
    let runtime = SimRuntime::new(SimConfig {
        node_name: "node-1".to_string(),
        clock: clock.clone(),
        random: Random::seeded(7),
        fs: Arc::new(MemoryFs::new(clock, 1 << 20)),
        profiles: Profiles::builtin(),
        host_programs: BTreeMap::new(),
        network: Arc::new(Unreachable),
        preloaded_images: vec![image.to_string()],
    })
    .expect("a valid configuration");
    let client = Client::in_process(runtime.clone());
    client.update_pod_cidr("10.128.0.0/24").await.expect("a CIDR");
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { name: "pod".to_string(), ..Default::default() }),
        hostname: "pod".to_string(),
        ..Default::default()
    };
    let sandbox = client.run_pod_sandbox(config.clone(), "").await.expect("a sandbox");
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".to_string(), attempt: 0 }),
        image: Some(ImageSpec { image: image.to_string(), ..Default::default() }),
        command: command.iter().map(|word| word.to_string()).collect(),
        stdin: tty,
        tty,
        ..Default::default()
    };
    let container = client.create_container(&sandbox, container, config).await.expect("a container");
    client.start_container(&container).await.expect("started");
    Node { client, connector: runtime.stream_connector(), container }
}

impl Node {
    async fn exec(&self, command: &[&str], stdin: bool, tty: bool) -> Socket {
        let request = ExecRequest {
            container_id: self.container.clone(),
            cmd: command.iter().map(|word| word.to_string()).collect(),
            stdin,
            tty,
            stdout: true,
            stderr: !tty,
        };
        self.open(self.client.exec(request).await.expect("an address")).await
    }

    async fn open(&self, url: String) -> Socket {
        let url: Uri = url.parse().expect("a valid address");
        let stream = self.connector.connect(&url).await.expect("connected");
        let request = Request::get(url)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Protocol", "v5.channel.k8s.io,v4.channel.k8s.io")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .expect("a valid request");
        let mut response = http_over(stream, request).await.expect("an answer");
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        let upgraded = hyper::upgrade::on(&mut response).await.expect("switched");
        FragmentCollector::new(WebSocket::after_handshake(TokioIo::new(upgraded), Role::Client))
    }
}

async fn send(socket: &mut Socket, channel: u8, data: &[u8]) {
    let payload = [&[channel], data].concat();
    socket.write_frame(Frame::binary(Payload::Owned(payload))).await.expect("sent");
}

/// Reads until the server closes; returns what each channel said.
async fn read_all(socket: &mut Socket) -> BTreeMap<u8, String> {
    let mut said: BTreeMap<u8, String> = BTreeMap::new();
    loop {
        let frame = socket.read_frame().await.expect("a frame");
        match frame.opcode {
            OpCode::Close => return said,
            OpCode::Binary => {
                let (channel, data) = frame.payload.split_first().expect("a channel");
                *said.entry(*channel).or_default() += &String::from_utf8_lossy(data);
            }
            other => panic!("unexpected frame {other:?}"),
        }
    }
}

/// Reads until a text has come on stdout.
async fn read_until(socket: &mut Socket, text: &str) -> String {
    let mut said = String::new();
    while !said.contains(text) {
        let frame = socket.read_frame().await.expect("a frame");
        if frame.opcode == OpCode::Binary && frame.payload.first() == Some(&1) {
            said += &String::from_utf8_lossy(&frame.payload[1..]);
        }
    }
    said
}

#[tokio::test]
async fn exec_passes_stdin_output_and_the_exit_code() {
    let node = node("busybox", &["sleep", "infinity"], false).await;
    let mut socket = node.exec(&["sh", "-c", "cat; echo oops >&2; exit 3"], true, false).await;
    send(&mut socket, 0, b"hello\n").await;
    send(&mut socket, 255, &[0]).await;
    let said = read_all(&mut socket).await;
    assert_eq!(said[&1], "hello\n");
    assert_eq!(said[&2], "oops\n");
    assert!(said[&3].contains(r#""reason":"NonZeroExitCode""#), "{}", said[&3]);
    assert!(said[&3].contains(r#"{"message":"3","reason":"ExitCode"}"#), "{}", said[&3]);
}

#[tokio::test]
async fn exec_says_why_a_command_cannot_be_executed() {
    let node = node("busybox", &["sleep", "infinity"], false).await;
    let mut socket = node.exec(&["nosuch"], false, false).await;
    let said = read_all(&mut socket).await;
    assert!(said[&3].contains(r#"exec: \"nosuch\": executable file not found in $PATH"#), "{}", said[&3]);
    let mut socket = node.exec(&["true"], false, false).await;
    assert_eq!(read_all(&mut socket).await[&3], r#"{"metadata":{},"status":"Success"}"#);
}

#[tokio::test]
async fn a_shell_on_a_terminal_prompts_echoes_and_survives_ctrl_c() {
    let node = node("busybox", &["sleep", "infinity"], false).await;
    let mut socket = node.exec(&["sh"], true, true).await;
    assert_eq!(read_until(&mut socket, "/ # ").await, "/ # ");
    send(&mut socket, 4, br#"{"Width":80,"Height":24}"#).await;
    send(&mut socket, 0, b"cd /etc; pwd\r").await;
    assert_eq!(read_until(&mut socket, "/etc # ").await, "cd /etc; pwd\r\n/etc\r\n/etc # ");
    send(&mut socket, 0, b"sleep 1000\r").await;
    read_until(&mut socket, "\r\n").await;
    // Until the command runs, Ctrl-C is the shell's own; both lead back to the prompt.
    send(&mut socket, 0, &[3]).await;
    read_until(&mut socket, "/etc # ").await;
    send(&mut socket, 0, b"exit 7\r").await;
    let said = read_all(&mut socket).await;
    assert!(said[&3].contains(r#"{"message":"7","reason":"ExitCode"}"#), "{}", said[&3]);
}

#[tokio::test]
async fn attach_joins_the_first_process_on_its_terminal() {
    let node = node("busybox", &["sh"], true).await;
    let request =
        AttachRequest { container_id: node.container.clone(), stdin: true, stdout: true, tty: true, stderr: false };
    let mut socket = node.open(node.client.attach(request).await.expect("an address")).await;
    send(&mut socket, 0, b"echo $((6*7))\r").await;
    assert!(read_until(&mut socket, "42\r\n").await.contains("echo $((6*7))\r\n42"));
    send(&mut socket, 0, b"exit\r").await;
    assert_eq!(read_all(&mut socket).await[&3], r#"{"metadata":{},"status":"Success"}"#);
}

#[tokio::test]
async fn a_reader_that_does_not_keep_up_holds_the_command_up_and_nobody_else() {
    /// Much more than the frames, pipes and buffers on the way hold.
    const MEGABYTES: usize = 32;
    let node = node("busybox", &["sleep", "infinity"], false).await;
    let command = format!("dd if=/dev/zero bs=1M count={MEGABYTES} 2>/dev/null; touch /tmp/done");
    let mut slow = node.exec(&["sh", "-c", &command], false, false).await;
    let begun = read_until(&mut slow, "\0").await.len();
    let is_done = async || {
        let mut socket = node.exec(&["ls", "/tmp/done"], false, false).await;
        read_all(&mut socket).await[&3].contains("Success")
    };
    for _ in 0..100 {
        assert!(!is_done().await, "what nobody reads was written");
    }
    let said = read_all(&mut slow).await;
    assert_eq!(begun + said[&1].len(), MEGABYTES << 20);
    assert!(said[&3].contains("Success") && is_done().await, "{}", said[&3]);
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_its_session_only() {
    let node = node("busybox", &["sleep", "infinity"], false).await;
    let mut greedy = node.exec(&["cat"], true, false).await;
    let mut other = node.exec(&["cat"], true, false).await;
    let payload = vec![0; 5 << 20];
    // The server stops reading in the middle of it.
    let _ = greedy.write_frame(Frame::binary(Payload::Owned(payload))).await;
    while greedy.read_frame().await.is_ok_and(|frame| frame.opcode != OpCode::Close) {}
    send(&mut other, 0, b"still here\n").await;
    assert_eq!(read_until(&mut other, "here\n").await, "still here\n");
}

#[tokio::test]
async fn addresses_that_nobody_picks_up_are_bounded() {
    /// `PENDING_LIMIT` of `streaming.rs`.
    const PENDING: usize = 1000;
    let node = node("busybox", &["sleep", "infinity"], false).await;
    let ask = async || {
        let cmd = vec!["true".to_string()];
        node.client
            .exec(ExecRequest { container_id: node.container.clone(), cmd, stdout: true, ..Default::default() })
            .await
    };
    let first = ask().await.expect("an address");
    for _ in 1..PENDING {
        ask().await.expect("an address");
    }
    let refused = ask().await.expect_err("one too many").to_string();
    assert!(refused.contains("maximum number of in-flight requests exceeded"), "{refused}");
    let mut socket = node.open(first).await;
    assert!(read_all(&mut socket).await[&3].contains("Success"));
    ask().await.expect("there is room again");
}

#[tokio::test]
async fn an_address_works_once_and_only_as_an_upgrade() {
    let node = node("busybox", &["sleep", "infinity"], false).await;
    let request = ExecRequest {
        container_id: node.container.clone(),
        cmd: vec!["true".to_string()],
        stdout: true,
        ..Default::default()
    };
    let url: Uri = node.client.exec(request).await.expect("an address").parse().expect("valid");
    for (upgrade, status) in [("SPDY/3.1", 501), ("websocket", 404)] {
        let stream = node.connector.connect(&url).await.expect("connected");
        let request = Request::get(url.clone()).header("Connection", "Upgrade").header("Upgrade", upgrade);
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("valid");
        assert_eq!(http_over(stream, request).await.expect("an answer").status(), status);
    }
}
