//! Fetching files over HTTP(S): bounded, resumable, checked before they count; and Alpine's releases with it.
//!
//! # Trust
//! A file with a known SHA-256 can come from anywhere: what arrives is compared, and dropped if it differs. Without one, only an
//! https connection says anything about the file, also after redirects.
//!
//! # Resuming
//! What arrives goes to `<file>.part`, with the server's validator (ETag or Last-Modified) and the URL in `<file>.part.json`. The next
//! try asks for the rest under the condition that the validator still holds (`Range` with `If-Range`, RFC 9110 sections 13.1.5 and
//! 14.2); a server whose file has changed answers with all of the new one.
//!
//! No thread is started: ureq resolves names in one only if a timeout spans the resolution, so none does here.

pub mod alpine;
mod error;
mod part;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::http::{Response, StatusCode, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

pub use error::FetchError;

use crate::store::Digest;
use error::{classify, write_error};
use part::Part;

/// Where distributions keep their trusted certificates, as Go's `crypto/x509` looks for them (`root_linux.go`), and NixOS's.
pub const SYSTEM_CERTIFICATES: [&str; 7] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-bundle.crt",
];

/// Bytes of a certificate file: real ones have a quarter of a megabyte.
const MAX_CERTIFICATES: u64 = 8 << 20;

/// Bytes of an index or a checksum file.
pub const MAX_TEXT: u64 = 1 << 20;

/// How to reach servers. Everything comes from the caller: no environment variable is read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// URL of a proxy (`http://`, `https://`), for all requests but those to `no_proxy`.
    pub proxy: Option<String>,
    /// Names that are reached directly, in the usual form: commas between, `.example.org` for all below.
    pub no_proxy: Option<String>,
    /// PEM file with the trusted certificates. Without it: the first of [`SYSTEM_CERTIFICATES`], so that what the host's administrator
    /// trusts and distrusts holds; on a host with none, Mozilla's as they were when this program was built.
    pub certificates: Option<PathBuf>,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// How long a server may be silent.
    pub silence: Duration,
    /// How often one file is tried, each time going on where the last try ended.
    pub tries: u32,
    /// How long to wait before the second try; doubled for each further one.
    pub backoff: Duration,
}

impl Settings {
    /// For people who wait: gives up on a dead server within half a minute.
    #[must_use]
    pub const fn standard() -> Self {
        Self {
            proxy: None,
            no_proxy: None,
            certificates: None,
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            tries: 5,
            backoff: Duration::from_millis(250),
        }
    }
}

/// What has to hold of a file that is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It has this digest.
    Digest(Digest),
    /// It came over https from end to end.
    Https,
}

/// A fetched file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Digest of its content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Gets the bytes so far and, if the server says it, how many there will be.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

/// Fetches over HTTP and HTTPS.
#[derive(Debug)]
pub struct Fetcher {
    agent: ureq::Agent,
    settings: Settings,
}

