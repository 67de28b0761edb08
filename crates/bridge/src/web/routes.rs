//! What can be asked for: the page's files, a login, the live connection.
//!
//! Invariants: everything passes [`guard::everybody`]; what shows or changes something stands in [`protected`] and needs the token, if there is
//! one. No secret stands in an address. Refuses: request bodies of more than [`BODY_BYTES_MAX`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, SET_COOKIE};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::auth::{Login, SESSION};
use super::guard::{self, COOKIE, session_key};
use super::hub::Hub;
use super::message::MESSAGE_BYTES_MAX;
use super::viewer;

/// The largest body of a request: a token.
const BODY_BYTES_MAX: usize = 4096;
/// A message is handed to the kernel as soon as it is there.
const WRITE_BUFFER_BYTES: usize = 0;
const READ_BUFFER_BYTES: usize = 8192;

/// The page: name, type, content.
const PAGE: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/page.js", JAVASCRIPT, include_str!("page/page.js")),
    ("/link.js", JAVASCRIPT, include_str!("page/link.js")),
    ("/idmap.js", JAVASCRIPT, include_str!("page/idmap.js")),
    ("/view.js", JAVASCRIPT, include_str!("page/view.js")),
    ("/panels.js", JAVASCRIPT, include_str!("page/panels.js")),
    ("/plots.js", JAVASCRIPT, include_str!("page/plots.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// All of it. Routes of other parts that show something are merged in [`protected`].
pub fn router(hub: &Arc<Hub>) -> Router {
    let mut public = Router::new().route("/session", get(session)).route("/login", post(login)).route("/logout", post(logout));
    for (path, kind, text) in PAGE {
        public = public.route(path, get(move || async move { ([(CONTENT_TYPE, kind)], text) }));
    }
    public
        .with_state(Arc::clone(hub))
        .merge(protected(hub))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(hub), guard::everybody))
}

/// What needs the token.
fn protected(hub: &Arc<Hub>) -> Router {
    Router::new().route("/live", get(live)).with_state(Arc::clone(hub)).layer(from_fn_with_state(Arc::clone(hub), guard::inside))
}

/// Whether a token is needed, whether this browser has given it, and whether there is a place.
async fn session(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Response {
    let inside = hub.auth.as_ref().is_none_or(|auth| session_key(&headers).is_some_and(|key| auth.is_session(key, Instant::now())));
    json_response(&json!({ "token": hub.auth.is_some(), "inside": inside, "free": hub.viewers() < hub.viewers_max }))
}

async fn login(State(hub): State<Arc<Hub>>, ConnectInfo(from): ConnectInfo<SocketAddr>, token: String) -> Response {
    let Some(auth) = &hub.auth else { return StatusCode::NO_CONTENT.into_response() };
    match auth.login(&token, from.ip(), Instant::now()) {
        Login::Session(key) => {
            log::info!("viewer {from}: logged in");
            (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie(&key, SESSION.as_secs(), hub.secure))]).into_response()
        }
        Login::Wrong => {
            log::warn!("viewer {from}: a wrong token");
            (StatusCode::FORBIDDEN, "this is not the token\n").into_response()
        }
        Login::Later(seconds) => guard::later(seconds),
    }
}

async fn logout(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Response {
    if let (Some(auth), Some(key)) = (&hub.auth, session_key(&headers)) {
        auth.logout(key);
    }
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie("", 0, hub.secure))]).into_response()
}

fn cookie(key: &str, seconds: u64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={key}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

async fn live(State(hub): State<Arc<Hub>>, ConnectInfo(from): ConnectInfo<SocketAddr>, upgrade: WebSocketUpgrade) -> Response {
    let Some(place) = hub.enter() else {
        log::info!("viewer {from}: refused, as {} are here already", hub.viewers_max);
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{} viewers are here already: --max-viewers\n", hub.viewers_max)).into_response();
    };
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .on_upgrade(move |socket| viewer::serve(socket, hub, place, from))
}

fn json_response(value: &serde_json::Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
