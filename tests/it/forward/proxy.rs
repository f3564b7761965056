//! The PROXY protocol, byte by byte as the server gets it.

use super::{ready, rest};
use crate::harness::{Daemon, World, client, require_ipv6};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn forwarding(world: &World, listener: &str, to: &str, version: &str) -> Daemon {
    ready(
        world,
        &format!(
            "
listeners: {{ web: '{listener}' }}
workers: {{ app: {{ listeners: [web], forward: {{ to: '{to}', proxy_protocol: {version} }} }} }}
"
        ),
    )
}

fn all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the end");
    bytes
}

#[test]
fn a_server_is_told_which_address_the_client_has() {
    let world = World::new();
    let mut hosts = vec!["127.0.0.1"];
    if require_ipv6() {
        hosts.push("[::1]");
    }
    for host in hosts {
        for version in ["v1", "v2"] {
            let server = TcpListener::bind("127.0.0.1:0").expect("bind");
            let to = server.local_addr().expect("an address").to_string();
            let daemon = forwarding(&world, &format!("{host}:0"), &to, version);
            let address = daemon.address("web");
            let mut client: TcpStream = client::tcp(address).expect("connect");
            let port = client.local_addr().expect("an address").port();
            client.write_all(b"hello").expect("write");
            client.shutdown(Shutdown::Write).expect("shutdown");
            let (peer, _) = server.accept().expect("it is connected");
            let got = all(&peer);
            let ports = [port.to_be_bytes(), address.port().to_be_bytes()].concat();
            let wanted = match (version, host) {
                ("v1", "127.0.0.1") => {
                    let line = format!(
                        "PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n",
                        address.port()
                    );
                    line.into_bytes()
                }
                ("v1", _) => {
                    format!("PROXY TCP6 ::1 ::1 {port} {}\r\n", address.port()).into_bytes()
                }
                (_, "127.0.0.1") => [
                    SIGNATURE,
                    b"\x21\x11\x00\x0c\x7f\0\0\x01\x7f\0\0\x01",
                    &ports,
                ]
                .concat(),
                _ => {
                    let mut one = [0; 16];
                    one[15] = 1;
                    [SIGNATURE, b"\x21\x21\x00\x24", &one, &one, &ports].concat()
                }
            };
            assert_eq!(
                got,
                [wanted.as_slice(), b"hello"].concat(),
                "{host} {version}"
            );
            (&peer).write_all(b"back").expect("write");
            drop(peer);
            assert_eq!(rest(client), "back");
            daemon.stop();
        }
    }
}

#[test]
fn a_server_is_told_that_the_client_is_local() {
    let world = World::new();
    let path = world.path("web");
    for version in ["v1", "v2"] {
        let at = world.path(&format!("server-{version}"));
        let server = UnixListener::bind(&at).expect("bind");
        let to = format!("unix:{}", at.display());
        let daemon = forwarding(&world, "unix:$DIR/web", &to, version);
        let mut client: UnixStream = client::unix(&path).expect("connect");
        client.write_all(b"hello").expect("write");
        client.shutdown(Shutdown::Write).expect("shutdown");
        let (peer, _) = server.accept().expect("it is connected");
        let wanted = match version {
            "v1" => b"PROXY UNKNOWN\r\n".to_vec(),
            _ => {
                let mut wanted = [SIGNATURE, b"\x21\x31\x00\xd8", &[0; 108]].concat();
                wanted.extend(path.as_os_str().as_encoded_bytes());
                wanted.resize(16 + 216, 0);
                wanted
            }
        };
        assert_eq!(
            all(peer),
            [wanted.as_slice(), b"hello"].concat(),
            "{version}"
        );
        daemon.stop();
    }
}
