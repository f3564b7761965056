use super::*;
use nix::unistd::geteuid;
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;

/// `r0 = 1; exit`: SK_PASS, and the kernel chooses.
fn pass() -> Vec<u8> {
    let mut code = vec![0xb7, 0, 0, 0];
    code.extend(1_i32.to_ne_bytes());
    code.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
    code
}

/// Only root may, and not in every container.
fn may() -> bool {
    geteuid().is_root() && Map::create(MapKind::LruHash, "may", 4, 4, 1).is_ok()
}

#[test]
fn a_map_keeps_what_it_is_given() {
    if !may() {
        return;
    }
    let array = Map::create(MapKind::Array, "an array", 4, 8, 2).expect("an array");
    assert!(array.is(MapKind::Array, 4, 8));
    let (first, third) = (0_u32.to_ne_bytes(), 2_u32.to_ne_bytes());
    array.set(&first, &[7; 8]).expect("set an element");
    assert_eq!(array.get(&first).expect("get it"), Some(vec![7; 8]));
    assert_eq!(array.get(&third).expect("ask for another"), None);
    let error = array.set(&third, &[7; 8]).expect_err("set another");
    assert_eq!(error.step, BpfStep::FillMap);
    for (key, value) in [(&first[..3], &[7; 8][..]), (&first, &[7; 9])] {
        let error = array.set(key, value).expect_err("a wrong length");
        assert_eq!(error.error.raw_os_error(), Some(libc::EINVAL));
    }
    let hash = Map::create(MapKind::LruHash, "a hash", 4, 4, 20_000).expect("a hash");
    for key in 0..10_000_u32 {
        hash.set(&key.to_ne_bytes(), &(key % 3).to_ne_bytes())
            .expect("set an element");
    }
    let mut found = [0; 3];
    hash.for_each_value(|value| found[value[0].max(value[3]) as usize] += 1)
        .expect("read all");
    assert_eq!(found, [3334, 3333, 3333]);
    hash.remove(&first).expect("remove an element");
    hash.remove(&first).expect("remove it again");
    assert_eq!(hash.get(&first).expect("ask for it"), None);
    let kept = hash.fd.try_clone().expect("another descriptor");
    let kept = Map::adopt(kept).expect("take it over");
    assert!(kept.is(MapKind::LruHash, 4, 4));
    let file = std::fs::File::open("/dev/null").expect("a file");
    let error = Map::adopt(file.into()).expect_err("a file is no map");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_program_is_loaded_and_attached_or_the_verifier_says_why_not() {
    if !may() {
        return;
    }
    let pass = pass();
    let error = load_reuseport_program(&pass[8..], "no answer");
    let error = error.expect_err("R0 is not set");
    assert_eq!(error.step, BpfStep::LoadProgram);
    assert!(error.to_string().contains("R0 !read_ok"), "{error}");
    let program = load_reuseport_program(&pass, "pass").expect("load it");
    let error = Map::adopt(program.try_clone().expect("another descriptor"));
    error.expect_err("a program is no map");
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    let address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&address.into()).expect("bind");
    attach_reuseport_program(&socket, &program).expect("attach it");
    detach_reuseport_program(&socket).expect("detach it");
    let error = detach_reuseport_program(&socket).expect_err("there is none");
    assert_eq!(error.error.raw_os_error(), Some(libc::ENOENT));
}
