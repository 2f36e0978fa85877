//! Tests of the store: whole stories on a temporary directory. Archives are built in memory.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::archive::build::{Member, archive, gzip};
use crate::unpack::{OverlayForm, Ownership, UnpackError};

/// A tar archive of plain files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    archive(&files.iter().map(|(name, content)| Member::file(name, content)).collect::<Vec<_>>())
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("data"));
        Self { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn load(&self, name: &str, bytes: &[u8]) -> Result<Image, StoreError> {
        self.store.load(&self.file("archive", bytes), &name.parse().unwrap(), "archive", &mut |_| {})
    }

    fn layer(&self, image: &Image) -> Layer {
        self.store.layer_plan(image, "single")[0].layer().clone()
    }

    /// Every file below the data directory, without locks.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![self.path("data")];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    todo.push(entry.path());
                }
                let path = entry.path().strip_prefix(self.path("data")).unwrap().display().to_string();
                if !path.contains(".lock") {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn temporaries(&self) -> Vec<String> {
        self.files().into_iter().filter(|path| path.contains(".tmp-")).collect()
    }
}

fn unpack(layer: &Layer) -> Result<(), StoreError> {
    layer.unpack(Ownership::Single, OverlayForm::User, &mut |_| {})
}

fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

#[test]
fn an_archive_becomes_an_image_and_then_a_directory() {
    let world = World::new();
    assert!(world.store.list().unwrap().is_empty());
    let bytes = tar(&[("etc/hello", b"world")]);
    let image = world.load("first:1", &gzip(&bytes)).unwrap();
    assert_eq!(image.layers[0].digest, Digest::of(&gzip(&bytes)));
    assert_eq!(image.layers[0].diff_id, Digest::of(&bytes));
    assert_eq!(image.layers[0].media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(world.store.find(&name("first:1")).unwrap().as_ref(), Some(&image));
    assert_eq!(world.store.find(&name("first")).unwrap().as_ref(), Some(&image));
    assert_eq!(world.store.find(&name("second")).unwrap(), None);

    let plan = world.store.layer_plan(&image, "single");
    assert!(matches!(&plan[..], [LayerState::Missing(_)]));
    unpack(plan[0].layer()).unwrap();
    let plan = world.store.layer_plan(&image, "single");
    assert!(matches!(&plan[..], [LayerState::Ready(_)]));
    assert!(matches!(&world.store.layer_plan(&image, "range")[..], [LayerState::Missing(_)]));
    let dir = &plan[0].layer().dir;
    assert_eq!(fs::read(dir.join("etc/hello")).unwrap(), b"world");
    assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(world.store.inspect(&name("first")).unwrap().unpacked, std::slice::from_ref(dir));
    assert!(world.store.verify(&mut |_| {}).unwrap().is_empty());
}

#[test]
fn the_layout_is_an_oci_image_layout_that_others_cannot_enter() {
    let world = World::new();
    let image = world.load("a", &tar(&[("bin/sh", b"x")])).unwrap();
    let images = world.path("data/images");
    assert_eq!(fs::metadata(&images).unwrap().permissions().mode() & 0o777, 0o700);
    let json = |path: PathBuf| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    assert_eq!(json(images.join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let index = json(images.join("index.json"));
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "a");
    let blob = |digest: &serde_json::Value| {
        images.join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
    };
    let manifest = json(blob(&index["manifests"][0]["digest"]));
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let config = json(blob(&manifest["config"]["digest"]));
    assert_eq!(config["rootfs"]["type"], "layers");
    assert_eq!(config["rootfs"]["diff_ids"][0], image.layers[0].diff_id.to_string());
    assert_eq!(config["os"], "linux");
}

#[test]
fn the_same_archive_gives_the_same_image_and_one_set_of_blobs() {
    let world = World::new();
    let bytes = tar(&[("a", b"1")]);
    let first = world.load("one", &bytes).unwrap();
    let before = world.files();
    let second = world.load("two", &bytes).unwrap();
    assert_eq!(first.digest, second.digest);
    assert_eq!(world.files(), before);
    world.store.remove(&name("one")).unwrap();
    assert_eq!(world.files(), before, "the other name still needs the blobs");
    let removed = world.store.remove(&name("two")).unwrap();
    assert_eq!(removed.bytes, first.size);
    assert!(matches!(world.store.remove(&name("two")), Err(StoreError::NoImage(_))));
}

#[test]
fn a_new_image_of_a_name_replaces_the_old_one_with_its_layer() {
    let world = World::new();
    let old = world.load("a", &tar(&[("v", b"1")])).unwrap();
    unpack(&world.layer(&old)).unwrap();
    let new = world.load("a", &tar(&[("v", b"2")])).unwrap();
    unpack(&world.layer(&new)).unwrap();
    assert!(!world.layer(&old).is_ready());
    assert!(!world.layer(&old).blob.exists());
    assert_eq!(fs::read(world.layer(&new).dir.join("v")).unwrap(), b"2");
    assert_eq!(world.store.list().unwrap().len(), 1);
}

#[test]
fn malformed_archives_get_no_name_and_leave_nothing() {
    let world = World::new();
    world.load("good", &tar(&[("a", b"1")])).unwrap();
    let before = world.files();
    let mut cut = gzip(&tar(&[("a", &[7; 5000])]));
    cut.truncate(cut.len() / 2);
    for bad in [&b"no archive at all"[..], b"", &cut, &tar(&[("../a", b"1")])] {
        let error = world.load("bad", bad).unwrap_err();
        assert!(matches!(error, StoreError::Archive { source: UnpackError::Archive(_), .. }), "{error:?}");
    }
    assert_eq!(world.files(), before);
}

#[test]
fn what_is_no_root_file_system_is_refused_with_the_reason() {
    let world = World::new();
    let image = tar(&[("oci-layout", b"{}"), ("index.json", b"{}")]);
    assert!(matches!(world.load("x", &image), Err(StoreError::NotARoot { .. })));
    let saved = tar(&[("manifest.json", b"[]"), ("abc/layer.tar", b"")]);
    assert!(matches!(world.load("x", &saved), Err(StoreError::NotARoot { .. })));
    world.load("x", &tar(&[("manifest.json", b"[]"), ("bin/sh", b"")])).unwrap();
    let load = |path: PathBuf| world.store.load(&path, &name("x"), "", &mut |_| {});
    assert!(matches!(load(world.dir.path().to_owned()), Err(StoreError::Directory { .. })));
    assert!(matches!(load("/dev/null".into()), Err(StoreError::NotAFile { .. })));
    assert!(matches!(load(world.path("nowhere")), Err(StoreError::Io { .. })));
}

#[test]
fn a_changed_blob_is_told_and_not_unpacked() {
    let world = World::new();
    let image = world.load("a", &gzip(&tar(&[("file", &[b'x'; 3000])]))).unwrap();
    let layer = world.layer(&image);
    let blob = fs::read(&layer.blob).unwrap();
    // Another archive, whole in itself; one with a flipped byte; one that is cut.
    let mut flipped = blob.clone();
    flipped[40] ^= 1;
    for bytes in [gzip(&tar(&[("evil", b"!")])), flipped, blob[..blob.len() - 9].to_vec()] {
        fs::write(&layer.blob, bytes).unwrap();
        let error = unpack(&layer).unwrap_err();
        assert!(matches!(error, StoreError::Tampered { expected, .. } if expected == layer.digest), "{error:?}");
        assert!(!layer.is_ready());
        assert!(world.temporaries().is_empty());
        assert!(matches!(&world.store.verify(&mut |_| {}).unwrap()[..], [StoreError::Tampered { .. }]));
    }
    fs::remove_file(&layer.blob).unwrap();
    assert!(matches!(unpack(&layer), Err(StoreError::Missing { .. })));
    // Positive twin, and the way out: storing it again mends it.
    fs::write(&layer.blob, b"broken").unwrap();
    world.load("a", &blob).unwrap();
    unpack(&layer).unwrap();
}

#[test]
fn a_damaged_image_hides_no_other_and_deletes_nothing() {
    let world = World::new();
    let damaged = world.load("damaged", &tar(&[("a", b"1")])).unwrap();
    let whole = world.load("whole", &tar(&[("b", b"2")])).unwrap();
    let manifest = world.path("data/images/blobs/sha256").join(damaged.digest.hex());
    fs::write(&manifest, b"{}").unwrap();
    let list = world.store.list().unwrap();
    assert!(matches!(&list[0].image, Err(StoreError::Tampered { .. })));
    assert_eq!(list[1].image.as_ref().unwrap(), &whole);
    let removed = world.store.sweep().unwrap();
    assert_eq!(removed.bytes, 0, "nobody knows what the damaged one needs");
    world.store.remove(&name("damaged")).unwrap();
    assert_eq!(world.store.list().unwrap().len(), 1);
    assert!(!manifest.exists());
}

#[test]
fn what_killed_processes_left_is_removed_by_the_next_change() {
    let world = World::new();
    let image = world.load("a", &tar(&[("v", b"1")])).unwrap();
    let layer = world.layer(&image);
    let key = layer.dir.parent().unwrap();
    fs::create_dir_all(key).unwrap();
    let dead_dir = key.join(format!(".tmp-{}-0123", layer.diff_id.hex()));
    fs::create_dir_all(dead_dir.join("etc")).unwrap();
    std::os::unix::fs::symlink("/", dead_dir.join("etc/root")).unwrap();
    File::create(world.path("data/images/blobs/sha256/.tmp-dead")).unwrap();
    File::create(world.path("data/images/.tmp-dead")).unwrap();
    assert_eq!(world.temporaries().len(), 3 + 2, "{:?}", world.files());
    unpack(&layer).unwrap();
    assert!(!dead_dir.exists());
    world.store.sweep().unwrap();
    assert!(world.temporaries().is_empty(), "{:?}", world.files());
    assert!(layer.is_ready());
}

#[test]
fn a_layer_in_use_survives_its_image() {
    let world = World::new();
    let image = world.load("a", &tar(&[("v", b"1")])).unwrap();
    let layer = world.layer(&image);
    assert!(layer.hold().unwrap().is_none());
    unpack(&layer).unwrap();
    let held = layer.hold().unwrap().expect("it is there");
    let removed = world.store.remove(&name("a")).unwrap();
    assert_eq!(removed.in_use, std::slice::from_ref(&layer.dir));
    assert!(layer.is_ready());
    drop(held);
    assert_eq!(world.store.sweep().unwrap(), Removed::default());
    assert!(!layer.is_ready());
    assert_eq!(fs::read_dir(layer.dir.parent().unwrap()).unwrap().count(), 0, "not even a lock");
}

#[test]
fn unpackers_of_one_layer_wait_for_each_other() {
    let world = World::new();
    let image = world.load("a", &tar(&[("v", &vec![1; 1 << 20])])).unwrap();
    let layer = world.layer(&image);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| unpack(&layer).unwrap());
        }
    });
    assert!(layer.is_ready());
    assert!(world.temporaries().is_empty());
}

