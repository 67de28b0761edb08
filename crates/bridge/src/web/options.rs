//! The arguments of `eomt-edge-bridge web`, and what they mean together.
//!
//! Invariants: whoever can reach the page from another machine sees it encrypted and with a token only. Refuses: an address beyond this machine
//! without a token, half a certificate, a token that can be guessed.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use clap::Args;
use eomt_edge_files::bounds;
use eomt_edge_files::files::read_text;

use super::auth::Secret;
use crate::options::RingArgs;

/// The fewest characters of a token: 12 random ones are beyond guessing at ten attempts a minute.
const TOKEN_CHARS_MIN: usize = 12;

/// A page in the browser: picture, masks, latencies, log.
#[derive(Debug, Clone, Args)]
#[allow(missing_docs)] // would become help text
pub struct WebArgs {
    #[command(flatten)]
    pub ring: RingArgs,
    /// Address and port to listen on. One that other machines reach needs --token-file, and is served by TLS only
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// File with a token or password, of 12 characters at least, that viewers must give. Thresholds, reload and models can be changed with one only
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// TLS on this machine's own addresses, too
    #[arg(long)]
    pub tls: bool,
    /// Certificate chain, PEM; without it one is made in --state-dir and kept
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Private key of --cert, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Folder for the certificate that is made; $STATE_DIRECTORY under systemd
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Another name under which viewers reach this machine, besides localhost, its host name and its addresses (repeatable)
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// The daemon's control socket: its log, state and settings
    #[arg(long, value_name = "PATH", default_value = "/run/eomt-edge/control.sock")]
    pub control: PathBuf,
    /// Viewers at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_viewers: u16,
    /// Quality of the camera frame as JPEG
    #[arg(long, value_name = "1..100", default_value_t = 75, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: u8,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// A certificate of its own, kept in this folder.
    SelfMade(PathBuf),
    /// Certificate and key, PEM.
    Files(PathBuf, PathBuf),
}

/// Why the arguments do not go together.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// Everybody in the network would see the camera.
    #[error("--listen {0}: other machines reach this address, so that it needs --token-file FILE (or listen on 127.0.0.1)")]
    OpenToAll(SocketAddr),
    /// The certificate has no place.
    #[error("--state-dir DIR is missing: the certificate is made and kept there (or give --cert and --key)")]
    NoStateDir,
    /// The token's file.
    #[error("{}: the token cannot be read: {source}", .path.display())]
    TokenUnread {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token.
    #[error("{}: its first line has {chars} characters; a token needs {TOKEN_CHARS_MIN} at least (`openssl rand -hex 16` makes one)", .path.display())]
    TokenShort {
        /// The file.
        path: PathBuf,
        /// Of its first line.
        chars: usize,
    },
    /// A name that no URL can have.
    #[error("--host {0}: a name without port, scheme or spaces is needed, as in https://NAME/")]
    Host(String),
}

impl WebArgs {
    /// Where the certificate comes from, if TLS is needed.
    ///
    /// # Errors
    /// `OptionsError` when others reach the address and nothing protects it, and for a certificate without a place.
    pub fn tls(&self) -> Result<Tls, OptionsError> {
        let local = self.listen.ip().to_canonical().is_loopback();
        if !local && self.token_file.is_none() {
            return Err(OptionsError::OpenToAll(self.listen));
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(Tls::Files(cert.clone(), key.clone())),
            _ if self.tls || !local => Ok(Tls::SelfMade(self.state_dir.clone().ok_or(OptionsError::NoStateDir)?)),
            _ => Ok(Tls::Off),
        }
    }

    /// The names under which the page may be asked for. Addresses need no list: nobody can point one at another machine.
    ///
    /// # Errors
    /// `OptionsError::Host`.
    pub fn names(&self) -> Result<Vec<String>, OptionsError> {
        let mut names = vec!["localhost".to_owned()];
        let own = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        if is_name(&own) {
            names.push(format!("{own}.local"));
            names.push(own);
        }
        for host in &self.hosts {
            if !is_name(host) {
                return Err(OptionsError::Host(host.clone()));
            }
            names.push(host.to_ascii_lowercase());
        }
        names.dedup();
        Ok(names)
    }

