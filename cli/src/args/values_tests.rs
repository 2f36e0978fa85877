//! Each small language: what it takes, what it refuses and in which words.

use super::*;

fn told<T: FromStr<Err = ValueError> + fmt::Debug>(text: &str) -> String {
    text.parse::<T>().expect_err(text).to_string()
}

#[test]
fn sizes() {
    for (text, want) in
        [("1", 1), ("512m", 512 << 20), ("2G", 2 << 30), ("2GiB", 2 << 30), ("1024k", 1 << 20), ("8b", 8)]
    {
        assert_eq!(text.parse(), Ok(Size(want)), "{text}");
    }
    for text in ["", "m", "1.5g", "-1", "+1", "1 g", "2x", "g2", "1m2"] {
        assert_eq!(text.parse::<Size>(), Err(ValueError::Size), "{text}");
    }
    for text in ["0", "8388608t", "99999999999999999999"] {
        assert_eq!(text.parse::<Size>(), Err(ValueError::SizeRange), "{text}");
    }
}

#[test]
fn processors_and_processes() {
    for (text, want) in [("1", 1000), ("1.5", 1500), ("0.01", 10), ("2.125", 2125)] {
        assert_eq!(text.parse(), Ok(Cpus(want)), "{text}");
    }
    for text in ["", "0", "0.001", ".5", "1.", "1.0001", "-1", "1e3", "99999999999999999999", "18446744073709551615"] {
        assert_eq!(text.parse::<Cpus>(), Err(ValueError::Cpus), "{text}");
    }
    assert_eq!("100".parse(), Ok(Pids(100)));
    for text in ["0", "-1", "x", "4194305"] {
        assert_eq!(text.parse::<Pids>(), Err(ValueError::Pids), "{text}");
    }
}

#[test]
fn environment_entries() {
    let entry = |name: &str, value: Option<&str>| {
        Ok(EnvEntry { name: name.into(), value: value.map_or(Given::Host, |value| Given::Value(value.into())) })
    };
    assert_eq!("MIX_ENV=dev".parse(), entry("MIX_ENV", Some("dev")));
    assert_eq!("DATABASE_URL".parse(), entry("DATABASE_URL", None));
    assert_eq!("A=b=c".parse(), entry("A", Some("b=c")));
    assert_eq!("A=".parse(), entry("A", Some("")));
    assert_eq!(
        told::<EnvEntry>("1A=x"),
        "\"1A\" is not a name for a variable: letters, digits and _ only, and no digit first"
    );
    for text in ["", "=x", "A B=1", "A-B", "é=1", "A*"] {
        assert!(matches!(text.parse::<EnvEntry>(), Err(ValueError::EnvName(_))), "{text}");
    }
    assert_eq!("A=\0".parse::<EnvEntry>(), Err(ValueError::Nul));
}

#[test]
fn mounts() {
    let mount = |source: &str, target: Option<&str>, writable| {
        Ok(MountSpec { source: source.into(), target: target.map(Into::into), writable })
    };
    assert_eq!("~/work/shared-libs:/shared-libs:ro".parse(), mount("~/work/shared-libs", Some("/shared-libs"), false));
    assert_eq!("/a:/b".parse(), mount("/a", Some("/b"), true));
    assert_eq!("/a:/b/./c//:rw".parse(), mount("/a", Some("/b/c"), true));
    assert_eq!("/a".parse(), mount("/a", None, true));
    assert_eq!("/a:ro".parse(), mount("/a", None, false));
    assert_eq!("./a:ro".parse(), mount("./a", None, false));
    assert_eq!("$X/a:/b".parse(), mount("$X/a", Some("/b"), true));
    let told = told::<MountSpec>;
    assert_eq!(told("/a:b"), "unknown mount option \"b\"; the options are ro and rw");
    assert_eq!(told("/a:b/c"), "\"b/c\" is a path inside the cell and must be absolute, without `..`");
    assert_eq!(told("/a:/b/../c"), "\"/b/../c\" is a path inside the cell and must be absolute, without `..`");
    assert_eq!(told("/a:/b:z"), "this version does not support the mount option \"z\" (relabelling for SELinux)");
    assert_eq!(told("/a:Z"), "this version does not support the mount option \"Z\" (relabelling for SELinux)");
    assert!(
        told("/a:/b:O").contains("(an overlay over the source; with `--overlay DIR` what is in DIR/x is at /x inside")
    );
    assert_eq!(told("/a:/b:rro"), "unknown mount option \"rro\"; the options are ro and rw");
    assert_eq!(told("/a:/b:ro,rw"), "a mount is either ro or rw, not both");
    assert_eq!(
        told("data:/data"),
        "\"data\" would be a named volume, which this version does not support; a folder is written ./data or as an absolute path"
    );
    for text in ["", ":/b", "/a:/b:ro:x"] {
        assert_eq!(text.parse::<MountSpec>(), Err(ValueError::Mount), "{text}");
    }
}

