//! From the name of an image to a root file system: finding it, unpacking it where that has not been done, laying the layers.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cellblock_bundle::{Cell, IdScheme, Ids, Mount, Network, RootFs};
use cellblock_rootfs::alpine::{self, AlpineError};
use cellblock_rootfs::fetch::{FetchError, Fetcher};
use cellblock_rootfs::images::{Image as StoredImage, Layer, Store, StoreError};
use cellblock_rootfs::root::host::{self, HostError, HostImage};
use cellblock_rootfs::root::skeleton::{self, About, Entry, SkeletonError};
use cellblock_rootfs::unpack::Ownership;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::args::values::Userns;
use crate::job::{Job, run_in_outer};
use crate::place;
use crate::report::CliError;
use crate::resolve::{HostFacts, ImageFacts, ImageRequest, ImageWanted, ResolveError, ids_for};

/// Why there is no root file system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Alpine(#[from] AlpineError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Skeleton(#[from] SkeletonError),
    /// No such image anywhere.
    #[error("there is no image `{0}`")]
    Unknown(String),
    /// A path that is neither.
    #[error("{0} is neither a folder nor an archive")]
    NotAnImage(PathBuf),
}

impl ImageError {
    pub(crate) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unknown(_) | Self::Store(StoreError::NoImage(_)) => {
                "`cellblock image list` shows the stored ones; `cellblock image pull alpine` and `cellblock image load FILE --name NAME` add some; `--image host` needs none"
            }
            Self::Fetch(FetchError::Network { .. }) | Self::Alpine(AlpineError::Fetch(FetchError::Network { .. })) => {
                "without a network: get the file elsewhere, then `cellblock image load FILE --name alpine`; what was fetched so far is continued next time"
            }
            Self::Fetch(FetchError::Checksum { .. }) => "the mirror is broken or hostile; nothing was stored",
            Self::Alpine(AlpineError::Untrusted { .. }) => {
                "use an https mirror (`alpine_mirror:` in the configuration), or a version that `cellblock image pull --help` names"
            }
            Self::Store(StoreError::Tampered { .. }) => "remove it with `cellblock image remove` and store it again",
            Self::Store(StoreError::BadName(_)) => {
                "a name is lower-case letters, digits, `.`, `_`, `-`, `/`, with an optional `:TAG`; `host` and `auto` are taken"
            }
            Self::Fetch(FetchError::Write { source, .. }) if crate::report::is_full(source) => {
                "make room; what was fetched so far is continued next time"
            }
            Self::Store(StoreError::NoSpace { .. }) => "make room; what was begun has been removed",
            Self::NotAnImage(path) if !path.exists() => {
                "there is nothing at that path; a name without `/` is one of a stored image: `cellblock image list`"
            }
            Self::NotAnImage(_) => {
                "a root file system is a folder, or a tar archive: plain, or compressed by gzip or zstd"
            }
            Self::Skeleton(SkeletonError::EtcIsNoDirectory) => "repack the image with a real /etc",
            _ => return None,
        };
        Some(text.into())
    }
}

/// What was asked for, as it was found.
#[derive(Debug)]
pub(crate) enum Image {
    /// The host's own folders.
    Host(HostImage),
    /// An image of the store.
    Stored(StoredImage),
    /// A folder, used as it is.
    Folder(PathBuf),
}

impl Image {
    /// Finds the image; an archive given by path, and an Alpine release that is asked for by name, are stored first. With `auto` there is a note
    /// on what was taken.
    /// `agent` is a program that the host has: with `auto` it decides between an image that may lack it and the host's own tools.
    pub(crate) fn find(
        wanted: &ImageWanted,
        host: &HostFacts,
        agent: Option<&str>,
    ) -> Result<(Self, Option<String>), ImageError> {
        let store = Store::new(&place::dirs(host).data);
        match &wanted.request.value {
            ImageRequest::Host => Ok((Self::Host(host::detect(Path::new("/"))?), None)),
            ImageRequest::Auto => Self::best(&store, agent),
            ImageRequest::Path(path) => Self::by_path(path, &store).map(|image| (image, None)),
            ImageRequest::Name(name) => {
                if let Some(image) = store.find(name)? {
                    return Ok((Self::Stored(image), None));
                }
                let mirror = wanted.alpine_mirror.as_ref().map(|m| m.value.as_str());
                match name.split_once(':').unwrap_or((name, "")) {
                    ("alpine", version) => Ok((Self::Stored(pull_alpine(version, mirror, host)?), None)),
                    _ => Err(ImageError::Unknown(name.clone())),
                }
            }
        }
    }

