//! Copies of small trees, by whoever runs the tests.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cellblock-copy-{name}-{}", std::process::id()));
        for dir in ["from", "to"] {
            fs::create_dir_all(path.join(dir)).expect("scratch folder");
        }
        Self(path)
    }

    fn copy(&self, bare: &dyn Fn(&Path) -> bool) -> Result<Copied, CopyError> {
        let open = |name| File::open(self.0.join(name)).expect("open");
        copy(open("from").as_fd(), open("to").as_fd(), Owners::Caller, bare, &mut |_| {})
    }

    fn from(&self, path: &str) -> PathBuf {
        self.0.join("from").join(path)
    }

    fn to(&self, path: &str) -> PathBuf {
        self.0.join("to").join(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = File::open(std::env::temp_dir())
            .and_then(|t| cellblock_sys::tree::remove(t.as_fd(), self.0.file_name().unwrap_or_default()));
    }
}

#[test]
fn content_modes_times_and_links_come_along() {
    let scratch = Scratch::new("plain");
    fs::create_dir_all(scratch.from("a/b")).expect("mkdir");
    fs::write(scratch.from("a/file"), "content").expect("write");
    fs::set_permissions(scratch.from("a/file"), fs::Permissions::from_mode(0o4751)).expect("chmod");
    fs::hard_link(scratch.from("a/file"), scratch.from("a/b/again")).expect("link");
    symlink("/etc/passwd", scratch.from("a/link")).expect("symlink");
    rustix::fs::mknodat(rustix::fs::CWD, scratch.from("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .expect("fifo");
    // A directory that its own mode would close, and a time that is not now.
    fs::set_permissions(scratch.from("a"), fs::Permissions::from_mode(0o500)).expect("chmod");
    File::open(scratch.from("a")).expect("open").set_modified(std::time::UNIX_EPOCH).expect("time");

    let done = scratch.copy(&|_| false).expect("copy");
    assert_eq!(done, Copied { bytes: 7, left_out: 0 });
    let file = fs::metadata(scratch.to("a/file")).expect("there");
    assert_eq!((file.mode() & 0o7777, file.nlink()), (0o4751, 2));
    assert_eq!(fs::metadata(scratch.to("a/b/again")).expect("there").ino(), file.ino());
    assert_eq!(fs::read_link(scratch.to("a/link")).expect("link"), Path::new("/etc/passwd"));
    let directory = fs::metadata(scratch.to("a")).expect("there");
    assert_eq!((directory.mode() & 0o7777, directory.mtime()), (0o500, 0));
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&fs::metadata(scratch.to("pipe")).expect("there").file_type()));
    let size = size(File::open(scratch.0.join("from")).expect("open").as_fd()).expect("size");
    assert_eq!(size, 14, "each name of a file counts");
}

#[test]
fn holes_stay_holes() {
    let scratch = Scratch::new("holes");
    let file = File::create(scratch.from("sparse")).expect("create");
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 64 << 20).expect("write");
    scratch.copy(&|_| false).expect("copy");
    let copied = fs::metadata(scratch.to("sparse")).expect("there");
    assert_eq!(copied.len(), (64 << 20) + 3);
    assert!(copied.blocks() < 1000, "{} blocks", copied.blocks());
    assert_eq!(fs::read(scratch.to("sparse")).expect("read").last_chunk(), Some(b"end"));
}

#[test]
fn bare_directories_are_made_and_not_filled() {
    let scratch = Scratch::new("bare");
    fs::create_dir_all(scratch.from("usr/bin")).expect("mkdir");
    fs::create_dir_all(scratch.from("etc/below")).expect("mkdir");
    fs::set_permissions(scratch.from("usr"), fs::Permissions::from_mode(0o711)).expect("chmod");
    scratch.copy(&|path| path == Path::new("usr")).expect("copy");
    assert_eq!(fs::read_dir(scratch.to("usr")).expect("there").count(), 0);
    assert_eq!(fs::metadata(scratch.to("usr")).expect("there").mode() & 0o7777, 0o711);
    assert!(scratch.to("etc/below").exists());
}

#[test]
fn what_is_in_the_way_is_not_written_through() {
    let scratch = Scratch::new("way");
    fs::write(scratch.from("file"), "new").expect("write");
    fs::write(scratch.0.join("victim"), "untouched").expect("write");
    symlink("../victim", scratch.to("file")).expect("symlink");
    let error = scratch.copy(&|_| false).expect_err("something is there").to_string();
    assert!(error.contains("/file"), "{error}");
    assert_eq!(fs::read_to_string(scratch.0.join("victim")).expect("there"), "untouched");
}