impl Fetcher {
    /// A fetcher with these settings.
    ///
    /// # Errors
    /// [`FetchError::Proxy`], [`FetchError::Certificates`].
    pub fn new(settings: Settings) -> Result<Self, FetchError> {
        let config = ureq::Agent::config_builder()
            // Said in any case: ureq's default reads the environment.
            .proxy(proxy(&settings)?)
            .tls_config(TlsConfig::builder().root_certs(roots(settings.certificates.as_deref())?).build())
            .timeout_connect(Some(settings.connect))
            .timeout_recv_response(Some(settings.silence))
            .timeout_per_read(Some(settings.silence))
            .http_status_as_error(false)
            // The digest is that of the file, not of what a server makes of it on the way.
            .accept_encoding("identity")
            .user_agent(concat!("cellblock/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.into(), settings })
    }

    /// A small text, over https only: for what nothing else vouches for.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn text(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        self.text_by(url, Expect::Https)
    }

    fn text_by(&self, url: &str, expect: Expect) -> Result<Vec<u8>, FetchError> {
        let mut response = self.request(url, expect, None)?;
        check_status(url, response.status())?;
        let mut bytes = Vec::new();
        let body = response.body_mut().with_config().limit(MAX_TEXT + 1).reader();
        body.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(|e| classify(url, e.into()))?;
        if bytes.len() as u64 > MAX_TEXT {
            return Err(FetchError::TooLarge { url: url.to_owned(), limit: MAX_TEXT });
        }
        Ok(bytes)
    }

    /// Fetches `url` into `file`, which then is what `expect` asks for and at most `limit` bytes long. Another process that fetches the
    /// same file is waited for.
    ///
    /// # Errors
    /// See [`FetchError`]. After a broken connection the part stays for the next try; after a wrong checksum and on a full disk it is
    /// removed.
    pub fn fetch(
        &self,
        url: &str,
        file: &Path,
        expect: Expect,
        limit: u64,
        progress: Progress<'_>,
    ) -> Result<Fetched, FetchError> {
        let mut part = Part::lock(file)?;
        if let Some(fetched) = part.finished_by_another(expect)? {
            return Ok(fetched);
        }
        let mut resumed = part.resume(url)?;
        let fetched = loop {
            self.complete(url, &mut part, expect, limit, progress).or_else(|error| part.after(error))?;
            let fetched = part.digest()?;
            match expect {
                Expect::Digest(expected) if fetched.digest != expected => {
                    part.restart()?;
                    // What an earlier run had left may have been the wrong half: once more from the start.
                    if std::mem::take(&mut resumed) {
                        continue;
                    }
                    part.discard();
                    return Err(FetchError::Checksum { url: url.to_owned(), expected, got: fetched.digest });
                }
                Expect::Digest(_) | Expect::Https => break fetched,
            }
        };
        part.commit(file)?;
        Ok(fetched)
    }

    /// Tries until the part is complete.
    fn complete(
        &self,
        url: &str,
        part: &mut Part,
        expect: Expect,
        limit: u64,
        progress: Progress<'_>,
    ) -> Result<(), FetchError> {
        // A part that was complete already when a process was killed.
        if let Expect::Digest(expected) = expect
            && part.length() > 0
            && part.digest()?.digest == expected
        {
            return Ok(());
        }
        let mut backoff = self.settings.backoff;
        let mut tried = 1;
        loop {
            let before = part.length();
            match self.once(url, part, expect, limit, progress) {
                // That nothing is there is told at once, unless it just was.
                Err(error) if error.may_pass(part.length() > before || tried > 1) && tried < self.settings.tries => {
                    std::thread::sleep(backoff);
                    backoff = backoff.saturating_mul(2);
                    tried += 1;
                }
                result => return result,
            }
        }
    }

    /// One request.
    fn once(
        &self,
        url: &str,
        part: &mut Part,
        expect: Expect,
        limit: u64,
        progress: Progress<'_>,
    ) -> Result<(), FetchError> {
        let mut response = self.request(url, expect, part.range())?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response) == Some(part.length()) => {}
            // The whole: from the start, or because it has changed, or because the server does not do ranges.
            StatusCode::OK => part.begin(url, validator(&response))?,
            // Ranges were asked for, and what came does not fit what is here.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if part.length() > 0 => {
                part.restart()?;
                return self.once(url, part, expect, limit, progress);
            }
            status => return check_status(url, status),
        }
        let length = header_text(&response, header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let total = length.map(|length| part.length().saturating_add(length));
        let too_large = || FetchError::TooLarge { url: url.to_owned(), limit };
        if total.is_some_and(|total| total > limit) {
            return Err(too_large());
        }
        progress(part.length(), total);
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut pace = Pace::new(self.settings.silence);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => return Err(broken(url, part.length(), total, error)),
            };
            if part.length() + n as u64 > limit {
                return Err(too_large());
            }
            part.write_all(&buffer[..n]).map_err(|source| write_error(part.path(), source))?;
            progress(part.length(), total);
            if pace.too_slow(n as u64) {
                return Err(FetchError::Silent { url: url.to_owned() });
            }
        }
        match total {
            Some(total) if part.length() < total => {
                Err(FetchError::Cut { url: url.to_owned(), have: part.length(), total: Some(total) })
            }
            _ => Ok(()),
        }
    }

    fn request(
        &self,
        url: &str,
        expect: Expect,
        range: Option<(String, Option<String>)>,
    ) -> Result<Response<ureq::Body>, FetchError> {
        let mut request = self.agent.get(url).config().https_only(expect == Expect::Https).build();
        if let Some((range, validator)) = range {
            request = request.header(header::RANGE, range);
            if let Some(validator) = validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        request.call().map_err(|error| classify(url, error))
    }
}

