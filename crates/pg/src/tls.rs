//! TLS as libpq does it, on rustls: what is verified depends on `sslmode` and on whether there is a
//! root certificate.
//!
//! | mode | without a root | with a root |
//! |---|---|---|
//! | allow, prefer, require | encrypts, verifies nothing | verifies the chain |
//! | verify-ca | refused | verifies the chain |
//! | verify-full | refused | verifies chain and name |
//!
//! The name is looked for in `subjectAltName` only, not in the common name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};

/// `sslmode`, from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub(crate) const WORDS: [(&'static str, SslMode); 6] = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
}

/// How TLS starts: after asking PostgreSQL for it, or at once (PostgreSQL 17 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Negotiation {
    Postgres,
    Direct,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TlsVersion {
    V12,
    V13,
}

/// Whom a server's certificate must descend from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TrustRoot {
    None,
    System,
    File(PathBuf),
}

/// The judged `ssl…` keywords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) mode: SslMode,
    pub(crate) negotiation: Negotiation,
    pub(crate) root: TrustRoot,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) revoked: Option<PathBuf>,
    pub(crate) send_name: bool,
    pub(crate) lowest: TlsVersion,
    pub(crate) highest: TlsVersion,
}

/// A sentence on why TLS cannot be set up.
pub(crate) type TlsProblem = String;

/// The rustls configuration of these settings; reads the certificate files.
pub(crate) fn client_config(settings: &TlsSettings) -> Result<ClientConfig, TlsProblem> {
    // Named here and not installed as the process's default: the program that embeds us may have its own.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier::new(settings, &provider)?);
    let versions: Vec<_> = [(TlsVersion::V13, &rustls::version::TLS13), (TlsVersion::V12, &rustls::version::TLS12)]
        .into_iter()
        .filter(|(version, _)| settings.lowest <= *version && *version <= settings.highest)
        .map(|(_, version)| version)
        .collect();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| format!("cannot use the TLS versions that were asked for: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &settings.certificate {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let key = client_key(settings)?;
            builder.with_client_auth_cert(certificates(path)?, key).map_err(|error| {
                format!("cannot use the client certificate {} with its key: {error}", path.display())
            })?
        }
    };
    // PostgreSQL 17 and later demand this protocol name when TLS starts at once.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    config.enable_sni = settings.send_name;
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let unreadable = |error| format!("cannot read the certificate {}: {error}", path.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(unreadable)?;
    if found.is_empty() {
        return Err(format!("there is no PEM certificate in {}", path.display()));
    }
    Ok(found)
}

/// The client's key, which others must not be able to read (root may share it with its group).
fn client_key(settings: &TlsSettings) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let Some(path) = &settings.key else {
        return Err("there is a client certificate but no key; set `sslkey`".to_owned());
    };
    if open_to_others(path)? {
        return Err(format!("the client key {0} is readable by others; run `chmod 0600 {0}`", path.display()));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        format!("cannot read the client key {}: {error} (encrypted keys are not supported)", path.display())
    })
}

#[cfg(unix)]
fn open_to_others(path: &Path) -> Result<bool, TlsProblem> {
    use std::os::unix::fs::MetadataExt;
    let metadata =
        std::fs::metadata(path).map_err(|error| format!("cannot read the client key {}: {error}", path.display()))?;
    let forbidden = if metadata.uid() == 0 { 0o027 } else { 0o077 };
    Ok(metadata.mode() & forbidden != 0)
}

#[cfg(not(unix))]
fn open_to_others(_: &Path) -> Result<bool, TlsProblem> {
    Ok(false)
}

/// Verifies as much of a server's certificate as the settings ask for.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of the root file, byte by byte.
    trusted: Vec<CertificateDer<'static>>,
    check_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Self, TlsProblem> {
        let (trusted, source) = match &settings.root {
            TrustRoot::None => (Vec::new(), None),
            TrustRoot::System => {
                (rustls_native_certs::load_native_certs().certs, Some("the system's certificate store".to_owned()))
            }
            TrustRoot::File(path) => (certificates(path)?, Some(path.display().to_string())),
        };
        let chain = match source {
            None => None,
            Some(source) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(trusted.iter().cloned());
                let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .with_crls(revocations(settings.revoked.as_deref())?);
                Some(builder.build().map_err(|error| format!("cannot trust {source}: {error}"))?)
            }
        };
        // The shortcut for self-signed servers is for files that somebody chose for this server.
        let trusted = if settings.root == TrustRoot::System { Vec::new() } else { trusted };
        let check_name = settings.mode == SslMode::VerifyFull;
        Ok(Self { chain, trusted, check_name, algorithms: provider.signature_verification_algorithms })
    }
}

fn revocations(path: Option<&Path>) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsProblem> {
    let Some(path) = path else { return Ok(Vec::new()) };
    CertificateRevocationListDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("cannot read the revocation list {}: {error}", path.display()))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is checked last, so everything else is proved.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            Err(error) if is_self_signed_authority(&error) && self.trusted.contains(end_entity) => {
                if self.check_name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    // Signatures are checked in every mode: channel binding relies on the server holding its key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether the only objection is that a server uses an authority's certificate as its own, as the
/// usual `openssl req -x509` certificate does. OpenSSL accepts that if the very certificate is
/// trusted. Validity in time is checked before this objection is made.
fn is_self_signed_authority(error: &rustls::Error) -> bool {
    // The objection's own type belongs to a crate below rustls; a test holds on to this name.
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other)) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}
