//! The functions that Kubernetes has beyond CEL's own, and what every function returns.
//!
//! `k8s.io/apiserver/pkg/cel/library/{lists,regex,urls,ip,cidr,quantity,semverlib}.go`, cel-go `ext/sets.go`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use cel::common::types::{BOOL_TYPE, DYN_TYPE, INT_TYPE, LIST_TYPE, STRING_TYPE, Type};
use cel::common::value::CowVal;
use cel::objects::{Opaque, Value};
use cel::{Env, ExecutionError};
use regex::Regex;

use super::authorizer::{self, DECISION, GROUP_CHECK, PATH_CHECK, RESOURCE_CHECK};
use super::check::Ty;
use super::named_formats::named;
use super::pairs::INSERT;
use super::semver::Version;
use super::values::{map, optional};
use crate::custom::formats;
use crate::custom::pattern;
use crate::quantity::Quantity;

/// The type of quantities.
pub const QUANTITY: &str = "kubernetes.Quantity";
const SEMVER: &str = "kubernetes.Semver";
const URL: &str = "kubernetes.URL";
const IP: &str = "net.IP";
const CIDR: &str = "net.CIDR";
const FORMAT: &str = "kubernetes.NamedFormat";

/// What mutations construct: an apply configuration, an operation of a JSON patch
/// (`k8s.io/apiserver/pkg/cel/mutation`).
pub const CONSTRUCTED: [&str; 2] = ["Object", "JSONPatch"];

pub(super) type Answer = Result<Value, ExecutionError>;
/// A function of Kubernetes' own over plain values.
pub(super) type Function = fn(&[Value]) -> Answer;

/// A value of Kubernetes' own types.
#[derive(Clone, PartialEq, Eq)]
enum Own {
    Quantity(Quantity),
    Semver(Version),
    Url(String),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Format(&'static str),
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantity(quantity) => write!(f, "{quantity}"),
            Self::Semver(version) => write!(f, "{version:?}"),
            Self::Url(url) => f.write_str(url),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Cidr(ip, length) => write!(f, "{ip}/{length}"),
            Self::Format(name) => f.write_str(name),
        }
    }
}

impl Opaque for Own {
    fn runtime_type_name(&self) -> &str {
        match self {
            Self::Quantity(_) => QUANTITY,
            Self::Semver(_) => SEMVER,
            Self::Url(_) => URL,
            Self::Ip(_) => IP,
            Self::Cidr(..) => CIDR,
            Self::Format(_) => FORMAT,
        }
    }
}

impl From<Own> for Value {
    fn from(own: Own) -> Value {
        Value::Opaque(Arc::new(own))
    }
}

pub(super) fn text(value: &Value) -> Result<&str, ExecutionError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(overload()),
    }
}

fn list(value: &Value) -> Result<&[Value], ExecutionError> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(overload()),
    }
}

fn own(value: &Value) -> Result<&Own, ExecutionError> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<Own>().ok_or_else(overload),
        _ => Err(overload()),
    }
}

pub(super) fn overload() -> ExecutionError {
    ExecutionError::no_such_overload("", Vec::new())
}

pub(super) fn failed(message: impl fmt::Display) -> ExecutionError {
    ExecutionError::function_error("", message)
}

pub(super) fn string(text: impl Into<String>) -> Answer {
    Ok(Value::String(Arc::new(text.into())))
}

/// Makes an overload of a function over plain values: arguments are converted once, here.
macro_rules! overloads {
    ($env:ident; $( $style:ident $name:literal ( $($ty:expr),* ) = $function:expr; )+) => {
        $({
            fn call<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
                const FUNCTION: Function = $function;
                let values: Result<Vec<Value>, _> = arguments.iter().map(|argument| Value::try_from(argument.as_ref())).collect();
                Ok(CowVal::Owned(FUNCTION(&values?)?.try_into()?))
            }
            let types: Vec<Type> = vec![$($ty),*];
            let id = format!("{}_{}({})", stringify!($style), $name, types.iter().map(Type::name).collect::<Vec<_>>().join(","));
            overloads!(@add $style $env $name id types call);
        })+
    };
    (@add member $env:ident $name:literal $id:ident $types:ident $call:ident) => {{
        let mut types = $types;
        let target = types.remove(0);
        $env.add_member_overload($name, &$id, target, types, $call)?;
    }};
    (@add global $env:ident $name:literal $id:ident $types:ident $call:ident) => {
        $env.add_overload($name, &$id, $types, $call)?;
    };
}

