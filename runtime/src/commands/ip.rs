//! `ip`: the interfaces, addresses and routes of a pod. They can be looked at; changes are not simulated.
//!
//! A pod has what Calico gives it: `lo`, and `eth0` with the pod's address alone in its range, behind a router on the link.

use super::complain_usage;
use crate::process::Process;
use std::io;
use std::net::IpAddr;

/// The router that every pod sees (Calico's FAQ, "Why does my container have a route to 169.254.1.1?").
const ROUTER: &str = "169.254.1.1";
/// What changes something, of each object.
const CHANGES: [&str; 10] = ["add", "append", "change", "chg", "del", "delete", "flush", "prepend", "replace", "set"];
const OBJECTS: [&str; 3] = ["address", "link", "route"];
const USAGE: &str = "usage: ip [-4|-6|-o] address|link|route [show [[dev] IFACE]]";

/// An interface of a pod.
struct Interface {
    index: u32,
    name: &'static str,
    link: String,
    hardware: String,
    /// The address, and the line about it.
    address: Option<(IpAddr, String)>,
}

/// The interfaces of a pod with an address. The hardware address is made from it, as CNI's plugins do
/// (`containernetworking/plugins/pkg/utils/hwaddr`).
fn interfaces(ip: IpAddr) -> [Interface; 2] {
    let octets: Vec<u8> = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets()[12..].to_vec(),
    };
    let octets: String = octets.iter().map(|octet| format!(":{octet:02x}")).collect();
    let prefix = if ip.is_ipv4() { 32 } else { 128 };
    [
        Interface {
            index: 1,
            name: "lo",
            link: "lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN qlen 1000".to_string(),
            hardware: "link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00".to_string(),
            address: Some((IpAddr::from([127, 0, 0, 1]), "inet 127.0.0.1/8 scope host lo".to_string())),
        },
        Interface {
            index: 2,
            name: "eth0",
            link: "eth0@if3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP qlen 1000".to_string(),
            hardware: format!("link/ether 0a:58{octets} brd ff:ff:ff:ff:ff:ff"),
            address: Some((
                ip,
                format!("{} {ip}/{prefix} scope global eth0", if prefix == 32 { "inet" } else { "inet6" }),
            )),
        },
    ]
}

/// What is asked for.
#[derive(Default)]
struct Request {
    object: &'static str,
    /// `-4` or `-6`: addresses of that family only.
    version: Option<u8>,
    oneline: bool,
    /// Whether something is to be changed.
    change: bool,
    device: Option<String>,
}

/// Whether a word is the beginning of a name, as `ip` lets one shorten them.
fn short(word: &str, name: &str) -> bool {
    !word.is_empty() && name.starts_with(word)
}

fn parse(arguments: &[String]) -> Result<Request, String> {
    let mut request = Request::default();
    let mut words = arguments.iter().map(String::as_str).peekable();
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        match option.trim_start_matches('-') {
            "4" => request.version = Some(4),
            "6" => request.version = Some(6),
            "o" | "oneline" => request.oneline = true,
            _ => return Err(USAGE.to_string()),
        }
    }
    let object = words.next().and_then(|word| OBJECTS.into_iter().find(|object| short(word, object)));
    request.object = object.ok_or(USAGE)?;
    let Some(verb) = words.next() else { return Ok(request) };
    if CHANGES.contains(&verb) {
        return Ok(Request { change: true, ..request });
    }
    if !["show", "list", "lst"].iter().any(|known| short(verb, known)) {
        return Err(USAGE.to_string());
    }
    words.next_if_eq(&"dev");
    request.device = words.next().map(str::to_string);
    match words.next() {
        Some(word) => Err(format!("invalid argument '{word}' to 'ip'")),
        None => Ok(request),
    }
}

impl Request {
    fn show(&self, ip: IpAddr) -> Result<String, String> {
        let interfaces = interfaces(ip);
        let wanted = |interface: &&Interface| self.device.as_deref().is_none_or(|device| device == interface.name);
        if !interfaces.iter().any(|interface| wanted(&interface)) {
            return Err(format!("can't find device '{}'", self.device.as_deref().unwrap_or_default()));
        }
        let shown = interfaces.iter().filter(wanted);
        match self.object {
            "route" => Ok(self.routes(ip)),
            _ => Ok(shown.map(|interface| self.interface(interface)).collect()),
        }
    }

    fn interface(&self, interface: &Interface) -> String {
        let Interface { index, name, link, hardware, .. } = interface;
        let family = |ip: &IpAddr| self.version.is_none_or(|version| (version == 4) == ip.is_ipv4());
        let addresses = self.object == "address";
        let address = interface.address.as_ref().filter(|(ip, _)| addresses && family(ip)).map(|(_, text)| text);
        match (self.oneline, address) {
            // Of a family's addresses, an interface without one is not shown.
            (_, None) if addresses && self.version.is_some() => String::new(),
            (true, Some(address)) => format!("{index}: {name}    {address}\n"),
            (true, None) => format!("{index}: {link} \\    {hardware}\n"),
            (false, Some(address)) if self.version.is_some() => format!("{index}: {link}\n    {address}\n"),
            (false, Some(address)) => format!("{index}: {link}\n    {hardware}\n    {address}\n"),
            (false, None) => format!("{index}: {link}\n    {hardware}\n"),
        }
    }

    fn routes(&self, ip: IpAddr) -> String {
        let here = ip.is_ipv4() && self.version != Some(6) && self.device.as_deref() != Some("lo");
        if here { format!("default via {ROUTER} dev eth0 \n{ROUTER} dev eth0 scope link \n") } else { String::new() }
    }
}

pub(super) async fn ip(process: Process) -> io::Result<i32> {
    let request = match parse(process.arguments()) {
        Ok(request) => request,
        Err(message) => return complain_usage(&process, message).await,
    };
    let refused = match (request.change, process.world.network.ip) {
        (true, _) if !process.world.network_admin => "RTNETLINK answers: Operation not permitted".to_string(),
        (true, _) => "changes of interfaces, addresses and routes are not simulated".to_string(),
        (false, None) => "the interfaces of a node are not simulated".to_string(),
        (false, Some(ip)) => match request.show(ip) {
            Ok(text) => return process.stdout.write(text).await.map(|()| 0),
            Err(message) => return complain_usage(&process, message).await,
        },
    };
    process.complain(refused).await;
    Ok(2)
}
