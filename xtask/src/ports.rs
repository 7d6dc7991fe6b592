//! Free ports on loopback.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;

/// A port nobody listens on now. Between this answer and its use another process may take it, so
/// whoever starts a server on it tries again with another when that happens.
pub(crate) fn any_free() -> anyhow::Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot open a port on 127.0.0.1")?;
    Ok(listener
        .local_addr()
        .context("cannot open a port on 127.0.0.1")?
        .port())
}

/// A free port for a server that is stopped and started again on it. The kernel takes the ports of
/// outgoing connections from 32768 on, so that one from there could be gone at the restart, or a client
/// could even connect to itself. Different places give different ports while none of them is in use.
pub(crate) fn kept_free(place: u16) -> anyhow::Result<u16> {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 16_000;
    // Runs that start together begin at different places.
    let start = std::process::id() + u32::from(place) * 101;
    let start = u16::try_from(start % u32::from(COUNT)).unwrap_or_default();
    (0..COUNT)
        .map(|number| FIRST + (start + number) % COUNT)
        .find(|port| is_free(*port))
        .context("no port between 15000 and 31000 is free on 127.0.0.1")
}

/// `wanted` if nobody listens on it, any other free one otherwise.
pub(crate) fn free_or_other(wanted: u16) -> anyhow::Result<u16> {
    if is_free(wanted) {
        Ok(wanted)
    } else {
        any_free()
    }
}

/// Whether a server can be started on this port.
pub(crate) fn is_free(port: u16) -> bool {
    // A port that is bound on all addresses can be bound on loopback as well on some systems.
    !answers(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether something accepts connections on this port.
pub(crate) fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(250)).is_ok()
}

/// The port a lasting server had before, if it is free, so that URLs in a person's shell stay true.
pub(crate) fn remembered(file: &Path) -> anyhow::Result<u16> {
    match fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
    {
        Some(port) => free_or_other(port),
        None => any_free(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_noticed_and_another_one_given() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert!(!is_free(taken));
        assert!(answers(taken));
        assert_ne!(free_or_other(taken).unwrap(), taken);
    }

    #[test]
    fn a_port_for_restarts_is_free_and_none_that_clients_get() {
        let port = kept_free(0).unwrap();
        assert!((15_000..31_000).contains(&port));
        assert_ne!(kept_free(1).unwrap(), port);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_ne!(kept_free(0).unwrap(), port);
    }

    #[test]
    fn a_port_taken_on_all_addresses_is_noticed() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }

    #[test]
    fn a_remembered_port_is_used_again_and_rubbish_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("port");
        let free = any_free().unwrap();
        fs::write(&file, format!("{free}\n")).unwrap();
        assert_eq!(remembered(&file).unwrap(), free);
        fs::write(&file, "eighty").unwrap();
        assert!(remembered(&file).is_ok());
    }
}
