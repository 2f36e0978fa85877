//! Images: storing, choosing, breaking them (row F3, the Alpine part).

use cellblock_tests::{World, alpine, cellblock, has_range, is_root};

#[test]
fn load_list_inspect_run_remove() {
    let world = World::new();
    world.load_alpine();
    let list: serde_json::Value = serde_json::from_str(&world.cellblock("image list --json").ok()).expect("json");
    assert_eq!(list[0]["name"], "alpine");
    assert_eq!(world.cellblock("run --image alpine -- cat /etc/alpine-release").ok(), "3.20.3\n");
    let inspected: serde_json::Value =
        serde_json::from_str(&world.cellblock("image inspect alpine").ok()).expect("json");
    assert_eq!(
        inspected["layers"][0][0]["digest"],
        "sha256:d4e6fd67dcf75e40c451560ac7265166c2b72a0f38ddc9aae756a7de3d1efa0c"
    );
    world.cellblock("image remove alpine").ok();
    assert_eq!(world.cellblock("image list --json").ok().trim(), "[]");
    let data = world.path("home/.local/share/cellblock");
    let layers = std::fs::read_dir(data.join("layers"))
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|k| std::fs::read_dir(k.path()).into_iter().flatten())
        .count();
    assert_eq!(layers, 0, "unpacked layers go too");
}

#[test]
fn auto_takes_what_is_there_and_says_so() {
    let world = World::new();
    world.cellblock("run -- true").run().says("image `host`").says("cellblock image pull alpine");
    world.load_alpine();
    world.cellblock("run -- test -e /etc/alpine-release").run().says("image `alpine`").says("--image host");
}

#[test]
fn archives_and_folders_by_path() {
    let world = World::new();
    let archive = alpine();
    std::fs::copy(&archive, world.project().join("root.tar.gz")).expect("copy");
    assert_eq!(world.cellblock("run --image ./root.tar.gz -- cat /etc/alpine-release").ok(), "3.20.3\n");
    std::fs::create_dir(world.project().join("tree")).expect("mkdir");
    world
        .call(std::path::Path::new("tar"), &["-xzf", archive.to_str().expect("utf-8"), "-C", "tree", "--no-same-owner"])
        .ok();
    assert_eq!(world.cellblock("run --image ./tree -- cat /etc/alpine-release").ok(), "3.20.3\n");
    world.cellblock("run --image ./tree -- touch /tmp/x").ok();
    assert!(!world.project().join("tree/tmp/x").exists(), "the folder is read-only below the cell's own layer");
    world.cellblock("run --image ./nothing -- true").fails(125).says("neither a folder nor an archive");
}

#[test]
fn broken_archives_store_nothing() {
    let world = World::new();
    let bytes = std::fs::read(alpine()).expect("alpine");
    world.write("home/demo/text.tar", "this is no archive, whatever its name says, and long enough for a block of a tar header, which has five hundred and twelve bytes .................................................................................................................................................................................................................................................................................................................................................................................................................................................................................");
    std::fs::write(world.project().join("cut.tar.gz"), &bytes[..bytes.len() / 2]).expect("write");
    for file in ["text.tar", "cut.tar.gz"] {
        world.cellblock(&format!("image load {file} --name x")).fails(125).says("cannot be used as a root file system");
    }
    world
        .cellblock("image load nothing.tar --name x")
        .fails(125)
        .says("cannot open")
        .says("cellblock image pull alpine");
    world.cellblock("image load . --name x").fails(125).says("is a folder").says("--image FOLDER");
    world.cellblock("image load cut.tar.gz --name host").fails(125).says("cannot be the name");
    assert_eq!(world.cellblock("image list --json").ok().trim(), "[]");
    let blobs =
        std::fs::read_dir(world.path("home/.local/share/cellblock/images/blobs/sha256")).expect("the store").count();
    assert_eq!(blobs, 0);
}

#[test]
fn a_tampered_blob_is_noticed_before_anything_runs() {
    let world = World::new();
    world.load_alpine();
    let blob = world.path("home/.local/share/cellblock/images/blobs/sha256/d4e6fd67dcf75e40c451560ac7265166c2b72a0f38ddc9aae756a7de3d1efa0c");
    let mut bytes = std::fs::read(&blob).expect("stored");
    // A header field of gzip that decompression does not look at.
    bytes[4] ^= 0xff;
    std::fs::write(&blob, bytes).expect("tamper");
    world.cellblock("run --image alpine -- true").fails(125).says("was changed on disk");
    assert!(world.leftovers().is_empty());
}

