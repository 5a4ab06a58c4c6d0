//! Whether a member's certificate may come from the address that it comes from.
//!
//! As etcd has it: a certificate that names nobody may come from anywhere. One that names addresses
//! must name this one, or else, if it also names hosts, a host that has this address.
//!
//! Source: etcd's `checkCertSAN`.

use std::net::IpAddr;
use std::time::Duration;

use domain::resolv::StubResolver;
use domain::resolv::lookup::lookup_addr;

use super::certificate::Subjects;

/// How long the DNS may take to name an address.
const LOOKUP: Duration = Duration::from_secs(2);

/// # Errors
/// etcd's sentence.
pub(super) async fn check(subjects: &Subjects, from: IpAddr) -> Result<(), String> {
    let from = from.to_canonical();
    let Subjects { names, addresses } = subjects;
    if names.is_empty() && addresses.is_empty() {
        return Ok(());
    }
    if addresses.iter().any(|named| named.to_canonical() == from) {
        return Ok(());
    }
    if names.is_empty() {
        let named: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        return Err(format!(
            "x509: certificate is valid for {}, not {from}",
            named.join(", ")
        ));
    }
    if host_names(from)
        .await
        .iter()
        .any(|host| names_host(names, host))
    {
        return Ok(());
    }
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        let Ok(found) = tokio::net::lookup_host((name.as_str(), 0)).await else {
            continue;
        };
        if found
            .into_iter()
            .any(|found| found.ip().to_canonical() == from)
        {
            return Ok(());
        }
    }
    Err(format!(
        "tls: {:?} does not match any of DNSNames {names:?}",
        from.to_string()
    ))
}

/// What the DNS calls an address; nothing if it does not know, or does not answer.
async fn host_names(address: IpAddr) -> Vec<String> {
    let resolver = StubResolver::new();
    let Ok(Ok(found)) = tokio::time::timeout(LOOKUP, lookup_addr(&resolver, address)).await else {
        return Vec::new();
    };
    found.iter().map(|name| name.to_string()).collect()
}

/// Whether a host is one of these names; a wildcard stands for any number of labels, as in etcd.
fn names_host(names: &[String], host: &str) -> bool {
    let host = host.trim_end_matches('.');
    names.iter().any(|name| match name.strip_prefix('*') {
        Some(end) if end.starts_with('.') => host.ends_with(end),
        _ => name == host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_the_end_of_a_host() {
        let names = ["*.b.example", "c.example"].map(str::to_owned);
        for host in ["a.b.example", "x.a.b.example.", "c.example."] {
            assert!(names_host(&names, host), "{host}");
        }
        for host in ["b.example", "ab.example", "xb.example", "d.c.example", ""] {
            assert!(!names_host(&names, host), "{host}");
        }
    }
}
