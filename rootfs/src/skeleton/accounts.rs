//! `/etc/passwd` and `/etc/group`: the image's own lines and the person's, so that getpwuid(3) and getgrgid(3) answer.
//!
//! The person's line says what the cell's environment says: `HOME`, `USER` and the shell must not depend on whom a program asks. A line
//! of the image for the person's uid gives way to it. A line of the image with the person's name but another uid stays under
//! another name, so that its uid keeps one.

use std::fmt::Write as _;
use std::path::Path;

use cellblock_bundle::User;

use super::SkeletonError;

/// What `passwd` has at least: root inside, and the overflow id that stands for everybody who is not mapped (user_namespaces(7)).
pub(super) const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";

/// What `group` has at least; gid 5 owns terminals on most distributions, and devpts is mounted with it where it is mapped.
pub(super) const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";

/// Longest name that `useradd` makes and utmp(5) holds.
const MAX_NAME: usize = 32;

/// The text of `/etc/passwd`, from the image's.
pub(super) fn passwd(image: &str, user: &User) -> Result<String, SkeletonError> {
    check_name("user name", &user.name)?;
    let home = check_path("home directory", &user.home)?;
    let shell = check_path("shell", &user.shell)?;
    let ours = format!("{}:x:{}:{}::{home}:{shell}", user.name, user.uid, user.gid);
    let taken: Vec<&str> = image.lines().filter_map(|line| line.split(':').next()).collect();
    let mut written = false;
    let mut text = String::with_capacity(image.len() + ours.len() + 1);
    for line in image.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next().unwrap_or_default(), fields.nth(1).and_then(|uid| uid.parse::<u32>().ok()));
        if uid == Some(user.uid) {
            // Where the first was: the first line with an id is the one that counts.
            if !std::mem::replace(&mut written, true) {
                push_line(&mut text, &ours);
            }
        } else if name == user.name {
            let rest = line.get(name.len()..).unwrap_or_default();
            push_line(&mut text, &format!("{}{rest}", free_name(name, &taken)));
        } else {
            push_line(&mut text, line);
        }
    }
    if !written {
        push_line(&mut text, &ours);
    }
    Ok(text)
}

/// The text of `/etc/group`, from the image's. Every group the person is in has a name, if only a made-up one: shells complain about
/// those without.
pub(super) fn group(image: &str, user: &User) -> Result<String, SkeletonError> {
    check_name("group name", &user.group)?;
    let mut taken: Vec<&str> = Vec::new();
    let mut gids: Vec<u32> = Vec::new();
    let mut text = String::with_capacity(image.len() + 64);
    for line in image.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split(':');
        taken.extend(fields.next());
        gids.extend(fields.nth(1).and_then(|gid| gid.parse::<u32>().ok()));
        push_line(&mut text, line);
    }
    if !gids.contains(&user.gid) {
        let name =
            if taken.contains(&user.group.as_str()) { free_name(&user.group, &taken) } else { user.group.clone() };
        push_line(&mut text, &format!("{name}:x:{}:", user.gid));
        gids.push(user.gid);
    }
    for gid in &user.groups {
        if !gids.contains(gid) {
            let name = format!("g{gid}");
            let name = if taken.contains(&name.as_str()) { free_name(&name, &taken) } else { name };
            push_line(&mut text, &format!("{name}:x:{gid}:{}", user.name));
            gids.push(*gid);
        }
    }
    Ok(text)
}

fn push_line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

/// `name` with the lowest number behind it that makes it nobody's.
fn free_name(name: &str, taken: &[&str]) -> String {
    let free = |number: &u32| !taken.contains(&format!("{name}-{number}").as_str());
    let number = (2..).find(free).unwrap_or(u32::MAX);
    format!("{name}-{number}")
}

