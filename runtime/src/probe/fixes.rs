//! The exact commands and texts that mend a host.

use std::path::Path;

use super::Facts;

/// How many ids a range needs: what images are made for (65534 is `nobody`).
pub(super) const RANGE: u32 = 65_536;

/// A profile that lets this program, and only it, have capabilities in user namespaces it makes (Ubuntu 23.10 and later; AppArmor 4).
pub(super) fn apparmor_profile(program: &Path) -> String {
    // Quoted, for a path may have spaces; `"` itself cannot be written.
    let path = program.display();
    format!(
        "sudo tee /etc/apparmor.d/cellblock >/dev/null <<'PROFILE'\n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\
         profile cellblock \"{path}\" flags=(unconfined) {{\n  \
           userns,\n  \
           include if exists <local/cellblock>\n\
         }}\n\
         PROFILE\n\
         sudo apparmor_parser -r /etc/apparmor.d/cellblock"
    )
}

/// Sets a kernel setting now and for every start of the machine.
pub(super) fn sysctl(name: &str, value: &str) -> String {
    format!("echo '{name} = {value}' | sudo tee /etc/sysctl.d/90-cellblock.conf\nsudo sysctl -w {name}={value}")
}

/// Installs newuidmap and newgidmap, by the text of os-release(5).
pub(super) fn install_uidmap(os_release: &str) -> Option<&'static str> {
    let value = |key: &str| {
        os_release.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.trim_matches('"')))
    };
    let names = [value("ID"), value("ID_LIKE")].into_iter().flatten().flat_map(str::split_ascii_whitespace);
    names
        .filter_map(|name| match name {
            "debian" | "ubuntu" => Some("sudo apt-get install -y uidmap"),
            "fedora" | "rhel" | "centos" => Some("sudo dnf install -y shadow-utils"),
            "alpine" => Some("sudo apk add shadow-uidmap"),
            "arch" => Some("sudo pacman -S --needed shadow"),
            "suse" | "opensuse" | "opensuse-tumbleweed" | "opensuse-leap" => Some("sudo zypper install -y shadow"),
            "void" => Some("sudo xbps-install -y shadow"),
            _ => None,
        })
        .next()
}

/// The first range of 65536 ids, from 100000 up, that nobody has in these texts of subuid(5) and subgid(5). `None` if all are taken.
#[must_use]
pub fn free_range(subuid: &str, subgid: &str) -> Option<u32> {
    let mut taken: Vec<(u64, u64)> = subuid.lines().chain(subgid.lines()).filter_map(range).collect();
    taken.sort_unstable();
    let mut first = 100_000u64;
    for (start, count) in taken {
        if start + count <= first {
            continue;
        }
        if start >= first + u64::from(RANGE) {
            break;
        }
        first = start + count;
    }
    // The last id is not one (-1), and some file systems take those from 2^31 up for negative.
    (first + u64::from(RANGE) <= 1 << 31).then(|| u32::try_from(first).ok()).flatten()
}

/// First id and count of a line.
pub(super) fn range(line: &str) -> Option<(u64, u64)> {
    match line.trim().split(':').collect::<Vec<_>>()[..] {
        [owner, start, count] if !owner.is_empty() => {
            let (start, count): (u32, u32) = (start.parse().ok()?, count.parse().ok()?);
            Some((start.into(), count.into()))
        }
        _ => None,
    }
}

/// Adds a range for the person.
pub(super) fn add_range(facts: &Facts) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let first = free_range(&read("/etc/subuid"), &read("/etc/subgid")).unwrap_or(100_000);
    let last = u64::from(first) + u64::from(RANGE) - 1;
    format!("sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {}", quoted(&facts.user))
}

/// A word for a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_range_overlaps_nobody() {
        for (subuid, subgid, first) in [
            ("", "", Some(100_000)),
            ("ada:100000:65536\n", "ada:100000:65536\n", Some(165_536)),
            ("ada:100000:65536\nbob:165536:65536\n", "", Some(231_072)),
            // a hole that is large enough, and one that is not
            ("ada:300000:65536\n", "", Some(100_000)),
            ("ada:120000:65536\n", "", Some(185_536)),
            ("", "ada:100000:1\n", Some(100_001)),
            ("bad\nada:x:1\n:1:2\n", "", Some(100_000)),
            ("all:0:4294967295\n", "", None),
            ("small:1000:10\n", "", Some(100_000)),
        ] {
            assert_eq!(free_range(subuid, subgid), first, "{subuid} {subgid}");
        }
    }

    #[test]
    fn packages_by_distribution() {
        for (text, package) in [
            ("ID=debian\n", Some("uidmap")),
            ("NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some("uidmap")),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Some("shadow-utils")),
            ("ID=alpine\n", Some("shadow-uidmap")),
            ("ID=nixos\n", None),
            ("", None),
        ] {
            let found = install_uidmap(text);
            assert_eq!(found.and_then(|f| f.split(' ').next_back()), package, "{text}");
        }
    }

    #[test]
    fn words_for_a_shell() {
        for (word, text) in [("ada", "ada"), ("a b", "'a b'"), ("", "''"), ("it's", "'it'\\''s'"), ("$(x)", "'$(x)'")] {
            assert_eq!(quoted(word), text);
        }
    }

    #[test]
    fn the_profile_names_the_program() {
        let text = apparmor_profile(Path::new("/opt/my tools/cellblock"));
        assert!(
            text.contains("profile cellblock \"/opt/my tools/cellblock\" flags=(unconfined) {\n  userns,\n"),
            "{text}"
        );
    }
}
