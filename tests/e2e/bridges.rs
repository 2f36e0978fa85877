//! The clipboard's image and the browser, asked from inside.

use std::path::Path;

use cellblock_tests::{Call, World};

/// A PNG's first bytes, and some that no text has.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\xff\xfe";

/// A world with a desktop: programs that write down how they were called.
fn desktop() -> World {
    let world = World::new();
    std::fs::write(world.path("home/image"), PNG).expect("an image");
    let home = world.path("home").display().to_string();
    world.write("home/types", "text/plain\nimage/png\n");
    world.write(
        "home/bin/wl-paste",
        &format!("#!/bin/sh\necho \"wl-paste $*\" >>{home}/called\ncase $* in *list*) exec cat {home}/types ;; esac\nexec cat {home}/image\n"),
    );
    world.write("home/bin/xclip", &format!("#!/bin/sh\necho \"xclip $*\" >>{home}/called\ncase $* in *TARGETS*) exec cat {home}/types ;; esac\nexec cat {home}/image\n"));
    world.write("home/bin/xdg-open", &format!("#!/bin/sh\necho \"xdg-open $*\" >>{home}/called\n"));
    let script = "chmod 755 ../bin/*; chmod 644 ../image ../types";
    world.call(Path::new("sh"), &["-c", script]).ok();
    world
}

/// A cell that runs `script`, started from that desktop.
fn cell(world: &World, flags: &str, script: &str) -> Call {
    world.write("home/demo/script", script);
    let path = format!("{}:/usr/bin:/bin", world.path("home/bin").display());
    world
        .cellblock(&format!("run --net none {flags} -- sh script"))
        .env("PATH", &path)
        .env("WAYLAND_DISPLAY", "wayland-0")
}

fn called(world: &World) -> String {
    std::fs::read_to_string(world.path("home/called")).unwrap_or_default()
}

/// What an agent does to paste an image, on two images: one with the host's tools, one with busybox only.
#[test]
fn an_image_is_pasted_and_text_is_not() {
    let world = desktop();
    world.load_alpine();
    let script = "
xclip -selection clipboard -t TARGETS -o
xclip -selection clipboard -t image/png -o >xclip.png; echo $?
wl-paste -l
wl-paste --type image/png >wl.png; echo $?
xclip -selection clipboard -t text/plain -o 2>/dev/null; echo $?
wl-paste 2>/dev/null; echo $?
xdg-open https://example.com 2>&1 | head -n 1
";
    let want = "image/png\n0\nimage/png\n0\n1\n1\n";
    for image in ["host", "alpine"] {
        let without = cell(&world, &format!("--image {image}"), "PATH=/etc/cellblock/bin; xclip -t TARGETS -o").run();
        assert_eq!(without.code(), Some(127), "{without}");
        assert_eq!(called(&world), "");
        let out = cell(&world, &format!("--image {image} --bridge clipboard-image"), script).ok();
        assert!(out.starts_with(want), "{image}: {out}");
        assert!(!called(&world).contains("xdg-open"), "was not asked for");
        for file in ["xclip.png", "wl.png"] {
            assert_eq!(std::fs::read(world.path(&format!("home/demo/{file}"))).expect(file), PNG, "{image}");
        }
        let _ = std::fs::remove_file(world.path("home/called"));
    }
    // What calls itself an image and is none; nothing; no desktop; no program.
    world.write("home/image", "the person's password");
    let done = cell(&world, "--image host --bridge clipboard-image", "wl-paste --type image/png").run();
    assert_eq!((done.code(), done.stdout().as_str()), (Some(2), ""), "{done}");
    done.says("no image in PNG");
    world.write("home/types", "text/plain\n");
    let done = cell(&world, "--image host --bridge clipboard-image", "wl-paste -l; echo $?").run();
    assert_eq!(done.stdout(), "1\n", "{done}");
    let bare = cell(&world, "--image host --bridge clipboard-image", "wl-paste -l; echo $?").env("WAYLAND_DISPLAY", "");
    bare.run().says("there is no desktop here");
    let x = cell(&world, "--image host --bridge clipboard-image", "wl-paste -l").env("WAYLAND_DISPLAY", "");
    let _ = x.env("DISPLAY", ":0").run();
    assert!(called(&world).contains("xclip -selection clipboard -t TARGETS -o\n"), "{}", called(&world));
    assert!(world.leftovers().is_empty());
}