pub(super) use overloads;

/// Declares all of them.
pub fn add_to(env: &mut Env) -> Result<(), cel::DeclarationError> {
    for name in [QUANTITY, SEMVER, URL, IP, CIDR, FORMAT] {
        env.add_type(Type::new_opaque_type(name))?;
    }
    let quantity = || Type::new_opaque_type(QUANTITY);
    let semver = || Type::new_opaque_type(SEMVER);
    let url = || Type::new_opaque_type(URL);
    let ip = || Type::new_opaque_type(IP);
    let cidr = || Type::new_opaque_type(CIDR);
    let format = || Type::new_opaque_type(FORMAT);
    overloads! { env;
        member "find" (STRING_TYPE, STRING_TYPE) = |of| {
            let found = regex(text(&of[1])?)?.find(text(&of[0])?).map(|found| found.as_str().to_owned());
            string(found.unwrap_or_default())
        };
        member "findAll" (STRING_TYPE, STRING_TYPE) = |of| find_all(of, usize::MAX);
        member "findAll" (STRING_TYPE, STRING_TYPE, INT_TYPE) = |of| match of[2] {
            Value::Int(most) => find_all(of, usize::try_from(most).unwrap_or(usize::MAX)),
            _ => Err(overload()),
        };
        member "isSorted" (LIST_TYPE) = |of| {
            let list = list(&of[0])?;
            Ok(Value::Bool(list.windows(2).all(|pair| pair[0].partial_cmp(&pair[1]).is_some_and(std::cmp::Ordering::is_le))))
        };
        member "sum" (LIST_TYPE) = |of| sum(list(&of[0])?);
        member "min" (LIST_TYPE) = |of| extreme(list(&of[0])?, "min", std::cmp::Ordering::Less);
        member "max" (LIST_TYPE) = |of| extreme(list(&of[0])?, "max", std::cmp::Ordering::Greater);
        member "indexOf" (LIST_TYPE, DYN_TYPE) = |of| Ok(position(list(&of[0])?.iter().position(|item| *item == of[1])));
        member "lastIndexOf" (LIST_TYPE, DYN_TYPE) = |of| Ok(position(list(&of[0])?.iter().rposition(|item| *item == of[1])));
        member "first" (LIST_TYPE) = |of| Ok(optional(list(&of[0])?.first().cloned()));
        member "last" (LIST_TYPE) = |of| Ok(optional(list(&of[0])?.last().cloned()));
        global "sets.contains" (LIST_TYPE, LIST_TYPE) = |of| Ok(Value::Bool(includes(list(&of[0])?, list(&of[1])?)));
        global "sets.equivalent" (LIST_TYPE, LIST_TYPE) = |of| {
            let (a, b) = (list(&of[0])?, list(&of[1])?);
            Ok(Value::Bool(includes(a, b) && includes(b, a)))
        };
        global "sets.intersects" (LIST_TYPE, LIST_TYPE) = |of| {
            let (a, b) = (list(&of[0])?, list(&of[1])?);
            Ok(Value::Bool(a.iter().any(|item| b.contains(item))))
        };
        global "isURL" (STRING_TYPE) = |of| Ok(Value::Bool(formats::is_uri(text(&of[0])?)));
        global "url" (STRING_TYPE) = |of| match text(&of[0])? {
            url if formats::is_uri(url) => Ok(Own::Url(url.to_owned()).into()),
            url => Err(failed(format!("URL parse error during conversion from string: parse {url:?}: invalid URI for request"))),
        };
        member "getScheme" (url()) = |of| string(UrlParts::of(&of[0])?.scheme);
        member "getHost" (url()) = |of| string(UrlParts::of(&of[0])?.host);
        member "getHostname" (url()) = |of| string(UrlParts::of(&of[0])?.hostname());
        member "getPort" (url()) = |of| string(UrlParts::of(&of[0])?.port());
        member "getEscapedPath" (url()) = |of| string(UrlParts::of(&of[0])?.path);
        member "getQuery" (url()) = |of| query(&of[0]);
        global "isIP" (STRING_TYPE) = |of| Ok(Value::Bool(text(&of[0])?.parse::<IpAddr>().is_ok()));
        global "ip" (STRING_TYPE) = |of| parse_ip(text(&of[0])?).map(|ip| Own::Ip(ip).into());
        global "ip.isCanonical" (STRING_TYPE) = |of| parse_ip(text(&of[0])?).and_then(|ip| Ok(Value::Bool(ip.to_string() == text(&of[0])?)));
        member "family" (ip()) = |of| Ok(Value::Int(if address(&of[0])?.is_ipv4() { 4 } else { 6 }));
        member "isUnspecified" (ip()) = |of| Ok(Value::Bool(address(&of[0])?.is_unspecified()));
        member "isLoopback" (ip()) = |of| Ok(Value::Bool(address(&of[0])?.is_loopback()));
        member "isLinkLocalMulticast" (ip()) = |of| Ok(Value::Bool(match address(&of[0])? {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        }));
        member "isLinkLocalUnicast" (ip()) = |of| Ok(Value::Bool(match address(&of[0])? {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }));
        member "isGlobalUnicast" (ip()) = |of| Ok(Value::Bool(is_global_unicast(address(&of[0])?)));
        global "string" (ip()) = |of| string(address(&of[0])?.to_string());
        global "string" (cidr()) = |of| network(&of[0]).and_then(|(ip, length)| string(format!("{ip}/{length}")));
        global "isCIDR" (STRING_TYPE) = |of| Ok(Value::Bool(formats::is_cidr(text(&of[0])?)));
        global "cidr" (STRING_TYPE) = |of| parse_cidr(text(&of[0])?).map(|(ip, length)| Own::Cidr(ip, length).into());
        // Kubernetes hands on what is no address as if it were one, and finds no function for it.
        member "containsIP" (cidr(), STRING_TYPE) = |of| {
            let ip = parse_ip(text(&of[1])?).map_err(|_| overload())?;
            Ok(Value::Bool(covers(network(&of[0])?, (ip, u8::MAX))))
        };
        member "containsIP" (cidr(), ip()) = |of| Ok(Value::Bool(covers(network(&of[0])?, (address(&of[1])?, u8::MAX))));
        member "containsCIDR" (cidr(), STRING_TYPE) = |of| Ok(Value::Bool(covers(network(&of[0])?, parse_cidr(text(&of[1])?)?)));
        member "containsCIDR" (cidr(), cidr()) = |of| Ok(Value::Bool(covers(network(&of[0])?, network(&of[1])?)));
        member "ip" (cidr()) = |of| Ok(Own::Ip(network(&of[0])?.0).into());
        member "prefixLength" (cidr()) = |of| Ok(Value::Int(network(&of[0])?.1.into()));
        member "masked" (cidr()) = |of| network(&of[0]).map(|(ip, length)| Own::Cidr(masked(ip, length), length).into());
        global "isQuantity" (STRING_TYPE) = |of| Ok(Value::Bool(Quantity::parse(text(&of[0])?).is_ok()));
        global "quantity" (STRING_TYPE) = |of| match Quantity::parse(text(&of[0])?) {
            Ok(quantity) => Ok(Own::Quantity(quantity).into()),
            Err(error) => Err(failed(error)),
        };
        global "sign" (quantity()) = |of| Ok(Value::Int(amount(&of[0])?.signum().into()));
        member "isInteger" (quantity()) = |of| amount(&of[0]).map(|amount| Value::Bool(amount.as_f64().fract() == 0.0));
        member "asInteger" (quantity()) = |of| match amount(&of[0])? {
            whole if whole.as_f64().fract() == 0.0 => Ok(Value::Int(whole.value())),
            _ => Err(failed("cannot convert value to integer")),
        };
        member "asApproximateFloat" (quantity()) = |of| Ok(Value::Float(amount(&of[0])?.as_f64()));
        member "add" (quantity(), quantity()) = |of| Ok(Own::Quantity(amount(&of[0])? + amount(&of[1])?).into());
        member "add" (quantity(), INT_TYPE) = |of| Ok(Own::Quantity(amount(&of[0])? + whole(&of[1])?).into());
        member "sub" (quantity(), quantity()) = |of| Ok(Own::Quantity(amount(&of[0])? - amount(&of[1])?).into());
        member "sub" (quantity(), INT_TYPE) = |of| Ok(Own::Quantity(amount(&of[0])? - whole(&of[1])?).into());
        member "isGreaterThan" (quantity(), quantity()) = |of| Ok(Value::Bool(amount(&of[0])? > amount(&of[1])?));
        member "isLessThan" (quantity(), quantity()) = |of| Ok(Value::Bool(amount(&of[0])? < amount(&of[1])?));
        global "jsonpatch.escapeKey" (STRING_TYPE) = |of| string(text(&of[0])?.replace('~', "~0").replace('/', "~1"));
        member "compareTo" (quantity(), quantity()) = |of| Ok(Value::Int(amount(&of[0])?.cmp(&amount(&of[1])?) as i64));
        global "format.dns1123Label" () = |_| Ok(Own::Format("dns1123Label").into());
        global "format.dns1123Subdomain" () = |_| Ok(Own::Format("dns1123Subdomain").into());
        global "format.dns1035Label" () = |_| Ok(Own::Format("dns1035Label").into());
        global "format.qualifiedName" () = |_| Ok(Own::Format("qualifiedName").into());
        global "format.dns1123LabelPrefix" () = |_| Ok(Own::Format("dns1123LabelPrefix").into());
        global "format.dns1123SubdomainPrefix" () = |_| Ok(Own::Format("dns1123SubdomainPrefix").into());
        global "format.dns1035LabelPrefix" () = |_| Ok(Own::Format("dns1035LabelPrefix").into());
        global "format.labelValue" () = |_| Ok(Own::Format("labelValue").into());
        global "format.uri" () = |_| Ok(Own::Format("uri").into());
        global "format.uuid" () = |_| Ok(Own::Format("uuid").into());
        global "format.byte" () = |_| Ok(Own::Format("byte").into());
        global "format.date" () = |_| Ok(Own::Format("date").into());
        global "format.datetime" () = |_| Ok(Own::Format("datetime").into());
        global "format.named" (STRING_TYPE) = |of| Ok(optional(named(text(&of[0])?).map(|format| Own::Format(format.name).into())));
        member "validate" (format(), STRING_TYPE) = |of| {
            let Own::Format(name) = own(&of[0])? else { return Err(overload()) };
            let faults = (named(name).ok_or_else(overload)?.check)(text(&of[1])?);
            let faults = faults.into_iter().map(|fault| Value::String(Arc::new(fault))).collect::<Vec<_>>();
            Ok(optional((!faults.is_empty()).then(|| Value::List(Arc::new(faults)))))
        };
        global "semver" (STRING_TYPE) = |of| read_version(of).map(|version| Own::Semver(version).into());
        global "semver" (STRING_TYPE, BOOL_TYPE) = |of| read_version(of).map(|version| Own::Semver(version).into());
        global "isSemver" (STRING_TYPE) = |of| Ok(Value::Bool(read_version(of).is_ok()));
        global "isSemver" (STRING_TYPE, BOOL_TYPE) = |of| Ok(Value::Bool(read_version(of).is_ok()));
        member "major" (semver()) = |of| Ok(Value::Int(version(&of[0])?.part(0).try_into().unwrap_or(i64::MAX)));
        member "minor" (semver()) = |of| Ok(Value::Int(version(&of[0])?.part(1).try_into().unwrap_or(i64::MAX)));
        member "patch" (semver()) = |of| Ok(Value::Int(version(&of[0])?.part(2).try_into().unwrap_or(i64::MAX)));
        member "isGreaterThan" (semver(), semver()) = |of| Ok(Value::Bool(version(&of[0])? > version(&of[1])?));
        member "isLessThan" (semver(), semver()) = |of| Ok(Value::Bool(version(&of[0])? < version(&of[1])?));
        member "compareTo" (semver(), semver()) = |of| Ok(Value::Int(version(&of[0])?.cmp(&version(&of[1])?) as i64));
    }
    authorizer::add_to(env)
}

