//! A proxy that loses data in one direction.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes forwarded at a time.
const BUFFER: usize = 16 << 10;

/// Fault of the current connections; later ones start without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Data of the server is dropped.
    AnswersLost,
    /// Data of the client is held until the fault ends.
    RequestsHeld,
    /// Both sides see the connection closed.
    Cut,
}

/// Forwards connections to a server.
pub(super) struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<watch::Sender<Fault>>>>,
}

impl Proxy {
    pub(super) async fn start(server: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<watch::Sender<Fault>>>> = Arc::default();
        let all = connections.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let fault = watch::Sender::new(Fault::None);
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass_requests(from_client, to_server, fault.subscribe()));
                tokio::spawn(pass_answers(from_server, to_client, fault.subscribe()));
                all.lock().unwrap().push(fault);
            }
        });
        Self { address, connections }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn set(&self, fault: Fault) {
        for connection in self.connections.lock().unwrap().iter() {
            connection.send_replace(fault);
        }
    }
}

async fn pass_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut cut = fault.clone();
    loop {
        let count = tokio::select! {
            count = from.read(&mut buffer) => count?,
            _ = cut.wait_for(|fault| *fault == Fault::Cut) => return Ok(()),
        };
        if count == 0 {
            return Ok(());
        }
        let now = fault.wait_for(|fault| *fault != Fault::RequestsHeld).await.map(|now| *now);
        if matches!(now, Ok(Fault::Cut)) {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
}

async fn pass_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = tokio::select! {
            count = from.read(&mut buffer) => count?,
            _ = fault.wait_for(|fault| *fault == Fault::Cut) => return Ok(()),
        };
        if count == 0 {
            return Ok(());
        }
        if *fault.borrow() != Fault::AnswersLost {
            to.write_all(&buffer[..count]).await?;
        }
    }
}
