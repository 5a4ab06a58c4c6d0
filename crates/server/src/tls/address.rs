//! Whether a member's certificate may come from the address that it comes from.
//!
//! As etcd has it: a certificate that names nobody may come from anywhere. One that names addresses
//! must name this one, or else, if it also names hosts, a host that has this address.
//!
//! Source: etcd's `checkCertSAN`.

use std::net::IpAddr;

use super::certificate::Subjects;

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
