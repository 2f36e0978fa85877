//! Why a file could not be fetched.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::Digest;

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No connection: no network, an unknown name, or nobody listens.
    #[error("cannot reach the server of {url}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// In the words of the system.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server proved to be somebody else, or did not prove who it is.
    #[error("the server of {url} cannot be trusted")]
    Tls {
        /// What was asked for.
        url: String,
        /// What is wrong with its certificate or its TLS.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection, or a redirect, is not encrypted, and nothing else vouches for the content.
    #[error("{url} is not encrypted and no checksum is known: whoever is on the way could replace it")]
    NotEncrypted {
        /// What was asked for, or where it led to.
        url: String,
    },
    /// The server does not have it.
    #[error("{url} does not exist")]
    NotFound {
        /// What was asked for.
        url: String,
    },
    /// The server has another answer.
    #[error("{url}: the server answers with status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status code.
        status: u16,
    },
    /// The server, or the proxy, does not speak HTTP as it should.
    #[error("{url}: the answer is not understood")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server says nothing, or next to nothing.
    #[error("{url}: the server stopped answering")]
    Silent {
        /// What was asked for.
        url: String,
    },
    /// The connection was cut. What has arrived is kept, the next try goes on there.
    #[error("{url}: the connection was cut after {have} bytes{of}", of = .total.map(|t| format!(" of {t}")).unwrap_or_default())]
    Cut {
        /// What was asked for.
        url: String,
        /// Bytes that are here.
        have: u64,
        /// Bytes there should be, if the server said.
        total: Option<u64>,
    },
    /// The content is another one. It has been deleted.
    #[error("{url} has the wrong checksum: expected {expected}, got {got}")]
    Checksum {
        /// What was asked for.
        url: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        got: Digest,
    },
    /// There is more than there may be. What had arrived has been deleted.
    #[error("{url} is larger than the {limit} bytes allowed")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// Most bytes.
        limit: u64,
    },
    /// The file system is full or a quota is used up. What had arrived has been deleted.
    #[error("no space left on the file system of {path}", path = path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The proxy's URL is none, or of a kind that is not supported.
    #[error("the proxy's URL is not one (http://[USER:PASSWORD@]HOST:PORT)")]
    Proxy,
    /// The certificate file that was asked for is of no use.
    #[error("cannot read trusted certificates from {path}", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl FetchError {
    /// Whether another try may go better. `began`: bytes have come already, so the network is there.
    pub(super) const fn may_pass(&self, began: bool) -> bool {
        match self {
            Self::Cut { .. } | Self::Silent { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Unreachable { .. } => began,
            _ => false,
        }
    }

    /// Whether what has arrived is of no use any more.
    pub(super) const fn spoils(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::NoSpace { .. })
    }
}

/// What a failed write means.
pub(super) fn write_error(path: &Path, source: io::Error) -> FetchError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FetchError::NoSpace { path: path.to_owned() },
        _ => FetchError::Io { what: "write", path: path.to_owned(), source },
    }
}

/// What an error of ureq means.
pub(super) fn classify(url: &str, error: ureq::Error) -> FetchError {
    let url = url.to_owned();
    match error {
        ureq::Error::StatusCode(status) => FetchError::Status { url, status },
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            FetchError::Unreachable { url, source: error.into() }
        }
        ureq::Error::Timeout(_) => FetchError::Silent { url },
        ureq::Error::RequireHttpsOnly(url) => FetchError::NotEncrypted { url },
        // rustls wraps its own errors into this kind.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            FetchError::Tls { url, source: error.into() }
        }
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => {
            FetchError::Tls { url, source: error.into() }
        }
        ureq::Error::Io(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::ConnectProxyFailed(_) => FetchError::Unreachable { url, source: error.into() },
        error => FetchError::Protocol { url, source: error.into() },
    }
}
