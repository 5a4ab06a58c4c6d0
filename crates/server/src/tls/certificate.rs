//! What a certificate says: its common name, whom it is for, until when it holds, its number.
//!
//! Foreign bytes are read by `x509-parser`, which copies nothing and refuses what is no certificate.
//! Never says whether a certificate is to be trusted: that is `verify`'s.

use std::net::IpAddr;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, GeneralName, X509Certificate};

/// Its common name; of several the last, as Go takes it. Empty if it has none.
pub(super) fn common_name(der: &CertificateDer<'_>) -> String {
    let Some(certificate) = read(der) else {
        return String::new();
    };
    let last = certificate.subject().iter_common_name().last();
    let name = last.and_then(|name| name.as_str().ok());
    name.unwrap_or_default().to_owned()
}

/// The names and addresses that it is for.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Subjects {
    pub(super) names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
}

/// Its subject alternative names.
pub(super) fn subjects(der: &CertificateDer<'_>) -> Subjects {
    let mut all = Subjects::default();
    let certificate = read(der);
    let extension = certificate
        .as_ref()
        .and_then(|certificate| certificate.subject_alternative_name().ok().flatten());
    for name in extension.iter().flat_map(|list| &list.value.general_names) {
        match name {
            GeneralName::DNSName(name) => all.names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let any = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                all.addresses.extend(any);
            }
            _ => {}
        }
    }
    all
}

/// Whether it is for a host: a name, which one of its wildcards may match, or an address.
pub(super) fn is_for(der: &CertificateDer<'_>, host: &str) -> bool {
    let (Ok(certificate), Ok(name)) = (
        ParsedCertificate::try_from(der),
        ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']')),
    ) else {
        return false;
    };
    verify_server_name(&certificate, &name).is_ok()
}

/// Whether it holds at a time; the error says whether too early or too late.
pub(super) fn check_time(
    der: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<(), rustls::CertificateError> {
    use rustls::CertificateError::{BadEncoding, Expired, NotValidYet};
    let certificate = read(der).ok_or(BadEncoding)?;
    let now = i64::try_from(now.as_secs()).map_err(|_| Expired)?;
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Err(NotValidYet);
    }
    if now > validity.not_after.timestamp() {
        return Err(Expired);
    }
    Ok(())
}

/// Its serial number without leading zeros; `None` for what is no certificate.
pub(super) fn serial(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    Some(significant(read(der)?.raw_serial()).to_vec())
}

/// The serial numbers in lists of revoked certificates, in PEM or one in DER.
pub(super) fn revoked_serials(file: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let in_pem: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(file).collect();
    let lists = match in_pem {
        Ok(lists) if !lists.is_empty() => lists,
        _ => vec![CertificateRevocationListDer::from(file)],
    };
    let mut serials = Vec::new();
    for list in &lists {
        let (_, list) = CertificateRevocationList::from_der(list)
            .map_err(|error| format!("it is no list of revoked certificates: {error}"))?;
        let revoked = list.iter_revoked_certificates();
        serials.extend(revoked.map(|revoked| significant(revoked.raw_serial()).to_vec()));
    }
    Ok(serials)
}

fn read<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, read)| read)
}

fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};

    fn certificate(names: &[&str], common_name: Option<&str>) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.serial_number = Some(SerialNumber::from_slice(&[0x80, 1]));
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_says_whose_it_is() {
        let der = certificate(
            &["a.example", "*.b.example", "10.1.2.3", "::1"],
            Some("root"),
        );
        assert_eq!(common_name(&der), "root");
        let subjects = subjects(&der);
        assert_eq!(subjects.names, ["a.example", "*.b.example"]);
        let addresses: Vec<IpAddr> = vec!["10.1.2.3".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(subjects.addresses, addresses);
        for host in ["a.example", "x.b.example", "10.1.2.3", "::1", "[::1]"] {
            assert!(is_for(&der, host), "{host}");
        }
        for host in ["b.example", "x.y.b.example", "10.1.2.4", "", "root"] {
            assert!(!is_for(&der, host), "{host}");
        }
        assert_eq!(serial(&der), Some(vec![0x80, 1]), "without a sign's zero");
        assert_eq!(common_name(&certificate(&["a"], None)), "");
    }

    #[test]
    fn a_certificate_holds_for_a_time() {
        use rustls::CertificateError::{Expired, NotValidYet};
        let der = certificate(&["a"], None);
        let at = |secs| {
            check_time(
                &der,
                UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs)),
            )
        };
        assert_eq!(at(946_684_799), Err(NotValidYet));
        assert_eq!(at(946_684_800), Ok(()));
        assert_eq!(at(978_307_201), Err(Expired));
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        let junk = CertificateDer::from(vec![0x30, 3, 1, 2, 3]);
        assert_eq!((common_name(&junk), serial(&junk)), (String::new(), None));
        assert_eq!(subjects(&junk), Subjects::default());
        assert!(!is_for(&junk, "a"));
        assert!(
            revoked_serials(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----").is_err()
        );
        assert!(revoked_serials(b"").is_err());
    }
}
