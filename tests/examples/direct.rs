//! A program that has never heard of proxies: `direct NAME PORT` asks the machine's resolver, connects, and sends one request. It prints the first
//! line of the answer, or what went wrong. The tests carry a static build of it (`build.rs`) into cells with other libraries than their own.
#![allow(clippy::print_stdout, reason = "a program")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(name), Some(port)) = (args.next(), args.next().and_then(|port| port.parse().ok())) else {
        println!("usage: direct NAME PORT");
        return;
    };
    println!("{}", ask(&name, port).unwrap_or_else(|words| words));
}

fn ask(name: &str, port: u16) -> Result<String, String> {
    let addresses: Vec<_> = (name, port).to_socket_addrs().map_err(|_| "no name".to_owned())?.collect();
    let mut stream = TcpStream::connect(&addresses[..]).map_err(|error| error.kind().to_string())?;
    let wait = Some(Duration::from_secs(8));
    stream.set_read_timeout(wait).map_err(|error| error.to_string())?;
    stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes())
        .map_err(|error| error.kind().to_string())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(|error| error.kind().to_string())?;
    Ok(line.trim_end().to_owned())
}
