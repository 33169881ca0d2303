//! Tools that ask for names: `nslookup`, `dig`, `getent`.

use super::network::RESOLVE_TIMEOUT;
use super::{Options, complain_usage};
use crate::network::{Record, RecordType, ResolveError};
use crate::process::Process;
use std::fmt::Write;
use std::io;
use std::net::IpAddr;

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

/// What `dig` is asked, and what of the answer it shows.
#[derive(Debug, PartialEq, Eq)]
struct Dig {
    name: String,
    kind: RecordType,
    server: Option<String>,
    search: bool,
    short: bool,
    comments: bool,
    question: bool,
    answer: bool,
    statistics: bool,
}

impl Dig {
    /// Reads a command line: `@server`, a name, a kind, `+option`.
    fn parse(arguments: &[String]) -> Result<Dig, String> {
        let mut dig = Dig {
            name: String::new(),
            kind: RecordType::A,
            server: None,
            search: false,
            short: false,
            comments: true,
            question: true,
            answer: true,
            statistics: true,
        };
        let kind = |text: &str| RecordType::parse(text).ok_or_else(|| format!(";; invalid or unsupported type {text}"));
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("Invalid option: {argument}"));
            if let Some(option) = argument.strip_prefix('+') {
                dig.option(option)?;
            } else if let Some(server) = argument.strip_prefix('@') {
                dig.server = Some(server.to_string());
            } else if argument == "-t" {
                dig.kind = kind(value()?)?;
            } else if argument == "-x" {
                let address = value()?;
                dig.name = reverse(address.parse().map_err(|_| format!("Invalid IP address {address}"))?);
                dig.kind = RecordType::Ptr;
            } else if argument == "-p" {
                value()?;
            } else if matches!(argument.as_str(), "-4" | "-6" | "IN") {
            } else if argument.starts_with('-') {
                return Err(format!("Invalid option: {argument}"));
            } else if let (false, Ok(kind)) = (dig.name.is_empty(), kind(argument)) {
                dig.kind = kind;
            } else {
                dig.name.clone_from(argument);
            }
        }
        Ok(dig)
    }

    fn option(&mut self, option: &str) -> Result<(), String> {
        let (name, on) = option.strip_prefix("no").map_or((option, true), |name| (name, false));
        match name.split('=').next().unwrap_or_default() {
            "all" => (self.comments, self.question, self.answer, self.statistics) = (on, on, on, on),
            "short" => self.short = on,
            "search" => self.search = on,
            "comments" => self.comments = on,
            "question" => self.question = on,
            "answer" => self.answer = on,
            "stats" => self.statistics = on,
            // How it is asked makes no difference here, and there are no other sections.
            "tcp" | "vc" | "recurse" | "cmd" | "authority" | "additional" | "time" | "timeout" | "tries" | "retry"
            | "cookie" | "edns" | "cookies" => {}
            _ => return Err(format!("Invalid option: +{option}")),
        }
        Ok(())
    }
}

/// The name under which an address is asked for.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            let mut nibbles: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            nibbles.reverse();
            format!("{}ip6.arpa", nibbles.concat())
        }
    }
}

fn record_line(record: &Record) -> String {
    format!("{}.\t\t{}\tIN\t{}\t{}\n", record.name, record.ttl, record.data.kind(), record.data)
}

