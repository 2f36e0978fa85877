//! Tests on made-up hosts: each a directory that is laid out as the distribution lays out its root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dir(self, path: &str) -> Self {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
        self
    }

    fn link(self, path: &str, target: &str) -> Self {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        symlink(target, self.path(path)).unwrap();
        self
    }

    fn mode(self, path: &str, mode: u32) -> Self {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// A directory that is too full to be made anew.
    fn full(self, path: &str) -> Self {
        (0..=SMALL).fold(self, |host, i| host.file(&format!("{path}/program{i}"), ""))
    }

    fn detect(&self) -> HostImage {
        HostImage::detect(self.0.path()).unwrap()
    }
}

fn binds(image: &HostImage) -> Vec<String> {
    image.mounts.iter().map(|mount| mount.target().display().to_string()).collect()
}

fn entry<'a>(image: &'a HostImage, path: &str) -> Option<&'a Entry> {
    image.entries.iter().find(|(p, _)| p == Path::new(path)).map(|(_, entry)| entry)
}

fn copied(image: &HostImage, path: &str) -> bool {
    matches!(entry(image, path), Some(Entry::Copy { .. }))
}

/// Debian's layout, with secrets where Debian has them.
fn debian() -> Host {
    Host::new()
        .full("usr/bin")
        .file("usr/share/zoneinfo/Europe/Berlin", "TZif")
        .file("usr/lib/os-release", "ID=debian\n")
        .link("bin", "usr/bin")
        .link("sbin", "usr/sbin")
        .dir("usr/sbin")
        .dir("opt")
        .full("etc/alternatives")
        .full("etc/ssl/certs")
        .file("etc/ssl/openssl.cnf", "")
        .file("etc/ssl/private/key.pem", "SECRET")
        .mode("etc/ssl/private", 0o710)
        .file("etc/ld.so.cache", "cache")
        .file("etc/ld.so.conf.d/libc.conf", "/usr/local/lib")
        .file("etc/services", "ssh 22/tcp")
        .link("etc/localtime", "/usr/share/zoneinfo/Europe/Berlin")
        .link("etc/os-release", "../usr/lib/os-release")
        .file("etc/shadow", "SECRET")
        .mode("etc/shadow", 0o640)
        .file("etc/passwd", "root:x:0:0::/root:/bin/sh")
        .file("etc/gitconfig", "SECRET")
        .file("etc/ssh/ssh_host_key", "SECRET")
        .file("etc/machine-id", "SECRET")
        .file("etc/brand-new.conf", "SECRET")
}

#[test]
fn debian_is_bound_in_few_mounts() {
    let host = debian();
    let image = host.detect();
    assert_eq!(binds(&image), ["/usr", "/etc/alternatives", "/etc/ssl/certs"]);
    let source = |mount: &Mount| match mount {
        Mount::Bind { source, writable, .. } => (source.clone(), *writable),
        Mount::Tmpfs { .. } => panic!("no tmpfs"),
    };
    assert_eq!(source(&image.mounts[0]), (host.path("usr").canonicalize().unwrap(), false));
    assert_eq!(entry(&image, "/usr"), Some(&Entry::directory(0o755)), "a mount point");
    assert_eq!(entry(&image, "/bin"), Some(&Entry::link("usr/bin")));
    assert_eq!(entry(&image, "/sbin"), Some(&Entry::link("usr/sbin")));
    assert_eq!(entry(&image, "/opt"), Some(&Entry::directory(0o755)), "empty: nothing to bind");
    assert_eq!(entry(&image, "/lib64"), None);
}

