//! The other generated files of `/etc`.

use std::fmt::Write as _;
use std::net::IpAddr;

use cellblock_bundle::Network;
use sha2::{Digest, Sha256};

/// Names are looked up in files and then asked of the resolver; nothing of the host (sssd, systemd, mDNS) is there to be asked.
pub(super) const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
";

/// Bytes of the host's `/etc/hosts` that are taken over: lists to block advertisements have megabytes.
const MAX_HOSTS: usize = 64 << 10;

/// The text of `/etc/resolv.conf`. `host` is the host's own, if it could be found.
pub(super) fn resolv_conf(network: Network, host: Option<&str>) -> String {
    match (network, host) {
        (Network::None, _) => "# This cell has no network, so no name server.\n".to_owned(),
        (Network::Host, Some(text)) => text.to_owned(),
        (Network::Host, None) => "# The host has no readable /etc/resolv.conf.\n".to_owned(),
    }
}

/// The text of `/etc/hosts`. With the host's network the host's own names hold too (`host` is its file); without a network they would
/// lead nowhere.
pub(super) fn hosts(network: Network, hostname: &str, host: Option<&str>) -> String {
    // 127.0.1.1 as Debian does it: the own name has an address without being another word for localhost.
    let mut text = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n");
    if network == Network::Host {
        for line in host.unwrap_or_default().lines() {
            let Some((address, names)) = host_line(line, hostname) else { continue };
            if text.len() + line.len() > MAX_HOSTS {
                text.push_str("# The host's file goes on; it is too large to be taken over.\n");
                break;
            }
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{address}\t{names}");
        }
    }
    text
}

/// A line of the host's file that says something new: an address and plain names.
fn host_line(line: &str, hostname: &str) -> Option<(IpAddr, String)> {
    let line = line.split('#').next()?;
    let mut words = line.split_ascii_whitespace();
    let address: IpAddr = words.next()?.parse().ok()?;
    let plain = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let ours = |name: &&str| *name != hostname && *name != "localhost" && !name.starts_with("ip6-localhost");
    let names: Vec<&str> = words.filter(plain).filter(ours).collect();
    (!names.is_empty()).then(|| (address, names.join(" ")))
}

/// The machine id (machine-id(5)) of a cell: the same at every start of a cell of this name, and no trace of the host's.
///
/// It is the first half of the SHA-256 of `cellblock machine-id`, a NUL and the name, with the bits of a version 4 UUID set as
/// machine-id(5) wants it. Cells of one name on two machines share it; nothing that cellblock does relies on its being unique.
#[must_use]
pub fn machine_id(name: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"cellblock machine-id\0");
    hash.update(name.as_bytes());
    let mut bytes: [u8; 32] = hash.finalize().into();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_are_stable_well_formed_and_differ() {
        // Changing it changes every cell's id: not by accident.
        assert_eq!(machine_id("a"), "afb3c9872c0d4a2d967118f0c1958e36");
        assert_ne!(machine_id("a"), machine_id("b"));
        let id = machine_id("some-cell");
        assert_eq!((id.len(), &id[12..13]), (32, "4"));
    }

    #[test]
    fn hosts_has_the_own_name_and_with_the_hosts_network_the_hosts_names() {
        let host = "127.0.0.1 localhost\n127.0.1.1 cell other\n10.0.0.5 db.example # the database\nfe80::1%eth0 x\n::1 ip6-localhost\nnonsense\n10.0.0.6 a;b\n";
        let alone = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tcell\n";
        assert_eq!(hosts(Network::None, "cell", Some(host)), alone);
        assert_eq!(
            hosts(Network::Host, "cell", Some(host)),
            format!("{alone}127.0.1.1\tother\n10.0.0.5\tdb.example\n")
        );
        assert_eq!(hosts(Network::Host, "cell", None), alone);
        let long = "0.0.0.0 blocked.example\n".repeat(100_000);
        assert!(hosts(Network::Host, "cell", Some(&long)).len() < MAX_HOSTS + 100);
    }

    #[test]
    fn without_a_network_there_is_no_name_server() {
        let host = "nameserver 10.0.0.1\n";
        assert!(resolv_conf(Network::None, Some(host)).lines().all(|l| l.starts_with('#')));
        assert_eq!(resolv_conf(Network::Host, Some(host)), host);
        assert!(resolv_conf(Network::Host, None).starts_with('#'));
    }
}