/// `dig` of BIND: exit code 9 where no server answers, 0 for every answer, be it that there is no such name.
pub(super) async fn dig(process: Process) -> io::Result<i32> {
    let dig = match Dig::parse(process.arguments()) {
        Ok(dig) => dig,
        Err(message) => {
            process.stderr.line(message).await?;
            return Ok(1);
        }
    };
    let network = &process.world.network;
    let server = dig.server.clone().or(network.dns_servers.first().cloned());
    let server = server.unwrap_or_else(|| "127.0.0.1".to_string());
    let looking = network.lookup(&dig.name, dig.kind, dig.search);
    let answer = process.world.clock.timeout(RESOLVE_TIMEOUT, looking).await.unwrap_or(Err(ResolveError::NoServer));
    let (status, name, records) = match answer {
        Err(ResolveError::NoServer) => {
            let told = format!(";; communications error to {server}#53: timed out\n;; no servers could be reached\n");
            process.stdout.write(told).await?;
            return Ok(9);
        }
        Err(ResolveError::NoSuchName) => ("NXDOMAIN", dig.name.trim_end_matches('.').to_string(), Vec::new()),
        Ok((name, records)) => ("NOERROR", name, records),
    };
    if dig.short {
        let lines: String = records.iter().map(|record| format!("{}\n", record.data)).collect();
        process.stdout.write(lines).await?;
        return Ok(0);
    }
    let mut text = String::new();
    let mut write = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("writing to a string cannot fail");
    if dig.comments {
        let count = records.len();
        write(format_args!("\n; <<>> DiG 9.20 <<>> {}\n;; Got answer:\n", process.arguments().join(" ")));
        write(format_args!(";; ->>HEADER<<- opcode: QUERY, status: {status}, id: 1\n"));
        write(format_args!(";; flags: qr aa rd ra; QUERY: 1, ANSWER: {count}, AUTHORITY: 0, ADDITIONAL: 0\n\n"));
    }
    if dig.question {
        write(format_args!(";; QUESTION SECTION:\n;{name}.\t\t\tIN\t{}\n\n", dig.kind));
    }
    if dig.answer && !records.is_empty() {
        let title = if dig.comments { ";; ANSWER SECTION:\n" } else { "" };
        let end = if dig.comments { "\n" } else { "" };
        let lines: String = records.iter().map(record_line).collect();
        write(format_args!("{title}{lines}{end}"));
    }
    if dig.statistics {
        write(format_args!(";; SERVER: {server}#53({server}) (UDP)\n\n"));
    }
    process.stdout.write(text).await?;
    Ok(0)
}

/// Entries of the system's lists: hosts, users, groups. Exit code 2 says that there is no such entry.
pub(super) async fn getent(process: Process) -> io::Result<i32> {
    let (list, keys) = match process.arguments().split_first() {
        Some((list, keys)) => (list.clone(), keys.to_vec()),
        None => return complain_usage(&process, "usage: getent DATABASE [KEY...]".to_string()).await,
    };
    let (path, host_names) = match list.as_str() {
        "hosts" | "ahosts" | "ahostsv4" | "ahostsv6" => ("/etc/hosts", true),
        "passwd" => ("/etc/passwd", false),
        "group" => ("/etc/group", false),
        other => {
            process.stderr.line(format!("Unknown database: {other}")).await?;
            return Ok(1);
        }
    };
    let text = process.world.read_text(path).unwrap_or_default();
    if keys.is_empty() {
        process.stdout.write(text).await?;
        return Ok(0);
    }
    let mut code = 0;
    for key in &keys {
        let named = |line: &&str| match host_names {
            true => line.split_whitespace().any(|word| word == key),
            false => line.split(':').enumerate().any(|(at, field)| matches!(at, 0 | 2) && field == key),
        };
        let found = match text.lines().filter(|line| !line.starts_with('#')).find(named) {
            Some(line) if host_names => {
                let (address, names) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
                Some(host_line(address, &names.split_whitespace().collect::<Vec<_>>().join(" ")))
            }
            Some(line) => Some(line.to_string()),
            None if host_names => {
                let addresses = process.world.network.resolve(key).await.unwrap_or_default();
                addresses.first().map(|address| host_line(&address.to_string(), key))
            }
            None => None,
        };
        match found {
            Some(line) => process.stdout.line(line).await?,
            None => code = 2,
        }
    }
    Ok(code)
}

fn host_line(address: &str, names: &str) -> String {
    format!("{address:<15} {names}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Dig, String> {
        Dig::parse(&words.split(' ').map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_of_dig_is_read() {
        let dig = parse("+notcp +noall +answer +search _http._tcp.web SRV").expect("valid");
        assert_eq!((dig.name.as_str(), dig.kind), ("_http._tcp.web", RecordType::Srv));
        assert_eq!((dig.search, dig.answer, dig.comments, dig.statistics), (true, true, false, false));
        let dig = parse("@10.96.0.10 +short -x 10.1.2.3").expect("valid");
        assert_eq!((dig.name.as_str(), dig.kind, dig.short), ("3.2.1.10.in-addr.arpa", RecordType::Ptr, true));
        assert_eq!(parse("+nonsense a"), Err("Invalid option: +nonsense".to_string()));
    }

    #[test]
    fn addresses_have_names() {
        let name = reverse("2001:db8::1".parse().expect("an address"));
        assert!(name.starts_with("1.0.0.0.") && name.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"), "{name}");
    }
}
