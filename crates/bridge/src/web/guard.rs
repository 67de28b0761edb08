//! What every request passes before anything looks at it: host, origin, token; and the headers of every answer.
//!
//! Invariants: a page of another site, or a name that was pointed at this machine (DNS rebinding), gets no picture and gives no order; without
//! the token there is nothing but the page's own files and its login. Refuses: hosts that are neither an address nor one of our names, origins other
//! than our own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::auth::{Auth, Login};
use super::hub::Hub;

/// The name of the session's cookie.
pub const COOKIE: &str = "eomt_edge_session";

/// No script, style, picture or connection but our own; nothing may frame the page, and no text becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(&str, &str); 9] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=(), usb=(), serial=()"),
    ("cache-control", "no-store"),
];

/// Whether this `Host` may be asked for: an address, or one of `names`. Any port: it may be forwarded.
pub fn host_allowed(host: &str, names: &[String]) -> bool {
    // a port is digits; what remains is a name, an IPv4 address or an IPv6 one in brackets
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    if let Some(inner) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    bare.parse::<std::net::Ipv4Addr>().is_ok() || names.iter().any(|name| name.eq_ignore_ascii_case(bare))
}

/// Whether a request with this `Origin` comes from our own page. Programs that are no browsers send none.
pub fn origin_allowed(origin: Option<&str>, host: &str) -> bool {
    let Some(origin) = origin else { return true };
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    matches!(scheme, "http" | "https") && authority.eq_ignore_ascii_case(host)
}

/// The session's key out of the cookies.
pub fn session_key(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|line| line.split(';')).find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Whether the request comes from somebody inside: with a session, or with the token as `Authorization: Bearer`. `Err` is the refusal.
#[allow(clippy::result_large_err)] // the refusal is the answer
fn admitted(auth: Option<&Auth>, headers: &HeaderMap, from: IpAddr) -> Result<(), Response> {
    let Some(auth) = auth else { return Ok(()) };
    let now = Instant::now();
    if session_key(headers).is_some_and(|key| auth.is_session(key, now)) {
        return Ok(());
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    match bearer.map(|token| auth.check(token.trim(), from, now)) {
        Some(Login::Session(_)) => Ok(()),
        Some(Login::Later(seconds)) => Err(later(seconds)),
        Some(Login::Wrong) => Err((StatusCode::UNAUTHORIZED, "this is not the token\n").into_response()),
        None => Err((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "a token is needed\n").into_response()),
    }
}

/// The answer after too many wrong tokens.
pub fn later(seconds: u64) -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_string())], "too many wrong tokens\n").into_response()
}

/// The token, for routes that show or do something.
pub async fn inside(State(hub): State<Arc<Hub>>, ConnectInfo(from): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    match admitted(hub.auth.as_ref(), request.headers(), from.ip()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal,
    }
}

/// Host and origin, for all routes; and the headers of every answer.
pub async fn everybody(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&hub.names, request.method(), request.headers()) {
        Some((status, sentence)) => (status, format!("{sentence}\n")).into_response(),
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Why a request goes no further.
fn refusal(names: &[String], method: &Method, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let Some(host) = text(header::HOST) else { return Some((StatusCode::BAD_REQUEST, "a request without Host")) };
    if headers.get_all(header::HOST).iter().count() > 1 || !host_allowed(host, names) {
        return Some((
            StatusCode::MISDIRECTED_REQUEST,
            "this machine does not go by that name: start eomt-edge-bridge web with --host NAME",
        ));
    }
    let harmless = *method == Method::GET && !headers.contains_key(header::UPGRADE);
    if !harmless && !origin_allowed(text(header::ORIGIN), host) {
        return Some((StatusCode::FORBIDDEN, "a page of another site asked for this"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["localhost".into(), "robot".into(), "robot.local".into()]
    }

    #[test]
    fn hosts_are_addresses_or_our_names() {
        for host in [
            "localhost",
            "localhost:8080",
            "LocalHost",
            "127.0.0.1:8080",
            "192.168.0.7",
            "[::1]:8080",
            "[::1]",
            "robot.local:80",
            "robot.local.",
        ] {
            assert!(host_allowed(host, &names()), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "robot.evil",
            "127.0.0.1.evil.example",
            "[evil]",
            "[::1].evil.example",
            "localhost:80:80",
            "localhost:",
            "localhost:x",
            "127.1",
            "evil@localhost",
            "::1",
        ] {
            assert!(!host_allowed(host, &names()), "{host}");
        }
    }

    #[test]
    fn origins_are_our_own() {
        for (origin, host) in [("http://localhost:8080", "localhost:8080"), ("https://robot", "ROBOT"), ("http://[::1]:1", "[::1]:1")] {
            assert!(origin_allowed(Some(origin), host), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://localhost",
            "http://localhost:80801",
            "http://evil.example",
            "file://localhost:8080",
            "http://localhost:8080/",
        ] {
            assert!(!origin_allowed(Some(origin), "localhost:8080"), "{origin}");
        }
        assert!(origin_allowed(None, "localhost"));
    }

    #[test]
    fn requests_of_other_sites_are_refused() {
        let headers = |lines: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in lines {
                map.append(*name, HeaderValue::from_static(value));
            }
            map
        };
        let status = |method: Method, lines: &[(&'static str, &'static str)]| {
            refusal(&names(), &method, &headers(lines)).map(|refusal| refusal.0.as_u16())
        };
        assert_eq!(status(Method::GET, &[("host", "robot:8080")]), None);
        assert_eq!(status(Method::GET, &[]), Some(400));
        assert_eq!(status(Method::GET, &[("host", "evil.example")]), Some(421));
        assert_eq!(status(Method::GET, &[("host", "robot"), ("host", "evil.example")]), Some(421));
        let foreign = ("origin", "http://evil.example");
        assert_eq!(status(Method::POST, &[("host", "robot"), foreign]), Some(403));
        assert_eq!(status(Method::POST, &[("host", "robot"), ("origin", "http://robot")]), None);
        assert_eq!(status(Method::GET, &[("host", "robot"), ("upgrade", "websocket"), foreign]), Some(403));
        assert_eq!(status(Method::GET, &[("host", "robot"), ("upgrade", "websocket"), ("origin", "null")]), Some(403));
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; eomt_edge_session=abc; c=d"));
        assert_eq!(session_key(&headers), Some("abc"));
        headers.clear();
        headers.append(header::COOKIE, HeaderValue::from_static("xeomt_edge_session=abc; eomt_edge_session_=d"));
        assert_eq!(session_key(&headers), None);
    }

    #[test]
    fn a_token_opens_and_a_wrong_one_does_not() {
        use crate::web::auth::{FAILURES_MAX, Secret};
        let auth = Auth::new(Secret::new("correct horse"));
        let from = IpAddr::from([127, 0, 0, 1]);
        let ask = |name: HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.append(name, HeaderValue::from_str(value).unwrap());
            admitted(Some(&auth), &headers, from).map_err(|refusal| refusal.status().as_u16())
        };
        assert_eq!(ask(header::AUTHORIZATION, "Bearer correct horse"), Ok(()));
        assert_eq!(ask(header::AUTHORIZATION, "Basic correct horse"), Err(401));
        assert_eq!(ask(header::COOKIE, "eomt_edge_session=guess"), Err(401));
        for _ in 0..FAILURES_MAX {
            assert_eq!(ask(header::AUTHORIZATION, "Bearer wrong"), Err(401));
        }
        assert_eq!(ask(header::AUTHORIZATION, "Bearer correct horse"), Err(429));
        assert!(admitted(None, &HeaderMap::new(), from).is_ok());
    }
}