/// What a body that ends in an error means.
fn broken(url: &str, have: u64, total: Option<u64>, error: io::Error) -> FetchError {
    match classify(url, error.into()) {
        FetchError::Unreachable { .. } => FetchError::Cut { url: url.to_owned(), have, total },
        other => other,
    }
}

fn check_status(url: &str, status: StatusCode) -> Result<(), FetchError> {
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(FetchError::NotFound { url: url.to_owned() }),
        status => Err(FetchError::Status { url: url.to_owned(), status: status.as_u16() }),
    }
}

fn header_text<B>(response: &Response<B>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// The first byte of a partial answer: `bytes 10-42/43`, RFC 9110 section 14.4.
fn starts_at<B>(response: &Response<B>) -> Option<u64> {
    header_text(response, header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// What `If-Range` may carry: a strong ETag, else a date (RFC 9110 section 13.1.5).
fn validator<B>(response: &Response<B>) -> Option<String> {
    let etag = header_text(response, header::ETAG).filter(|tag| tag.starts_with('"'));
    etag.or_else(|| header_text(response, header::LAST_MODIFIED)).map(str::to_owned)
}

/// Notices a server that sends just enough never to be silent.
struct Pace {
    window: Duration,
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// Bytes for each second: less is no download but a way to keep somebody waiting.
    const LEAST: u64 = 64;

    fn new(silence: Duration) -> Self {
        Self { window: silence, since: Instant::now(), bytes: 0 }
    }

    fn too_slow(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        let elapsed = self.since.elapsed();
        if elapsed < self.window {
            return false;
        }
        let slow = self.bytes < Self::LEAST * elapsed.as_secs().max(1);
        *self = Self::new(self.window);
        slow
    }
}

fn proxy(settings: &Settings) -> Result<Option<ureq::Proxy>, FetchError> {
    let Some(url) = settings.proxy.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
    // The URL may hold a password: it is not repeated in the error.
    let bad = |_| FetchError::Proxy;
    let plain = ureq::Proxy::new(url).map_err(bad)?;
    let Some(exceptions) = settings.no_proxy.as_deref() else { return Ok(Some(plain)) };
    let mut builder = ureq::Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(user) = plain.username() {
        builder = builder.username(user);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    for exception in exceptions.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        builder = builder.no_proxy(exception);
    }
    builder.build().map(Some).map_err(bad)
}

fn roots(chosen: Option<&Path>) -> Result<RootCerts, FetchError> {
    let read = |path: &Path| -> io::Result<Vec<Certificate<'static>>> {
        let mut pem = Vec::new();
        File::open(path)?.take(MAX_CERTIFICATES).read_to_end(&mut pem)?;
        // One that is broken does not take the others with it.
        Ok(ureq::tls::parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect())
    };
    if let Some(path) = chosen {
        let bad = |source| FetchError::Certificates { path: path.to_owned(), source };
        let certificates = read(path).map_err(bad)?;
        if certificates.is_empty() {
            return Err(bad(io::Error::new(io::ErrorKind::InvalidData, "no certificate in it")));
        }
        return Ok(RootCerts::new_with_certs(&certificates));
    }
    let system =
        SYSTEM_CERTIFICATES.iter().filter_map(|path| read(Path::new(path)).ok()).find(|found| !found.is_empty());
    Ok(system.map_or(RootCerts::WebPki, |certificates| RootCerts::new_with_certs(&certificates)))
}