fn check_name(field: &'static str, name: &str) -> Result<(), SkeletonError> {
    let bad = |why| Err(SkeletonError::User { field, value: name.into(), why });
    if name.is_empty() || name.len() > MAX_NAME {
        return bad("it has to have 1 to 32 bytes");
    }
    if name.starts_with('-') || name.chars().any(|c| c.is_control() || c.is_whitespace() || ":,/".contains(c)) {
        return bad("control characters, blanks and : , / cannot be in it, nor - at its start");
    }
    Ok(())
}

fn check_path<'a>(field: &'static str, path: &'a Path) -> Result<&'a str, SkeletonError> {
    let bad = |why| Err(SkeletonError::User { field, value: path.into(), why });
    match path.to_str() {
        None => bad("it is not UTF-8"),
        Some(text) if !path.is_absolute() => bad(if text.is_empty() { "it is empty" } else { "it is not absolute" }),
        Some(text) if text.chars().any(|c| c.is_control() || c == ':') => {
            bad("control characters and : cannot be in it")
        }
        Some(text) => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            uid: 1000,
            gid: 1000,
            groups: vec![1000, 44, 45],
            name: "ada".into(),
            group: "ada".into(),
            home: "/home/ada".into(),
            shell: "/bin/bash".into(),
        }
    }

    const ADA: &str = "ada:x:1000:1000::/home/ada:/bin/bash\n";

    #[test]
    fn a_new_user_comes_last() {
        assert_eq!(passwd("root:x:0:0::/root:/bin/sh", &user()).unwrap(), format!("root:x:0:0::/root:/bin/sh\n{ADA}"));
        assert_eq!(passwd("", &user()).unwrap(), ADA);
    }

    #[test]
    fn a_line_with_the_uid_gives_way_in_its_place() {
        let image = "node:x:1000:1000:Node:/home/node:/bin/sh\n\ntwin:x:1000:5::/:/\nbin:x:1:1::/:/\n";
        assert_eq!(passwd(image, &user()).unwrap(), format!("{ADA}bin:x:1:1::/:/\n"));
    }

    #[test]
    fn a_namesake_keeps_its_uid_under_another_name() {
        let image = "ada:x:102:102::/a:/b\nada-2:x:103:103::/a:/b\n";
        assert_eq!(passwd(image, &user()).unwrap(), format!("ada-3:x:102:102::/a:/b\nada-2:x:103:103::/a:/b\n{ADA}"));
    }

    #[test]
    fn odd_lines_of_an_image_are_left_alone() {
        let image = "+\n::::\nx:x:99999999999:1::/:/\n";
        assert_eq!(passwd(image, &user()).unwrap(), format!("{image}{ADA}"));
    }

    #[test]
    fn all_groups_have_names() {
        let image = "video:x:44:\nada:x:7:\ng45:x:8:\n";
        assert_eq!(group(image, &user()).unwrap(), format!("{image}ada-2:x:1000:\ng45-2:x:45:ada\n"));
        assert_eq!(group("users:x:1000:\nv:x:44:\nw:x:45:", &user()).unwrap(), "users:x:1000:\nv:x:44:\nw:x:45:\n");
    }

    #[test]
    fn what_would_break_the_line_is_refused() {
        for name in ["", "a:b", "a\nroot:x:0:0::/:/bin/sh", "a b", "-a", &"a".repeat(33)] {
            assert!(passwd("", &User { name: name.into(), ..user() }).is_err(), "{name:?}");
            assert!(group("", &User { group: name.into(), ..user() }).is_err(), "{name:?}");
        }
        for path in ["", "home", "/a:b", "/a\nb"] {
            assert!(passwd("", &User { home: path.into(), ..user() }).is_err(), "{path:?}");
            assert!(passwd("", &User { shell: path.into(), ..user() }).is_err(), "{path:?}");
        }
        for name in ["ada", "a.b", "DOMAIN\\ada", "ada@example.org", "ädä", "a$"] {
            assert!(passwd("", &User { name: name.into(), ..user() }).is_ok(), "{name:?}");
        }
    }
}