    fn best(store: &Store, agent: Option<&str>) -> Result<(Self, Option<String>), ImageError> {
        // The image `cellblock` is made to hold agents; a plain Alpine holds none.
        let names: &[&str] = if agent.is_some() { &["cellblock"] } else { &["cellblock", "alpine"] };
        for name in names {
            if let Some(image) = store.find(name)? {
                let note = format!("image `{}` (stored); `--image host` takes this host's own tools", image.name);
                return Ok((Self::Stored(image), Some(note)));
            }
        }
        let note = match agent {
            Some(program) => format!("image `host`: this host's own tools, with its `{program}`"),
            None => "image `host`: this host's own tools; `cellblock image pull alpine` gets a separate one".into(),
        };
        Ok((Self::Host(host::detect(Path::new("/"))?), Some(note)))
    }

    fn by_path(path: &Path, store: &Store) -> Result<Self, ImageError> {
        let Ok(path) = path.canonicalize() else { return Err(ImageError::NotAnImage(path.to_owned())) };
        if path.is_dir() {
            return Ok(Self::Folder(path));
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self::Stored(load(store, &path, &format!("file/{}", crate::project::sanitise(&name)))?))
    }

    /// What the image mounts of the host.
    pub(crate) fn mounts(&self) -> &[Mount] {
        if let Self::Host(image) = self { &image.mounts } else { &[] }
    }

    /// As resolving wants to know it.
    pub(crate) fn facts(&self) -> ImageFacts {
        match self {
            Self::Host(image) => ImageFacts {
                name: "host".into(),
                visible: Some(image.mounts.iter().map(|m| m.target().to_owned()).collect()),
            },
            Self::Stored(image) => ImageFacts { name: image.name.clone(), visible: None },
            Self::Folder(path) => ImageFacts { name: path.display().to_string(), visible: None },
        }
    }

    /// Unpacks what is missing for a cell with these ids, and says how the root is laid and what the skeleton holds.
    pub(crate) fn prepare(&self, cell: &Cell, host: &HostFacts) -> Result<(RootFs, Vec<Entry>), CliError> {
        let dirs = place::dirs(host);
        let layer = dirs.layer(&cell.name);
        let mut lowers = vec![dirs.skeleton(&cell.name)];
        let mut shared = Vec::new();
        let resolv = (cell.network == Network::Host).then(|| host::resolv_conf(Path::new("/"))).flatten();
        let about = About {
            name: &cell.name,
            hostname: &cell.hostname,
            user: &cell.user,
            network: cell.network,
            resolv_conf: resolv.as_deref(),
        };
        let mut skeleton = match self {
            Self::Host(image) => {
                let mut entries = skeleton::under_host(about, &replaceable(&image.entries, cell.overlay.as_deref()));
                // What stands on another mount finds its place there.
                let own = cell.mounts.iter().filter(|m| !stands_on_another(m, &cell.mounts));
                // What a mask covers is there.
                let own = own.filter(|m| !matches!(m, Mount::Mask { .. }));
                let is_file = |m: &&Mount| matches!(m, Mount::Bind { source, .. } if !source.is_dir());
                let (files, folders): (Vec<_>, Vec<_>) = own.partition(is_file);
                // The image's own are folders, all of them.
                let folders: Vec<_> = image.mounts.iter().chain(folders).map(|m| m.target().to_owned()).collect();
                let files: Vec<_> = files.into_iter().map(|m| m.target().to_owned()).collect();
                entries.extend(skeleton::mount_points(&entries, &folders, &files));
                entries
            }
            Self::Stored(image) => {
                let layers = unpacked(image, &cell.ids, &dirs.data)?;
                let entries = skeleton::over_image(about, &layers).map_err(ImageError::from)?;
                lowers.extend(layers);
                entries
            }
            Self::Folder(path) => {
                lowers.push(path.clone());
                shared.push(path.clone());
                skeleton::over_image(about, &shared).map_err(ImageError::from)?
            }
        };
        let mut mounts = self.mounts().to_vec();
        if let Some(overlay) = &cell.overlay {
            // Below what is made for the cell, above everything else.
            lowers.insert(1, overlay.clone());
            shared.push(overlay.clone());
            mounts = overlaid(mounts, overlay);
            // Everybody's, whatever the mode of the folder that only has something to put there.
            let open = ["tmp", "var/tmp"].iter().filter(|path| overlay.join(path).is_dir());
            skeleton.extend(open.map(|path| Entry::Directory {
                path: Path::new("/").join(path),
                mode: 0o1777,
                person: false,
            }));
        }
        skeleton.extend(cell.own_home.as_deref().and_then(skeleton::home));
        skeleton.extend(
            cell.home_files
                .iter()
                .map(|(path, text)| Entry::File { path: cell.own_home().join(path), text: text.clone() }),
        );
        skeleton.extend(skeleton::homely(&cell.state, cell.own_home()));
        let (upper, work) = (layer.join("upper"), layer.join("work"));
        Ok((RootFs { lowers, shared, volatile: false, upper, work, mounts }, skeleton))
    }
}

