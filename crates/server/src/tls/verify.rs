//! Whether the other side's certificate is accepted.
//!
//! The chain and the names are webpki's to check. Beyond it, as in etcd: a certificate that stands
//! itself among the trusted ones is trusted; a revoked serial number is refused, whoever signed it,
//! anywhere in the chain that is shown; and a list of common names or of hosts may have to hold one
//! of the certificate's.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::certificate;
use super::files::{Authorities, Revoked};

/// What is asked of a certificate besides a chain to an authority.
pub(super) struct Rules {
    pub(super) authorities: Arc<Authorities>,
    pub(super) revoked: Option<Arc<Revoked>>,
    pub(super) allowed_cns: Vec<String>,
    pub(super) allowed_hostnames: Vec<String>,
}

impl Rules {
    /// Whether the certificate itself is among the trusted ones and holds now.
    fn is_trusted_itself(&self, shown: &CertificateDer<'_>, now: UnixTime) -> Result<bool, Error> {
        let is_there = self.authorities.certificates.contains(shown);
        if is_there {
            certificate::check_time(shown, now)?;
        }
        Ok(is_there)
    }

    fn check(&self, shown: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        if let Some(revoked) = &self.revoked {
            for shown in std::iter::once(shown).chain(chain) {
                let serial = certificate::serial(shown).ok_or(CertificateError::BadEncoding)?;
                if revoked.contains(&serial) {
                    return Err(CertificateError::Revoked.into());
                }
            }
        }
        let named = self.allowed_cns.is_empty()
            || self.allowed_cns.contains(&certificate::common_name(shown));
        let mut hosts = self.allowed_hostnames.iter();
        let hosted =
            self.allowed_hostnames.is_empty() || hosts.any(|host| certificate::is_for(shown, host));
        if named && hosted {
            return Ok(());
        }
        // etcd: "client certificate authentication failed".
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

/// Judges what a client shows.
pub(super) struct OfClients {
    chain: Arc<dyn ClientCertVerifier>,
    rules: Rules,
}

impl OfClients {
    /// # Errors
    /// A sentence, when no authority is there.
    pub(super) fn new(rules: Rules, provider: &Arc<CryptoProvider>) -> Result<Arc<Self>, String> {
        let roots = Arc::new(rules.authorities.roots.clone());
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Arc::new(Self { chain, rules }))
    }
}

impl fmt::Debug for OfClients {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("OfClients")
    }
}

impl ClientCertVerifier for OfClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.rules.is_trusted_itself(shown, now)? {
            self.chain.verify_client_cert(shown, chain, now)?;
        }
        self.rules.check(shown, chain)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Judges what a member shows to whom connects.
pub(super) struct OfServers {
    /// `None` where certificates are made by each member itself: nobody vouches for them.
    chain: Option<(Arc<WebPkiServerVerifier>, Rules)>,
    provider: Arc<CryptoProvider>,
}

impl OfServers {
    /// # Errors
    /// A sentence, when no authority is there.
    pub(super) fn new(rules: Rules, provider: &Arc<CryptoProvider>) -> Result<Arc<Self>, String> {
        let roots = Arc::new(rules.authorities.roots.clone());
        let chain = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Arc::new(Self {
            chain: Some((chain, rules)),
            provider: provider.clone(),
        }))
    }

    /// Accepts any, as etcd does with `--peer-auto-tls`.
    pub(super) fn any(provider: &Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self {
            chain: None,
            provider: provider.clone(),
        })
    }
}

impl fmt::Debug for OfServers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("OfServers")
    }
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some((webpki, rules)) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        if rules.is_trusted_itself(shown, now)? {
            if !certificate::is_for(shown, &name.to_str()) {
                return Err(CertificateError::NotValidForName.into());
            }
        } else {
            webpki.verify_server_cert(shown, chain, name, ocsp, now)?;
        }
        rules.check(shown, chain)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
