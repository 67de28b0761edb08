//! Prints what an eomt-edge daemon publishes, a line per frame, and connects again after the daemon stopped or read a new model.
//!
//! ```text
//! cargo run --example subscriber -- --socket /run/eomt-edge/masks.sock --frames 10
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use eomt_edge_client::{ClientError, MaskFrame, Subscriber};

/// How long the daemon may be away.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match follow() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "subscriber: {error}");
            ExitCode::FAILURE
        }
    }
}

fn follow() -> Result<(), Box<dyn Error>> {
    let mut socket = "/run/eomt-edge/masks.sock".to_owned();
    let mut frames = u64::MAX;
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or("usage: subscriber [--socket PATH] [--frames N]")?;
        match name.as_str() {
            "--socket" => socket = value,
            "--frames" => frames = value.parse()?,
            other => return Err(format!("unknown option {other}").into()),
        }
    }

    let mut masks = Subscriber::connect_retry(&socket, PATIENCE)?;
    // one frame for all: its buffers are reused
    let mut frame = MaskFrame::default();
    let mut seen = 0;
    while seen < frames {
        match masks.next_into(&mut frame, None) {
            Ok(_) => {
                seen += 1;
                writeln!(std::io::stdout(), "{}", line(&masks, &frame))?;
            }
            Err(ClientError::Ended { .. }) => masks = Subscriber::connect_retry(&socket, PATIENCE)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// `12 320x240 source 1a2b3c4d age 31 ms: car 0.97 (1200 pixels), road 0.88 (40000 pixels)`.
fn line(masks: &Subscriber, frame: &MaskFrame) -> String {
    let age_ms = frame.info.published_ns.saturating_sub(frame.info.captured_ns) / 1_000_000;
    let mut line = format!("{} {}x{} source {:08x}", frame.sequence(), frame.width(), frame.height(), frame.source_id());
    if frame.no_signal() {
        return line + " no signal";
    }
    let _ = write!(line, " age {age_ms} ms{}:", if frame.stale() { " (stale)" } else { "" });
    for (at, segment) in frame.segments.iter().enumerate() {
        // the pixels themselves: frame.ids, row by row, where the value is segment.id
        let label: String = masks.label(segment.class).unwrap_or("?").chars().filter(|c| !c.is_control()).collect();
        let _ = write!(line, "{} {label} {:.2} ({} pixels)", if at > 0 { "," } else { "" }, segment.score, segment.area);
    }
    line
}
