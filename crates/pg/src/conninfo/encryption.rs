//! The `ssl…` keywords: which encryption is asked for, and whether it can give what it promises.

use std::path::PathBuf;

use pgmend_core::refusal::Refusal;

use super::settings::Settings;
use super::{Endpoint, Password, Place};
use crate::tls::{Negotiation, SslMode, TlsSettings, TlsVersion, TrustRoot};

const LOWEST: [(&str, TlsVersion); 4] = [
    ("TLSv1", TlsVersion::V12),
    ("TLSv1.1", TlsVersion::V12),
    ("TLSv1.2", TlsVersion::V12),
    ("TLSv1.3", TlsVersion::V13),
];
const HIGHEST: [(&str, TlsVersion); 2] = [("TLSv1.2", TlsVersion::V12), ("TLSv1.3", TlsVersion::V13)];

/// Judges the `ssl…` keywords together.
pub(super) fn tls_settings(
    settings: &Settings<'_>,
    endpoints: &[(Endpoint, Option<Password>)],
) -> Result<TlsSettings, Refusal> {
    let file = |keyword: &str, default: &str| match settings.text(keyword) {
        Some(path) => Some(PathBuf::from(path)),
        None => settings.home().map(|home| home.join(".postgresql").join(default)).filter(|path| path.exists()),
    };
    let root = match settings.text("sslrootcert") {
        Some("system") => TrustRoot::System,
        _ => file("sslrootcert", "root.crt").map_or(TrustRoot::None, TrustRoot::File),
    };
    let mode = mode(settings, &root, endpoints)?;
    let negotiation = [("postgres", Negotiation::Postgres), ("direct", Negotiation::Direct)];
    let negotiation = settings.choice("sslnegotiation", &negotiation)?.unwrap_or(Negotiation::Postgres);
    if negotiation == Negotiation::Direct && mode < SslMode::Require {
        return Err(settings.invalid("sslnegotiation", "direct TLS needs `sslmode=require` or stronger"));
    }
    // `require` would promise that the server asks for the certificate, which cannot be seen here.
    let offer = settings.choice("sslcertmode", &[("disable", false), ("allow", true)])?.unwrap_or(true);
    Ok(TlsSettings {
        mode,
        negotiation,
        root,
        certificate: file("sslcert", "postgresql.crt").filter(|_| offer),
        key: file("sslkey", "postgresql.key"),
        revoked: file("sslcrl", "root.crl"),
        send_name: settings.number::<i64>("sslsni")?.unwrap_or(1) != 0,
        lowest: settings.choice("ssl_min_protocol_version", &LOWEST)?.unwrap_or(TlsVersion::V12),
        highest: settings.choice("ssl_max_protocol_version", &HIGHEST)?.unwrap_or(TlsVersion::V13),
    })
}

/// `sslmode`, refused where it could not verify what it promises to verify.
fn mode(
    settings: &Settings<'_>,
    root: &TrustRoot,
    endpoints: &[(Endpoint, Option<Password>)],
) -> Result<SslMode, Refusal> {
    let default = if *root == TrustRoot::System { SslMode::VerifyFull } else { SslMode::Prefer };
    let mode = settings.choice("sslmode", &SslMode::WORDS)?.unwrap_or(default);
    if *root == TrustRoot::System && mode != SslMode::VerifyFull {
        return Err(settings
            .invalid("sslmode", "with `sslrootcert=system` anyone can get a trusted certificate: use verify-full"));
    }
    let by_tcp = endpoints.iter().any(|(endpoint, _)| !matches!(endpoint.place, Place::Socket(_)));
    if mode >= SslMode::VerifyCa && *root == TrustRoot::None && by_tcp {
        return Err(settings.invalid(
            "sslmode",
            "it needs a root certificate: set `sslrootcert` to its file or to `system`, or put it at ~/.postgresql/root.crt",
        ));
    }
    let nameless = endpoints.iter().any(|(endpoint, _)| matches!(endpoint.place, Place::Address { name: None, .. }));
    if mode == SslMode::VerifyFull && nameless {
        return Err(settings.invalid("sslmode", "it checks the server's name: set `host` beside `hostaddr`"));
    }
    Ok(mode)
}
