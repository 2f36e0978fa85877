//! How much of everything an archive may ask for.

/// Upper bounds, checked before memory or disk is spent.
///
/// There is no `Default`: whoever reads an archive says which bounds hold. [`Limits::STANDARD`] fits every public base image and
/// development image known to the authors with room to spare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries, counting directories that only the names of others imply.
    pub entries: u64,
    /// Bytes of the source, bytes of the uncompressed stream, and the sum of all file sizes with their holes: each at most this.
    pub total_bytes: u64,
    /// Bytes of one file, holes included.
    pub file_bytes: u64,
    /// Bytes of one path or link target.
    pub path_bytes: u64,
    /// Parts of one path. The unpacker keeps a descriptor open for each.
    pub path_depth: u64,
    /// Bytes of one pax header.
    pub pax_bytes: u64,
    /// Bytes of all extended attributes of one entry.
    pub xattr_bytes: u64,
    /// Pieces of one sparse file.
    pub sparse_segments: u64,
    /// Bytes of all paths, link targets and attributes together: what an unpacker may have to keep in memory.
    pub metadata_bytes: u64,
    /// How many bytes one compressed byte may become on average, once there are `ratio_after` of them.
    pub ratio: u64,
    /// Uncompressed bytes before `ratio` counts: small archives may well compress a thousandfold.
    pub ratio_after: u64,
    /// Bytes of a zstd window, which the decoder holds in memory.
    pub zstd_window: u64,
}

impl Limits {
    /// For image layers and root file systems.
    pub const STANDARD: Self = Self {
        // The largest development images hold about half of that.
        entries: 1_000_000,
        total_bytes: 64 << 30,
        file_bytes: 32 << 30,
        // PATH_MAX with its NUL, limits.h.
        path_bytes: 4095,
        // Deep dependency trees stay below 60; a process has 1024 descriptors by default.
        path_depth: 256,
        // An entry with the largest attributes that Linux allows still fits.
        pax_bytes: 1 << 20,
        xattr_bytes: 512 << 10,
        sparse_segments: 1 << 18,
        metadata_bytes: 256 << 20,
        // Deflate cannot exceed 1032. Layers are near 3; binaries with long zero runs reach 50.
        ratio: 250,
        ratio_after: 64 << 20,
        // What `zstd --ultra -22` and `--long` use; RFC 8878 asks decoders for at least 8 MiB.
        zstd_window: 128 << 20,
    };
}
