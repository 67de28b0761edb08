//! Who may look: a token, sessions made with it, and a brake on guessing.
//!
//! Invariants: neither the token nor a session's key is kept as it is, only their digests, and those are compared in constant time; sessions and
//! the list of failures are bounded. Refuses: an address after [`FAILURES_MAX`] wrong tokens within [`FAILURES_WITHIN`].

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use eomt_edge_files::files::hex;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::ring::default_provider;

/// A session ends this long after it was made.
pub const SESSION: Duration = Duration::from_secs(12 * 3600);
/// More sessions than this forget the oldest one.
const SESSIONS_MAX: usize = 64;
/// So many wrong tokens of one address ...
pub const FAILURES_MAX: usize = 10;
/// ... within this time are enough.
pub const FAILURES_WITHIN: Duration = Duration::from_secs(60);
/// Failures that are remembered, of all addresses.
const FAILURES_KEPT: usize = 1024;

type Sha = [u8; 32];

fn digest(text: &str) -> Sha {
    Sha256::digest(text.as_bytes()).into()
}

/// In constant time: every byte is looked at.
fn same(a: &Sha, b: &Sha) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b))) == 0
}

/// A token's digest.
#[derive(Clone)]
pub struct Secret(Sha);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Keeps the digest alone.
    pub fn new(token: &str) -> Secret {
        Secret(digest(token))
    }

    /// Whether `token` is the one.
    pub fn is(&self, token: &str) -> bool {
        same(&self.0, &digest(token))
    }
}

/// What came of a token.
#[derive(Debug, PartialEq)]
pub enum Login {
    /// The session's key, for a cookie.
    Session(String),
    /// Another token.
    Wrong,
    /// Too many of them; try again after so many seconds.
    Later(u64),
}

/// The door.
#[derive(Debug)]
pub struct Auth {
    secret: Secret,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Digests of keys, and when they were made; oldest first.
    sessions: VecDeque<(Sha, Instant)>,
    /// Oldest first.
    failures: VecDeque<(IpAddr, Instant)>,
}

impl Auth {
    /// Nobody is inside.
    pub fn new(secret: Secret) -> Auth {
        Auth { secret, state: Mutex::default() }
    }

    /// Makes a session for whoever has the token.
    pub fn login(&self, token: &str, from: IpAddr, now: Instant) -> Login {
        match self.check(token, from, now) {
            Login::Session(_) => {}
            refused => return refused,
        }
        let mut key = [0; 32];
        if default_provider().secure_random.fill(&mut key).is_err() {
            log::error!("the system gives no random bytes: nobody can log in");
            return Login::Later(FAILURES_WITHIN.as_secs());
        }
        let key = hex(&key);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.sessions.len() >= SESSIONS_MAX {
            state.sessions.pop_front();
        }
        state.sessions.push_back((digest(&key), now));
        Login::Session(key)
    }

    /// Whether `token` is right, without a session: of programs that send it with each request. The key in [`Login::Session`] is empty.
    pub fn check(&self, token: &str, from: IpAddr, now: Instant) -> Login {
        let from = network(from);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.failures.front().is_some_and(|(_, at)| now.duration_since(*at) >= FAILURES_WITHIN) {
            state.failures.pop_front();
        }
        let mut own = state.failures.iter().filter(|(address, _)| *address == from);
        if let Some((_, oldest)) = own.next()
            && own.count() + 1 >= FAILURES_MAX
        {
            return Login::Later((FAILURES_WITHIN - now.duration_since(*oldest)).as_secs() + 1);
        }
        if self.secret.is(token) {
            return Login::Session(String::new());
        }
        if state.failures.len() >= FAILURES_KEPT {
            state.failures.pop_front();
        }
        state.failures.push_back((from, now));
        Login::Wrong
    }

    /// Whether a session has this key.
    pub fn is_session(&self, key: &str, now: Instant) -> bool {
        let wanted = digest(key);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.sessions.front().is_some_and(|(_, made)| now.duration_since(*made) >= SESSION) {
            state.sessions.pop_front();
        }
        // all of them, so that time tells nothing of their order either
        state.sessions.iter().fold(false, |found, (key, _)| found | same(key, &wanted))
    }

    /// Ends the session with this key.
    pub fn logout(&self, key: &str) {
        let gone = digest(key);
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sessions.retain(|(key, _)| !same(key, &gone));
    }
}

/// One attacker has a whole IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn session(login: Login) -> String {
        match login {
            Login::Session(key) => key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_makes_a_session_that_ends() {
        let (auth, now) = (Auth::new(Secret::new("correct horse")), Instant::now());
        let key = session(auth.login("correct horse", HOME, now));
        assert_eq!(key.len(), 64);
        assert!(auth.is_session(&key, now) && !auth.is_session("", now) && !auth.is_session("correct horse", now));
        assert!(auth.is_session(&key, now + SESSION - Duration::from_secs(1)));
        assert!(!auth.is_session(&key, now + SESSION));
        let key = session(auth.login("correct horse", HOME, now));
        auth.logout(&key);
        assert!(!auth.is_session(&key, now));
    }

    #[test]
    fn guessing_is_slow() {
        let (auth, now) = (Auth::new(Secret::new("correct horse")), Instant::now());
        let key = session(auth.login("correct horse", HOME, now));
        for _ in 0..FAILURES_MAX {
            assert_eq!(auth.login("wrong", HOME, now), Login::Wrong);
        }
        assert_eq!(auth.login("correct horse", HOME, now + Duration::from_secs(20)), Login::Later(41), "not even the right one");
        assert!(auth.is_session(&key, now), "who is inside stays");
        session(auth.login("correct horse", "10.0.0.1".parse().unwrap(), now));
        session(auth.login("correct horse", HOME, now + FAILURES_WITHIN));
    }

    #[test]
    fn an_ipv6_network_is_one_guesser() {
        let (auth, now) = (Auth::new(Secret::new("correct horse")), Instant::now());
        for guess in 0..FAILURES_MAX {
            auth.login("wrong", format!("2001:db8::{guess}").parse().unwrap(), now);
        }
        assert!(matches!(auth.login("correct horse", "2001:db8::ffff".parse().unwrap(), now), Login::Later(_)));
        session(auth.login("correct horse", "2001:db8:0:1::1".parse().unwrap(), now));
        for guess in 0..FAILURES_MAX {
            auth.login("wrong", if guess % 2 == 0 { "::ffff:10.0.0.9" } else { "10.0.0.9" }.parse().unwrap(), now);
        }
        assert!(matches!(auth.check("correct horse", "10.0.0.9".parse().unwrap(), now), Login::Later(_)), "one address, two spellings");
    }

    #[test]
    fn lists_are_bounded() {
        let (auth, now) = (Auth::new(Secret::new("correct horse")), Instant::now());
        let first = session(auth.login("correct horse", HOME, now));
        for _ in 0..SESSIONS_MAX {
            session(auth.login("correct horse", HOME, now));
        }
        assert!(!auth.is_session(&first, now), "the oldest is forgotten");
        for guess in 0..3 * FAILURES_KEPT {
            auth.login("wrong", IpAddr::from([10, 0, (guess / 256) as u8, (guess % 256) as u8]), now);
        }
        assert_eq!(auth.state.lock().unwrap().failures.len(), FAILURES_KEPT);
    }
}