/// A text, read as a version; tolerantly where the second argument says so.
fn read_version(of: &[Value]) -> Result<Version, ExecutionError> {
    let tolerant = of.get(1) == Some(&Value::Bool(true));
    let read = if tolerant { Version::parse_tolerant } else { Version::parse };
    read(text(&of[0])?).map_err(failed)
}

fn version(value: &Value) -> Result<Version, ExecutionError> {
    match own(value)? {
        Own::Semver(version) => Ok(version.clone()),
        _ => Err(overload()),
    }
}

fn regex(pattern: &str) -> Result<Regex, ExecutionError> {
    pattern::compile(pattern).map_err(failed)
}

fn find_all(of: &[Value], most: usize) -> Answer {
    let regex = regex(text(&of[1])?)?;
    let found =
        regex.find_iter(text(&of[0])?).take(most).map(|found| Value::String(Arc::new(found.as_str().to_owned())));
    Ok(Value::List(Arc::new(found.collect())))
}

fn position(at: Option<usize>) -> Value {
    Value::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn includes(all: &[Value], some: &[Value]) -> bool {
    some.iter().all(|item| all.contains(item))
}

fn sum(list: &[Value]) -> Answer {
    let overflow = || failed("integer overflow");
    let start = match list.first() {
        Some(Value::Float(_)) => Value::Float(0.0),
        Some(Value::UInt(_)) => Value::UInt(0),
        Some(Value::Duration(_)) => Value::Duration(chrono::Duration::zero()),
        _ => Value::Int(0),
    };
    list.iter().try_fold(start, |total, item| match (total, item) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int).ok_or_else(overflow),
        (Value::UInt(a), Value::UInt(b)) => a.checked_add(*b).map(Value::UInt).ok_or_else(overflow),
        (Value::Float(a), Value::Float(b)) => Ok(Value::Float(a + b)),
        (Value::Duration(a), Value::Duration(b)) => a.checked_add(b).map(Value::Duration).ok_or_else(overflow),
        _ => Err(overload()),
    })
}