#[test]
fn unknown_images_and_versions() {
    let world = World::new();
    world.cellblock("run --image nope -- true").fails(125).says("there is no image `nope`").says("hint:");
    world.cellblock("image remove nope").fails(125).says("no image `nope`");
    world.cellblock("image pull debian").fails(125).says("knows Alpine only");
    world.cellblock("image pull alpine:x.y").fails(125).says("no Alpine version");
}

#[test]
fn a_pinned_release_comes_from_any_mirror_and_is_checked() {
    use std::io::{Read, Write};
    let bytes = std::fs::read(alpine()).expect("alpine");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let world = World::new();
    world.configure(&format!("defaults:\n  alpine_mirror: http://{address}/alpine\n"));
    let pull = std::thread::scope(|scope| {
        scope.spawn(|| {
            for (number, stream) in listener.incoming().take(2).flatten().enumerate() {
                let mut stream = stream;
                let mut request = [0u8; 2048];
                let _ = stream.read(&mut request);
                // The second answer is not the release.
                let body: &[u8] = if number == 0 { &bytes } else { b"evil" };
                let _ = stream.write_all(
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())
                        .as_bytes(),
                );
                let _ = stream.write_all(body);
            }
        });
        let first = world.cellblock("image pull alpine:3.20.3").run();
        world.cellblock("image remove alpine:3.20.3").ok();
        (first, world.cellblock("image pull alpine:3.20.3").run())
    });
    assert_eq!(pull.0.stdout(), "alpine:3.20.3\n", "{}", pull.0);
    assert_eq!(pull.1.code(), Some(125), "{}", pull.1);
    pull.1.says("wrong checksum").says("nothing was stored");
    world.cellblock("image pull alpine:3.19.1").fails(125).says("no built-in checksum").says("https");
}

/// A mirror on this machine: sends the real release, from where it is asked to, only half of it on its first `cut` answers, and then
/// nothing more. What it was asked for comes back on the channel.
#[expect(
    clippy::disallowed_methods,
    reason = "it serves for as long as the test runs; no cell is started in this process"
)]
fn mirror(cut: usize) -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{Read, Write};
    let bytes = std::fs::read(alpine()).expect("alpine");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let (tell, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for (number, mut stream) in listener.incoming().flatten().enumerate() {
            let mut request = vec![0u8; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(request.get(..length).unwrap_or_default()).to_lowercase();
            let from =
                request.split_once("range: bytes=").and_then(|(_, r)| r.split_once('-')?.0.parse::<usize>().ok());
            let body = bytes.get(from.unwrap_or(0)..).unwrap_or_default();
            let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let body = if number < cut { body.get(..body.len() / 2).unwrap_or_default() } else { body };
            let _ = stream.write_all(body);
            let _ = tell.send(request);
            if number < cut {
                open.push(stream);
            }
        }
    });
    (format!("defaults:\n  alpine_mirror: http://{address}/alpine\n"), heard)
}

#[test]
fn a_download_whose_program_was_killed_goes_on_where_it_was() {
    let world = World::new();
    let (config, heard) = mirror(1);
    world.configure(&config);
    let mut child = world.call(&cellblock(), &["image", "pull", "alpine:3.20.3"]).start();
    let _ = heard.recv().expect("a request");
    let downloads = world.path("home/.local/share/cellblock/downloads");
    let part = || -> u64 {
        std::fs::read_dir(&downloads)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| Some(e.metadata().ok()?.len()))
            .sum()
    };
    world.wait("half of it", || part() > 1_000_000);
    child.kill().expect("kill");
    let _ = child.wait();
    world.cellblock("image pull alpine:3.20.3").ok();
    assert!(heard.recv().expect("a request").contains("range: bytes=1"), "the half was used");
    assert_eq!(part(), 0, "nothing of it is left");
    assert_eq!(world.cellblock("run --image alpine -- cat /etc/alpine-release").ok(), "3.20.3\n");
}