#[test]
fn chosen_files_of_etc_are_taken_and_no_others() {
    let image = debian().detect();
    for path in ["/etc/ld.so.cache", "/etc/services", "/etc/ssl/openssl.cnf", "/etc/ld.so.conf.d/libc.conf"] {
        assert!(copied(&image, path), "{path}: {:?}", entry(&image, path));
    }
    assert_eq!(entry(&image, "/etc/localtime"), Some(&Entry::link("/usr/share/zoneinfo/Europe/Berlin")));
    assert_eq!(entry(&image, "/etc/os-release"), Some(&Entry::link("/usr/lib/os-release")));
    let all = format!("{image:?}");
    for secret in ["shadow", "gitconfig", "ssh/", "machine-id", "private", "passwd", "brand-new"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[test]
fn what_not_everybody_may_read_is_left_out() {
    let host = debian()
        .mode("etc/services", 0o600)
        .mode("etc/ssl/certs", 0o700)
        .file("var/secret/protocols", "")
        .mode("var/secret", 0o700)
        .link("etc/protocols", "/var/secret/protocols")
        .file("var/open/rpc", "")
        .link("etc/rpc", "/var/open/rpc");
    let image = host.detect();
    for path in ["/etc/services", "/etc/ssl/certs", "/etc/protocols"] {
        assert_eq!(entry(&image, path), None, "{path}");
    }
    assert!(copied(&image, "/etc/rpc"), "the twin in an open directory");
}

#[test]
fn separate_directories_are_each_bound() {
    let host = Host::new().full("usr/bin").full("bin").full("sbin").full("lib").full("opt/tool");
    assert_eq!(binds(&host.detect()), ["/usr", "/bin", "/sbin", "/lib", "/opt"]);
}

#[test]
fn alpine_keeps_its_certificates() {
    let host = Host::new()
        .full("usr/bin")
        .full("bin")
        .full("lib")
        .full("etc/ssl/certs")
        .file("etc/ssl/certs/ca-certificates.crt", "PEM")
        .link("etc/ssl/cert.pem", "certs/ca-certificates.crt")
        .file("etc/ld-musl-x86_64.path", "/lib");
    let image = host.detect();
    assert_eq!(binds(&image), ["/usr", "/bin", "/lib", "/etc/ssl/certs"]);
    assert_eq!(entry(&image, "/etc/ssl/cert.pem"), Some(&Entry::link("/etc/ssl/certs/ca-certificates.crt")));
    assert!(copied(&image, "/etc/ld-musl-x86_64.path"));
}

#[test]
fn nixos_needs_one_mount() {
    let host = Host::new()
        .file("nix/store/aaa-bash/bin/bash", "")
        .file("nix/store/bbb-coreutils/bin/env", "")
        .file("nix/store/ccc-system/sw/bin/ls", "")
        .file("nix/store/ddd-cacert/ca-bundle.crt", "PEM")
        .file("nix/store/eee-tz/Europe/Berlin", "TZif")
        .link("nix/store/fff-etc/etc/ssl/certs/ca-certificates.crt", "/nix/store/ddd-cacert/ca-bundle.crt")
        .link("nix/store/fff-etc/etc/zoneinfo", "/nix/store/eee-tz")
        .file("nix/store/fff-etc/etc/services", "")
        .link("nix/var/nix/profiles/default", "default-3-link")
        .link("nix/var/nix/profiles/default-3-link", "/nix/store/ccc-system")
        .full("nix/store/ggg-full/share")
        .link("bin/sh", "/nix/store/aaa-bash/bin/bash")
        .link("usr/bin/env", "/nix/store/bbb-coreutils/bin/env")
        .link("run/current-system", "/nix/store/ccc-system")
        .link("etc/static", "/nix/store/fff-etc/etc")
        .link("etc/ssl/certs/ca-certificates.crt", "/etc/static/ssl/certs/ca-certificates.crt")
        .link("etc/services", "/etc/static/services")
        .link("etc/zoneinfo", "/etc/static/zoneinfo")
        .link("etc/localtime", "/etc/zoneinfo/Europe/Berlin");
    let host = (0..=SMALL).fold(host, |host, i| host.dir(&format!("nix/store/{i}-package")));
    let image = host.detect();
    assert_eq!(binds(&image), ["/nix/store"]);
    for (path, target) in [
        ("/bin/sh", "/nix/store/aaa-bash/bin/bash"),
        ("/usr/bin/env", "/nix/store/bbb-coreutils/bin/env"),
        ("/run/current-system", "/nix/store/ccc-system"),
        ("/nix/var/nix/profiles/default", "/nix/store/ccc-system"),
        ("/etc/static", "/nix/store/fff-etc/etc"),
        ("/etc/ssl/certs/ca-certificates.crt", "/nix/store/ddd-cacert/ca-bundle.crt"),
        ("/etc/services", "/nix/store/fff-etc/etc/services"),
        ("/etc/localtime", "/nix/store/eee-tz/Europe/Berlin"),
    ] {
        assert_eq!(entry(&image, path), Some(&Entry::link(target)), "{path}");
    }
}

#[test]
fn fedora_shows_public_certificates_only() {
    let host = Host::new()
        .full("usr/bin")
        .full("etc/pki/ca-trust/extracted/pem")
        .file("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "PEM")
        .link("etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem")
        .link("etc/ssl/certs", "../pki/tls/certs")
        .file("etc/pki/tls/private/key.pem", "SECRET")
        .file("etc/pki/entitlement/1-key.pem", "SECRET");
    let image = host.detect();
    assert_eq!(binds(&image), ["/usr", "/etc/pki/ca-trust"]);
    let bundle = Entry::link("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
    assert_eq!(entry(&image, "/etc/pki/tls/certs/ca-bundle.crt"), Some(&bundle));
    assert_eq!(entry(&image, "/etc/ssl/certs/ca-bundle.crt"), Some(&bundle));
    assert!(!format!("{image:?}").contains("key.pem"));
}

#[test]
fn image_based_systems_show_what_usr_local_leads_to() {
    let host = Host::new()
        .full("usr/bin")
        .link("usr/local", "../var/usrlocal")
        .full("var/usrlocal/bin")
        .link("opt", "var/opt")
        .full("var/opt/tool");
    let image = host.detect();
    assert_eq!(binds(&image), ["/usr", "/opt", "/var/usrlocal"]);
    assert_eq!(entry(&image, "/var/usrlocal"), Some(&Entry::directory(0o755)));
}

#[test]
fn links_do_not_lead_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("services"), "OUTSIDE").unwrap();
    let up = format!("{}{}", "../".repeat(30), outside.path().join("services").display());
    let host = debian().link("etc/protocols", &up).link("etc/rpc", "/etc/rpc");
    let image = host.detect();
    assert_eq!(entry(&image, "/etc/protocols"), None);
    assert_eq!(entry(&image, "/etc/rpc"), None, "a ring");
}

#[test]
fn large_files_are_bound_and_odd_ones_left_out() {
    let host = debian();
    fs::write(host.path("etc/ld.so.cache"), vec![0; 600 << 10]).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, host.path("etc/magic"), FileType::Fifo, Mode::from_raw_mode(0o644), 0)
        .unwrap();
    let image = host.detect();
    assert!(binds(&image).contains(&"/etc/ld.so.cache".to_owned()));
    assert_eq!(entry(&image, "/etc/ld.so.cache"), Some(&Entry::file("")), "a mount point");
    assert_eq!(entry(&image, "/etc/magic"), None);
}

#[test]
fn an_empty_root_is_no_image() {
    let host = Host::new().dir("home");
    assert!(matches!(HostImage::detect(host.0.path()), Err(HostError::NoSystem { .. })));
    assert!(matches!(HostImage::detect(&host.path("nowhere")), Err(HostError::Io { .. })));
}

#[test]
fn the_table_has_reasons_and_no_doubles() {
    let mut names: Vec<&str> = table::ETC.iter().map(|row| row.name).collect();
    let rows = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows);
    for row in table::ETC {
        assert!(!row.why.is_empty(), "{}", row.name);
        assert!(!row.prefix || !row.name.contains('/'), "{}", row.name);
    }
}

