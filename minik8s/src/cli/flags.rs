//! Flags that several components have, with Kubernetes' names, and how their values are written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use minik8s_client::LeaderTiming;
use minik8s_clock::{Clock, Random};

use crate::pki::{self, CertifiedKey};
use crate::wiring::leadership::Election;

/// Where a component serves HTTPS.
#[derive(Args, Clone, Debug)]
pub struct ServingCertificate {
    /// The folder of the serving certificate that is made where none is given; without it one is made at every start
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// The serving certificate (PEM), those of intermediate authorities after it
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The private key (PEM) of --tls-cert-file
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
}

impl ServingCertificate {
    /// The certificate and its key: those of the files, else one that signs itself, for these DNS names and addresses.
    pub fn load(&self, dir: Option<&Path>, name: &str, names: &[String], clock: &Clock) -> Result<CertifiedKey> {
        match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(cert), Some(key)) => Ok(CertifiedKey { cert_pem: read(cert)?, key_pem: read(key)? }),
            _ => pki::self_signed(self.cert_dir.as_deref().or(dir), name, names, clock, &Random::from_os()),
        }
    }
}

/// The port of the scheduler and of the controllers.
#[derive(Args, Clone, Debug)]
pub struct SecureServing {
    /// The address to serve HTTPS on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub bind_address: IpAddr,
    #[command(flatten)]
    pub certificate: ServingCertificate,
    /// Whose client certificates are good (PEM) on this port
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
}

/// Of several replicas, which one works.
#[derive(Args, Clone, Debug)]
pub struct LeaderElection {
    /// Work only while holding a Lease, so that several replicas can run
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: Option<bool>,
    /// How long the lease holds without being renewed
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub leader_elect_lease_duration: Option<Duration>,
    /// How long a leader that cannot renew goes on before it gives up
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub leader_elect_renew_deadline: Option<Duration>,
    /// How long to wait between two attempts
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub leader_elect_retry_period: Option<Duration>,
    /// The kind of object to hold; leases is the only one
    #[arg(long, value_name = "KIND", value_parser = ["leases"], default_value = "leases")]
    pub leader_elect_resource_lock: String,
    /// The name of the Lease
    #[arg(long, value_name = "NAME")]
    pub leader_elect_resource_name: Option<String>,
    /// The namespace of the Lease
    #[arg(long, value_name = "NAMESPACE")]
    pub leader_elect_resource_namespace: Option<String>,
}

impl LeaderElection {
    /// How `component` stands for election; `None` where it does not. `base` is what a file says, if there is one.
    pub fn election(&self, component: &str, base: Option<Election>, by_default: bool) -> Result<Option<Election>> {
        if !self.leader_elect.unwrap_or(base.is_some() || by_default) {
            return Ok(None);
        }
        let base = base.unwrap_or_else(|| Election {
            namespace: "kube-system".to_owned(),
            name: component.to_owned(),
            timing: LeaderTiming::default(),
        });
        let timing = LeaderTiming {
            lease: self.leader_elect_lease_duration.unwrap_or(base.timing.lease),
            renew_deadline: self.leader_elect_renew_deadline.unwrap_or(base.timing.renew_deadline),
            retry_period: self.leader_elect_retry_period.unwrap_or(base.timing.retry_period),
        };
        if timing.lease <= timing.renew_deadline {
            bail!("leaseDuration must be greater than renewDeadline");
        }
        if timing.renew_deadline <= timing.retry_period.mul_f64(1.2) {
            bail!("renewDeadline must be greater than retryPeriod*JitterFactor");
        }
        if timing.lease < Duration::from_secs(1) || timing.retry_period.is_zero() {
            bail!("leaseDuration must be at least 1s, and retryPeriod greater than zero");
        }
        Ok(Some(Election {
            namespace: self.leader_elect_resource_namespace.clone().unwrap_or(base.namespace),
            name: self.leader_elect_resource_name.clone().unwrap_or(base.name),
            timing,
        }))
    }
}

/// A duration as Go writes it: `40s`, `1m30s`, `1h`.
pub fn duration(text: &str) -> Result<Duration> {
    let parsed = minik8s_api::time::parse_duration(text).ok().and_then(|parsed| Duration::try_from(parsed).ok());
    parsed.with_context(|| format!("{text:?} is no duration: write 40s, 1m30s or 1h"))
}

/// `10.96.0.0/16`: a network of IPv4 and the bits of its prefix.
pub fn network(text: &str) -> Result<(Ipv4Addr, u8)> {
    let parse = || {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (Ipv4Addr, u8) = (address.parse().ok()?, bits.parse().ok()?);
        let mask = u32::MAX.checked_shl(32u32.checked_sub(bits.into())?).unwrap_or(0);
        Some((Ipv4Addr::from(u32::from(address) & mask), bits))
    };
    if text.contains(':') {
        bail!("{text:?}: networks of IPv6 are not supported");
    }
    parse().with_context(|| format!("{text:?} is no network: write 10.0.0.0/16"))
}

/// `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("{text:?} is no KEY=VALUE"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The content of a file that a flag names.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The content of a file, or nothing where no flag names one.
pub fn read_optional(path: Option<&PathBuf>) -> Result<Option<String>> {
    path.map(|path| read(path)).transpose()
}

/// The address under which others reach this machine: that of the interface with the default route.
pub fn machine_address() -> Result<IpAddr> {
    // Nothing is sent: the system only chooses the way to an address that is nobody's (TEST-NET-1, RFC 5737).
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_go_writes_them() {
        assert_eq!(duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        assert!(duration("soon").is_err());
        assert_eq!(network("10.96.3.4/16").unwrap(), (Ipv4Addr::new(10, 96, 0, 0), 16));
        assert!(network("10.96.0.0").is_err() && network("10.96.0.0/33").is_err() && network("fd00::/64").is_err());
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
    }
}
