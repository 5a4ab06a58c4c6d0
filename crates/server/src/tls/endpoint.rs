//! One side of TLS: what its flags and files make of a handshake, now.
//!
//! Owns the files of one [`Transport`] and the two configurations made of them, one to be connected
//! to and one to connect with. Each is made again when a file has changed; connections that are open
//! keep what they have agreed on.
//!
//! E1. No session outlives the files that it was agreed on under: where clients show certificates,
//!     none is resumed, so that each handshake sees the newest authorities and revocations.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::files::{self, Authorities, Kept, Named, Revoked};
use super::verify::{OfClients, OfServers, Rules};
use crate::config::{TlsChoice, TlsVersion, Transport};

/// Where a certificate is found that is nobody's flag's.
pub(super) type Files = (PathBuf, PathBuf);

/// One port's TLS.
pub(super) struct Endpoint {
    transport: Transport,
    /// Made by this server itself: members then trust any.
    self_signed: bool,
    versions: Vec<&'static SupportedProtocolVersion>,
    provider: Arc<CryptoProvider>,
    state: Mutex<State>,
}

struct State {
    identity: Option<Kept<CertifiedKey>>,
    /// What is shown when connecting, if it is not `identity`.
    other_identity: Option<Kept<CertifiedKey>>,
    authorities: Option<Kept<Authorities>>,
    revoked: Option<Kept<Revoked>>,
    server: Option<Arc<ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// Reads all files. `prefix` is what its flags begin with; `made` is a certificate of its own.
    ///
    /// # Errors
    /// A sentence that names the flag and the file.
    pub(super) fn open(
        prefix: &str,
        transport: &Transport,
        choice: &TlsChoice,
        made: Option<Files>,
    ) -> Result<Self, String> {
        let self_signed = made.is_some();
        let made = made.map(|(cert, key)| (format!("{prefix}auto-tls"), cert, key));
        let pair = |cert: &str, key: &str, files: Option<(&Path, &Path)>| {
            files.map(|(cert_file, key_file)| {
                vec![
                    Named::new(format!("{prefix}{cert}"), cert_file),
                    Named::new(format!("{prefix}{key}"), key_file),
                ]
            })
        };
        let own = match &made {
            Some((flag, cert, key)) => Some(vec![
                Named::new(flag.clone(), cert),
                Named::new(flag.clone(), key),
            ]),
            None => pair(
                "cert-file",
                "key-file",
                both(&transport.cert_file, &transport.key_file),
            ),
        };
        let other = pair(
            "client-cert-file",
            "client-key-file",
            both(&transport.client_cert_file, &transport.client_key_file),
        );
        let keep = |files: Option<Vec<Named>>| {
            files
                .map(|files| Kept::open(files, files::identity))
                .transpose()
        };
        let state = State {
            identity: keep(own)?,
            other_identity: keep(other)?,
            authorities: open_authorities(prefix, transport)?,
            revoked: open_revoked(prefix, transport)?,
            server: None,
            client: None,
        };
        let endpoint = Self {
            transport: transport.clone(),
            self_signed,
            versions: versions(choice),
            provider: Arc::new(provider(choice)),
            state: Mutex::new(state),
        };
        if endpoint.state().identity.is_some() {
            endpoint.server()?;
        }
        Ok(endpoint)
    }

    /// How to answer who connects, by the files as they are now.
    ///
    /// # Errors
    /// A sentence, for what is wrong since the start and cannot be kept as it was.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, String> {
        let mut state = self.state();
        state.refresh();
        if state.server.is_none() {
            state.server = Some(Arc::new(self.make_server(&mut state)?));
        }
        Ok(state.server.clone().expect("it was made just now"))
    }

    /// How to connect to a member, by the files as they are now.
    ///
    /// # Errors
    /// As [`Self::server`].
    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let mut state = self.state();
        state.refresh();
        if state.client.is_none() {
            state.client = Some(Arc::new(self.make_client(&mut state)?));
        }
        Ok(state.client.clone().expect("it was made just now"))
    }

    /// Whether a certificate must name the address that it is shown from.
    pub(super) fn checks_address(&self) -> bool {
        !self.transport.skip_client_san
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it reads the files")
    }

    fn make_server(&self, state: &mut State) -> Result<ServerConfig, String> {
        let identity = state.identity.as_ref().expect("only who has one listens");
        let identity = SingleCertAndKey::from(CertifiedKey::clone(identity.value()));
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&self.versions)
            .map_err(|error| error.to_string())?;
        let asks = self.transport.asks_for_certificates();
        let builder = match asks {
            false => builder.with_no_client_auth(),
            true => {
                let rules = self.rules(state)?;
                builder.with_client_cert_verifier(OfClients::new(rules, &self.provider)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(identity));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if asks {
            // E1.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }

    fn make_client(&self, state: &mut State) -> Result<ClientConfig, String> {
        let verifier = match self.self_signed {
            true => OfServers::any(&self.provider),
            false => OfServers::new(self.rules(state)?, &self.provider)?,
        };
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&self.versions)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let identity = state.other_identity.as_ref().or(state.identity.as_ref());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let identity = SingleCertAndKey::from(CertifiedKey::clone(identity.value()));
                builder.with_client_cert_resolver(Arc::new(identity))
            }
        };
        // Members speak to one another over an upgraded HTTP/1.1.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    fn rules(&self, state: &mut State) -> Result<Rules, String> {
        if state.authorities.is_none() {
            let file =
                files::system_file().ok_or("the system has no list of trusted authorities")?;
            let files = vec![Named::new("trusted-ca-file".to_owned(), &file)];
            state.authorities = Some(Kept::open(files, files::system_authorities)?);
        }
        let authorities = state.authorities.as_ref().expect("it was read just now");
        Ok(Rules {
            authorities: authorities.value().clone(),
            revoked: state
                .revoked
                .as_ref()
                .map(|revoked| revoked.value().clone()),
            allowed_cns: self.transport.allowed_cns.clone(),
            allowed_hostnames: self.transport.allowed_hostnames.clone(),
        })
    }
}

