//! The reader against archives built in memory: what must be read, and what must be refused.

mod accepted;
mod mutated;
mod refused;

use super::build::{Member, archive, gzip, zstd};
use super::{ArchiveError, Entry, Hashing, Limits, Reader, Totals};

/// Everything an archive says: its entries with their pieces of content.
type Content = (Vec<(Entry, Vec<(u64, Vec<u8>)>)>, Totals);

fn read_with(bytes: &[u8], limits: Limits) -> Result<Content, ArchiveError> {
    let mut reader = Reader::new(bytes, limits, Hashing::Both)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        while let Some(chunk) = reader.read_data()? {
            match pieces.last_mut() {
                Some((offset, piece)) if *offset + piece.len() as u64 == chunk.offset => piece.extend(chunk.bytes),
                _ => pieces.push((chunk.offset, chunk.bytes.to_vec())),
            }
        }
        entries.push((entry, pieces));
    }
    Ok((entries, reader.totals().expect("it ended")))
}

fn read(bytes: &[u8]) -> Result<Content, ArchiveError> {
    read_with(bytes, Limits::STANDARD)
}

/// One entry of each interesting kind.
fn sample() -> Vec<u8> {
    archive(&[
        Member::directory("./"),
        Member::directory("bin/").mode(0o555),
        Member::file("bin/tool", b"#!/bin/sh\n")
            .mode(0o4755)
            .pax("SCHILY.xattr.user.note", b"x\0y")
            .pax("mtime", b"12.5"),
        Member::hard_link("bin/same", "bin/tool"),
        Member::symlink("bin/link", "/bin/tool"),
        Member::new(b"pipe", b'6', b""),
        Member::device("null", b'3', 1, 3),
        Member::file("long", &[7; 1300])
            .pax("path", "n/".repeat(90).as_bytes().split_last().map_or(b"", |(_, path)| path)),
        Member::file("sparse", &sparse_data(&[(512, 3)], b"abc"))
            .pax("GNU.sparse.major", b"1")
            .pax("GNU.sparse.minor", b"0")
            .pax("GNU.sparse.name", b"sparse")
            .pax("GNU.sparse.realsize", b"4096"),
    ])
}

/// Map and data of the sparse format 1.0.
fn sparse_data(segments: &[(u64, u64)], data: &[u8]) -> Vec<u8> {
    let mut map = format!("{}\n", segments.len());
    for (offset, length) in segments {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = map.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(data);
    bytes
}
