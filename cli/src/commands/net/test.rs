//! `cellblock net test`: a proof on the person's own machine that what is refused is refused, and that what is allowed works.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::time::Duration;

use cellblock_bundle::Network;
use cellblock_egress::name::Pattern;
use cellblock_egress::policy::{Policy, Target, Written};
use serde::Serialize;

use super::probe::{self, Outcome, Tries};
use crate::args::{CellFlags, StartFlags, Typed, Words};
use crate::commands::start;
use crate::output::{Style, data, json, plain};
use crate::report::CliError;

/// Try from inside a cell what must not work, and what must
///
/// Takes the flags of `run`, so that exactly the network of that cell is tried: an address as such, this machine, the metadata service, a name
/// that is not allowed, data hidden in look-ups, another resolver, UDP; and one name that is allowed. The exit code is 0 if all of it
/// holds and 1 if not.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock net test
  cellblock net test --allow example.com
  cellblock net test --json | jq '.[] | select(.holds != true)'")]
pub(super) struct Args {
    /// Print the outcomes as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cell: CellFlags,
}

/// Where this program stands in the cell.
const INSIDE: &str = "/cellblock-net-test";

/// Public, known to be up, and nobody's business.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

#[derive(Serialize)]
struct Report<'a> {
    holds: bool,
    checks: &'a [Outcome],
}

/// `typed` is the whole command line.
pub(super) fn run(args: &Args, typed: &[OsString]) -> Result<i32, CliError> {
    let words = Words::Command(vec!["true".into()]);
    let flags = CellFlags { image: Some("host".into()), ..args.cell.clone() };
    let ready = start::plan(&Typed { cell: flags, start: StartFlags::default(), words })?;
    let cell = &ready.resolved.cell;
    if cell.network != Network::Names {
        return Err(CliError::plain(
            "this cell's network is not made by names: there is nothing to try",
            "`--net names` is what can be tried",
        ));
    }
    let written = |said: &cellblock_bundle::Said| {
        said.rule.parse().ok().map(|entry| Written { entry, origin: said.origin.clone() })
    };
    let allow: Vec<Written> = cell.reach.allow.iter().filter_map(written).collect();
    let deny: Vec<Written> = cell.reach.deny.iter().filter_map(written).collect();
    let policy =
        Policy::new(&allow, &deny).map_err(|e| CliError::plain(e.to_string(), "see `--allow` and `--deny`"))?;
    let tries = tries(&policy);
    let outcomes = inside(typed, &tries)?;
    let holds = outcomes.iter().all(|o| o.holds != Some(false));
    if args.json {
        json(&Report { holds, checks: &outcomes })?;
    } else {
        data(&text(&outcomes, Style::stdout()))?;
    }
    Ok(i32::from(!holds))
}

/// What to try against this policy.
fn tries(policy: &Policy) -> Tries {
    let name = "cellblock-net-test.example";
    let denied = name.parse().ok().filter(|name| !policy.knows(name)).map(|_| name.to_owned());
    let own: Vec<IpAddr> = own_address().into_iter().collect();
    let mut addresses = vec![
        ("an address as such".to_owned(), SocketAddr::from((ADDRESS, 443))),
        ("the same without TLS".to_owned(), SocketAddr::from((ADDRESS, 80))),
        ("a cloud's metadata service".to_owned(), SocketAddr::from((METADATA, 80))),
    ];
    addresses.extend(own.iter().map(|address| ("this machine".to_owned(), SocketAddr::new(*address, 22))));
    addresses.retain(|(_, address)| !policy.address(address.ip(), address.port(), &own).is_allowed());
    Tries { denied, addresses, allowed: reachable(policy) }
}

/// This machine's address on the way out. Nothing is sent: connecting a datagram socket only asks for the route.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((ADDRESS, 53)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

/// Most names that are tried from the host.
const MOST: usize = 4;

/// The first allowed name that the host itself reaches on port 443.
fn reachable(policy: &Policy) -> Option<(String, u16)> {
    let exact = policy.allow_rules().iter().filter_map(|sourced| match &sourced.rule.target {
        Target::Names(Pattern::Exact(name)) if policy.name(name, 443).is_allowed() && !policy.looks_into(name, 443) => {
            Some(name.as_str().to_owned())
        }
        _ => None,
    });
    exact.take(MOST).find_map(|name| {
        let address = (name.as_str(), 443).to_socket_addrs().ok()?.next()?;
        TcpStream::connect_timeout(&address, Duration::from_secs(3)).ok()?;
        Some((name, 443))
    })
}

/// Runs the probe in a cell like the one that was asked for, and gives what it found.
fn inside(typed: &[OsString], tries: &Tries) -> Result<Vec<Outcome>, CliError> {
    let program =
        std::env::current_exe().map_err(|source| CliError::Process { what: "cannot find this program", source })?;
    // What stands behind `net test`: flags of `run` but for our own.
    let flags = typed.iter().skip_while(|word| *word != "test").skip(1).filter(|word| *word != "--json");
    let mut mount = program.clone().into_os_string();
    mount.push(format!(":{INSIDE}:ro"));
    let tries = serde_json::to_string(tries).unwrap_or_default();
    let output = Command::new(&program)
        .args(["run", "--image", "host", "--rm", "--yes", "--tty=never", "-v"])
        .arg(mount)
        .args(flags)
        .args(["--", INSIDE, probe::WORD, tries.as_str()])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CliError::Process { what: "cannot start a cell", source })?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().find(|line| line.starts_with("error:")).unwrap_or("error: the probe said nothing");
        CliError::plain(
            format!("no cell could be started to try it in: {}", plain(why.trim_start_matches("error:").trim())),
            "`cellblock doctor` says what this host lacks",
        )
    })
}

fn text(outcomes: &[Outcome], style: Style) -> String {
    let mut out = String::new();
    for outcome in outcomes {
        let mark = match outcome.holds {
            Some(true) => "✓ ".to_owned(),
            Some(false) => style.red("✗ "),
            None => "- ".to_owned(),
        };
        out += &format!("{mark}{}: {}\n", plain(&outcome.check), plain(&outcome.detail));
    }
    let failed = outcomes.iter().filter(|o| o.holds == Some(false)).count();
    out += &match failed {
        0 => "The network holds.\n".to_owned(),
        n => format!("{} {n} of {} do not hold.\n", style.red("DO NOT RELY ON IT:"), outcomes.len()),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_is_one_that_the_gateway_lets_pass() {
        let hello = cellblock_egress::tls::hello(&probe::hello("example.com")).expect("a hello");
        assert!(
            matches!(hello, cellblock_egress::tls::Hello::Done { name, encrypted: false } if name.as_str() == "example.com")
        );
    }

    #[test]
    fn what_is_allowed_is_not_tried_as_denied() {
        let rules = |all: &[&str]| {
            let allow: Vec<_> = all
                .iter()
                .map(|text| Written { entry: text.parse().expect("a rule"), origin: String::new() })
                .collect();
            Policy::new(&allow, &[]).expect("a policy")
        };
        let found = tries(&rules(&["**", "1.1.1.1:443"]));
        assert_eq!(found.denied, None);
        assert!(!found.addresses.iter().any(|(_, address)| address.to_string() == "1.1.1.1:443"));
        assert!(found.addresses.iter().any(|(_, address)| address.to_string() == "1.1.1.1:80"));
    }
}