#[test]
fn addresses_are_opened_outside_if_they_are_addresses() {
    let world = desktop();
    world.load_alpine();
    let script = "
xdg-open 'https://example.com/a?b=c&d=$(id)#e'; echo $?
open http://example.com; echo $?
$BROWSER https://example.org/; echo $?
for odd in file:///etc/passwd 'javascript:alert(1)' http://localhost:631/ http://127.0.0.1/ 'https://a.example/ b' -h https://u@a.example; do
    xdg-open \"$odd\" 2>/dev/null; echo $?
done
wl-paste -l 2>/dev/null; echo $?
";
    for image in ["host", "alpine"] {
        let out = cell(&world, &format!("--name open-{image} --rm --image {image} --bridge open-url"), script).ok();
        assert_eq!(
            out,
            "0\n0\n0\n4\n4\n4\n4\n4\n4\n4\n127\n".replace("127", out.lines().last().unwrap_or("")),
            "{image}"
        );
        assert_ne!(out.lines().last(), Some("0"));
        let want = "xdg-open https://example.com/a?b=c&d=$(id)#e\nxdg-open http://example.com\nxdg-open https://example.org/\n";
        assert_eq!(called(&world), want, "{image}");
        let _ = std::fs::remove_file(world.path("home/called"));
        let log = world.cellblock(&format!("net log open-{image}")).ok();
        assert!(
            log.contains("allow  browser https://example.org/") && log.contains("deny   browser file:///etc/passwd"),
            "{log}"
        );
    }
    // A browser that was started for it outlives the cell.
    let home = world.path("home").display().to_string();
    world.write("home/bin/xdg-open", &format!("#!/bin/sh\n(sleep 1; echo still here >{home}/browser) &\n"));
    cell(&world, "--image host --bridge open-url", "xdg-open https://example.com").ok();
    assert!(!world.path("home/browser").exists());
    world.wait("the browser", || world.path("home/browser").exists());
    // No program there: the person is told the address.
    std::fs::remove_file(world.path("home/bin/xdg-open")).expect("there");
    let done = cell(&world, "--image host --bridge open-url", "xdg-open https://example.com/x").run();
    // The machine may have one of its own, which finds no desktop.
    assert_eq!(done.code(), Some(4), "{done}");
    done.says("The address was: https://example.com/x");
}

/// Floods, half lines and long ones end nothing, and the next question is answered or refused in words.
#[test]
fn a_flood_of_questions_is_counted_and_ends_nothing() {
    let world = desktop();
    let script = "
ask=/etc/cellblock/bin/ask
$ask has-image; echo $?
python3 - <<'END'
import os
pipe = os.open('/run/cellblock/requests', os.O_WRONLY)
for n in range(50):
    os.write(pipe, b'y' * 4096)
os.write(pipe, b'\\n../../../../../etc image\\n\\xff\\xfe image\\n')
for n in range(10000):
    os.write(pipe, b'0123456789abcdef has-image\\n')
END
sleep 0.5
$ask has-image 2>&1; echo $?
";
    let out = cell(&world, "--name flood --rm --image host --bridge clipboard-image", script).ok();
    assert_eq!(out, "0\ncellblock: cellblock answers 20 such requests a minute\n2\n");
    let calls = called(&world).lines().count();
    assert!((1..=20).contains(&calls), "{calls}");
    let audit =
        std::fs::read_to_string(world.path("home/.local/state/cellblock/audit/flood.jsonl")).expect("the audit");
    assert!(audit.lines().count() < 100, "{audit}");
    assert!(world.leftovers().is_empty());
}
