//! Log lines: for a person on a terminal, with priorities under systemd's journal, and for the control socket. URLs lose their passwords.

use std::io::Write;
use std::time::SystemTime;

use eomt_edge::control::LOG;
use eomt_edge_host::output::{sentence, without_passwords};
use log::Level;

/// Starts the log on standard error. `verbose` counts `-v`; the daemon tells more by itself. `RUST_LOG` overrides both.
pub fn start(verbose: u8, daemon: bool) {
    let level = match (verbose, daemon) {
        (0, false) => "warn,tract=error",
        (0, true) | (1, _) => "info,tract=error",
        _ => "debug,tract=warn",
    };
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    let journald = under_journald();
    if daemon {
        LOG.open(); // the daemon closes it again if nobody may ask
    }
    builder.format(move |buffer, record| {
        // labels, names and paths come from outside
        let (said, level) = (record.args().to_string(), record.level());
        LOG.add(SystemTime::now(), level, &said);
        let text = sentence(&without_passwords(&said));
        if journald {
            // the journal has its own clock; a line's rank is its prefix (sd-daemon(3))
            return writeln!(buffer, "<{}>{text}", priority(level));
        }
        let (time, style) = (buffer.timestamp(), buffer.default_level_style(level));
        writeln!(buffer, "[{time} {style}{level:<5}{style:#}] {text}")
    });
    builder.init();
}

/// syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Whether standard error is the journal: `JOURNAL_STREAM` holds its device and inode (systemd.exec(5)).
pub fn under_journald() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}
