//! What outlives the process: how many addresses the cell was given, and what was denied while it ran.

use std::io;
use std::path::Path;

use crate::policy::Written;
use crate::table::Table;

/// The file that says how many addresses were given, and the table that goes on from there.
pub(super) fn names_given(path: &Path) -> io::Result<(std::fs::File, Table)> {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    let given = match bytes.as_slice() {
        [] => 0,
        some => u32::from_le_bytes(some.try_into().map_err(|_| io::ErrorKind::InvalidData)?),
    };
    Ok((file, Table::after(given)))
}

/// The file of what was denied while the cell ran, and what stands there. A line that cannot be read is an error: it denied something.
pub(super) fn denied_later(path: &Path) -> io::Result<(std::fs::File, Vec<Written>)> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut text = String::new();
    io::Read::read_to_string(&mut file, &mut text)?;
    let written = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok((file, written))
}
