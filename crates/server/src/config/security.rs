//! TLS: etcd's flags for it, and the rules between them.
//!
//! Owns the rows of the flags and what they mean together; reads no file. Whether a file holds what it
//! should is `server::tls`'s to say, when the server starts.
//!
//! Source: etcd's `transport.TLSInfo` and `embed` (sentences included); spec/v3-api.md §3.2, §3.3.

use std::path::PathBuf;

use super::draft::Draft;
use super::flags::{Flag, Kind, boolean, list, uint};
use super::in_force::flag;
use super::{ListenUrl, Scheme, Url};
use Kind::{Bool, List, Text, Uint};

/// How one port, and the connections that this member makes to other members, are secured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Transport {
    /// The server's certificate with its chain; set with `key_file` or not at all.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The certificate that is shown when connecting; without one, `cert_file`.
    pub client_cert_file: Option<PathBuf>,
    /// Its key.
    pub client_key_file: Option<PathBuf>,
    /// Whether a client must show a certificate, as it must if there is a `trusted_ca_file`.
    pub client_cert_auth: bool,
    /// Whose certificates are trusted; without it, the system's.
    pub trusted_ca_file: Option<PathBuf>,
    /// Serial numbers of certificates that are not accepted.
    pub crl_file: Option<PathBuf>,
    /// Common names of which a certificate must have one; empty for any.
    pub allowed_cns: Vec<String>,
    /// Names or addresses of which a certificate must be for one; empty for any.
    pub allowed_hostnames: Vec<String>,
    /// Whether the server makes its own certificate, if it has no other.
    pub auto: bool,
    /// Whether a certificate may be shown from an address that it does not name. Peers only.
    pub skip_client_san: bool,
}

impl Transport {
    /// Whether a client has to show a certificate.
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        self.client_cert_auth || self.trusted_ca_file.is_some()
    }
}

/// What TLS on either port may be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsChoice {
    /// Suites of TLS 1.2 by IANA's names, the best first; empty for all there are.
    pub cipher_suites: Vec<String>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The newest.
    pub max_version: TlsVersion,
    /// How long a certificate lasts that the server makes itself, in years of 365 days; not zero
    /// if one may be made.
    pub self_signed_years: u64,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

