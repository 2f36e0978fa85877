//! The second life of this program: what has to be done in OUTER, in a fresh process, as a job that travels in a memory file.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use cellblock_bundle::Ids;
use cellblock_rootfs::root::skeleton::{self, Entry};
use cellblock_runtime::outer::Maps;
use cellblock_runtime::state::{Claim, Dirs};
use cellblock_runtime::supervisor::{Ended, News, Start, supervise};
use cellblock_runtime::{cleanup, exit, outer};
use cellblock_sys::process::{Fork, SingleThreaded, exit_now, inherited};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::export::Export;
use crate::images::LayerJob;
use crate::output::say;
use crate::report::CliError;

/// The hidden first word: followed by [`Maps`] in a word, or an empty one, and the numbers of inherited descriptors, the job's first, our own
/// program's last.
pub(crate) const WORD: &str = "__job";

/// What there is to do.
#[derive(Debug, Serialize, Deserialize)]
// Tagged from outside: what a tag inside belongs to is read twice.
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Job {
    /// Guard a cell. Descriptors: its lock; the process that answers it from outside, if something does; with `detached`, a pipe to say "started" on.
    Supervise {
        /// The cell and where things are.
        start: Box<Start>,
        /// The skeleton's content.
        skeleton: Vec<Entry>,
    },
    /// Remove what a killed supervisor has left. Descriptors: the cell's lock.
    Remove {
        /// Where things are.
        dirs: Dirs,
        /// The cell's name.
        name: String,
        /// Leave its writable layer.
        keep: bool,
    },
    /// Unpack a layer.
    Unpack(LayerJob),
    /// Write a bundle.
    Export(Box<Export>),
    /// Remove folders of the store.
    RemoveFolders {
        /// Which.
        folders: Vec<std::path::PathBuf>,
    },
}

/// Turns this process into the one that does `job` in OUTER. Returns only on failure.
pub(crate) fn become_job(job: &Job, ids: &Ids, mut descriptors: Vec<OwnedFd>) -> CliError {
    let process = |what| move |source| CliError::Process { what, source };
    let prepare = || -> Result<_, CliError> {
        let file = memory_file(job).map_err(process("cannot hand over the job"))?;
        let alone = SingleThreaded::prove().map_err(process("cannot go on"))?;
        Ok((file, outer::begin(ids, &alone).map_err(|e| CliError::Runtime(e.into()))?))
    };
    let (file, maps) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    descriptors.insert(0, file);
    let mut words: Vec<String> = descriptors.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let (maps, answer) = maps.map(Maps::hand_on).unzip();
    words.insert(0, maps.unwrap_or_default());
    descriptors.extend(answer);
    let arguments: Vec<&OsStr> = std::iter::once(OsStr::new(WORD)).chain(words.iter().map(OsStr::new)).collect();
    CliError::Runtime(outer::exec_self(&arguments, &descriptors).into())
}

