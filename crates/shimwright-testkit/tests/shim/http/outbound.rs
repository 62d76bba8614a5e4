//! Where a component that serves may connect to, and which names it may look up.

use std::net::{Ipv4Addr, TcpListener};

use super::{ANSWER, backend, serve};

#[test]
fn a_guest_can_make_requests() {
    let served = serve(&[]);
    // The name is one that only the container's own file has.
    let path = format!("/fetch/backend:{}", backend("GET / HTTP/1.1\r\n", ANSWER));
    assert_eq!(served.get(&path), (200, "answered".to_owned()));
    served.end();
}

#[test]
fn a_guest_can_connect() {
    let served = serve(&[]);
    let path = format!("/connect/{}", backend("ping", "pong"));
    assert_eq!(served.get(&path), (200, "pong".to_owned()));
    served.end();
}

/// A port that is not answered, but would be noticed.
fn watched() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[track_caller]
fn check_unreached(listener: &TcpListener) {
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_guest_connects_to_what_it_is_allowed_to_only() {
    let allowed = backend("ping", "pong");
    let (other, refused) = watched();
    let setting = format!("SHIMWRIGHT_OUTBOUND=[::1],127.0.0.0/8:{allowed}");
    let served = serve(&[&setting]);
    // That clients reach the guest is another matter.
    assert_eq!(served.get("/").0, 200);
    let unconnected = served.get(&format!("/connect/{refused}"));
    assert_eq!(unconnected, (200, "no answer\n".to_owned()));
    check_unreached(&other);
    let connected = served.get(&format!("/connect/{allowed}"));
    assert_eq!(connected, (200, "pong".to_owned()));
    served.end();
}

#[test]
fn a_guest_makes_requests_to_what_it_is_allowed_to_only() {
    let allowed = backend("GET / HTTP/1.1\r\n", ANSWER);
    let (other, refused) = watched();
    let served = serve(&[&format!("SHIMWRIGHT_OUTBOUND=127.0.0.1:{allowed}")]);
    // What a name stands for counts, not the name.
    for host in ["127.0.0.1", "backend", "[::ffff:127.0.0.1]"] {
        let answer = served.get(&format!("/fetch/{host}:{refused}"));
        assert_eq!(answer, (200, "no answer\n".to_owned()), "{host}");
    }
    check_unreached(&other);
    let answer = served.get(&format!("/fetch/backend:{allowed}"));
    assert_eq!(answer, (200, "answered".to_owned()));
    served.end();
}

#[test]
fn a_guest_that_may_not_look_names_up_can_use_addresses() {
    let port = backend("GET / HTTP/1.1\r\n", ANSWER);
    // Who serves it is told where although the guest has no variables.
    let served = serve(&["SHIMWRIGHT_NAME_LOOKUP=none", "SHIMWRIGHT_ENVIRONMENT=none"]);
    // The second is a number for the C library only.
    for host in ["backend", "2130706433"] {
        let answer = served.get(&format!("/fetch/{host}:{port}"));
        assert_eq!(answer, (200, "no answer\n".to_owned()), "{host}");
    }
    let answer = served.get(&format!("/fetch/127.0.0.1:{port}"));
    assert_eq!(answer, (200, "answered".to_owned()));
    served.end();
}
