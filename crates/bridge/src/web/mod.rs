//! `eomt-edge-bridge web`: masks, latencies, log and settings as a page in the browser.
//!
//! ```text
//! main thread  feed: ring ──encoded once──▶ hub ◀── door: control socket   (thread "door")
//!                                            ▲
//!                                            └── serve, routes, viewer     (thread "web", all connections)
//! ```
//!
//! Invariants: daemon, bridge and viewers may end and come back in any order; a slow viewer loses frames, holds up nobody, and nothing grows.
//! Beyond this machine there is TLS and a token. Refuses: to be open to others without them; to change anything without a token.

mod auth;
mod door;
mod feed;
mod guard;
mod hub;
pub mod message;
mod options;
mod routes;
mod serve;
mod tls;
mod viewer;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;

use crate::masks::Masks;
use crate::options::Usage;
use crate::stop::{self, Stop};
use auth::Auth;
use feed::Feed;
use hub::Hub;
pub use options::WebArgs;

/// Between two signs of life for the service manager.
const ALIVE: Duration = Duration::from_secs(5);
/// Viewers get this long for a farewell.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves the page until a signal comes.
///
/// # Errors
/// One sentence: arguments that do not go together, an address that is taken, a certificate that cannot be used.
pub fn run(mut args: WebArgs) -> Result<()> {
    if args.state_dir.is_none() {
        args.state_dir = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    }
    let usage = |error: options::OptionsError| Usage(error.to_string());
    let (kind, names, secret) = (args.tls().map_err(usage)?, args.names().map_err(usage)?, args.secret().map_err(usage)?);
    let tls = tls::acceptor(&kind, &names, args.listen.ip())?;
    let stop = Stop::install().context("signals cannot be caught")?;
    let runtime = Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(2).build().context("no event loop")?;
    let listener = runtime.block_on(TcpListener::bind(args.listen));
    let listener =
        listener.with_context(|| format!("{}: cannot listen there; choose another address or port with --listen", args.listen))?;
    let address = listener.local_addr()?;
    let hub = Arc::new(Hub::new(secret.map(Auth::new), names, args.control.clone(), tls.is_some(), usize::from(args.max_viewers)));
    announce(address, tls.as_ref().map(|(_, print)| print.as_str()), hub.auth.is_some());
    let server = start_server(&hub, runtime, listener, tls.map(|(acceptor, _)| acceptor))?;
    let (hang_up, hung_up) = mpsc::sync_channel(0);
    let door = {
        let hub = Arc::clone(&hub);
        thread::Builder::new().name("door".into()).spawn(move || door::run(&hub, &hung_up)).context("no thread can be started")?
    };
    stop::ready();
    let result = feed(&hub, Feed::new(Masks::new(&args.ring.socket), args.quality), &stop);
    hub.ending.send_replace(true);
    drop(hang_up);
    let _ = server.join();
    if result.is_ok() {
        let _ = door.join();
    }
    result
}

/// The main thread's work: frames, and signs of life as long as the server's thread gives them too.
fn feed(hub: &Hub, mut feed: Feed, stop: &Stop) -> Result<()> {
    let (mut told, mut beats) = (None::<Instant>, 0);
    while !stop.requested() {
        feed.step(hub);
        if hub.server_ended.load(Ordering::SeqCst) {
            bail!("the server's thread has ended: this is a bug; please report it with the log");
        }
        if told.is_none_or(|at| at.elapsed() >= ALIVE) {
            let now = hub.beats.load(Ordering::Relaxed);
            if told.is_none() || now != beats {
                stop::alive(&feed.status(hub));
            }
            (told, beats) = (Some(Instant::now()), now);
        }
    }
    Ok(())
}

fn start_server(hub: &Arc<Hub>, runtime: Runtime, listener: TcpListener, tls: Option<TlsAcceptor>) -> Result<JoinHandle<()>> {
    let hub = Arc::clone(hub);
    let serve = move || {
        let ended = Ended(Arc::clone(&hub));
        let router = routes::router(&hub);
        runtime.block_on(async {
            serve::run(Arc::clone(&hub), listener, tls, router).await;
            let started = Instant::now();
            while hub.viewers() > 0 && started.elapsed() < FAREWELL {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        // an order to the daemon may take minutes
        runtime.shutdown_background();
        drop(ended);
    };
    thread::Builder::new().name("web".into()).spawn(serve).context("no thread can be started")
}

/// Tells the main thread, also when the server panics.
struct Ended(Arc<Hub>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.server_ended.store(true, Ordering::SeqCst);
    }
}

fn announce(address: SocketAddr, fingerprint: Option<&str>, token: bool) {
    let scheme = if fingerprint.is_some() { "https" } else { "http" };
    let whom = if token { "who has the token" } else { "all users of this machine" };
    log::info!("{scheme}://{address}/ for {whom}");
    if let Some(fingerprint) = fingerprint {
        log::info!("the certificate's SHA-256: {fingerprint}");
    }
}
