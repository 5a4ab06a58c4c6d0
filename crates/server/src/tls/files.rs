//! Files of certificates, keys and revoked serial numbers: read at start and again when they change.
//!
//! Owns what was last read well, and how a file's change is noticed: by its inode, size and times,
//! looked at before each handshake. Never watches, and never judges a certificate.
//!
//! F1. A file that has become bad changes nothing: what was last read well goes on holding, and one
//!     line in the log says which file and why.
//! F2. A file that changed while the clock's tick that it was read in still lasted is read again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::certificate;

/// A file whose name a flag gave.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// The flag, without dashes.
    pub(super) flag: String,
    pub(super) path: PathBuf,
}

impl Named {
    pub(super) fn new(flag: String, path: &Path) -> Self {
        let path = path.to_owned();
        Self { flag, path }
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        fs::read(&self.path).map_err(|error| self.refuse(&why(&error)))
    }

    fn refuse(&self, why: &str) -> String {
        format!("--{}: {}: {why}", self.flag, self.path.display())
    }
}

/// What Go says of the commonest failure, and the system of all others.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// How one value is made of its files.
type Read<T> = fn(&[Named]) -> Result<T, String>;

/// A value made of files, as they were when they were last good.
pub(super) struct Kept<T> {
    files: Vec<Named>,
    read: Read<T>,
    value: Arc<T>,
    /// What the files looked like when they were last read, good or bad.
    seen: Option<Vec<Stamp>>,
    complaint: Option<String>,
}

impl<T> Kept<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A sentence that names the flag and the file.
    pub(super) fn open(files: Vec<Named>, read: Read<T>) -> Result<Self, String> {
        let seen = stamps(&files);
        let value = Arc::new(read(&files)?);
        Ok(Self {
            files,
            read,
            value,
            seen,
            complaint: None,
        })
    }

    pub(super) fn value(&self) -> &Arc<T> {
        &self.value
    }

    /// Reads the files again if they may have changed; whether there is a new value.
    pub(super) fn refresh(&mut self) -> bool {
        let now = stamps(&self.files);
        if now.is_some() && now == self.seen {
            return false;
        }
        self.seen = now;
        match (self.read)(&self.files) {
            Ok(value) => {
                self.value = Arc::new(value);
                if self.complaint.take().is_some() {
                    tracing::info!(files = self.names(), "the files are good again");
                }
                true
            }
            // F1.
            Err(complaint) => {
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::error!("{complaint}; what was read from it before goes on holding");
                }
                self.complaint = Some(complaint);
                false
            }
        }
    }

    fn names(&self) -> String {
        let names = self
            .files
            .iter()
            .map(|file| file.path.display().to_string());
        names.collect::<Vec<_>>().join(", ")
    }
}

/// By which a file is told from its next content.
#[derive(Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Longer than a tick of any file system's clock.
const SETTLED: Duration = Duration::from_secs(2);

/// `None` if the files may change without a change of their stamps (F2), or one is not there.
fn stamps(files: &[Named]) -> Option<Vec<Stamp>> {
    let now = SystemTime::now();
    files
        .iter()
        .map(|file| {
            let data = fs::metadata(&file.path).ok()?;
            let changed = SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(u64::try_from(data.ctime()).ok()?))?;
            let settled = now.duration_since(changed).ok()? > SETTLED;
            settled.then(|| Stamp {
                device: data.dev(),
                inode: data.ino(),
                bytes: data.size(),
                modified: (data.mtime(), data.mtime_nsec()),
                changed: (data.ctime(), data.ctime_nsec()),
            })
        })
        .collect()
}

/// Reads a certificate with its chain, and its key.
pub(super) fn identity(files: &[Named]) -> Result<CertifiedKey, String> {
    let [cert_file, key_file] = files else {
        unreachable!("a certificate and a key are two files")
    };
    let chain = certificates(cert_file)?;
    let key = PrivateKeyDer::from_pem_slice(&key_file.bytes()?)
        .map_err(|_| key_file.refuse("it holds no private key in PEM that is not encrypted"))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
        let mismatch = matches!(error, rustls::Error::InconsistentKeys(_));
        if mismatch {
            let (cert, key) = (cert_file.path.display(), key_file.path.display());
            return format!(
                "--{} and --{}: tls: private key does not match public key ({key} is not the key \
                 of {cert})",
                key_file.flag, cert_file.flag
            );
        }
        key_file.refuse(&format!("the key cannot be used: {error}"))
    })
}

/// Reads the certificates of authorities; at least one.
pub(super) fn authorities(files: &[Named]) -> Result<Authorities, String> {
    let mut all = Authorities::none();
    for file in files {
        for certificate in certificates(file)? {
            let added = all.roots.add(certificate.clone());
            added.map_err(|error| file.refuse(&format!("a certificate is none: {error}")))?;
            all.certificates.push(certificate);
        }
    }
    Ok(all)
}

/// Those whose signatures are trusted.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) roots: rustls::RootCertStore,
    /// The same, whole: one of them may also be shown itself.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    fn none() -> Self {
        Self {
            roots: rustls::RootCertStore::empty(),
            certificates: Vec::new(),
        }
    }
}

/// Reads what the system trusts, leaving out what this server cannot read.
pub(super) fn system_authorities(files: &[Named]) -> Result<Authorities, String> {
    let mut all = Authorities::none();
    for file in files {
        let bytes = file.bytes()?;
        for certificate in CertificateDer::pem_slice_iter(&bytes).flatten() {
            if all.roots.add(certificate.clone()).is_ok() {
                all.certificates.push(certificate);
            }
        }
    }
    Ok(all)
}

/// The file in which the system keeps the authorities that it trusts.
pub(super) fn system_file() -> Option<PathBuf> {
    const PLACES: [&str; 5] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let mut places = named.into_iter().chain(PLACES.map(PathBuf::from));
    places.find(|path| path.is_file())
}

/// Reads the serial numbers of revoked certificates; several lists may stand in one file.
pub(super) fn revoked(files: &[Named]) -> Result<Revoked, String> {
    let mut all = Revoked::new();
    for file in files {
        let serials = certificate::revoked_serials(&file.bytes()?);
        all.extend(serials.map_err(|why| file.refuse(&why))?);
    }
    Ok(all)
}

/// Serial numbers without leading zeros.
pub(super) type Revoked = std::collections::HashSet<Vec<u8>>;

fn certificates(file: &Named) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = file.bytes()?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err(file.refuse("it holds no certificate in PEM")),
        Ok(all) => Ok(all),
        Err(error) => Err(file.refuse(&format!("it is no PEM: {error}"))),
    }
}
