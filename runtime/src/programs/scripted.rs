//! Programs that are data: servers, mostly.

use super::{Server, serve_connection};
use crate::image::{Invocation, LogLine, Requirement, Scripted, StopAnswer};
use crate::network::Listener;
use crate::pattern;
use crate::process::{Output, Process, Program, Signal, World};
use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use minik8s_streaming::BoxedStream;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How many connections a program serves at a time; further ones wait to be accepted.
const CONNECTION_LIMIT: usize = 256;
/// What stands for any further arguments in an invocation.
const ANY_MORE: &str = "...";

/// Runs a [`Scripted`] description.
pub struct ScriptedProgram(pub Arc<Scripted>);

#[async_trait]
impl Program for ScriptedProgram {
    async fn run(&self, process: Process) -> i32 {
        let script = &*self.0;
        let voice = Voice::of(&process);
        if let Some(invocation) = script.invocations.iter().find(|known| is_called(known, process.arguments())) {
            voice.write(&process.stdout, &invocation.stdout).await;
            voice.write(&process.stderr, &invocation.stderr).await;
            return invocation.exit;
        }
        if let Some(missing) = script.requires.iter().find(|required| !is_met(required, &process.env)) {
            voice.write(&process.stderr, &missing.message).await;
            return missing.exit;
        }
        let listeners = match listen(script, &process) {
            Ok(listeners) => listeners,
            Err((port, error)) => {
                let reason = crate::process::errno_text(&error);
                process.complain(format!("bind() to 0.0.0.0:{port} failed ({reason})")).await;
                return 1;
            }
        };
        live(script, process, voice, listeners).await
    }
}

/// From the first line of the log to the exit code.
async fn live(script: &Scripted, mut process: Process, voice: Voice, listeners: Vec<Listener>) -> i32 {
    for name in script.stop.keys() {
        Signal::parse(name).into_iter().for_each(|signal| process.signals.handle(signal));
    }
    let world = process.world.clone();
    let mut memory = world.memory.allocate(script.memory);
    world.cpu.add_rate(world.clock.monotonic(), script.cpu);
    let server = script.http.clone().map(|http| Server { http, voice: voice.clone() });
    let served = serve(server.map(Arc::new), listeners);
    let lines = async {
        for line in &script.start {
            voice.say(line).await;
        }
        let repeated = script.every.iter().map(|line| async {
            loop {
                voice.say(line).await;
            }
        });
        futures::future::join_all(repeated).await;
    };
    let steps = async {
        let started = world.clock.monotonic();
        for step in &script.memory_steps {
            world.clock.sleep_until(started + step.after).await;
            memory.resize(step.memory);
        }
    };
    let ended = async {
        match script.job_ends_after.filter(|_| world.job).or(script.ends_after) {
            Some(after) => world.clock.sleep(after).await,
            None => std::future::pending().await,
        }
    };
    let stopped = async {
        loop {
            let signal = process.signals.next().await;
            let answer = script.stop.iter().find(|(name, _)| Signal::parse(name) == Some(signal));
            if let Some((_, answer)) = answer
                && let Some(code) = stop(answer, &voice).await
            {
                return code;
            }
        }
    };
    // What has nothing more to do waits with the rest.
    let background = async { tokio::join!(served, lines, steps, std::future::pending::<()>()) };
    tokio::select! {
        biased;
        code = stopped => code,
        () = ended => {
            for line in &script.finish {
                voice.say(line).await;
            }
            script.exit
        }
        _ = background => script.exit,
    }
}

async fn stop(answer: &StopAnswer, voice: &Voice) -> Option<i32> {
    for line in &answer.lines {
        voice.say(line).await;
    }
    if let Some(after) = answer.after {
        voice.world.clock.sleep(after).await;
    }
    answer.exit
}

/// Accepts and serves connections on all ports, in this task.
async fn serve(server: Option<Arc<Server>>, mut listeners: Vec<Listener>) {
    if listeners.is_empty() {
        return;
    }
    let mut connections: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    loop {
        let room = connections.len() < CONNECTION_LIMIT;
        let accepting = listeners.iter_mut().map(|listener| listener.accept().boxed());
        let accepted = futures::future::select_all(accepting);
        tokio::select! {
            biased;
            (accepted, _, _) = accepted, if room => connections.push(connection(server.clone(), accepted.stream)),
            Some(()) = connections.next() => {}
        }
    }
}

