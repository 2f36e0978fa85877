//! From the rungs that may be tried to sockets that catch a cell's connections.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use super::closed::Closed;
use super::rung::{Rung, Way};
use super::{Capture, GatewayError, Joined, Sockets, capture, lo, sockets, step};

/// Tries `rungs` for `wanted` from the network namespace `cell`; this thread, which is in that of a gateway, ends up where the sockets
/// are.
pub(super) fn climb(cell: &OwnedFd, wanted: &Capture, rungs: &[Rung]) -> Result<(Rung, Sockets), GatewayError> {
    let catch = |joined: Joined, rungs: &[Rung]| {
        catch(&joined, wanted, rungs).map(|(rung, caught)| (rung, caught.with(rung, joined)))
    };
    first_that_works(Rung::fitting(rungs, wanted), || super::join(cell), || lo::join(cell), catch)
}

/// The order: what is in the cell comes only where no gateway can be joined to it, for the lack of veth. What fails otherwise, fails.
fn first_that_works<J, T>(
    (gateway, inside): (Vec<Rung>, Vec<Rung>),
    join: impl FnOnce() -> Result<J, GatewayError>,
    join_inside: impl FnOnce() -> Result<J, GatewayError>,
    catch: impl FnOnce(J, &[Rung]) -> Result<T, GatewayError>,
) -> Result<T, GatewayError> {
    let mut lack = GatewayError::NoCapture(io::Error::other("no other way may be tried"));
    if !gateway.is_empty() {
        match join() {
            Ok(joined) => return catch(joined, &gateway),
            Err(error @ GatewayError::NoVeth(_)) => lack = error,
            Err(error) => return Err(error),
        }
    }
    if inside.is_empty() {
        return Err(lack);
    }
    catch(join_inside()?, &inside)
}

/// What was opened.
struct Caught {
    datagrams: OwnedFd,
    dns: TcpListener,
    listeners: Vec<TcpListener>,
    capture: Capture,
}

impl Caught {
    fn with(self, rung: Rung, joined: Joined) -> Sockets {
        let Self { datagrams, dns, listeners, capture } = self;
        let Joined { v6, probes } = joined;
        // In the cell it would also see what the cell's programs have with each other. Where there are none, nothing is open that should not
        // be: only what the kernel refuses is not told.
        let closed = if rung.is_in_cell() { None } else { Closed::new("gw0", v6, &capture).ok() };
        Sockets { v6, datagrams, dns, listeners, closed, probes, capture }
    }
}

/// Opens the sockets, by the first of `rungs` that this host can.
fn catch(joined: &Joined, wanted: &Capture, rungs: &[Rung]) -> Result<(Rung, Caught), GatewayError> {
    let v6 = joined.v6;
    // First, for nobody may come before us on the resolver's port.
    let datagrams = sockets::datagrams(sockets::DNS, v6).map_err(step("open the resolver's socket"))?;
    let dns = sockets::listener(sockets::DNS, v6, false).map_err(step("open the resolver's socket"))?;
    let mut lack = io::Error::other("no other way may be tried");
    for rung in rungs {
        match listen(*rung, wanted, v6) {
            Ok((listeners, capture)) => return Ok((*rung, Caught { datagrams, dns, listeners, capture })),
            Err(GatewayError::NoCapture(error)) => lack = error,
            Err(error) => return Err(error),
        }
    }
    Err(GatewayError::NoCapture(lack))
}

/// The listeners of one rung, and what they catch.
fn listen(rung: Rung, wanted: &Capture, v6: bool) -> Result<(Vec<TcpListener>, Capture), GatewayError> {
    let failed = || step("listen for the cell's connections");
    let transparent = match (rung.way(), wanted) {
        (Way::Bind, Capture::Ports(ports)) => {
            let ports = ports.iter().filter(|port| **port != sockets::DNS);
            let all = ports.map(|port| sockets::listener(*port, v6, false)).collect::<io::Result<_>>();
            return Ok((all.map_err(failed())?, wanted.clone()));
        }
        (way, _) => way == Way::Tproxy,
    };
    // A port that nobody asked for: in the cell it is one less of those that programs expect to be free.
    let listener = sockets::listener(0, v6, transparent).map_err(failed())?;
    let port = listener.local_addr().map_err(failed())?.port();
    capture::everything(rung, port, v6).map_err(GatewayError::NoCapture)?;
    Ok((vec![listener], Capture::Everything))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lack() -> io::Error {
        io::ErrorKind::Unsupported.into()
    }

    /// What is joined and tried on a host whose gateway is `join` and where `catch` says how catching goes.
    fn tried(
        wanted: &Capture,
        join: impl FnOnce() -> Result<&'static str, GatewayError>,
        catch: impl FnOnce() -> Result<(), GatewayError>,
    ) -> Result<(&'static str, Vec<Rung>), String> {
        let all = Rung::fitting(&Rung::ALL, wanted);
        let caught = |joined, rungs: &[Rung]| catch().map(|()| (joined, rungs.to_vec()));
        first_that_works(all, join, || Ok("cell"), caught).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_lack_of_veth_leads_into_the_cell() {
        use Rung::{LoBind, LoRedirect, LoTproxy, VethBind, VethRedirect, VethTproxy};
        let (listed, every) = (Capture::Ports(vec![80]), Capture::Everything);
        let no_veth = || Err(GatewayError::NoVeth(lack()));
        let gateway = || Ok("gateway");
        assert_eq!(tried(&listed, gateway, || Ok(())), Ok(("gateway", vec![VethBind, VethTproxy, VethRedirect])));
        assert_eq!(tried(&every, gateway, || Ok(())), Ok(("gateway", vec![VethTproxy, VethRedirect])));
        assert_eq!(tried(&listed, no_veth, || Ok(())), Ok(("cell", vec![LoTproxy, LoRedirect, LoBind])));
        assert_eq!(tried(&every, no_veth, || Ok(())), Ok(("cell", vec![LoTproxy, LoRedirect])));
        // A gateway that is not what it has to be is no reason to do without one; nor is one that cannot catch what is wanted.
        let wrong = || Err(GatewayError::Check("odd".into()));
        assert!(tried(&listed, wrong, || Ok(())).is_err_and(|why| why.contains("odd")));
        let no_nft = || Err(GatewayError::NoCapture(lack()));
        assert!(tried(&every, gateway, no_nft).is_err_and(|why| why.contains("nf_tables")));
        assert!(tried(&every, no_veth, no_nft).is_err_and(|why| why.contains("nf_tables")));
        // Where the cell may not be used, what is missing is told.
        let only = Rung::fitting(&[VethBind], &listed);
        let done = first_that_works(only, no_veth, || Ok("cell"), |_, _| Ok(()));
        assert!(matches!(done, Err(GatewayError::NoVeth(_))), "{done:?}");
        let none = first_that_works((vec![], vec![]), gateway, || Ok("cell"), |_, _| Ok(()));
        assert!(matches!(none, Err(GatewayError::NoCapture(_))), "{none:?}");
    }
}