/// What of the `host` image's files an overlay leaves: those that it has are not copied. Links at the top are the host's layout and stay.
fn replaceable(entries: &[Entry], overlay: Option<&Path>) -> Vec<Entry> {
    let Some(overlay) = overlay else { return entries.to_vec() };
    let has = |path: &Path| overlay.join(path.strip_prefix("/").unwrap_or(path)).symlink_metadata().is_ok();
    let replaced = |entry: &&Entry| match entry {
        Entry::Copy { path, .. } | Entry::Link { path, .. } => path.parent() != Some(Path::new("/")) && has(path),
        _ => false,
    };
    entries.iter().filter(|entry| !replaced(entry)).cloned().collect()
}

/// The `host` image's mounts with what an overlay has at their places laid over them.
fn overlaid(mounts: Vec<Mount>, overlay: &Path) -> Vec<Mount> {
    let over = |mount: Mount| match mount {
        Mount::Bind { source, target, writable } => {
            let above = overlay.join(target.strip_prefix("/").unwrap_or(&target));
            // Canonical, so that a link on the way leads nowhere else.
            if above.is_dir() && above.canonicalize().is_ok_and(|end| end == above) && source.is_dir() {
                Mount::Layers { lowers: vec![above, source], target }
            } else {
                Mount::Bind { source, target, writable }
            }
        }
        other => other,
    };
    mounts.into_iter().map(over).collect()
}

fn stands_on_another(mount: &Mount, all: &[Mount]) -> bool {
    let target = mount.target();
    all.iter().any(|other| target != other.target() && target.starts_with(other.target()))
}

/// Stores an archive, with a progress bar; one that is stored under this name already with the same content is only checked.
pub(crate) fn load(store: &Store, path: &Path, name: &str) -> Result<StoredImage, ImageError> {
    let bar = bar(&format!("storing {name}"), std::fs::metadata(path).map(|m| 2 * m.len()).ok());
    let source = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let image = store.load(path, name, &source, &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    Ok(image?)
}

/// Fetches an Alpine release and stores it as `alpine:VERSION`.
pub(crate) fn pull_alpine(version: &str, mirror: Option<&str>, host: &HostFacts) -> Result<StoredImage, ImageError> {
    let proxy = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"].iter().find_map(|v| host.env.get(*v));
    let fetcher = Fetcher::new(proxy.map(String::as_str));
    let release = alpine::release(version, mirror.unwrap_or(alpine::MIRROR), &fetcher)?;
    let data = place::dirs(host).data;
    let folder = data.join("downloads");
    let io = |source| StoreError::Io { what: "cannot make", path: folder.clone(), source };
    std::fs::create_dir_all(&folder).map_err(io)?;
    let (store, name) = (Store::new(&data), format!("alpine:{}", release.version));
    // Two that fetch the same file write to the same part of it: the second waits, and then finds the image stored.
    let lock = std::fs::File::open(&folder).map_err(io)?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| io(e.into()))?;
        if let Some(image) = store.find(&name)? {
            return Ok(image);
        }
    }
    let file = folder.join(format!("alpine-{}-{}.tar.gz", release.version, alpine::ARCH));
    let bar = bar(&format!("fetching alpine {}", release.version), None);
    let fetched = fetcher.file(&release.url, &file, &release.sha256, &mut |done, total| {
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
    });
    bar.finish_and_clear();
    fetched?;
    let image = store.load(&file, &name, &release.url, &mut |_| {})?;
    let _ = std::fs::remove_file(&file);
    Ok(image)
}