fn connection(server: Option<Arc<Server>>, mut stream: BoxedStream) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        match server {
            Some(server) => serve_connection(server, stream).await,
            // A protocol that is not simulated: the connection stands, and what is sent is heard without an answer.
            None => drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await),
        }
    })
}

fn listen(script: &Scripted, process: &Process) -> Result<Vec<Listener>, (u16, io::Error)> {
    let mut ports = script.listen.clone();
    if script.listen_declared {
        ports.extend(&process.world.network.declared_ports);
    }
    let chosen = port_option(&script.listen_options, process.arguments())
        .or_else(|| script.listen_env.iter().find_map(|name| port(process.env.get(name)?)));
    if let Some(chosen) = chosen {
        ports = vec![chosen];
    }
    ports.sort_unstable();
    ports.dedup();
    // A program that nobody described takes the ports that are left.
    let shared = script.listen_declared;
    let wanted = ports.into_iter().filter(|port| !(shared && process.world.network.listens(*port)));
    wanted.map(|port| process.world.network.listen(port).map_err(|error| (port, error))).collect()
}

/// `8080`, `:8080` and `0.0.0.0:8080`.
fn port(text: &str) -> Option<u16> {
    text.rsplit(':').next()?.parse().ok()
}

/// The port of `--port=8080`, `--port 8080` or, for an option without a name, of a bare number.
fn port_option(options: &[String], arguments: &[String]) -> Option<u16> {
    arguments.iter().enumerate().find_map(|(index, argument)| {
        options.iter().find_map(|option| match argument.strip_prefix(option.as_str())? {
            "" if !option.is_empty() => port(arguments.get(index + 1)?),
            rest => port(rest.strip_prefix('=').unwrap_or(rest)),
        })
    })
}

fn is_called(invocation: &Invocation, arguments: &[String]) -> bool {
    let (patterns, open) = match invocation.args.split_last() {
        Some((last, patterns)) if last == ANY_MORE => (patterns, true),
        _ => (invocation.args.as_slice(), false),
    };
    (arguments.len() == patterns.len() || (open && arguments.len() > patterns.len()))
        && patterns.iter().zip(arguments).all(|(pattern, argument)| pattern::matches(pattern, argument))
}

fn is_met(required: &Requirement, env: &BTreeMap<String, String>) -> bool {
    required.any_of.iter().any(|name| env.get(name).is_some_and(|value| !value.is_empty()))
}

/// Where a program writes, and what it may speak of.
#[derive(Clone)]
pub(crate) struct Voice {
    pub world: Arc<World>,
    env: Arc<BTreeMap<String, String>>,
    stdout: Output,
    stderr: Output,
    pid: String,
    arguments: String,
}

impl Voice {
    fn of(process: &Process) -> Voice {
        Voice {
            world: process.world.clone(),
            env: Arc::new(process.env.clone()),
            stdout: process.stdout.clone(),
            stderr: process.stderr.clone(),
            pid: process.pid().to_string(),
            arguments: process.arguments().join(" "),
        }
    }

    /// A text with what is in braces filled in.
    pub fn render(&self, text: &str, more: &[(&str, &str)]) -> String {
        let own = [("pid", self.pid.as_str()), ("args", self.arguments.as_str())];
        crate::image::render(text, &self.world, &self.env, &[&own, more].concat())
    }

    async fn write(&self, output: &Output, text: &str) {
        // A log that nobody reads any more stops no server.
        let _written = output.write(self.render(text, &[])).await;
    }

    /// Writes a line of the log, after the time it takes.
    async fn say(&self, line: &LogLine) {
        if let Some(after) = line.after.filter(|after| *after > Duration::ZERO) {
            self.world.clock.sleep(after).await;
        }
        for (output, text) in [(&self.stdout, &line.stdout), (&self.stderr, &line.stderr)] {
            if let Some(text) = text {
                self.write(output, &format!("{text}\n")).await;
            }
        }
    }

    /// Writes a line of the access log.
    pub async fn access(&self, line: &str, more: &[(&str, &str)]) {
        let _written = self.stdout.line(self.render(line, more)).await;
    }
}
