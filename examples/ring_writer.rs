//! Publishes synthetic frames through the real mask ring: what `tests/mask_ring.rs` reads from, and a way to try a client
//! without a model.
//!
//! ```text
//! cargo run --example ring_writer -- --socket /tmp/masks.sock --fps 30
//! ```
//! `--width W --height H --slots N --frames N --max-clients N --max-per-user N --rgb --formats --no-reaper`; without `--fps` at full
//! speed. `--formats` puts a camera frame of every format in turn into the slots. Everything in a frame follows from its sequence, and
//! every slot carries a checksum. `--flat N` writes faster than anybody reads: all ids are the low half of the sequence, there is no
//! checksum, and only after N frames comes a pause. Stops on SIGTERM and SIGINT.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eomt_edge::sink::ring::{MaskServer, ReaperCommand, RingConfig, RingWriter, ServerConfig, reap_socket_main};
use eomt_edge_client::FrameFormat;
use eomt_edge_core::data::{FrameReport, Segment, StageTimes, Unpublished};
use rustix::time::{ClockId, clock_gettime};

const METADATA: &str =
    r#"{"labels": ["sky", "road", "car", "ärm \"x\""], "stuff_classes": [0, 1], "task": "panoptic", "model": "synthetic"}"#;
const LABELS: u64 = 4;

struct Options {
    socket: PathBuf,
    width: u32,
    height: u32,
    slots: u32,
    frames: u64,
    fps: Option<f64>,
    max_clients: usize,
    max_per_user: usize,
    rgb: bool,
    formats: bool,
    flat: Option<u64>,
    reaper: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [command, path, dev, ino] = &args[..]
        && command == "reap-socket"
    {
        let number = |text: &OsString| text.to_str().and_then(|text| text.parse().ok()).ok_or("a device or inode is no number");
        reap_socket_main(Path::new(path), number(dev)?, number(ino)?);
        return Ok(());
    }
    let options = parse(&args)?;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop))?;

    let config = RingConfig {
        slots: options.slots,
        // some formats take four bytes a pixel
        max_width: if options.formats { 2 * options.width } else { options.width },
        max_height: options.height,
        max_segments: 16,
        include_frame: options.rgb || options.formats,
        source_format: false,
        checksum: options.flat.is_none(),
        model_hash: *b"0123456789abcdef",
    };
    let mut ring = RingWriter::create(&config, METADATA, now_ns())?;
    ring.set_source_id(7);
    let mut server = ServerConfig::new(&options.socket);
    server.clients_max = options.max_clients;
    server.clients_per_user_max = options.max_per_user;
    server.reaper = if options.reaper { Some(ReaperCommand::current_exe()?) } else { None };
    let server = MaskServer::start(server, &ring)?;
    println!("ready");

    // time in which a reader can finish a copy; an emulated one takes longer
    let pause = Duration::from_millis(if std::env::var_os("EOMT_EDGE_TEST_RUNNER").is_some() { 50 } else { 2 });
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) && ring.published() < options.frames {
        publish(&mut ring, &options)?;
        if let Some(fps) = options.fps {
            let due = start + Duration::from_secs_f64(ring.published() as f64 / fps);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        } else if options.flat.is_some_and(|burst| ring.published().is_multiple_of(burst)) {
            std::thread::sleep(pause);
        }
    }
    println!("published {}", ring.published());
    drop(ring);
    server.stop();
    Ok(())
}

fn parse(args: &[OsString]) -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        socket: PathBuf::new(),
        width: 320,
        height: 240,
        slots: 4,
        frames: u64::MAX,
        fps: None,
        max_clients: 64,
        max_per_user: usize::MAX,
        rgb: false,
        formats: false,
        flat: None,
        reaper: true,
    };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let flag = flag.to_str().ok_or("an option is not UTF-8")?;
        let mut value = || args.next().and_then(|value| value.to_str()).ok_or(format!("{flag} needs a value"));
        match flag {
            "--socket" => options.socket = value()?.into(),
            "--width" => options.width = value()?.parse()?,
            "--height" => options.height = value()?.parse()?,
            "--slots" => options.slots = value()?.parse()?,
            "--frames" => options.frames = value()?.parse()?,
            "--fps" => options.fps = Some(value()?.parse()?),
            "--max-clients" => options.max_clients = value()?.parse()?,
            "--max-per-user" => options.max_per_user = value()?.parse()?,
            "--flat" => options.flat = Some(value()?.parse()?),
            "--rgb" => options.rgb = true,
            "--formats" => options.formats = true,
            "--no-reaper" => options.reaper = false,
            _ => return Err(format!("unknown option {flag}").into()),
        }
    }
    if options.socket.as_os_str().is_empty() { Err("--socket is missing".into()) } else { Ok(options) }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// One frame; `tests/mask_ring.rs` repeats these formulas.
fn publish(ring: &mut RingWriter, options: &Options) -> Result<(), Box<dyn Error>> {
    let sequence = ring.published() + 1;
    let count = 1 + sequence % 9;
    let mut slot = ring.begin(options.width, options.height)?;
    if options.flat.is_some() {
        slot.ids().fill(sequence as u16);
        slot.finish(&FrameReport { sequence, captured_ns: 1000 * sequence, ..FrameReport::default() }, &[]);
        return Ok(());
    }
    let mut value = sequence % (count + 1);
    for run in slot.ids().chunks_mut(7) {
        run.fill(value as u16);
        value = if value == count { 0 } else { value + 1 };
    }
    if options.formats {
        let formats: Vec<FrameFormat> = FrameFormat::all().collect();
        let format = formats[(sequence % formats.len() as u64) as usize];
        let count = format.frame_bytes(options.width, options.height).unwrap_or((sequence % 100) as usize);
        let bytes: Vec<u8> = (0..count).map(|at| (at as u64 * 7 + sequence) as u8).collect();
        assert!(slot.put_frame(format, (sequence % 4) as u32, &bytes), "{format:?} fits");
    } else if let Some(frame) = slot.frame() {
        let mut byte = (sequence * 3) as u8;
        for value in frame {
            *value = byte;
            byte = byte.wrapping_add(1);
        }
    }
    let mut table = [Segment { id: 0, category_id: 0, score: 0.0, area: 0, bbox: [0; 4], track_id: 0 }; 9];
    for (k, row) in (1..=count).zip(&mut table) {
        *row = Segment {
            id: k as u16,
            category_id: ((k + sequence) % LABELS) as u16,
            score: k as f32 / (count + 1) as f32,
            area: 10 * k as u32,
            bbox: [k as u32, k as u32, (sequence % 100).min(u64::from(options.width) - k) as u32, 4],
            track_id: sequence as u32,
        };
    }
    let report = FrameReport {
        sequence: 2 * sequence,
        captured_ns: 1000 * sequence,
        published_ns: now_ns(),
        stamp_ns: 1_700_000_000_000_000_000 + sequence,
        unpublished: Unpublished { busy: sequence, source: sequence / 2, corrupt: sequence / 4, failed: sequence / 8 },
        times: StageTimes { micros: [1, 2, 3, sequence as u32] },
        stale: sequence % 2 == 1,
        no_signal: sequence.is_multiple_of(3),
    };
    slot.finish(&report, &table[..count as usize]);
    Ok(())
}
