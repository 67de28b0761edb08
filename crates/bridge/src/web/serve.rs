//! Connections: accepted, limited, decrypted, handed to the routes.
//!
//! Invariants: connections, their headers and the time they may take are bounded, so that none of them, and no number of them, takes the page from
//! others or makes memory grow. Refuses: headers of more than [`HEADER_BYTES_MAX`], handshakes and headers that take longer than
//! [`HEADERS_WITHIN`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::hub::Hub;

/// Connections besides those of viewers: each page opens up to six for its files.
const MORE_CONNECTIONS: usize = 64;
/// Bytes of a request's headers, and of what is read ahead.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// A handshake, a request's headers, and the rest between two requests, each.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// After an error of accept(2), mostly that there are no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the hub ends.
pub async fn run(hub: Arc<Hub>, listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    let places = Arc::new(Semaphore::new(hub.viewers_max + MORE_CONNECTIONS));
    let mut ending = hub.ending.subscribe();
    let mut beat = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = ending.wait_for(|&end| end) => return,
            _ = beat.tick() => drop(hub.beats.fetch_add(1, Ordering::Relaxed)),
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => drop(tokio::spawn(connection(stream, from, tls.clone(), router.clone(), place))),
                    Err(_) => log::debug!("{from}: closed, as there are too many connections"),
                },
                Err(error) => {
                    log::debug!("a connection was not accepted: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// One connection. Its place goes with the connection; a WebSocket has a viewer's place from then on, of which there are fewer.
async fn connection(stream: TcpStream, from: SocketAddr, tls: Option<TlsAcceptor>, router: Router, _place: OwnedSemaphorePermit) {
    // a frame shall leave at once
    let _ = stream.set_nodelay(true);
    match tls {
        None => requests(stream, from, router).await,
        Some(tls) => match timeout(HEADERS_WITHIN, tls.accept(stream)).await {
            Ok(Ok(stream)) => requests(stream, from, router).await,
            Ok(Err(error)) => log::debug!("{from}: no TLS: {error}"),
            Err(_) => log::debug!("{from}: its handshake took too long"),
        },
    }
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, from: SocketAddr, router: Router) {
    let service = TowerToHyperService::new(router.layer(Extension(ConnectInfo(from))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        log::debug!("{from}: {error}");
    }
}
