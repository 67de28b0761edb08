//! Log lines: for a person on a terminal, with priorities under systemd's journal.

use std::io::Write;

use eomt_edge_files::output::sentence;
use log::Level;

/// Starts the log on standard error. `verbose` counts `-v`. `RUST_LOG` overrides it.
pub fn start(verbose: u8) {
    // the libraries' own lines speak of their inner life: only their errors matter to a user
    let level = match verbose {
        // rustdds says for each datagram that the network is down
        0 => "error,rustdds=off,eomt_edge_bridge=info",
        // rustdds warns of every datagram that is larger than Ethernet's
        1 => "warn,rustdds=error,eomt_edge_bridge=debug",
        _ => "debug",
    };
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    builder.format(move |buffer, record| {
        // labels, topics and names of peers come from outside
        let (text, level) = (sentence(&record.args().to_string()), record.level());
        if journald {
            return writeln!(buffer, "<{}>{text}", priority(level));
        }
        let (time, style) = (buffer.timestamp(), buffer.default_level_style(level));
        writeln!(buffer, "[{time} {style}{level:<5}{style:#}] {text}")
    });
    builder.init();
}

/// The last words of the program.
#[allow(clippy::print_stderr)] // the one place
pub fn say(text: &str) {
    eprintln!("{text}");
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