impl Default for TlsChoice {
    fn default() -> Self {
        Self {
            cipher_suites: Vec::new(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            self_signed_years: 1,
        }
    }
}

/// A row whose value is the name of a file.
macro_rules! file {
    ($name:literal, $versions:literal, $transport:ident.$field:ident, $doc:literal) => {
        flag($name, $versions, "", Text, $doc, |draft, value| {
            draft.config.$transport.$field = (!value.is_empty()).then(|| value.into());
            Ok(())
        })
    };
}

/// A row whose value is a boolean.
macro_rules! switch {
    ($name:literal, $versions:literal, $transport:ident.$field:ident, $doc:literal) => {
        flag($name, $versions, "false", Bool, $doc, |draft, value| {
            draft.config.$transport.$field = boolean(value)?;
            Ok(())
        })
    };
}

/// A row whose value is a list of names.
macro_rules! names {
    ($name:literal, $versions:literal, $transport:ident.$field:ident, $doc:literal) => {
        flag($name, $versions, "", List, $doc, |draft, value| {
            draft.config.$transport.$field = list(value);
            Ok(())
        })
    };
}

/// The rows, in the order of etcd's help.
#[rustfmt::skip]
pub(super) const TABLE: &[Flag] = &[
    file!("cert-file", "all", client_tls.cert_file,
        "The certificate for https client URLs, in PEM, with its chain. Read again when it changes."),
    file!("key-file", "all", client_tls.key_file, "The key of --cert-file, in PEM."),
    file!("client-cert-file", "from 3.5", client_tls.client_cert_file,
        "Checked as etcd does, and else unused: this server is no client of its own client port."),
    file!("client-key-file", "from 3.5", client_tls.client_key_file, "The key of --client-cert-file."),
    switch!("client-cert-auth", "all", client_tls.client_cert_auth,
        "Whether clients must show a certificate. --trusted-ca-file makes them, too."),
    file!("client-crl-file", "all", client_tls.crl_file,
        "Revoked certificates of clients, in PEM or DER. Read again when it changes."),
    names!("client-cert-allowed-hostname", "all", client_tls.allowed_hostnames,
        "Names of which a client's certificate must be for one."),
    names!("client-cert-allowed-cn", "Quorate", client_tls.allowed_cns,
        "Common names of which a client's certificate must have one; in etcd only in the file."),
    file!("trusted-ca-file", "all", client_tls.trusted_ca_file,
        "Who may sign clients' certificates; the system's authorities by default. Read again when it changes."),
    switch!("auto-tls", "all", client_tls.auto,
        "Makes a certificate for https client URLs, in fixtures/client of the data directory."),
    file!("peer-cert-file", "all", peer_tls.cert_file,
        "As --cert-file, for https peer URLs; also shown to other members."),
    file!("peer-key-file", "all", peer_tls.key_file, "The key of --peer-cert-file."),
    file!("peer-client-cert-file", "from 3.5", peer_tls.client_cert_file,
        "The certificate to show to other members, instead of --peer-cert-file."),
    file!("peer-client-key-file", "from 3.5", peer_tls.client_key_file, "The key of --peer-client-cert-file."),
    switch!("peer-client-cert-auth", "all", peer_tls.client_cert_auth,
        "Whether members must show a certificate. --peer-trusted-ca-file makes them, too."),
    file!("peer-crl-file", "all", peer_tls.crl_file, "As --client-crl-file, for members."),
    file!("peer-trusted-ca-file", "all", peer_tls.trusted_ca_file,
        "Who may sign members' certificates; the system's authorities by default."),
    names!("peer-cert-allowed-cn", "all", peer_tls.allowed_cns,
        "Common names of which a member's certificate must have one."),
    names!("peer-cert-allowed-hostname", "all", peer_tls.allowed_hostnames,
        "Names of which a member's certificate must be for one."),
    switch!("peer-auto-tls", "all", peer_tls.auto,
        "Makes a certificate for https peer URLs, in fixtures/peer, and trusts that of any member."),
    switch!("peer-skip-client-san-verification", "from 3.6", peer_tls.skip_client_san,
        "Whether a member's certificate may come from an address that it does not name."),
    switch!("experimental-peer-skip-client-san-verification", "3.4 to 3.6", peer_tls.skip_client_san,
        "The older name of --peer-skip-client-san-verification."),
    flag("self-signed-cert-validity", "from 3.5", "1", Uint,
        "Years that certificates of --auto-tls and --peer-auto-tls last.",
        |draft, value| { draft.config.tls.self_signed_years = uint(value)?; Ok(()) }),
    flag("cipher-suites", "all", "", List,
        "Suites of TLS 1.2, by IANA's names; those of TLS 1.3 are always on.",
        |draft, value| { draft.config.tls.cipher_suites = list(value); Ok(()) }),
    flag("tls-min-version", "from 3.5", "TLS1.2", Text, "The oldest TLS that is spoken: TLS1.2 or TLS1.3.",
        |draft, value| { draft.config.tls.min_version = version(value)?.unwrap_or(TlsVersion::Tls12); Ok(()) }),
    flag("tls-max-version", "from 3.5", "", Text, "The newest TLS that is spoken: TLS1.2 or TLS1.3.",
        |draft, value| { draft.config.tls.max_version = version(value)?.unwrap_or(TlsVersion::Tls13); Ok(()) }),
];

fn version(word: &str) -> Result<Option<TlsVersion>, String> {
    match word {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(TlsVersion::Tls12)),
        "TLS1.3" => Ok(Some(TlsVersion::Tls13)),
        _ => Err(format!(
            "unexpected TLS version {word:?} (must be one of: TLS1.2, TLS1.3)"
        )),
    }
}

/// The suites of TLS 1.2 that there are, by IANA's names.
pub(crate) const SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];
/// Those of TLS 1.3, which nobody chooses.
const SUITES_13: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];
/// Those that etcd knows and that are too weak to be here.
const WEAK_SUITES: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// Judges what was set for TLS, for the URLs that will be listened on.
///
/// # Errors
/// A sentence that names the flags that do not go together.
pub(super) fn judge(draft: &mut Draft, listen: &Listen<'_>) -> Result<(), String> {
    let (client, peer) = (
        draft.config.client_tls.clone(),
        draft.config.peer_tls.clone(),
    );
    for (prefix, transport) in [("", &client), ("peer-", &peer)] {
        check_pairs(prefix, transport)?;
        if transport.auto
            && transport.cert_file.is_none()
            && draft.config.tls.self_signed_years == 0
        {
            return Err(format!(
                "--{prefix}auto-tls: selfSignedCertValidity is invalid,it should be greater than 0 \
                 (--self-signed-cert-validity)"
            ));
        }
    }
    check_choice(draft)?;
    for (prefix, kind, urls, transport) in [
        ("", "client", listen.clients, &client),
        ("", "metrics", listen.metrics, &client),
        ("peer-", "peer", listen.peers, &peer),
    ] {
        for ListenUrl { url, .. } in urls {
            check_url(draft, (prefix, kind), url, transport)?;
        }
    }
    for (kind, transport) in [("client", &client), ("peer", &peer)] {
        if transport.auto && transport.cert_file.is_some() {
            draft.warn_once(format!("ignoring {kind} auto TLS since certs given"));
        }
    }
    Ok(())
}

