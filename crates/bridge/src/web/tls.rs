//! The certificate: files that a person gives, or one made here and kept.
//!
//! Invariants: certificate and key of our own stand in one file of mode 600 that appears whole or not at all; TLS 1.2 and 1.3 only. A certificate made
//! here does not expire, because boards start without a clock. Whoever looks at it compares its SHA-256, which the log tells. Refuses: files
//! without a certificate or a key.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eomt_edge_files::bounds;
use eomt_edge_files::files::read_bytes;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::options::Tls;

/// In the state directory.
const FILE: &str = "web-tls.pem";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("{}: cannot be read: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file that is made here.
    #[error("{}: the certificate cannot be kept there: {source}", .path.display())]
    Keep {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file with other content.
    #[error("{}: holds no {what} in PEM format: {why}", .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// The parser's words.
        why: String,
    },
    /// Certificate and key do not belong together, or the key is of an unknown kind.
    #[error("{}: cannot be used: {why}", .path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// rustls' words.
        why: String,
    },
    /// The certificate could not be made.
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// What serves TLS, and the certificate's SHA-256 as browsers show it; `None` for plain HTTP.
///
/// # Errors
/// [`TlsError`].
pub fn acceptor(tls: &Tls, names: &[String], address: IpAddr) -> Result<Option<(TlsAcceptor, String)>, TlsError> {
    let (cert, key) = match tls {
        Tls::Off => return Ok(None),
        Tls::Files(cert, key) => (cert.clone(), key.clone()),
        Tls::SelfMade(folder) => {
            let path = folder.join(FILE);
            if !path.exists() {
                make(&path, names, address)?;
            }
            (path.clone(), path)
        }
    };
    let chain = read(&cert)?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|why| content(&cert, "certificate", &why))?;
    let Some(first) = chain.first() else { return Err(content(&cert, "certificate", &"there is none")) };
    let print = fingerprint(first);
    let secret = PrivateKeyDer::from_pem_slice(&read(&key)?).map_err(|why| content(&key, "private key", &why))?;
    let unusable = |why: tokio_rustls::rustls::Error| TlsError::Unusable { path: cert.clone(), why: why.to_string() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some((TlsAcceptor::from(Arc::new(config)), print)))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    read_bytes(path, &bounds::CONFIGURATION).map_err(|source| TlsError::Read { path: path.into(), source })
}

fn content(path: &Path, what: &'static str, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content { path: path.into(), what, why: why.to_string() }
}

fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Makes certificate and key, ECDSA on P-256.
fn make(path: &Path, names: &[String], address: IpAddr) -> Result<(), TlsError> {
    let mut alternatives = names.to_vec();
    alternatives.extend(["127.0.0.1".into(), "::1".into()]);
    if !address.is_unspecified() && !address.is_loopback() {
        alternatives.push(address.to_string());
    }
    let mut params = rcgen::CertificateParams::new(alternatives)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "eomt-edge");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    keep(path, &format!("{}{}", certificate.pem(), key.serialize_pem())).map_err(|source| TlsError::Keep { path: path.into(), source })?;
    log::info!("{}: a certificate was made; delete the file for another one", path.display());
    Ok(())
}

/// Nobody but us may read it at any time, so its mode is there before its content.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("eomt-edge-web-tls-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_certificate_is_made_once_and_kept_secret() {
        let folder = folder("made");
        let make = || acceptor(&Tls::SelfMade(folder.clone()), &["localhost".into()], [192, 168, 0, 7].into()).unwrap().unwrap().1;
        let first = make();
        assert_eq!((first.len(), make()), (95, first), "32 bytes with colons, and the same after a restart");
        assert_eq!(fs::metadata(folder.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left behind");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn files_must_hold_what_they_should() {
        let folder = folder("files");
        acceptor(&Tls::SelfMade(folder.clone()), &["localhost".into()], [127, 0, 0, 1].into()).unwrap();
        let (good, empty, missing) = (folder.join(FILE), folder.join("empty"), folder.join("missing"));
        fs::write(&empty, "").unwrap();
        let sentence = |cert: &Path, key: &Path| match acceptor(&Tls::Files(cert.into(), key.into()), &[], [0, 0, 0, 0].into()) {
            Ok(_) => "fine".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(sentence(&good, &good), "fine");
        assert!(sentence(&empty, &good).contains("empty: holds no certificate"));
        assert!(sentence(&good, &empty).contains("empty: holds no private key"));
        assert!(sentence(&missing, &good).contains("missing: cannot be read"));
        let other = self::folder("other");
        acceptor(&Tls::SelfMade(other.clone()), &["localhost".into()], [127, 0, 0, 1].into()).unwrap();
        assert!(sentence(&good, &other.join(FILE)).contains("cannot be used"), "a key that belongs to another certificate");
        fs::remove_dir_all(folder).unwrap();
        fs::remove_dir_all(other).unwrap();
    }

    #[test]
    fn plain_http_needs_none() {
        assert!(acceptor(&Tls::Off, &[], [127, 0, 0, 1].into()).unwrap().is_none());
    }
}