fn extreme(list: &[Value], name: &str, wanted: std::cmp::Ordering) -> Answer {
    let mut items = list.iter();
    let mut best = items.next().ok_or_else(|| failed(format!("{name} called on empty list")))?;
    for item in items {
        if item.partial_cmp(best).ok_or_else(overload)? == wanted {
            best = item;
        }
    }
    Ok(best.clone())
}

struct UrlParts<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
}

impl<'a> UrlParts<'a> {
    fn of(value: &'a Value) -> Result<UrlParts<'a>, ExecutionError> {
        let Own::Url(url) = own(value)? else { return Err(overload()) };
        let (scheme, rest) =
            if url.starts_with('/') { ("", url.as_str()) } else { url.split_once(':').unwrap_or(("", url)) };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let Some(rest) = rest.strip_prefix("//") else { return Ok(UrlParts { scheme, host: "", path: rest }) };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Ok(UrlParts { scheme, host, path })
    }

    fn port(&self) -> &'a str {
        let after = self.host.rsplit_once(']').map_or(self.host, |(_, after)| after);
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }

    fn hostname(&self) -> &'a str {
        let port = self.port();
        let host = if port.is_empty() { self.host } else { &self.host[..self.host.len() - port.len() - 1] };
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// The query of a URL: what each name is given as.
fn query(url: &Value) -> Answer {
    let Own::Url(url) = own(url)? else { return Err(overload()) };
    let url = url.split('#').next().unwrap_or_default();
    let mut found: Vec<(String, Vec<Value>)> = Vec::new();
    for part in url.split_once('?').map_or("", |(_, query)| query).split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        // What is badly escaped is passed over, as in Go.
        let (false, Some(name), Some(value)) = (part.contains(';'), unescaped(name), unescaped(value)) else {
            continue;
        };
        let value = Value::String(Arc::new(value));
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => found.push((name, vec![value])),
        }
    }
    Ok(map(found.into_iter().map(|(name, values)| (name, Value::List(Arc::new(values)))).collect()))
}