impl State {
    /// Lets go of what was made of files that have changed.
    fn refresh(&mut self) {
        let changed = [
            self.identity.as_mut().is_some_and(Kept::refresh),
            self.other_identity.as_mut().is_some_and(Kept::refresh),
            self.authorities.as_mut().is_some_and(Kept::refresh),
            self.revoked.as_mut().is_some_and(Kept::refresh),
        ];
        if changed.contains(&true) {
            self.server = None;
            self.client = None;
        }
    }
}

fn both<'a>(cert: &'a Option<PathBuf>, key: &'a Option<PathBuf>) -> Option<(&'a Path, &'a Path)> {
    Some((cert.as_deref()?, key.as_deref()?))
}

fn open_authorities(
    prefix: &str,
    transport: &Transport,
) -> Result<Option<Kept<Authorities>>, String> {
    let Some(path) = &transport.trusted_ca_file else {
        return Ok(None);
    };
    let files = vec![Named::new(format!("{prefix}trusted-ca-file"), path)];
    Kept::open(files, files::authorities).map(Some)
}

fn open_revoked(prefix: &str, transport: &Transport) -> Result<Option<Kept<Revoked>>, String> {
    let Some(path) = &transport.crl_file else {
        return Ok(None);
    };
    let flag = match prefix {
        "" => "client-crl-file".to_owned(),
        prefix => format!("{prefix}crl-file"),
    };
    Kept::open(vec![Named::new(flag, path)], files::revoked).map(Some)
}

fn versions(choice: &TlsChoice) -> Vec<&'static SupportedProtocolVersion> {
    let all = [
        (TlsVersion::Tls13, &rustls::version::TLS13),
        (TlsVersion::Tls12, &rustls::version::TLS12),
    ];
    all.into_iter()
        .filter(|(version, _)| (choice.min_version..=choice.max_version).contains(version))
        .map(|(_, version)| version)
        .collect()
}

/// The cryptography, with the chosen suites of TLS 1.2 in the order in which they were chosen.
fn provider(choice: &TlsChoice) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if choice.cipher_suites.is_empty() {
        return provider;
    }
    let all = std::mem::take(&mut provider.cipher_suites);
    provider.cipher_suites = all
        .iter()
        .filter(|suite| suite.tls13().is_some())
        .copied()
        .collect();
    for chosen in &choice.cipher_suites {
        let suite = all
            .iter()
            .find(|suite| suite.tls13().is_none() && iana(suite) == *chosen);
        provider.cipher_suites.extend(suite.copied());
    }
    provider
}

/// A suite's name as IANA has it.
fn iana(suite: &rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SUITES;

    #[test]
    fn every_suite_that_can_be_chosen_is_there() {
        for name in SUITES {
            let choice = TlsChoice {
                cipher_suites: vec![name.to_owned()],
                ..TlsChoice::default()
            };
            let names: Vec<_> = provider(&choice).cipher_suites.iter().map(iana).collect();
            assert_eq!(names.last().map(String::as_str), Some(name));
            assert_eq!(names.len(), 4, "{names:?}");
        }
    }

    #[test]
    fn versions_are_those_between() {
        let spoken = |min_version, max_version| {
            let choice = TlsChoice {
                min_version,
                max_version,
                ..TlsChoice::default()
            };
            versions(&choice).len()
        };
        use TlsVersion::{Tls12, Tls13};
        assert_eq!(spoken(Tls12, Tls13), 2);
        assert_eq!(spoken(Tls13, Tls13), 1);
        assert_eq!(spoken(Tls12, Tls12), 1);
    }
}
