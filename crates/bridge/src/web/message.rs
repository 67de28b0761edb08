//! What travels between this program and the page: bytes in, bytes out, nothing else.
//!
//! ```text
//! a frame, binary:  u32 bytes of the header, little-endian | header (JSON) | JPEG, if any | id map as 16-bit grey PNG
//! to the page, text: {"type": "facts" | "state" | "control" | "log" | "clock" | "answer", ...}
//! from the page, text: {"do": "ack"} | {"do": "clock", "t": 1.5} | {"do": "thresholds" | "reload" | "model", "id": 1, ...}
//! ```
//! A PNG and not a picture that the browser decodes: a canvas has 8 bits for a channel, and some browsers add noise to what is read from it. The
//! page inflates and unfilters the PNG itself.
//!
//! Invariants: a frame is encoded once for all viewers; times are microseconds of CLOCK_MONOTONIC, exact in a double for 285 years. Refuses:
//! messages of more than [`MESSAGE_BYTES_MAX`], unknown keys, numbers that are none.

use eomt_edge_client::MaskFrame;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::picture::{PictureError, Pictures, camera_jpeg};

/// The largest message that a page may send.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// The longest name of a model that is passed on: that of a file.
const NAME_BYTES_MAX: usize = 255;

/// What a page asks for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// It has decoded the last frame and takes another.
    Ack {},
    /// What time is it here? `t` is the page's own clock, and is sent back.
    Clock {
        /// Milliseconds of the page's clock.
        t: f64,
    },
    /// Other thresholds for the daemon.
    Thresholds {
        /// Chosen by the page, sent back with the answer.
        id: u32,
        /// Some of the three.
        set: Thresholds,
    },
    /// The daemon shall read its configuration and model again.
    Reload {
        /// Chosen by the page, sent back with the answer.
        id: u32,
    },
    /// The daemon shall load another of its models.
    Model {
        /// Chosen by the page, sent back with the answer.
        id: u32,
        /// A name out of the daemon's list.
        name: String,
    },
}

/// What is left out stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    threshold: Option<f64>,
    mask_threshold: Option<f64>,
    overlap_threshold: Option<f64>,
}

impl Thresholds {
    fn named(&self) -> [(&'static str, Option<f64>); 3] {
        [("threshold", self.threshold), ("mask_threshold", self.mask_threshold), ("overlap_threshold", self.overlap_threshold)]
    }
}

impl Request {
    /// Reads a page's message.
    ///
    /// # Errors
    /// One sentence, when it is none.
    pub fn parse(text: &str) -> Result<Request, String> {
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(format!("a message of {} bytes; at most {MESSAGE_BYTES_MAX} are read", text.len()));
        }
        let request: Request = serde_json::from_str(text).map_err(|error| format!("a message that is not understood: {error}"))?;
        match &request {
            Request::Thresholds { set, .. } => {
                if set.named().iter().all(|(_, value)| value.is_none()) {
                    return Err("thresholds without one".into());
                }
                if let Some((key, _)) = set.named().iter().find(|(_, value)| value.is_some_and(|value| !(0.0..=1.0).contains(&value))) {
                    return Err(format!("{key} must be from 0 to 1"));
                }
            }
            Request::Model { name, .. } if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('/') => {
                return Err("a model's name is that of a file, without a folder".into());
            }
            _ => {}
        }
        Ok(request)
    }

    /// The same in the daemon's words, and the page's number for it; `None` for what is not the daemon's business.
    pub fn for_daemon(&self) -> Option<(u32, Value)> {
        match self {
            Request::Ack {} | Request::Clock { .. } => None,
            Request::Thresholds { id, set } => {
                let set: serde_json::Map<String, Value> =
                    set.named().into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect();
                Some((*id, json!({ "do": "thresholds", "set": set })))
            }
            Request::Reload { id } => Some((*id, json!({ "do": "reload" }))),
            Request::Model { id, name } => Some((*id, json!({ "do": "model", "name": name }))),
        }
    }
}

