//! The tools of a distribution, as busybox has them.
//!
//! Each is an async function from a process to an exit code; a new one is a function here and a row in [`TABLE`]. What is
//! said on errors is busybox's, and GNU's where the image has GNU's tools and the words are often seen.

mod awk;
mod data;
mod dns;
mod files;
mod filters;
mod find;
mod grep;
mod ip;
mod listing;
mod netcat;
mod network;
mod options;
mod sed;
mod system;
mod tar;
mod test;
mod text;
mod tls;

pub(crate) use options::{Options, complain_usage};
pub(crate) use test::{Surroundings, evaluate as evaluate_test};
pub(crate) use tls::Trust;

use crate::process::{Process, Signal, errno_text};
use futures::future::BoxFuture;
use std::future::Future;
use std::io;

/// A tool: an async function in a form that a table can hold.
pub type Applet = fn(Process) -> BoxFuture<'static, i32>;

/// Turns the result of a tool into an exit code. A reader that has gone away ends a tool as SIGPIPE does.
fn finish(run: impl Future<Output = io::Result<i32>> + Send + 'static) -> BoxFuture<'static, i32> {
    Box::pin(async move {
        match run.await {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Signal::Pipe.exit_code(),
            Err(error) => {
                tracing::debug!(reason = errno_text(&error), "simulated tool failed");
                1
            }
        }
    })
}

/// Every tool, by name.
pub(crate) const TABLE: &[(&str, Applet)] = &[
    ("[", |process| finish(test::test(process))),
    ("[[", |process| finish(test::test(process))),
    ("ash", |process| crate::shell::run(process)),
    ("awk", |process| finish(awk::awk(process))),
    ("base64", |process| finish(data::base64(process))),
    ("basename", |process| finish(text::basename(process))),
    ("bash", |process| crate::shell::run(process)),
    ("busybox", |process| finish(system::busybox(process))),
    ("cat", |process| finish(filters::cat(process))),
    ("chmod", |process| finish(files::chmod(process))),
    ("chown", |process| finish(files::chown(process))),
    ("clear", |process| finish(text::clear(process))),
    ("cp", |process| finish(files::cp(process))),
    ("curl", |process| finish(network::curl(process))),
    ("cut", |process| finish(filters::cut(process))),
    ("date", |process| finish(system::date(process))),
    ("dd", |process| finish(data::dd(process))),
    ("df", |process| finish(system::df(process))),
    ("dig", |process| finish(dns::dig(process))),
    ("dirname", |process| finish(text::dirname(process))),
    ("du", |process| finish(listing::du(process))),
    ("echo", |process| finish(text::echo(process))),
    ("env", |process| finish(system::env(process))),
    ("expr", |process| finish(text::expr(process))),
    ("false", |process| finish(text::no(process))),
    ("find", |process| finish(find::find(process))),
    ("free", |process| finish(system::free(process))),
    ("getent", |process| finish(dns::getent(process))),
    ("grep", |process| finish(grep::grep(process))),
    ("head", |process| finish(filters::head(process))),
    ("hexdump", |process| finish(data::hexdump(process))),
    ("hostname", |process| finish(system::hostname(process))),
    ("id", |process| finish(system::id(process))),
    ("ip", |process| finish(ip::ip(process))),
    ("kill", |process| finish(system::kill(process))),
    ("ln", |process| finish(files::ln(process))),
    ("ls", |process| finish(listing::ls(process))),
    ("mkdir", |process| finish(files::mkdir(process))),
    ("mount", |process| finish(system::mount(process))),
    ("mv", |process| finish(files::mv(process))),
    ("nc", |process| finish(netcat::nc(process))),
    ("nohup", |process| finish(system::nohup(process))),
    ("nproc", |process| finish(system::nproc(process))),
    ("nslookup", |process| finish(dns::nslookup(process))),
    ("printenv", |process| finish(system::printenv(process))),
    ("printf", |process| finish(text::printf(process))),
    ("ps", |process| finish(system::ps(process))),
    ("pwd", |process| finish(system::pwd(process))),
    ("readlink", |process| finish(files::readlink(process))),
    ("rm", |process| finish(files::rm(process))),
    ("rmdir", |process| finish(files::rmdir(process))),
    ("sed", |process| finish(sed::sed(process))),
    ("seq", |process| finish(text::seq(process))),
    ("sh", |process| crate::shell::run(process)),
    ("sha256sum", |process| finish(data::sha256sum(process))),
    ("sleep", |process| finish(system::sleep(process))),
    ("sort", |process| finish(filters::sort(process))),
    ("stat", |process| finish(listing::stat(process))),
    ("sync", |process| finish(system::sync(process))),
    ("sysctl", |process| finish(system::sysctl(process))),
    ("tail", |process| finish(filters::tail(process))),
    ("tar", |process| finish(tar::tar(process))),
    ("tee", |process| finish(filters::tee(process))),
    ("test", |process| finish(test::test(process))),
    ("timeout", |process| finish(system::timeout(process))),
    ("touch", |process| finish(files::touch(process))),
    ("tr", |process| finish(filters::tr(process))),
    ("true", |process| finish(text::yes_code(process))),
    ("uname", |process| finish(system::uname(process))),
    ("uniq", |process| finish(filters::uniq(process))),
    ("uptime", |process| finish(system::uptime(process))),
    ("wc", |process| finish(filters::wc(process))),
    ("wget", |process| finish(network::wget(process))),
    ("which", |process| finish(system::which(process))),
    ("whoami", |process| finish(system::whoami(process))),
    ("xargs", |process| finish(system::xargs(process))),
    ("yes", |process| finish(text::yes(process))),
];

/// Names of all tools.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// A tool by name.
pub(crate) fn find(name: &str) -> Option<Applet> {
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, applet)| *applet)
}