#[test]
fn an_image_that_several_need_at_once_is_fetched_once() {
    let world = World::new();
    let (config, heard) = mirror(0);
    world.configure(&config);
    let starts: Vec<_> = (0..3)
        .map(|_| {
            world.call(&cellblock(), &["run", "--image", "alpine:3.20.3", "--", "cat", "/etc/alpine-release"]).start()
        })
        .collect();
    for child in starts {
        let output = child.wait_with_output().expect("its end");
        assert_eq!(output.stdout, b"3.20.3\n", "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(heard.try_iter().count(), 1);
    assert!(world.leftovers().is_empty());
}

#[test]
fn what_is_kept_of_a_cell_is_for_its_image_and_its_ids() {
    let world = World::new();
    world.load_alpine();
    let line = |flags: &str| world.cellblock(&format!("run --net none --name web {flags}"));
    line("--image alpine -u root -- sh -c 'echo mine >/opt/kept'").ok();
    assert_eq!(line("--image alpine -- cat /opt/kept").ok(), "mine\n", "another user, the same image");
    let refused = line("--image host -- true").fails(125);
    refused.says("what is kept of the cell `web` was made on the image alpine, and this one would be on host");
    refused.says("`--image alpine` goes on with it").says("cellblock remove web");
    if has_range() && !is_root() {
        line("--image alpine --userns single -- true").fails(125).says("with ids that this one does not have");
    }
    assert_eq!(line("--image alpine -- cat /opt/kept").ok(), "mine\n", "a refusal changes nothing");
    line("--image host --rm -e T@file:/missing -- true").fails(125).says("/missing");
    assert_eq!(line("--image alpine -- cat /opt/kept").ok(), "mine\n", "nor does a start that comes to nothing");
    line("--image host --rm -- test ! -e /opt/kept").ok();
    line("--image host -- true").ok();
    line("--image host --rm -- true").ok();
    world.wait("their end", || world.leftovers().is_empty());
}

#[test]
fn what_is_kept_of_cells_is_listed_and_can_be_thrown_away() {
    let world = World::new();
    world.load_alpine();
    let listed = || world.cellblock("status --all -q").ok();
    let _ = world.cellblock("status --all").ok();
    assert_eq!(listed(), "");
    world.cellblock("run --net none --image alpine -u root --name web -- sh -c 'mkdir -m 700 /opt/x; chown 5 /opt/x 2>/dev/null || true'").ok();
    world.cellblock("run --net none --image host --keep -- true").ok();
    // Another cell of that name would throw it away.
    world.cellblock("run --net none --image host -- true").ok();
    world.cellblock("run -d --net none --image host --name live -- sleep 60").ok();
    world.wait("what is kept, and what runs", || listed().lines().eq(["demo-main-true", "live", "web"]));
    let text = world.cellblock("status --all --json").ok();
    let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let of =
        |name: &str| rows.as_array().expect("rows").iter().find(|row| row["name"] == name).expect("listed").clone();
    assert_eq!((of("web")["state"].as_str(), of("web")["image"].as_str()), (Some("kept"), Some("alpine")));
    assert_eq!(of("live")["state"], "running");
    assert!(world.cellblock("status").ok().lines().all(|line| !line.contains("kept")), "only what runs");

    let _ = world.cellblock("remove").fails(125);
    world.cellblock("remove live").fails(125).says("is running").says("cellblock stop live");
    world.cellblock("remove web ../web").fails(125).says("nothing is kept of a cell named `../web`");
    assert_eq!(listed().lines().count(), 3, "one that is wrong, and none is gone");
    assert_eq!(world.cellblock("remove web web").ok(), "web\n");
    assert_eq!(world.cellblock("rm --all --json").ok().replace([' ', '\n'], ""), "[{\"name\":\"demo-main-true\"}]");
    assert_eq!(listed(), "live\n");
    world.cellblock("remove --all").ok();
    world.cellblock("run --net none --image alpine --rm --name web -- test ! -e /opt/x").ok();
    world.cellblock("stop live -t 0").ok();
    world.wait("the last one", || world.cellblock("status --all").run().stdout().contains("kept"));
    assert_eq!(world.cellblock("remove live").ok(), "live\n");
    world.wait("their end", || world.leftovers().is_empty());
}
