//! Certificates for a scenario: an authority and what it signs, as files in the scenario's folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

/// Who signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    pub(super) pem: String,
    /// Its certificate.
    pub(super) file: PathBuf,
}

/// A certificate and its key.
pub(super) struct Identity {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Authority {
    pub(super) fn new(dir: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = called(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        let file = dir.join(format!("{name}.pem"));
        fs::write(&file, &pem)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            dir: dir.to_owned(),
            pem,
            file,
        })
    }

    /// Signs for a common name, and for hosts and addresses; the files are named `file`.
    pub(super) fn sign(&self, file: &str, common_name: &str, hosts: &[&str]) -> Result<Identity> {
        self.sign_numbered(file, common_name, hosts, fastrand::u64(1..))
    }

    pub(super) fn sign_numbered(
        &self,
        file: &str,
        common_name: &str,
        hosts: &[&str],
        serial: u64,
    ) -> Result<Identity> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name = called(common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        let own = KeyPair::generate()?;
        let [cert, key] = ["crt", "key"].map(|end| self.dir.join(format!("{file}.{end}")));
        fs::write(&cert, params.signed_by(&own, &self.issuer)?.pem())?;
        fs::write(&key, own.serialize_pem())?;
        Ok(Identity { cert, key })
    }

    /// Writes the list of revoked certificates.
    pub(super) fn revoke(&self, serials: &[u64]) -> Result<PathBuf> {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2060, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.dir.join("revoked");
        // Newer etcds read DER alone.
        fs::write(&file, list.signed_by(&self.issuer)?.der())?;
        Ok(file)
    }
}

impl Identity {
    /// As the server's flags, for both ports, with a prefix for one.
    pub(super) fn flags(&self, prefix: &str) -> Vec<String> {
        vec![
            format!("--{prefix}cert-file={}", self.cert.display()),
            format!("--{prefix}key-file={}", self.key.display()),
        ]
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}
