//! Certificates that a server makes for itself: `--auto-tls` and `--peer-auto-tls`.
//!
//! They stand where etcd puts its own, in `fixtures/client` and `fixtures/peer` of the data
//! directory, and are used again at the next start; one of etcd's is as good.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::config::ListenUrl;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Dates end with the year 9999.
const MOST_YEARS: u64 = 1_000;

/// The certificate and the key in `directory`, made now unless both are there.
pub(super) fn ensure(
    directory: &Path,
    urls: &[ListenUrl],
    years: u64,
) -> Result<(PathBuf, PathBuf), String> {
    let refuse = |what: &str, why: &dyn std::fmt::Display| {
        format!("cannot {what} in {}: {why}", directory.display())
    };
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    let (cert_pem, key_pem) =
        make(urls, years).map_err(|error| refuse("make a certificate", &error))?;
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.and_then(|()| write(&key, &key_pem, 0o600))
        .and_then(|()| write(&cert, &cert_pem, 0o644))
        .map_err(|error| refuse("write the certificate", &error))?;
    tracing::warn!(
        path = %cert.display(),
        years,
        "automatically generate certificates: clients that do not have this one cannot verify it"
    );
    Ok((cert, key))
}

fn make(urls: &[ListenUrl], years: u64) -> Result<(String, String), rcgen::Error> {
    let mut hosts: Vec<String> = Vec::new();
    for ListenUrl { url, .. } in urls {
        let host = url.host.trim_start_matches('[').trim_end_matches(']');
        if !hosts.iter().any(|there| there == host) {
            hosts.push(host.to_owned());
        }
    }
    let mut params = CertificateParams::new(hosts)?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = rcgen::date_time_ymd(1970, 1, 1) + since.unwrap_or_default();
    params.not_before = now;
    params.not_after = now + YEAR * u32::try_from(years.min(MOST_YEARS)).unwrap_or(1);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "etcd");
    // An authority as well, so that it can be given to clients as theirs.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
