//! Fetching a file over HTTP(S): resumable, bounded, checked before it counts.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server could not be reached, or the connection broke again and again.
    #[error("cannot fetch {url}: {detail}")]
    Network {
        /// What.
        url: String,
        /// Why not.
        detail: String,
    },
    /// The server has an answer, but not the file.
    #[error("{url}: the server answers {status}")]
    Status {
        /// What.
        url: String,
        /// HTTP status code.
        status: u16,
    },
    /// It is not the file that it should be.
    #[error("{url} has the wrong checksum: expected {expected}, got {got}")]
    Checksum {
        /// What.
        url: String,
        /// SHA-256 in hex.
        expected: String,
        /// SHA-256 in hex.
        got: String,
    },
    /// More than it may be.
    #[error("{url} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        url: String,
        /// The bound.
        limit: u64,
    },
    /// The file could not be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The largest file taken: a mini root file system has 4 MiB.
const MAX_FILE: u64 = 1 << 30;
/// The largest index or checksum file taken.
const MAX_TEXT: u64 = 1 << 20;
/// Tries for one file; each goes on where the last one stopped.
const TRIES: u32 = 4;

/// Fetches over HTTP and HTTPS.
#[derive(Debug)]
pub struct Fetcher {
    agent: ureq::Agent,
}

impl Fetcher {
    /// A fetcher, through `proxy` (a URL) if there is one.
    #[must_use]
    pub fn new(proxy: Option<&str>) -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(proxy.and_then(|p| ureq::Proxy::new(p).ok()))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_recv_body(Some(Duration::from_secs(600)))
            .http_status_as_error(false)
            .user_agent(concat!("cellblock/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into() }
    }

    /// A small text.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn text(&self, url: &str) -> Result<String, FetchError> {
        let mut response = self.agent.get(url).call().map_err(|e| network(url, &e))?;
        if response.status() != 200 {
            return Err(FetchError::Status { url: url.into(), status: response.status().as_u16() });
        }
        response.body_mut().with_config().limit(MAX_TEXT).read_to_string().map_err(|e| network(url, &e))
    }

    /// Fetches `url` into `file`, which has the SHA-256 `expected` (hex) when this returns. A part of an earlier try beside it is
    /// continued. `progress` gets the bytes so far and, if known, the total.
    ///
    /// # Errors
    /// See [`FetchError`]; after a wrong checksum nothing is left, after a broken connection the part stays for the next try.
    pub fn file(
        &self,
        url: &str,
        file: &Path,
        expected: &str,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), FetchError> {
        let part = file.with_extension("part");
        let write = |source| FetchError::Write { path: part.clone(), source };
        let mut output =
            File::options().create(true).truncate(false).read(true).write(true).open(&part).map_err(write)?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.attempt(url, &mut output, progress) {
                Ok(()) => break,
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Write(source)) => return Err(write(source)),
                Err(Attempt::Broken(detail)) if attempt >= TRIES => {
                    return Err(FetchError::Network { url: url.into(), detail });
                }
                Err(Attempt::Broken(_)) => std::thread::sleep(Duration::from_millis(200 * u64::from(attempt))),
            }
        }
        let got = hash(&mut output).map_err(write)?;
        if got != expected {
            let _ = std::fs::remove_file(&part);
            return Err(FetchError::Checksum { url: url.into(), expected: expected.into(), got });
        }
        output.sync_all().and_then(|()| std::fs::rename(&part, file)).map_err(write)
    }

    fn attempt(&self, url: &str, output: &mut File, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<(), Attempt> {
        let mut done = output.seek(SeekFrom::End(0)).map_err(Attempt::Write)?;
        let mut request = self.agent.get(url);
        if done > 0 {
            request = request.header("Range", format!("bytes={done}-"));
        }
        let mut response = request.call().map_err(|e| Attempt::Broken(e.to_string()))?;
        let status = response.status().as_u16();
        match status {
            206 if done > 0 => {}
            // The whole again: the server does not do ranges.
            200 => {
                output.set_len(0).and_then(|()| output.rewind()).map_err(Attempt::Write)?;
                done = 0;
            }
            // Nothing after what we have: it is complete, or another file; the checksum tells.
            416 => return Ok(()),
            500..=599 => return Err(Attempt::Broken(format!("the server answers {status}"))),
            status => return Err(Attempt::Final(FetchError::Status { url: url.into(), status })),
        }
        let length =
            response.headers().get("content-length").and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        let total = length.map(|l| done + l);
        let mut body = response.body_mut().with_config().limit(MAX_FILE).reader();
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let length = body.read(&mut buffer).map_err(|e| Attempt::Broken(e.to_string()))?;
            if length == 0 {
                break;
            }
            output.write_all(buffer.get(..length).unwrap_or_default()).map_err(Attempt::Write)?;
            done += length as u64;
            if done > MAX_FILE {
                return Err(Attempt::Final(FetchError::TooLarge { url: url.into(), limit: MAX_FILE }));
            }
            progress(done, total);
        }
        match total {
            Some(total) if done < total => Err(Attempt::Broken("the connection was cut".into())),
            _ => Ok(()),
        }
    }
}

enum Attempt {
    /// Worth another try.
    Broken(String),
    /// Not worth one.
    Final(FetchError),
    Write(io::Error),
}

fn network(url: &str, error: &ureq::Error) -> FetchError {
    FetchError::Network { url: url.into(), detail: error.to_string() }
}

fn hash(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut digest = Sha256::new();
    io::copy(file, &mut digest)?;
    Ok(digest.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests;
