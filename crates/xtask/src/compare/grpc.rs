//! Unary gRPC calls at little cost, so that the load leaves the cores to the server.

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use prost::Message;
use tokio::net::TcpStream;

/// One HTTP/2 connection to a server on this machine.
pub(super) struct Grpc {
    sender: SendRequest<Bytes>,
}

impl Grpc {
    pub(super) async fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Makes a call and returns the length of the answer's message in bytes.
    ///
    /// # Errors
    /// If the call does not end with status 0 and a message.
    pub(super) async fn call(
        &mut self,
        path: &'static str,
        message: &impl Message,
    ) -> Result<usize> {
        let request = Request::post(format!("http://127.0.0.1{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let sender = self.sender.clone();
        let mut sender = sender.ready().await?;
        let (answer, mut stream) = sender.send_request(request, false)?;
        stream.send_data(frame(message)?, true)?;
        let mut body = answer.await?.into_body();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            length += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        let trailers = body
            .trailers()
            .await?
            .context("an answer without trailers")?;
        let status = trailers
            .get("grpc-status")
            .context("an answer without a status")?;
        if status != "0" {
            bail!("status {status:?}: {:?}", trailers.get("grpc-message"));
        }
        ensure!(length >= 5, "an answer without a message");
        Ok(length - 5)
    }
}

/// A message behind its flag and length.
fn frame(message: &impl Message) -> Result<Bytes> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length)?);
    message.encode(&mut frame)?;
    Ok(frame.freeze())
}
