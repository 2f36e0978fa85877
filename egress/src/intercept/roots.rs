//! Whom to trust: the host's root certificates, for us and for the cell.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::{Authority, provider};

/// Root certificates.
#[derive(Clone, Debug)]
pub struct Roots(Vec<CertificateDer<'static>>);

/// There are no roots, so nobody could be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no usable root certificate")]
pub struct NoRoots;

impl Roots {
    /// The certificates of a PEM file, such as `/etc/ssl/certs/ca-certificates.crt`. Everything else in it is left out, private keys above all: what
    /// [`Roots::bundle`] gives to a cell is made from certificates only.
    ///
    /// # Errors
    /// If there is none.
    pub fn from_pem(text: &[u8]) -> Result<Self, NoRoots> {
        Self::from_der(CertificateDer::pem_slice_iter(text).filter_map(Result::ok).collect())
    }

    /// The same from bytes, as `rustls-native-certs` gives them. Certificates that cannot be read are left out: what they would vouch for is refused.
    ///
    /// # Errors
    /// If there is none.
    pub fn from_der(mut certificates: Vec<CertificateDer<'static>>) -> Result<Self, NoRoots> {
        certificates.retain(|one| RootCertStore::empty().add(one.clone()).is_ok());
        if certificates.is_empty() { Err(NoRoots) } else { Ok(Self(certificates)) }
    }

    /// What the cell is to trust: these roots, and its authority. For a file that the variables of [`VARIABLES`] name.
    #[must_use]
    pub fn bundle(&self, authority: &Authority) -> String {
        let mut out = String::new();
        for certificate in &self.0 {
            pem(&mut out, certificate);
        }
        pem(&mut out, authority.certificate_der());
        out
    }

    /// How to be a client: TLS 1.2 and 1.3, servers verified against these roots, no certificate of our own, no early data, no log of keys.
    pub(super) fn client(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.0.iter().cloned());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// RFC 7468, section 2: lines of 64 characters.
fn pem(out: &mut String, der: &[u8]) {
    let text = STANDARD.encode(der);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{line}");
        rest = more;
    }
    out.push_str("-----END CERTIFICATE-----\n");
}

/// Variables by which tools are told of a bundle, each as its manual calls it. All but `NODE_EXTRA_CA_CERTS` and `DENO_CERT` replace what the tool
/// trusts otherwise, which is why the bundle has the host's roots as well.
pub const VARIABLES: &[&str] = &[
    // OpenSSL and what is built on it (Python's ssl, Ruby, Perl, PHP), Go, rustls-native-certs, uv.
    "SSL_CERT_FILE",
    // Python: requests, and all that is built on it.
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    // Node, npm, yarn, pnpm.
    "NODE_EXTRA_CA_CERTS",
    // The same where a `cafile` of an npmrc would make them forget the former.
    "NPM_CONFIG_CAFILE",
    "DENO_CERT",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    // gcloud.
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    // gRPC's C core, and with it Python, Ruby, PHP.
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
    // Elixir's package manager.
    "HEX_CACERTS_PATH",
    // Ruby's bundler.
    "BUNDLE_SSL_CA_CERT",
];
