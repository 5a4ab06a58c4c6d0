//! What systemd hears of a starting and an ending server.
#![cfg(unix)]

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

/// Runs itself again as the process that a unit would start, with the socket in its environment.
#[test]
fn systemd_hears_that_the_server_is_ready_and_that_it_stops() {
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        quorate::systemd::notify_ready();
        quorate::systemd::notify_stopping();
        return;
    }
    let path = std::env::temp_dir().join(format!("quorate-notify-{}", std::process::id()));
    let socket = UnixDatagram::bind(&path).expect("a socket in the temporary folder");
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("not zero");
    let status = Command::new(std::env::current_exe().expect("this test is a file"))
        .env("NOTIFY_SOCKET", &path)
        .status()
        .expect("this test runs again");
    std::fs::remove_file(&path).expect("the socket is still there");
    assert!(status.success());

    let heard = [(); 2].map(|()| {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    });
    assert_eq!(heard, ["READY=1", "STOPPING=1"]);
}