/// A part of a query in plain text (`url.QueryUnescape`).
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
                rest = &rest[2..];
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse_ip(text: &str) -> Result<IpAddr, ExecutionError> {
    text.parse().map_err(|_| {
        failed(format!("IP Address {text:?} parse error during conversion from string: unable to parse IP"))
    })
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), ExecutionError> {
    let invalid = || {
        failed(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?}): no '/'"
        ))
    };
    if !formats::is_cidr(text) {
        return Err(invalid());
    }
    let (address, length) = text.split_once('/').ok_or_else(invalid)?;
    Ok((parse_ip(address)?, length.parse().map_err(|_| invalid())?))
}

fn address(value: &Value) -> Result<IpAddr, ExecutionError> {
    match own(value)? {
        Own::Ip(ip) => Ok(*ip),
        _ => Err(overload()),
    }
}

fn network(value: &Value) -> Result<(IpAddr, u8), ExecutionError> {
    match own(value)? {
        Own::Cidr(ip, length) => Ok((*ip, *length)),
        _ => Err(overload()),
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let special = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(special || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            IpAddr::V4((u32::from(ip) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)).into())
        }
        IpAddr::V6(ip) => {
            IpAddr::V6((u128::from(ip) & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)).into())
        }
    }
}

fn covers(outer: (IpAddr, u8), inner: (IpAddr, u8)) -> bool {
    outer.0.is_ipv4() == inner.0.is_ipv4() && inner.1 >= outer.1 && masked(outer.0, outer.1) == masked(inner.0, outer.1)
}

