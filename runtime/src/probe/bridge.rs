//! What the network `bridge` needs besides namespaces.

use cellblock_egress::gateway::GatewayError;
use cellblock_egress::gateway::uplink;

use super::{Finding, State};

/// Looks for the programs, and opens the device.
pub(super) fn bridge() -> Finding {
    const ID: &str = "bridge";
    const TITLE: &str = "the network `bridge`";
    let lacks = |detail: String| {
        let cost = "cells with `--net bridge` do not start; `--net names` needs none of this";
        Finding::lacks(ID, TITLE, State::Degraded, detail, cost)
    };
    match uplink::find() {
        Ok(kind) => Finding::ok(ID, TITLE, format!("{kind} and nft are there, {} can be opened", uplink::TUN)),
        Err(GatewayError::NoUplink) => {
            lacks("neither pasta nor slirp4netns is installed".into()).note("install the package passt, or slirp4netns")
        }
        Err(GatewayError::NoFilter(_)) => lacks("nft is not installed".into()).note("install the package nftables"),
        Err(GatewayError::NoTun(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            lacks(format!("{} cannot be opened: {error}", uplink::TUN))
                .script(format!("sudo chmod 0666 {}", uplink::TUN))
                .note("until the next start of the host; distributions open it to everybody by a rule of udev")
        }
        Err(GatewayError::NoTun(error)) => lacks(format!("{} cannot be opened: {error}", uplink::TUN))
            .note("a kernel with CONFIG_TUN (`sudo modprobe tun`); in a container: `--device /dev/net/tun`"),
        Err(error) => lacks(error.to_string()),
    }
}
