//! What kind of place an address leads to.
//!
//! A name in the policy may resolve to anything its owner likes, this machine and the cloud's metadata service included. Only what is
//! `Public` may be dialled without a further word in the rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The kind of an address (IANA special-purpose address registries, RFC 6890 and its successors).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// On the internet.
    Public,
    /// Another machine of a private network: RFC 1918, RFC 6598 (carrier-grade NAT), unique local IPv6.
    Private,
    /// Link-local: the neighbours on one cable.
    LinkLocal,
    /// A cloud's metadata service, which hands out credentials.
    Metadata,
    /// This machine: loopback, and the unspecified address, which means the same to `connect(2)` on Linux.
    ThisHost,
    /// An IPv4 address in IPv6 clothes: mapped, compatible, NAT64, 6to4, Teredo. Never dialled: the same place has a plain address.
    Embedded,
    /// Multicast, broadcast, documentation, benchmarks, reserved: nobody a connection could be made to.
    Unusable,
}

impl Class {
    /// For people, as the rest of "it is …".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's metadata service",
            Self::ThisHost => "this machine",
            Self::Embedded => "an IPv4 address in the form of an IPv6 one",
            Self::Unusable => "nobody's address",
        }
    }

    /// The word that opens it in a rule, if there is one.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Private | Self::LinkLocal => Some("private"),
            Self::Metadata => Some("metadata"),
            _ => None,
        }
    }
}

/// Metadata services by address: AWS, GCP, Azure, OpenStack and others share the first; AWS over IPv6; Alibaba; Oracle's older one; AWS's
/// task endpoint.
const METADATA: &[IpAddr] = &[
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
];

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    base: IpAddr,
    bits: u8,
}

/// Why a text is no block of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Not `ADDRESS` or `ADDRESS/BITS`.
    #[error("addresses are written as ADDRESS or ADDRESS/BITS, such as 203.0.113.0/24 or 2001:db8::/32")]
    Syntax,
    /// `10.1.2.3/8`: bits are set behind the prefix.
    #[error("bits are set behind the prefix; the block is {0}")]
    HostBits(String),
}

impl Block {
    /// The block of `bits` leading bits at `base`, whose other bits must be zero.
    #[must_use]
    pub const fn new(base: IpAddr, bits: u8) -> Self {
        Self { base, bits }
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_v6() == address.is_ipv6() && self.base == prefix(address, self.bits)
    }

    /// Whether it is of IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.base.is_ipv6()
    }

    /// `[ADDRESS]/BITS`, so that a port can follow.
    #[must_use]
    pub fn bracketed(&self) -> String {
        format!("[{}]/{}", self.base, self.bits)
    }

    /// Whether all of it is of the class that its first address has: it was meant for that class, and does not cover it by accident.
    #[must_use]
    pub fn is_within_one(&self) -> bool {
        let blocks = BLOCKS.iter().map(|(block, _)| block);
        blocks.clone().any(|b| b.contains(self.base) && b.bits <= self.bits)
            || !blocks.clone().any(|b| self.contains(b.base))
    }
}

/// `address` with all but its first `bits` bits zero.
fn prefix(address: IpAddr, bits: u8) -> IpAddr {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(a) => IpAddr::V4((u32::from(a) & u32::MAX.checked_shl(32 - bits).unwrap_or(0)).into()),
        IpAddr::V6(a) => IpAddr::V6((u128::from(a) & u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into()),
    }
}

impl std::str::FromStr for Block {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| BlockError::Syntax)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(b) if b.bytes().all(|c| c.is_ascii_digit()) => b.parse().map_err(|_| BlockError::Syntax)?,
            Some(_) => return Err(BlockError::Syntax),
        };
        if bits > most {
            return Err(BlockError::Syntax);
        }
        let base = prefix(address, bits);
        let block = Self { base, bits };
        if base == address { Ok(block) } else { Err(BlockError::HostBits(block.to_string())) }
    }
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Block {
    Block::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits)
}

const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Block {
    Block::new(IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), bits)
}

const fn v6_end(f: u16, g: u16, h: u16, bits: u8) -> Block {
    Block::new(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, f, g, h)), bits)
}