fn amount(value: &Value) -> Result<Quantity, ExecutionError> {
    match own(value)? {
        Own::Quantity(quantity) => Ok(*quantity),
        _ => Err(overload()),
    }
}

fn whole(value: &Value) -> Result<Quantity, ExecutionError> {
    match value {
        Value::Int(number) => Quantity::parse(&number.to_string()).map_err(failed),
        _ => Err(overload()),
    }
}

/// Names of functions that take more than one shape of arguments; what they return is [`returns`]' business.
pub fn is_known(name: &str) -> bool {
    RESULTS.iter().any(|(known, _)| *known == name)
}

/// Makes the type of a result.
type Returns = fn() -> Ty<'static>;

/// What a function returns, by its name.
const RESULTS: &[(&str, Returns)] = &[
    ("size", || Ty::Int),
    ("contains", || Ty::Bool),
    ("startsWith", || Ty::Bool),
    ("endsWith", || Ty::Bool),
    ("matches", || Ty::Bool),
    ("type", || Ty::Type),
    ("int", || Ty::Int),
    ("uint", || Ty::Uint),
    ("double", || Ty::Double),
    ("bool", || Ty::Bool),
    ("string", || Ty::String),
    ("bytes", || Ty::Bytes),
    ("dyn", || Ty::Dyn),
    ("duration", || Ty::Duration),
    ("timestamp", || Ty::Timestamp),
    ("getFullYear", || Ty::Int),
    ("getMonth", || Ty::Int),
    ("getDayOfYear", || Ty::Int),
    ("getDayOfMonth", || Ty::Int),
    ("getDate", || Ty::Int),
    ("getDayOfWeek", || Ty::Int),
    ("getHours", || Ty::Int),
    ("getMinutes", || Ty::Int),
    ("getSeconds", || Ty::Int),
    ("getMilliseconds", || Ty::Int),
    ("charAt", || Ty::String),
    ("indexOf", || Ty::Int),
    ("lastIndexOf", || Ty::Int),
    ("join", || Ty::String),
    ("lowerAscii", || Ty::String),
    ("upperAscii", || Ty::String),
    ("replace", || Ty::String),
    ("split", || Ty::List(Box::new(Ty::String))),
    ("substring", || Ty::String),
    ("trim", || Ty::String),
    ("format", || Ty::String),
    ("strings.quote", || Ty::String),
    ("optional.of", || Ty::Optional(Box::new(Ty::Dyn))),
    ("optional.ofNonZeroValue", || Ty::Optional(Box::new(Ty::Dyn))),
    ("optional.none", || Ty::Optional(Box::new(Ty::Open))),
    ("hasValue", || Ty::Bool),
    ("find", || Ty::String),
    ("findAll", || Ty::List(Box::new(Ty::String))),
    ("isSorted", || Ty::Bool),
    ("sets.contains", || Ty::Bool),
    ("sets.equivalent", || Ty::Bool),
    ("sets.intersects", || Ty::Bool),
    ("lists.range", || Ty::List(Box::new(Ty::Int))),
    ("slice", || Ty::List(Box::new(Ty::Dyn))),
    ("flatten", || Ty::List(Box::new(Ty::Dyn))),
    ("distinct", || Ty::List(Box::new(Ty::Dyn))),
    ("reverse", || Ty::List(Box::new(Ty::Dyn))),
    ("sort", || Ty::List(Box::new(Ty::Dyn))),
    ("@sortByAssociatedKeys", || Ty::List(Box::new(Ty::Dyn))),
    ("first", || Ty::Optional(Box::new(Ty::Dyn))),
    ("last", || Ty::Optional(Box::new(Ty::Dyn))),
    (INSERT, || Ty::Dyn),
    ("isURL", || Ty::Bool),
    ("getQuery", || Ty::Map(Box::new(Ty::List(Box::new(Ty::String))))),
    ("format.named", || Ty::Optional(Box::new(Ty::Named(FORMAT)))),
    ("validate", || Ty::Optional(Box::new(Ty::List(Box::new(Ty::String))))),
    ("fieldSelector", || Ty::Named(RESOURCE_CHECK)),
    ("labelSelector", || Ty::Named(RESOURCE_CHECK)),
    ("url", || Ty::Named(URL)),
    ("getScheme", || Ty::String),
    ("getHost", || Ty::String),
    ("getHostname", || Ty::String),
    ("getPort", || Ty::String),
    ("getEscapedPath", || Ty::String),
    ("isIP", || Ty::Bool),
    ("ip", || Ty::Named(IP)),
    ("ip.isCanonical", || Ty::Bool),
    ("family", || Ty::Int),
    ("isUnspecified", || Ty::Bool),
    ("isLoopback", || Ty::Bool),
    ("isLinkLocalMulticast", || Ty::Bool),
    ("isLinkLocalUnicast", || Ty::Bool),
    ("isGlobalUnicast", || Ty::Bool),
    ("isCIDR", || Ty::Bool),
    ("cidr", || Ty::Named(CIDR)),
    ("containsIP", || Ty::Bool),
    ("containsCIDR", || Ty::Bool),
    ("prefixLength", || Ty::Int),
    ("masked", || Ty::Named(CIDR)),
    ("isQuantity", || Ty::Bool),
    ("quantity", || Ty::Named(QUANTITY)),
    ("semver", || Ty::Named(SEMVER)),
    ("isSemver", || Ty::Bool),
    ("major", || Ty::Int),
    ("minor", || Ty::Int),
    ("patch", || Ty::Int),
    ("sign", || Ty::Int),
    ("isInteger", || Ty::Bool),
    ("asInteger", || Ty::Int),
    ("asApproximateFloat", || Ty::Double),
    ("add", || Ty::Named(QUANTITY)),
    ("sub", || Ty::Named(QUANTITY)),
    ("isGreaterThan", || Ty::Bool),
    ("isLessThan", || Ty::Bool),
    ("compareTo", || Ty::Int),
    ("jsonpatch.escapeKey", || Ty::String),
    ("path", || Ty::Named(PATH_CHECK)),
    ("group", || Ty::Named(GROUP_CHECK)),
    ("serviceAccount", || Ty::Named(authorizer::AUTHORIZER)),
    ("resource", || Ty::Named(RESOURCE_CHECK)),
    ("subresource", || Ty::Named(RESOURCE_CHECK)),
    ("namespace", || Ty::Named(RESOURCE_CHECK)),
    ("name", || Ty::Named(RESOURCE_CHECK)),
    ("check", || Ty::Named(DECISION)),
    ("allowed", || Ty::Bool),
    ("reason", || Ty::String),
    ("errored", || Ty::Bool),
    ("error", || Ty::String),
    ("sum", || Ty::Dyn),
    ("min", || Ty::Dyn),
    ("max", || Ty::Dyn),
    ("value", || Ty::Dyn),
    ("orValue", || Ty::Dyn),
    ("or", || Ty::Dyn),
];