/// Where the server will listen.
pub(super) struct Listen<'a> {
    pub(super) clients: &'a [ListenUrl],
    pub(super) peers: &'a [ListenUrl],
    pub(super) metrics: &'a [ListenUrl],
}

fn check_pairs(prefix: &str, transport: &Transport) -> Result<(), String> {
    for (name, cert, key) in [
        ("", &transport.cert_file, &transport.key_file),
        (
            "client-",
            &transport.client_cert_file,
            &transport.client_key_file,
        ),
    ] {
        let text = |path: &Option<PathBuf>| {
            let path = path.as_deref().unwrap_or("".as_ref());
            path.display().to_string()
        };
        if cert.is_some() != key.is_some() {
            return Err(format!(
                "--{prefix}{name}key-file and --{prefix}{name}cert-file must both be present\
                 [key: {}, cert: {}]",
                text(key),
                text(cert)
            ));
        }
    }
    if !transport.allowed_cns.is_empty() && !transport.allowed_hostnames.is_empty() {
        let prefix = if prefix.is_empty() { "client-" } else { prefix };
        return Err(format!(
            "--{prefix}cert-allowed-cn and --{prefix}cert-allowed-hostname are mutually exclusive \
             (cns={:?}, hostnames={:?})",
            transport.allowed_cns, transport.allowed_hostnames
        ));
    }
    Ok(())
}

fn check_choice(draft: &mut Draft) -> Result<(), String> {
    let choice = draft.config.tls.clone();
    let (min, max) = (choice.min_version, choice.max_version);
    if min > max {
        return Err(format!(
            "min version ({}) is greater than max version ({})",
            min.word(),
            max.word()
        ));
    }
    if min == TlsVersion::Tls13 && !choice.cipher_suites.is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
    }
    let mut suites = Vec::new();
    for name in &choice.cipher_suites {
        // Go's older names for two of them.
        let iana = match name.ends_with("CHACHA20_POLY1305") {
            true => format!("{name}_SHA256"),
            false => name.clone(),
        };
        if SUITES.contains(&iana.as_str()) {
            suites.push(iana);
        } else if WEAK_SUITES.contains(&iana.as_str()) {
            draft.warn_once(format!(
                "--cipher-suites: {name} is not in Quorate, which has no suite without \
                 forward secrecy and authenticated encryption"
            ));
        } else if !SUITES_13.contains(&iana.as_str()) {
            return Err(format!("unexpected TLS cipher suite {name:?}"));
        }
    }
    if suites.is_empty() && !choice.cipher_suites.is_empty() && max == TlsVersion::Tls12 {
        return Err("--cipher-suites leaves none for TLS 1.2".to_owned());
    }
    // With none of TLS 1.2 chosen, it is not spoken.
    if suites.is_empty() && !choice.cipher_suites.is_empty() {
        draft.config.tls.min_version = TlsVersion::Tls13;
    }
    draft.config.tls.cipher_suites = suites;
    Ok(())
}

fn check_url(
    draft: &mut Draft,
    (prefix, kind): (&str, &str),
    url: &Url,
    transport: &Transport,
) -> Result<(), String> {
    let has_certificate = transport.cert_file.is_some() || transport.auto;
    match url.scheme {
        Scheme::Https if !has_certificate => Err(format!(
            "TLS key/cert (--{prefix}cert-file, --{prefix}key-file) must be provided for {kind} \
             url {url} with HTTPS scheme"
        )),
        Scheme::Https => Ok(()),
        Scheme::Http if kind == "metrics" => Ok(()),
        Scheme::Http => {
            let flag = match prefix {
                "" => "client-cert-auth",
                _ => "peer-client-cert-auth",
            };
            if has_certificate {
                draft.warn_once(format!(
                    "scheme is HTTP while key and cert files are present; ignoring key and cert \
                     files ({kind}-url {url})"
                ));
            }
            if transport.asks_for_certificates() {
                draft.warn_once(format!(
                    "scheme is HTTP while --{flag} is enabled; ignoring client cert auth for this \
                     URL ({kind}-url {url})"
                ));
            }
            Ok(())
        }
    }
}

impl TlsVersion {
    fn word(self) -> &'static str {
        match self {
            Self::Tls12 => "TLS1.2",
            Self::Tls13 => "TLS1.3",
        }
    }
}
