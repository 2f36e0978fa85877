//! The certificate authority of one cell.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
    SerialNumber,
};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::{self, ServerConfig};

use super::{ALPN, provider};
use crate::name::{Name, Pattern};

/// The cell's authority: it speaks for the names of its patterns and for nothing else, and its key is in no file. Whoever got hold of the key could
/// deceive this one cell, about these names.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: KeyPair,
    hosts: Vec<Pattern>,
    provider: Arc<CryptoProvider>,
    leaves: Mutex<Leaves>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Without names there would be no constraint either: RFC 5280 reads a missing list as "any".
    #[error("an authority needs names it speaks for")]
    NoHosts,
    /// An authority for every name is more than anybody should trust.
    #[error("not every name (`**`) can be looked into: write the hosts that are meant")]
    Everything,
    /// The name lies outside of the authority's constraints; clients would refuse the certificate anyway.
    #[error("{0} is none of the names this authority speaks for")]
    NotCovered(Name),
    /// No certificate could be made.
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    /// The certificate could not be used.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The machine gave no random numbers.
    #[error("there are no random numbers")]
    Random,
}

/// The leaves that were used last. A glob can stand for any number of names, and a cell may ask for all of them.
#[derive(Default)]
struct Leaves {
    clock: u64,
    by_name: HashMap<Name, (u64, Arc<ServerConfig>)>,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Authority {
    /// Most leaves that are kept; the one not used for longest goes first.
    pub const LEAVES: usize = 256;

    /// A new authority for `hosts`, valid from a day ago for a year.
    ///
    /// # Errors
    /// No hosts, or no random numbers.
    pub fn new(hosts: &[Pattern]) -> Result<Self, AuthorityError> {
        if hosts.is_empty() {
            return Err(AuthorityError::NoHosts);
        }
        if hosts.contains(&Pattern::Any) {
            return Err(AuthorityError::Everything);
        }
        let provider = provider();
        let mut params = params(&provider, "cellblock: authority of one cell")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(constraints(hosts));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self { issuer, key, hosts: hosts.to_vec(), provider, leaves: Mutex::default() })
    }

    /// The authority's certificate, which the cell is to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// The same, as bytes.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        self.issuer.der()
    }

    /// Whether it speaks for `name`.
    #[must_use]
    pub fn covers(&self, name: &Name) -> bool {
        self.hosts.iter().any(|host| host.matches(name))
    }

    /// What to be for the clients that ask for `name`.
    pub(super) fn leaf(&self, name: &Name) -> Result<Arc<ServerConfig>, AuthorityError> {
        if !self.covers(name) {
            return Err(AuthorityError::NotCovered(name.clone()));
        }
        if let Some(found) = self.leaves().find(name) {
            return Ok(found);
        }
        let made = Arc::new(self.sign(name)?);
        self.leaves().keep(name, &made);
        Ok(made)
    }

    /// A configuration with a new certificate for `name`, whatever name that is.
    pub(super) fn sign(&self, name: &Name) -> Result<ServerConfig, AuthorityError> {
        // No common name: it may have 64 characters only, and nobody looks at it where there is an alternative name (RFC 9525, section 2).
        let mut params = params(&self.provider, "cellblock: stands in for the server")?;
        params.subject_alt_names = vec![rcgen::SanType::DnsName(name.as_str().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.into())?;
        config.alpn_protocols = ALPN.iter().map(|p| p.to_vec()).collect();
        // A handshake costs less than a store of sessions for every name would.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    fn leaves(&self) -> std::sync::MutexGuard<'_, Leaves> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.leaves().by_name.len()
    }
}

impl Leaves {
    fn find(&mut self, name: &Name) -> Option<Arc<ServerConfig>> {
        self.clock += 1;
        let (used, config) = self.by_name.get_mut(name)?;
        *used = self.clock;
        Some(Arc::clone(config))
    }

    fn keep(&mut self, name: &Name, config: &Arc<ServerConfig>) {
        if self.by_name.len() >= Authority::LEAVES {
            let oldest = self.by_name.iter().min_by_key(|(_, (used, _))| *used).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.by_name.remove(&name));
        }
        self.by_name.insert(name.clone(), (self.clock, Arc::clone(config)));
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// What all certificates here have in common.
fn params(provider: &CryptoProvider, organization: &str) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organization);
    params.distinguished_name = name;
    // rcgen derives serials from the key, and leaves that share a key would share theirs: NSS refuses the second one.
    let mut serial = [0; 16];
    provider.secure_random.fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + 365 * DAY;
    Ok(params)
}

/// What the authority may sign. A list of permitted names leaves other *kinds* of names alone (RFC 5280, section 4.2.1.10), so addresses are
/// excluded in words of their own; other kinds mean nothing for a server.
///
/// `*.example.com` permits `example.com` too: a constraint has no way to say "only what is below" that all clients read (RFC 5280 knows leading
/// dots for URIs only). [`Authority::covers`] is exact.
fn constraints(hosts: &[Pattern]) -> NameConstraints {
    let name = |host: &Pattern| match host {
        Pattern::Exact(name) | Pattern::Below(name) => Some(name.to_string()),
        Pattern::Any => None,
    };
    let mut names: Vec<_> = hosts.iter().filter_map(name).collect();
    names.sort();
    names.dedup();
    NameConstraints {
        permitted_subtrees: names.into_iter().map(GeneralSubtree::DnsName).collect(),
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ],
    }
}