/// A frame as one message, and how many bytes its parts have.
#[derive(Debug)]
pub struct Encoded {
    /// The whole message.
    pub bytes: Vec<u8>,
    /// Of them, the camera frame.
    pub jpeg: usize,
    /// Of them, the id map.
    pub ids: usize,
}

/// Encodes a frame for all viewers; the camera frame, when there is one, as JPEG of `quality`.
///
/// # Errors
/// [`PictureError`] for sizes that JPEG cannot have.
pub fn encode(frame: &MaskFrame, pictures: &mut Pictures, quality: u8) -> Result<Encoded, PictureError> {
    let (width, height) = (frame.width(), frame.height());
    let camera = frame.frame();
    let jpeg = camera.map(|camera| camera_jpeg(&camera, width, height, quality)).transpose()?.flatten().unwrap_or_default();
    let ids = pictures.png16(&frame.ids, width, height)?;
    let header = header(frame, jpeg.len(), ids.len()).to_string();
    let mut bytes = Vec::with_capacity(4 + header.len() + jpeg.len() + ids.len());
    bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&jpeg);
    bytes.extend_from_slice(&ids);
    Ok(Encoded { bytes, jpeg: jpeg.len(), ids: ids.len() })
}

fn header(frame: &MaskFrame, jpeg: usize, ids: usize) -> Value {
    let (info, drops) = (&frame.info, frame.drops());
    let segments: Vec<Value> = frame
        .segments
        .iter()
        .map(|row| {
            // a score that is no number has no place in JSON
            let score = if row.score.is_finite() { json!((row.score * 1000.0).round() / 1000.0) } else { Value::Null };
            json!([row.id, row.class, score, row.area, row.track_id])
        })
        .collect();
    json!({
        "sequence": info.sequence,
        "frame": info.frame_sequence,
        "captured_us": info.captured_ns / 1000,
        "published_us": info.published_ns / 1000,
        "dropped": drops.total,
        "causes": { "busy": drops.busy, "source": drops.source, "corrupt": drops.corrupt },
        "failed": frame.failed(),
        "width": info.width,
        "height": info.height,
        "source": info.source_id,
        "stale": frame.stale(),
        "no_signal": frame.no_signal(),
        "truncated": frame.truncated(),
        "stage_us": info.stage_us,
        "model": eomt_edge_files::files::hex(&info.model_hash),
        "segments": segments,
        "format": frame.frame().map(|camera| camera.format.name()),
        "jpeg": jpeg,
        "ids": ids,
    })
}

#[cfg(test)]
mod tests {
    use eomt_edge_client::FrameFormat;
    use eomt_edge_client::layout::{SLOT_HAS_FRAME, SLOT_STALE, SegmentRow, SlotInfo};

    use super::*;

    fn frame(with_picture: bool) -> MaskFrame {
        let flags = if with_picture { SLOT_HAS_FRAME | SLOT_STALE } else { 0 };
        let info = SlotInfo { sequence: 7, captured_ns: 5_000_000, width: 32, height: 16, segment_count: 1, flags, ..SlotInfo::default() };
        let mut frame = MaskFrame { info, ..MaskFrame::default() };
        frame.ids = (0..32 * 16).map(|at| if at % 32 < 12 { 300 } else { 0 }).collect();
        frame.segments = vec![SegmentRow { id: 300, class: 4, score: f32::NAN, area: 192, ..SegmentRow::default() }];
        if with_picture {
            frame.info.frame_format = FrameFormat::Rgb24.fourcc();
            frame.frame_bytes = vec![90; 3 * 32 * 16];
        }
        frame
    }