#[test]
fn empty_file_systems() {
    assert_eq!("/t".parse(), Ok(TmpfsSpec { target: "/t".into(), size: None, mode: 0o1777 }));
    let spec = TmpfsSpec { target: "/t".into(), size: Some(65_536), mode: 0o755 };
    assert_eq!("/t:rw,size=64k,mode=0755".parse(), Ok(spec));
    for text in ["/t:size", "/t:mode=9", "/t:mode=7777", "/t:exec"] {
        assert!(matches!(text.parse::<TmpfsSpec>(), Err(ValueError::TmpfsOption(_))), "{text}");
    }
    assert!(matches!("t".parse::<TmpfsSpec>(), Err(ValueError::Inside(_))));
}

#[test]
fn users() {
    for text in ["root", "0", "0:0", "root:root"] {
        assert_eq!(text.parse(), Ok(UserSpec::Root), "{text}");
    }
    assert_eq!("1000".parse(), Ok(UserSpec::Ids { uid: 1000, gid: None }));
    assert_eq!("1000:50".parse(), Ok(UserSpec::Ids { uid: 1000, gid: Some(50) }));
    assert_eq!("ada.l@corp".parse(), Ok(UserSpec::Name("ada.l@corp".into())));
    for text in ["", "4294967295", "4294967296", "1000:", ":5", "+5", "5:+5", "1 0", "ada:users", "a/b"] {
        assert_eq!(text.parse::<UserSpec>(), Err(ValueError::User), "{text}");
    }
}

#[test]
fn labels_names_hosts_and_mirrors() {
    assert_eq!("a.b/c=d=e".parse(), Ok(Label { key: "a.b/c".into(), value: "d=e".into() }));
    assert_eq!("a".parse(), Ok(Label { key: "a".into(), value: String::new() }));
    assert_eq!("=x".parse::<Label>(), Err(ValueError::Label));
    assert_eq!("cellblock.project=x".parse::<Label>(), Err(ValueError::LabelReserved));
    for name in ["a", "web-main-claude", "0.1_x"] {
        assert_eq!(cell_name(name), Ok(name.to_owned()));
    }
    for name in ["", "A", "-a", ".a", "a/b", "é", &"a".repeat(64)] {
        assert_eq!(cell_name(name), Err(ValueError::Name), "{name}");
    }
    assert_eq!(hostname("Box.local"), Ok("Box.local".into()));
    assert_eq!(hostname("a_b"), Err(ValueError::Hostname));
    assert_eq!(mirror("https://mirror.example/alpine/"), Ok("https://mirror.example/alpine".into()));
    for text in ["mirror.example", "ftp://x", "https://", "https:///x", "https://a b"] {
        assert_eq!(mirror(text), Err(ValueError::Url), "{text}");
    }
}

#[test]
fn words_of_a_set() {
    assert_eq!(Userns::read("keep-id"), Ok(Userns::KeepId));
    assert_eq!(
        LimitMode::read("besteffort").unwrap_err().to_string(),
        "it is one of enforce, best-effort; did you mean \"best-effort\"?"
    );
    assert_eq!(Network::read("nat").unwrap_err().to_string(), "it is one of names, none, bridge, host");
    for (words, table) in [(Profile::WORDS, Profile::TABLE.len()), (Tty::WORDS, Tty::TABLE.len())] {
        assert_eq!(words.len(), table);
    }
}
