//! The page over HTTP, to anybody who may connect.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections, one request each, headers of at most [`HEADER_BYTES_MAX`] bytes, and everything
//! ends within [`CONNECTION`]: a scraper that reads or writes slowly costs one of those places and nothing else.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Metrics;
use super::page::Format;

const CONNECTIONS_MAX: usize = 64;
/// A request's line and headers; also what is buffered of an answer.
const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// The request's headers arrive within this.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// A connection ends within this.
const CONNECTION: Duration = Duration::from_secs(10);
/// After the system gave no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// `GET /metrics`; to be merged into another router, or served alone.
pub fn router(metrics: Arc<Metrics>) -> Router {
    Router::new().route("/metrics", get(answer)).with_state(metrics)
}

async fn answer(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::from_accept(accept);
    // sensors may take milliseconds to answer
    let page = tokio::task::spawn_blocking(move || metrics.page(format)).await;
    page.map(|page| ([(header::CONTENT_TYPE, format.content_type()), (header::CACHE_CONTROL, "no-store")], page))
        .map_err(|_| axum::http::StatusCode::INTERNAL_SERVER_ERROR)
}

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let service = TowerToHyperService::new(router(metrics));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // who finds no place waits in the kernel's queue
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION, converse(stream, service)).await;
                    drop(place);
                });
            }
            Err(error) => {
                log::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, service: TowerToHyperService<Router>) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEADER_TIME)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        log::debug!("a scraper's connection ended: {error}");
    }
}