    /// Takes a message apart as the page does.
    fn split(bytes: &[u8]) -> (Value, &[u8], &[u8]) {
        let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[4..4 + length]).unwrap();
        let (jpeg, ids) = bytes[4 + length..].split_at(header["jpeg"].as_u64().unwrap() as usize);
        assert_eq!(ids.len() as u64, header["ids"].as_u64().unwrap());
        (header, jpeg, ids)
    }

    #[test]
    fn a_frame_is_header_jpeg_and_ids() {
        let encoded = encode(&frame(true), &mut Pictures::default(), 75).unwrap();
        let (header, jpeg, ids) = split(&encoded.bytes);
        assert_eq!(
            (header["sequence"].as_u64(), header["captured_us"].as_u64(), header["stale"].as_bool()),
            (Some(7), Some(5000), Some(true))
        );
        assert_eq!(header["segments"], json!([[300, 4, null, 192, 0]]));
        let picture = image::load_from_memory_with_format(jpeg, image::ImageFormat::Jpeg).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (32, 16));
        assert!(picture.pixels().all(|pixel| pixel.0.iter().all(|value| value.abs_diff(90) <= 2)));
        // another reader of PNG: ids beyond 255 survive
        let map = image::load_from_memory_with_format(ids, image::ImageFormat::Png).unwrap().into_luma16();
        assert_eq!(map.into_raw(), frame(true).ids);
    }

    #[test]
    fn without_a_camera_frame_there_are_masks() {
        let encoded = encode(&frame(false), &mut Pictures::default(), 75).unwrap();
        let (header, jpeg, ids) = split(&encoded.bytes);
        assert_eq!((header["jpeg"].as_u64(), jpeg.len()), (Some(0), 0));
        assert_eq!((encoded.jpeg, encoded.ids), (0, ids.len()));
    }

    #[test]
    fn a_format_that_is_not_shown_is_named() {
        let mut frame = frame(true);
        frame.info.frame_format = FrameFormat::Yuyv.fourcc();
        let encoded = encode(&frame, &mut Pictures::default(), 75).unwrap();
        let (header, jpeg, _) = split(&encoded.bytes);
        assert_eq!((header["format"].as_str(), jpeg.len()), (Some("YUYV"), 0));
    }

    #[test]
    fn requests_are_what_the_page_sends() {
        assert_eq!(Request::parse(r#"{"do":"ack"}"#).unwrap(), Request::Ack {});
        assert_eq!(Request::parse(r#"{"do":"clock","t":12.5}"#).unwrap(), Request::Clock { t: 12.5 });
        let set = Request::parse(r#"{"do":"thresholds","id":3,"set":{"threshold":0.25}}"#).unwrap();
        assert_eq!(set.for_daemon().unwrap(), (3, json!({ "do": "thresholds", "set": { "threshold": 0.25 } })));
        let reload = Request::parse(r#"{"do":"reload","id":4}"#).unwrap();
        assert_eq!(reload.for_daemon().unwrap(), (4, json!({ "do": "reload" })));
        let model = Request::parse(r#"{"do":"model","id":5,"name":"a.onnx"}"#).unwrap();
        assert_eq!(model.for_daemon().unwrap(), (5, json!({ "do": "model", "name": "a.onnx" })));
        assert!(Request::Ack {}.for_daemon().is_none());
    }

    #[test]
    fn other_messages_are_refused_in_a_sentence() {
        for (text, part) in [
            ("", "not understood"),
            ("[]", "not understood"),
            (r#"{"do":"status"}"#, "not understood"),
            (r#"{"do":"ack","more":1}"#, "not understood"),
            (r#"{"do":"clock","t":"now"}"#, "not understood"),
            (r#"{"do":"clock","t":1e999}"#, "not understood"),
            (r#"{"do":"reload","id":-1}"#, "not understood"),
            (r#"{"do":"thresholds","id":1,"set":{}}"#, "without one"),
            (r#"{"do":"thresholds","id":1,"set":{"mask_threshold":1.5}}"#, "mask_threshold must be"),
            (r#"{"do":"thresholds","id":1,"set":{"speed":1}}"#, "not understood"),
            (r#"{"do":"model","id":1,"name":"../x"}"#, "without a folder"),
            (r#"{"do":"model","id":1,"name":""}"#, "without a folder"),
        ] {
            let error = Request::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(Request::parse(&" ".repeat(MESSAGE_BYTES_MAX + 1)).unwrap_err().contains("at most 4096"));
    }
}