#[test]
fn changes_at_the_same_time_lose_nothing() {
    let world = World::new();
    let archives: Vec<PathBuf> = (0..6u8).map(|i| world.file(&format!("a{i}"), &tar(&[("v", &[i])]))).collect();
    std::thread::scope(|scope| {
        for (i, path) in archives.iter().enumerate() {
            let store = &world.store;
            scope.spawn(move || {
                let image = store.load(path, &name(&format!("i{i}")), "", &mut |_| {}).unwrap();
                if i % 2 == 0 {
                    store.remove(&image.name).unwrap();
                }
            });
        }
    });
    let names: Vec<String> = world.store.list().unwrap().iter().map(|l| l.name.to_string()).collect();
    assert_eq!(names, ["i1", "i3", "i5"]);
    assert!(world.store.verify(&mut |_| {}).unwrap().is_empty());
    assert!(world.temporaries().is_empty());
}

#[test]
fn a_layout_of_the_future_is_left_alone() {
    let world = World::new();
    world.load("a", &tar(&[("v", b"1")])).unwrap();
    fs::write(world.path("data/images/oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(world.load("b", &tar(&[("v", b"2")])), Err(StoreError::Layout { .. })));
}

#[test]
fn documents_are_bounded_and_checked() {
    let world = World::new();
    world.load("a", &tar(&[("v", b"1")])).unwrap();
    let index = world.path("data/images/index.json");
    for bad in [
        &b"{"[..],
        b"[]",
        br#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"../../etc/passwd","size":1}]}"#,
    ] {
        fs::write(&index, bad).unwrap();
        assert!(matches!(world.store.list(), Err(StoreError::Damaged { .. })), "{}", String::from_utf8_lossy(bad));
    }
    fs::write(&index, vec![b' '; 5 << 20]).unwrap();
    assert!(matches!(world.store.list(), Err(StoreError::Damaged { .. })));
}