/// Everything that is not public. The first block that holds an address decides.
const BLOCKS: &[(Block, Class)] = &[
    (v4(0, 0, 0, 0, 8), Class::ThisHost),
    (v4(127, 0, 0, 0, 8), Class::ThisHost),
    (v4(10, 0, 0, 0, 8), Class::Private),
    (v4(172, 16, 0, 0, 12), Class::Private),
    (v4(192, 168, 0, 0, 16), Class::Private),
    (v4(100, 64, 0, 0, 10), Class::Private),
    (v4(169, 254, 0, 0, 16), Class::LinkLocal),
    (v4(192, 0, 0, 0, 24), Class::Unusable),
    // For documentation (RFC 5737, RFC 3849, RFC 9637), so nobody's on the internet: what answers there is a private network.
    (v4(192, 0, 2, 0, 24), Class::Private),
    (v4(192, 88, 99, 0, 24), Class::Unusable),
    // Also where the names of a cell have their made-up addresses.
    (v4(198, 18, 0, 0, 15), Class::Unusable),
    (v4(198, 51, 100, 0, 24), Class::Private),
    (v4(203, 0, 113, 0, 24), Class::Private),
    (v4(224, 0, 0, 0, 4), Class::Unusable),
    (v4(240, 0, 0, 0, 4), Class::Unusable),
    (v6_end(0, 0, 1, 128), Class::ThisHost),
    (v6_end(0, 0, 0, 128), Class::ThisHost),
    (v6_end(0xffff, 0, 0, 96), Class::Embedded),
    (v6_end(0, 0, 0, 96), Class::Embedded),
    (v6(0x64, 0xff9b, 0, 96), Class::Embedded),
    (v6(0x64, 0xff9b, 1, 48), Class::Embedded),
    (v6(0x2001, 0, 0, 32), Class::Embedded),
    (v6(0x2002, 0, 0, 16), Class::Embedded),
    (v6(0x100, 0, 0, 64), Class::Unusable),
    (v6(0x2001, 0, 0, 23), Class::Unusable),
    (v6(0x2001, 0xdb8, 0, 32), Class::Private),
    (v6(0x3fff, 0, 0, 20), Class::Private),
    (v6(0x5f00, 0, 0, 16), Class::Unusable),
    (v6(0xfc00, 0, 0, 7), Class::Private),
    (v6(0xfe80, 0, 0, 10), Class::LinkLocal),
    (v6(0xfec0, 0, 0, 10), Class::Private),
    (v6(0xff00, 0, 0, 8), Class::Unusable),
];

/// The blocks that are not public, each with its class. One may lie within another: the first that holds an address decides.
pub(crate) fn blocks() -> impl Iterator<Item = (Block, Class)> {
    BLOCKS.iter().copied()
}

/// The addresses of metadata services.
pub(crate) fn metadata() -> &'static [IpAddr] {
    METADATA
}

/// The class of `address`.
#[must_use]
pub fn classify(address: IpAddr) -> Class {
    if METADATA.contains(&address) {
        return Class::Metadata;
    }
    if let Some((_, class)) = BLOCKS.iter().find(|(block, _)| block.contains(address)) {
        return *class;
    }
    match address {
        // Only 2000::/3 is given out (RFC 4291, IANA); the rest is nobody's.
        IpAddr::V6(address) if address.segments()[0] & 0xe000 != 0x2000 => Class::Unusable,
        _ => Class::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known() {
        for (class, addresses) in [
            (Class::Public, "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 2606:4700::1111 2a00::1"),
            (
                Class::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 fd00::1 fc00::1 fec0::1 192.0.2.1 198.51.100.1 203.0.113.5 2001:db8::1 3fff::1",
            ),
            (Class::LinkLocal, "169.254.1.1 fe80::1 febf::1"),
            (Class::Metadata, "169.254.169.254 fd00:ec2::254 100.100.100.200 192.0.0.192 169.254.170.2"),
            (Class::ThisHost, "127.0.0.1 127.255.0.1 0.0.0.0 0.1.2.3 ::1 ::"),
            (
                Class::Embedded,
                "::ffff:127.0.0.1 ::ffff:8.8.8.8 ::7f00:1 64:ff9b::a00:1 64:ff9b:1::1 2002:7f00:1:: 2001:0:1::1",
            ),
            (
                Class::Unusable,
                "224.0.0.1 255.255.255.255 240.0.0.1 198.18.0.1 198.19.255.255 ff02::1 100::1 \
                 5f00::1 4000::1 1::1",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(classify(address.parse().expect("an address")), class, "{address}");
            }
        }
    }

    #[test]
    fn blocks_are_read_strictly() {
        let block = |text: &str| text.parse::<Block>();
        assert!(block("10.0.0.0/8").expect("a block").contains(IpAddr::V4(Ipv4Addr::new(10, 9, 8, 7))));
        assert!(block("0.0.0.0/0").expect("a block").contains(IpAddr::V4(Ipv4Addr::BROADCAST)));
        assert!(!block("0.0.0.0/0").expect("a block").contains(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert!(block("::/0").expect("a block").contains(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(block("1.2.3.4").expect("a block").to_string(), "1.2.3.4/32");
        assert_eq!(block("10.1.2.3/8").expect_err("bits"), BlockError::HostBits("10.0.0.0/8".into()));
        for bad in
            ["", "/", "1.2.3/8", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/+8", "1.2.3.4/-1", "x/8", "01.2.3.4/32"]
        {
            assert_eq!(block(bad).expect_err(bad), BlockError::Syntax, "{bad}");
        }
    }

    #[test]
    fn a_wide_block_is_not_meant_for_what_it_covers_by_accident() {
        for (text, within) in [
            ("10.0.0.0/8", true),
            ("10.1.0.0/16", true),
            ("1.0.0.0/8", true),
            ("0.0.0.0/0", false),
            ("8.0.0.0/6", false),
            ("fd00::/8", true),
            ("::/0", false),
        ] {
            assert_eq!(text.parse::<Block>().expect("a block").is_within_one(), within, "{text}");
        }
    }
}