/// Functions that only texts have.
const OF_TEXTS: [&str; 14] = [
    "startsWith",
    "endsWith",
    "matches",
    "charAt",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "format",
    "find",
    "findAll",
    "contains",
];

/// Whether values of a type come one after the other.
fn is_ordered(ty: &Ty<'_>) -> bool {
    matches!(ty, Ty::Dyn | Ty::Open | Ty::Int | Ty::Uint | Ty::Double | Ty::Bool | Ty::Duration | Ty::Timestamp)
        || matches!(ty, Ty::String | Ty::Bytes)
}

/// The type of a call's result; `None` for a function that is not known, or takes no such target or arguments.
pub fn returns<'a>(name: &str, target: Option<&Ty<'a>>, arguments: &[Ty<'a>]) -> Option<Ty<'a>> {
    if let (Some(format), None, []) = (name.strip_prefix("format."), target, arguments)
        && named(format).is_some()
    {
        return Some(Ty::Named(FORMAT));
    }
    let (_, result) = RESULTS.iter().find(|(known, _)| *known == name)?;
    let sized = |ty: &Ty<'_>| matches!(ty, Ty::Dyn | Ty::String | Ty::Bytes | Ty::List(_) | Ty::Map(_));
    match (name, target, arguments) {
        ("size", Some(of), []) | ("size", None, [of]) => sized(of).then_some(Ty::Int),
        ("size", ..) => None,
        ("matches", None, [of, pattern]) => {
            (of.accepts(&Ty::String) && pattern.accepts(&Ty::String)).then_some(Ty::Bool)
        }
        (name, Some(of), arguments) if OF_TEXTS.contains(&name) => {
            let fits = of.accepts(&Ty::String)
                && arguments.first().is_none_or(|argument| {
                    name == "format" || name == "substring" || name == "charAt" || argument.accepts(&Ty::String)
                });
            fits.then(result)
        }
        ("sum", Some(Ty::List(element)), []) => {
            let added = matches!(**element, Ty::Dyn | Ty::Open | Ty::Int | Ty::Uint | Ty::Double | Ty::Duration);
            added.then(|| (**element).clone())
        }
        ("min" | "max", Some(Ty::List(element)), []) => is_ordered(element).then(|| (**element).clone()),
        ("isSorted", Some(Ty::List(element)), []) => is_ordered(element).then_some(Ty::Bool),
        ("sort", Some(of @ Ty::List(element)), []) => is_ordered(element).then(|| of.clone()),
        ("@sortByAssociatedKeys", Some(of @ Ty::List(_)), [Ty::List(key)]) => is_ordered(key).then(|| of.clone()),
        ("slice", Some(of @ Ty::List(_)), [from, to]) => {
            (from.accepts(&Ty::Int) && to.accepts(&Ty::Int)).then(|| of.clone())
        }
        ("reverse" | "distinct", Some(of @ Ty::List(_)), []) => Some(of.clone()),
        ("flatten", Some(Ty::List(element)), []) => match &**element {
            inner @ Ty::List(_) => Some(inner.clone()),
            Ty::Dyn | Ty::Open => Some(result()),
            _ => None,
        },
        ("flatten", Some(Ty::List(_)), [depth]) => depth.accepts(&Ty::Int).then(result),
        ("first" | "last", Some(Ty::List(element)), []) => Some(Ty::Optional(element.clone())),
        (
            "sum"
            | "min"
            | "max"
            | "isSorted"
            | "sort"
            | "@sortByAssociatedKeys"
            | "slice"
            | "reverse"
            | "distinct"
            | "flatten"
            | "first"
            | "last",
            Some(Ty::Dyn),
            _,
        ) => Some(result()),
        (
            "sum"
            | "min"
            | "max"
            | "isSorted"
            | "sort"
            | "@sortByAssociatedKeys"
            | "slice"
            | "reverse"
            | "distinct"
            | "flatten"
            | "first"
            | "last",
            ..,
        ) => None,
        ("sets.contains" | "sets.equivalent" | "sets.intersects", None, [a, b]) => {
            let is_list = |ty: &Ty<'_>| matches!(ty, Ty::List(_) | Ty::Dyn);
            (is_list(a) && is_list(b)).then_some(Ty::Bool)
        }
        ("lists.range", None, [size]) => size.accepts(&Ty::Int).then(result),
        (INSERT, None, [_, key, value]) => {
            // Maps whose keys are no texts can only be written in an expression.
            Some(if key.accepts(&Ty::String) { Ty::Map(Box::new(value.clone())) } else { Ty::Dyn })
        }
        (INSERT, None, [_, entry]) => matches!(entry, Ty::Map(_) | Ty::Dyn).then(|| entry.clone()),
        ("string", None, [of]) => match of {
            Ty::Named(IP | CIDR) => Some(Ty::String),
            Ty::Dyn | Ty::Bool | Ty::Int | Ty::Uint | Ty::Double | Ty::String | Ty::Bytes => Some(Ty::String),
            Ty::Duration | Ty::Timestamp => Some(Ty::String),
            _ => None,
        },
        ("sign", None, [of]) => of.accepts(&Ty::Named(QUANTITY)).then_some(Ty::Int),
        ("sign", ..) => None,
        ("validate", Some(of), [text]) => (of.accepts(&Ty::Named(FORMAT)) && text.accepts(&Ty::String)).then(result),
        ("validate", ..) => None,
        ("fieldSelector" | "labelSelector", Some(of), [text]) => {
            (of.accepts(&Ty::Named(RESOURCE_CHECK)) && text.accepts(&Ty::String)).then(result)
        }
        ("getQuery", Some(of), []) => of.accepts(&Ty::Named(URL)).then(result),
        ("value", Some(Ty::Optional(inner)), []) => Some((**inner).clone()),
        ("orValue", Some(Ty::Optional(inner)), [other]) => (**inner).clone().joined(other.clone()),
        ("or", Some(of @ Ty::Optional(_)), [other]) => of.clone().joined(other.clone()),
        ("optional.of" | "optional.ofNonZeroValue", None, [of]) => Some(Ty::Optional(Box::new(of.clone()))),
        _ => Some(result()),
    }
}