fn memory_file(job: &Job) -> std::io::Result<OwnedFd> {
    let mut file = std::fs::File::from(rustix::fs::memfd_create(c"job", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(job)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// Has a child do `job` in OUTER and waits for it; its messages go to our standard error.
pub(crate) fn run_in_outer(job: &Job, ids: &Ids, descriptors: Vec<OwnedFd>) -> Result<(), CliError> {
    let process = |what| move |source| CliError::Process { what, source };
    let alone = SingleThreaded::prove().map_err(process("cannot go on"))?;
    match alone.fork().map_err(process("cannot fork"))? {
        Fork::Child => {
            let error = become_job(job, ids, descriptors);
            exit_now(crate::report::tell(&error))
        }
        Fork::Parent(pid) => {
            drop(descriptors);
            let status = rustix::io::retry_on_intr(|| {
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
            })
            .map_err(|e| process("cannot wait for our own job")(e.into()))?;
            match status.and_then(|(_, s)| s.exit_status()) {
                Some(0) => Ok(()),
                // It has told why.
                Some(exit::OURS) => Err(CliError::Told),
                _ => Err(CliError::Plain { message: "a step in the user namespace failed".into(), hint: None }),
            }
        }
    }
}

/// The hidden command.
pub(crate) fn main(arguments: &[OsString]) -> Result<i32, CliError> {
    let process = |what| move |source| CliError::Process { what, source };
    let missing = |what| move || process(what)(std::io::ErrorKind::InvalidInput.into());
    let (maps, numbers) = arguments.split_first().ok_or_else(missing("this command is for cellblock's own use"))?;
    let mut descriptors = take_over(numbers).map_err(process("this command is for cellblock's own use"))?;
    // Open to the end: the reason is at [`outer::exec_self`].
    let _program = descriptors.pop();
    let mut descriptors = descriptors.into_iter();
    let job = read(descriptors.next().ok_or_else(missing("no job"))?).map_err(process("cannot read the job"))?;
    // Not earlier: the programs that write the maps have had time until here.
    let mapped = wait_for(maps);
    match job {
        Job::Supervise { start, skeleton } => {
            let lock = descriptors.next().ok_or_else(missing("no lock"))?;
            let claim = Claim { name: start.cell.name.clone(), dir: start.dirs.cell(&start.cell.name), lock };
            if let Err(error) = mapped {
                cleanup::release(claim);
                return Err(error);
            }
            let broker = if start.cell.brokers.is_empty() { None } else { descriptors.next() };
            let ended = guard(&start, &skeleton, (claim, broker), descriptors.next())?;
            // Its secrets are wiped here: what is left of the cell is removed in this memory.
            drop(start);
            ended.leave()
        }
        Job::Remove { dirs, name, keep } => {
            mapped?;
            if let Some(lock) = descriptors.next() {
                cleanup::remove(&dirs, Claim { dir: dirs.cell(&name), name, lock }, keep);
            }
            Ok(0)
        }
        Job::Unpack(layer) => mapped.and_then(|()| layer.run()).map(|()| 0),
        Job::Export(export) => mapped.and_then(|()| export.run()).map(|()| 0),
        Job::RemoveFolders { folders } => {
            mapped?;
            crate::images::remove_folders(&folders).map(|()| 0)
        }
    }
}

fn take_over(numbers: &[OsString]) -> std::io::Result<Vec<OwnedFd>> {
    let number = |word: &OsString| word.to_str().and_then(|word| word.parse().ok());
    let take = |word| number(word).ok_or_else(|| std::io::ErrorKind::InvalidInput.into()).and_then(inherited);
    numbers.iter().map(take).collect()
}

fn read(file: OwnedFd) -> std::io::Result<Job> {
    // It may hold secrets.
    let mut text = Zeroizing::new(Vec::new());
    std::fs::File::from(file).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Waits for [`Maps`], if `word` says that they are being written.
fn wait_for(word: &OsStr) -> Result<(), CliError> {
    let Some(word) = word.to_str().filter(|word| !word.is_empty()) else { return Ok(()) };
    let maps =
        Maps::inherited(word).map_err(|source| CliError::Process { what: "cannot wait for the id mapping", source })?;
    maps.wait().map_err(|error| CliError::Runtime(error.into()))
}

fn guard(
    start: &Start,
    entries: &[Entry],
    (claim, broker): (Claim, Option<OwnedFd>),
    ready: Option<OwnedFd>,
) -> Result<Ended, CliError> {
    let cell = &start.cell;
    let top = start.dirs.skeleton(&cell.name);
    let mut prepare = || skeleton::write(&top, entries, &cell.ids, &cell.user);
    let mut ready = ready;
    let mut tell = |news: News<'_>| match news {
        News::Warning(text) => say(&format!("cellblock: {text}")),
        News::Started => {
            if let Some(pipe) = ready.take() {
                let _ = rustix::io::write(&pipe, b"started");
            }
        }
    };
    let ended = supervise(start, claim, broker.as_ref(), &mut prepare, &mut tell)?;
    for note in &ended.notes {
        say(&format!("cellblock: {note}"));
    }
    Ok(ended)
}
