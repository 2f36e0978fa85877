//! What of the host's `/etc` is shown in a cell with the `host` image: a list with reasons, never "all but". A new file with a secret in
//! `/etc` must not turn up in every cell.
//!
//! Left out on purpose, although programs read them: `gitconfig` (credential helpers and tokens), `npmrc`, `pip.conf`, `wgetrc`,
//! `environment`, `profile.d`, `apt`, `maven`, `nix` (all of them can hold passwords of proxies and registries), `shadow`, `sudoers`,
//! `ssh`, `krb5*`, `NetworkManager`, `pam.d`, `machine-id`. `passwd`, `group`, `hosts`, `hostname`, `resolv.conf`, `nsswitch.conf` and
//! `mtab` are made for each cell.

/// A row of the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Path below `/etc`.
    pub(super) name: &'static str,
    /// Whether every entry whose name begins so is meant; `name` then has no slash.
    pub(super) prefix: bool,
    /// Why a cell needs it.
    pub(super) why: &'static str,
}

const fn row(name: &'static str, why: &'static str) -> Row {
    Row { name, prefix: false, why }
}

const fn all(name: &'static str, why: &'static str) -> Row {
    Row { name, prefix: true, why }
}

/// In this order: what links of later rows lead to comes first.
pub(super) const ETC: &[Row] = &[
    // What others lead through.
    row("static", "NixOS: nearly everything in /etc leads through it into the store"),
    row("alternatives", "Debian, Fedora: links in /usr/bin (awk, vi, cc, java) lead through it"),
    row("profiles", "NixOS: programs of one user's profile lead through it"),
    // Trust. Only public halves: /etc/ssl/private, /etc/pki/tls/private and /etc/pki/entitlement stay out.
    row("ca-certificates", "Arch: what /etc/ssl/certs leads to"),
    row("pki/ca-trust", "Fedora: what /etc/pki/tls/certs leads to"),
    row("pki/tls/certs", "Fedora: trusted certificates"),
    row("pki/tls/cert.pem", "Fedora: trusted certificates"),
    row("pki/tls/openssl.cnf", "Fedora: OpenSSL's settings"),
    row("pki/java", "Fedora: trusted certificates for Java"),
    row("ssl/certs", "trusted certificates"),
    row("ssl/cert.pem", "Alpine: trusted certificates"),
    row("ssl/ca-bundle.pem", "openSUSE: trusted certificates"),
    row("ssl/openssl.cnf", "OpenSSL's settings"),
    row("crypto-policies", "Fedora: which algorithms OpenSSL and GnuTLS accept; without it they refuse to start"),
    // The dynamic linker.
    row("ld.so.cache", "without it libraries outside the standard folders are not found"),
    row("ld.so.conf", "for ldconfig"),
    row("ld.so.conf.d", "for ldconfig"),
    all("ld-musl-", "Alpine: where the dynamic linker searches"),
    // Names of things.
    row("protocols", "getprotobyname(3)"),
    row("services", "getservbyname(3)"),
    row("rpc", "getrpcbyname(3)"),
    row("ethertypes", "names of Ethernet protocols"),
    row("gai.conf", "order of addresses, getaddrinfo(3)"),
    row("host.conf", "the resolver, host.conf(5)"),
    row("mime.types", "types of files by their endings"),
    row("magic", "file(1)"),
    row("magic.mime", "file(1)"),
    row("shells", "which shells are login shells, shells(5)"),
    // Time and language.
    row("zoneinfo", "NixOS: time zones"),
    row("localtime", "time zone"),
    row("timezone", "Debian: name of the time zone"),
    row("locale.alias", "Debian: names of locales"),
    row("locale.conf", "language"),
    // What system this is: installers and build scripts ask.
    row("os-release", "os-release(5)"),
    row("lsb-release", "name of the distribution"),
    row("debian_version", "name of the distribution"),
    row("alpine-release", "name of the distribution"),
    row("arch-release", "name of the distribution"),
    row("fedora-release", "name of the distribution"),
    row("redhat-release", "name of the distribution"),
    row("system-release", "name of the distribution"),
    // Terminals, shells and editors.
    row("terminfo", "descriptions of terminals"),
    row("inputrc", "keys of readline"),
    row("bash.bashrc", "Debian, Arch: interactive bash"),
    row("vim", "Debian: the editor's defaults"),
    row("vimrc", "Fedora, Arch: the editor's defaults"),
    row("nanorc", "the editor's defaults"),
    row("manpath.config", "Debian: man(1)"),
    row("man_db.conf", "man(1)"),
    // Languages and tools whose packages keep a part of themselves in /etc.
    row("fonts", "fontconfig: browsers and PDF tools fail without it"),
    all("java", "Debian: the Java runtime's settings, without which it does not start"),
    all("python3", "Debian: part of the Python packages"),
    row("perl", "Debian: in Perl's module path"),
    row("texmf", "Debian: TeX's settings, without which it does not start"),
    all("ImageMagick", "what formats are allowed"),
];
