//! `view`: a subscriber that prints or saves what the ring publishes.
//!
//! Invariants: connecting and the first frame take no longer than the timeout together, whatever listens on the socket; no label of the
//! daemon's moves a terminal's cursor. Refuses: to reconnect.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use eomt_edge_client::{ClientError, MaskFrame, Subscriber};
use eomt_edge_core::data::Segment;
use eomt_edge_core::overlay;
use eomt_edge_core::preprocess::{FrameDecoder, RgbConverter};
use eomt_edge_host::files;
use eomt_edge_host::output::{say, sentence};
use serde_json::json;

use crate::picture::as_frame;

/// What `view` can be told.
#[derive(Debug, Clone)]
pub struct ViewOptions {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Ends after so many frames.
    pub frames: Option<u64>,
    /// Saves an overlay of each frame here.
    pub save: Option<PathBuf>,
    /// One JSON object a frame, instead of a line for people.
    pub json: bool,
    /// How long to wait for the daemon to appear, to say hello and to give its first frame, all together; then for each frame.
    pub timeout: Duration,
}

/// Follows the ring until `frames`, or until the daemon ends.
///
/// # Errors
/// When nobody listens at the socket within the timeout, or the daemon ended before `frames`.
pub fn view(options: &ViewOptions) -> Result<()> {
    if let Some(directory) = &options.save {
        files::make_directory(directory)?;
    }
    let started = Instant::now();
    let mut subscriber = Subscriber::connect_retry(&options.socket, options.timeout)?;
    let plain: Vec<String> = subscriber.labels().iter().map(|label| plain(label)).collect();
    // what reads JSON unescapes it; people and pictures get no control characters
    let labels = if options.json { subscriber.labels().to_vec() } else { plain.clone() };
    let mut frame = MaskFrame::default();
    let mut seen = 0;
    let mut patience = options.timeout.saturating_sub(started.elapsed());
    while options.frames.is_none_or(|frames| seen < frames) {
        match subscriber.next_into(&mut frame, Some(patience)) {
            Ok(true) => {}
            Ok(false) => anyhow::bail!("no frame arrived at {} within {:?}", options.socket.display(), options.timeout),
            // without a number of frames to wait for, the daemon's clean end is ours too
            Err(ClientError::Ended { clean: true, .. }) if options.frames.is_none() => break,
            Err(error) => return Err(error.into()),
        }
        seen += 1;
        patience = options.timeout;
        show(&frame, &labels, subscriber.skipped(), options.json)?;
        if let Some(directory) = &options.save {
            save(directory, &frame, &plain)?;
        }
    }
    if !options.json {
        let seconds = started.elapsed().as_secs_f64();
        say(format_args!("{seen} frames in {seconds:.1} s, {} skipped", subscriber.skipped()))?;
    }
    Ok(())
}

/// Most characters of a label that people get to see.
const LABEL_MAX: usize = 64;

/// A label as a terminal or a picture may show it: one short line.
fn plain(label: &str) -> String {
    let mut chars = label.chars();
    let shown = chars.by_ref().take(LABEL_MAX);
    let mut text: String = shown.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if chars.next().is_some() {
        text += "...";
    }
    text
}

fn show(frame: &MaskFrame, labels: &[String], skipped: u64, json: bool) -> Result<()> {
    let label = |class: u16| labels.get(usize::from(class)).map_or("?", String::as_str);
    let info = &frame.info;
    if json {
        let segments: Vec<_> = frame
            .segments
            .iter()
            .map(|row| json!({ "id": row.id, "category_id": row.class, "label": label(row.class), "score": row.score, "area": row.area, "bbox": row.bbox, "track_id": row.track_id }))
            .collect();
        let line = json!({
            "sequence": info.sequence, "frame_sequence": info.frame_sequence, "width": info.width, "height": info.height,
            "captured_ns": info.captured_ns, "published_ns": info.published_ns, "stage_us": info.stage_us, "skipped": skipped,
            "stamp_ns": info.stamp_ns, "dropped": info.dropped, "dropped_busy": info.dropped_busy, "dropped_source": info.dropped_source,
            "dropped_corrupt": info.dropped_corrupt, "failed": info.failed, "frame_format": frame.frame().map(|frame| frame.format.name()),
            "frame_stride": info.frame_stride, "frame_bytes": info.frame_bytes, "no_signal": frame.no_signal(), "stale": frame.stale(), "ids_crc32": frame.ids_crc32(), "segments": segments,
        });
        return say(line);
    }
    let segments: Vec<String> = frame.segments.iter().map(|row| format!("{} {:.2}", sentence(label(row.class)), row.score)).collect();
    let latency_ms = info.published_ns.saturating_sub(info.captured_ns) as f64 / 1e6;
    say(format_args!("#{:<6} {}x{}  {latency_ms:6.1} ms  {}", info.sequence, info.width, info.height, segments.join(", ")))
}

/// The camera frame as RGB; `None` where there is none, its format is unknown, or its JPEG picture is damaged.
fn camera_rgb(frame: &MaskFrame) -> Option<Vec<u8>> {
    let ours = as_frame(&frame.frame()?, (frame.width(), frame.height()))?;
    let decoded = FrameDecoder::default().decode(ours).ok()?;
    Some(RgbConverter::new().rgb(&decoded).to_vec())
}

/// `000017.overlay.png`: over the camera frame when the ring carries it, else over black.
fn save(directory: &Path, frame: &MaskFrame, labels: &[String]) -> Result<()> {
    let (width, height) = (frame.width(), frame.height());
    let mut rgb = camera_rgb(frame).unwrap_or_else(|| vec![0; 3 * width as usize * height as usize]);
    let table: Vec<Segment> = frame
        .segments
        .iter()
        .map(|row| Segment { id: row.id, category_id: row.class, score: row.score, area: row.area, bbox: row.bbox, track_id: row.track_id })
        .collect();
    overlay::paint(&mut rgb, width as usize, &frame.ids, &table, labels);
    let name = format!("{:06}.overlay.png", frame.sequence());
    files::write(&directory.join(name), &files::png_rgb(&rgb, width, height)?)
}