    /// Reads the token.
    ///
    /// # Errors
    /// `OptionsError` when the file cannot be read or its first line is too short.
    pub fn secret(&self) -> Result<Option<Secret>, OptionsError> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = read_text(path, &bounds::SYSTEM).map_err(|source| OptionsError::TokenUnread { path: path.clone(), source })?;
        let token = text.lines().next().unwrap_or_default().trim();
        let chars = token.chars().count();
        if chars < TOKEN_CHARS_MIN {
            return Err(OptionsError::TokenShort { path: path.clone(), chars });
        }
        if std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0) {
            log::warn!("{}: everybody on this machine can read the token: chmod o-r", path.display());
        }
        Ok(Some(Secret::new(token)))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        web: WebArgs,
    }

    fn args(line: &str) -> WebArgs {
        Line::parse_from(std::iter::once("web").chain(line.split_whitespace())).web
    }

    #[test]
    fn this_machine_needs_nothing() {
        for line in ["", "--listen 127.0.0.1:1", "--listen [::1]:80", "--listen 127.8.8.8:80", "--listen [::ffff:127.0.0.1]:80"] {
            assert_eq!(args(line).tls().unwrap(), Tls::Off, "{line}");
            assert!(args(line).secret().unwrap().is_none());
        }
        assert_eq!(args("--tls --state-dir /s").tls().unwrap(), Tls::SelfMade("/s".into()));
    }

    #[test]
    fn other_machines_need_tls_and_a_token() {
        for listen in ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:8080", "[fe80::1]:8080"] {
            let error = args(&format!("--listen {listen} --tls --state-dir /s")).tls().unwrap_err().to_string();
            assert!(error.contains(listen) && error.contains("--token-file"), "{error}");
            let error = args(&format!("--listen {listen} --token-file /t")).tls().unwrap_err().to_string();
            assert!(error.contains("--state-dir"), "{error}");
            let made = args(&format!("--listen {listen} --token-file /t --state-dir /s")).tls().unwrap();
            assert_eq!(made, Tls::SelfMade("/s".into()));
            let files = args(&format!("--listen {listen} --token-file /t --cert /c --key /k")).tls().unwrap();
            assert_eq!(files, Tls::Files("/c".into(), "/k".into()));
        }
    }

    #[test]
    fn half_a_certificate_is_none() {
        assert!(Line::try_parse_from(["web", "--cert", "/c"]).unwrap_err().to_string().contains("--key"));
        assert!(Line::try_parse_from(["web", "--key", "/k"]).unwrap_err().to_string().contains("--cert"));
    }

    #[test]
    fn tokens_are_long() {
        let path = std::env::temp_dir().join(format!("eomt-edge-web-token-{}", std::process::id()));
        let line = format!("--token-file {}", path.display());
        assert!(args(&line).secret().unwrap_err().to_string().contains("cannot be read"));
        for (text, chars) in [("", 0), ("\nlonger than twelve", 0), ("  short token\n", 11)] {
            std::fs::write(&path, text).unwrap();
            let error = args(&line).secret().unwrap_err().to_string();
            assert!(error.contains(&format!("has {chars} characters")), "{text:?}: {error}");
        }
        std::fs::write(&path, " correct horse \n# a comment").unwrap();
        let secret = args(&line).secret().unwrap().unwrap();
        assert!(secret.is("correct horse") && !secret.is("correct horse "));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn documented_commands_are_taken() {
        let pages = [include_str!("../../../../docs/web.md"), include_str!("../../../../systemd/eomt-edge-web.service")];
        let mut taken = 0;
        for line in pages.iter().flat_map(|page| page.lines()) {
            let line = line.strip_prefix("ExecStart=/usr/bin/").unwrap_or(line);
            if let Some(words) = line.strip_prefix("eomt-edge-bridge web") {
                let mut args = args(words.trim_end_matches("$OPTIONS"));
                args.state_dir.get_or_insert("/s".into()); // as systemd gives it to the unit
                args.tls().unwrap();
                taken += 1;
            }
        }
        assert!(taken >= 3, "{taken} commands");
    }

    #[test]
    fn names_are_names() {
        let names = args("--host Robot.example --host cam_1").names().unwrap();
        assert!(names.contains(&"localhost".into()) && names.contains(&"robot.example".into()) && names.contains(&"cam_1".into()));
        for bad in ["https://robot", "robot:80", "a/b"] {
            assert!(args(&format!("--host {bad}")).names().unwrap_err().to_string().contains(bad));
        }
    }
}
