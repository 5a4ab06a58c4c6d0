//! A server of the tests, which answers what it is told to.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Runs a test on the kind of runtime that the server has.
pub(super) fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test)
}

/// Serves until the runtime ends; its URL. `answer` gets that URL and a request's line, and gives a status, a
/// header's line and a body, or nothing: then the connection just ends.
pub(super) async fn serve(
    mut answer: impl FnMut(&str, &str) -> Option<(u16, String, String)> + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let own = url.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut piece = [0; 1024];
                match stream.read(&mut piece).await {
                    Ok(length) if length > 0 => request.extend_from_slice(&piece[..length]),
                    _ => break,
                }
            }
            let request = String::from_utf8_lossy(&request);
            let line = request.lines().next().unwrap_or_default();
            let Some((status, header, body)) = answer(&own, line) else {
                continue;
            };
            let text = format!(
                "HTTP/1.1 {status} It\r\n{header}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n\
                 {body}",
                body.len()
            );
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    url
}