#[test]
fn this_host_can_be_an_image() {
    let image = HostImage::detect(Path::new("/")).unwrap();
    assert!(image.mounts.len() < 12, "{:?}", image.mounts);
    let text = serde_json::to_string(&image).unwrap();
    assert_eq!(serde_json::from_str::<HostImage>(&text).unwrap(), image);
}

#[test]
fn resolver_settings_are_found_through_chains() {
    let plain = Host::new().file("etc/resolv.conf", "nameserver 10.0.0.1\n");
    let found = dns(plain.0.path()).unwrap().unwrap();
    assert_eq!((found.text.as_str(), found.fallback), ("nameserver 10.0.0.1\n", false));

    let resolved = Host::new()
        .file("run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n")
        .link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    let found = dns(resolved.0.path()).unwrap().unwrap();
    assert_eq!(found.file, Path::new("/run/systemd/resolve/stub-resolv.conf"));
    assert!(!found.fallback);

    let nixos = Host::new()
        .file("nix/store/x-etc/resolv.conf", "nameserver 9.9.9.9\n")
        .link("etc/static", "/nix/store/x-etc")
        .link("etc/resolv.conf", "/etc/static/resolv.conf");
    assert_eq!(dns(nixos.0.path()).unwrap().unwrap().text, "nameserver 9.9.9.9\n");
}

#[test]
fn resolver_settings_have_a_fallback_that_says_so() {
    let dangling = Host::new()
        .link("etc/resolv.conf", "/run/gone")
        .file("run/NetworkManager/resolv.conf", "nameserver 192.168.0.1\n");
    let found = dns(dangling.0.path()).unwrap().unwrap();
    assert_eq!((found.text.as_str(), found.fallback), ("nameserver 192.168.0.1\n", true));
    let nothing = Host::new().link("etc/resolv.conf", "resolv.conf");
    assert_eq!(dns(nothing.0.path()).unwrap(), None);
    let directory = Host::new().dir("etc/resolv.conf");
    assert_eq!(dns(directory.0.path()).unwrap(), None);
}
