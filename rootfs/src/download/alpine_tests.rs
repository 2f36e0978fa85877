//! Tests of Alpine's names and index.

use super::*;

const SUM: &str = "1234567890123456789012345678901234567890123456789012345678901234";

fn index(version: &str, sum: &str) -> String {
    format!(
        "---\n-\n  title: \"Standard\"\n  desc: |\n    Alpine as it was intended.\n    Just enough to get you started.\n    Network connection is required.\n  \
         branch: v3.19\n  arch: x86_64\n  version: {version}\n  flavor: alpine-standard\n  file: alpine-standard-{version}-x86_64.iso\n  \
         size: 217055232\n  sha256: {SUM}\n-\n  title: \"Mini root filesystem\"\n  desc: |\n    Minimal root filesystem.\n    \
         sha256: not this one\n  branch: v3.19\n  arch: x86_64\n  version: {version}\n  flavor: alpine-minirootfs\n  \
         file: alpine-minirootfs-{version}-x86_64.tar.gz\n  iso: alpine-minirootfs-{version}-x86_64.tar.gz\n  date: 2024-01-26\n  \
         time: 17:55:27\n  size: 3387382\n  sha256: {sum}\n  sha512: abc\n"
    )
}

fn wanted(tag: &str) -> Wanted {
    Wanted::parse(Some(tag)).unwrap()
}

fn offline(url: &str) -> Result<Vec<u8>, FetchError> {
    panic!("nothing may be fetched, but {url} was")
}

#[test]
fn names() {
    assert_eq!(Wanted::parse(None).unwrap(), wanted("latest"));
    assert_eq!(wanted("v3.20").to_string(), "3.20");
    assert!(wanted("3").means("3.20.3") && wanted("3.20").means("3.20.3") && wanted("3.20.3").means("3.20.3"));
    assert!(!wanted("3.2").means("3.20.3") && !wanted("3.20.30").means("3.20.3"));
    for bad in ["edge", "3.", ".3", "3.20.3.1", "3.020", "3.20-rc1", "", "v", "99999999999", "3/../.."] {
        assert!(matches!(Wanted::parse(Some(bad)), Err(AlpineError::Version(_))), "{bad}");
    }
}

#[test]
fn pins_are_well_formed_and_need_no_network() {
    for pin in PINS {
        let digest: Digest = pin.sha256.parse().unwrap();
        assert_eq!(pin_of(&digest), Some(pin));
        let release = resolve(&wanted(pin.version), pin.arch, "http://mirror/", &mut offline).unwrap();
        assert!(release.pinned && release.digest == digest);
    }
    let newest = resolve(&wanted("latest"), "x86_64", MIRROR, &mut offline).unwrap();
    assert_eq!(newest.version, PINS[0].version);
    assert_eq!(
        newest.url,
        "https://dl-cdn.alpinelinux.org/alpine/v3.23/releases/x86_64/alpine-minirootfs-3.23.2-x86_64.tar.gz"
    );
}

#[test]
fn other_releases_come_from_the_index_or_the_file_beside() {
    let mut asked = Vec::new();
    let mut mirror = |url: &str| {
        asked.push(url.to_owned());
        match url {
            "https://m/v3.19/releases/x86_64/latest-releases.yaml" => Ok(index("3.19.1", SUM).into_bytes()),
            "https://m/v3.19/releases/x86_64/alpine-minirootfs-3.19.0-x86_64.tar.gz.sha256" => {
                Ok(format!("{}  alpine-minirootfs-3.19.0-x86_64.tar.gz\n", "a".repeat(64)).into_bytes())
            }
            _ => Err(FetchError::NotFound { url: url.to_owned() }),
        }
    };
    let found = resolve(&wanted("3.19"), "x86_64", "https://m", &mut mirror).unwrap();
    assert_eq!((&*found.version, found.digest.hex(), found.pinned), ("3.19.1", SUM.to_owned(), false));
    let older = resolve(&wanted("3.19.0"), "x86_64", "https://m", &mut mirror).unwrap();
    assert_eq!(older.digest.hex(), "a".repeat(64));
    for missing in ["3.19.7", "9.9"] {
        let error = resolve(&wanted(missing), "x86_64", "https://m", &mut mirror).unwrap_err();
        assert!(matches!(error, AlpineError::NoRelease { .. }), "{error}");
    }
}

#[test]
fn an_unencrypted_mirror_needs_a_pin() {
    let error = resolve(&wanted("3.19"), "x86_64", "http://m", &mut offline).unwrap_err();
    assert!(matches!(error, AlpineError::Untrusted { .. }), "{error}");
    let error = resolve(&wanted("3.20.3"), "x86_64", "ftp://m", &mut offline).unwrap_err();
    assert!(matches!(error, AlpineError::Mirror(_)), "{error}");
}

#[test]
fn hostile_indexes_are_refused() {
    let good = index("3.19.1", SUM);
    assert!(newest("u", good.as_bytes(), "x86_64").unwrap().is_some());
    for bad in [
        good.replace("3.19.1", "3.19.1/../.."),
        good.replace("file: alpine-minirootfs", "file: ../alpine-minirootfs"),
        good.replace(&format!("{SUM}\n  sha512"), "zz\n  sha512"),
        good.replace("arch: x86_64", "arch: aarch64"),
        "\u{0}".to_owned(),
        "- &a [*a, *a]".to_owned(),
        "{".repeat(10_000),
        format!("a: &a [x]\nb: &b [{0}]\n", "*a,".repeat(100)),
    ] {
        assert!(matches!(newest("u", bad.as_bytes(), "x86_64"), Err(AlpineError::Index { .. })), "{bad:.80}");
    }
    assert_eq!(newest("u", b"[]", "x86_64").unwrap(), None);
    assert!(newest("u", &vec![b' '; 2 << 20], "x86_64").is_err());
    assert!(newest("u", &[0xff], "x86_64").is_err());
}