/// A progress bar on standard error, if that is a terminal. It ticks by itself only when told: no thread.
pub(crate) fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_message(what.to_owned());
    bar
}

/// The unpacked layers of `image`, the topmost first.
fn unpacked(image: &StoredImage, ids: &Ids, data: &Path) -> Result<Vec<PathBuf>, CliError> {
    let store = Store::new(data);
    let layers = store.layers(image, ids.layer_key());
    for layer in layers.iter().filter(|l| !l.is_ready()) {
        let job = LayerJob { layer: layer.clone(), ownership: Owner::of(ids) };
        open_up(data, ids);
        if ids.rootless() { run_in_outer(&Job::Unpack(job), ids, Vec::new())? } else { job.run()? }
    }
    Ok(layers.into_iter().map(|l| l.dir).collect())
}

/// Under real root the cell's ids are others than root's: they must be able to pass through the folders above the layers.
fn open_up(data: &Path, ids: &Ids) {
    if ids.rootless() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    for folder in [data.to_owned(), data.join("layers"), data.join("layers").join(ids.layer_key())] {
        let _ = std::fs::create_dir_all(&folder);
        let _ = std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711));
    }
}

/// A layer to unpack, as it travels to OUTER.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerJob {
    layer: Layer,
    ownership: Owner,
}

/// [`Ownership`] on its way.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Owner {
    Caller,
    Keep,
    Shift { base: u32, count: u32 },
}

impl Owner {
    fn of(ids: &Ids) -> Self {
        match (ids.scheme, ids.uids.first()) {
            (IdScheme::Shifted, Some(extent)) => Self::Shift { base: extent.outside, count: extent.size },
            (IdScheme::Single | IdScheme::SingleRoot, _) => Self::Caller,
            _ => Self::Keep,
        }
    }
}

impl LayerJob {
    pub(crate) fn run(&self) -> Result<(), CliError> {
        let ownership = match self.ownership {
            Owner::Caller => Ownership::Single,
            Owner::Keep => Ownership::Keep,
            Owner::Shift { base, count } => Ownership::Shift { base, count },
        };
        let bar =
            bar(&format!("unpacking {}", self.layer.image), std::fs::metadata(&self.layer.blob).map(|m| m.len()).ok());
        let result = self.layer.unpack(ownership, &mut |done| bar.set_position(done));
        bar.finish_and_clear();
        Ok(result.map_err(ImageError::from)?)
    }
}

/// Removes unpacked layers.
pub(crate) fn remove_folders(folders: &[PathBuf]) -> Result<(), CliError> {
    for folder in folders {
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { continue };
        let remove = || cellblock_sys::tree::remove(std::fs::File::open(parent)?.as_fd(), name);
        remove().map_err(|source| CliError::File { what: "cannot remove", path: folder.clone(), source })?;
    }
    Ok(())
}

/// As [`remove_folders`], in OUTER if they belong to ids that exist only there.
pub(crate) fn remove_foreign(folders: Vec<PathBuf>, host: &HostFacts) -> Result<(), CliError> {
    match remove_folders(&folders) {
        Err(_) if host.uid != 0 => {
            let (ids, _) = ids_for(None, host, Userns::Auto, false).map_err(ResolveError::from)?;
            run_in_outer(&Job::RemoveFolders { folders }, &ids, Vec::new())
        }
        other => other,
    }
}
