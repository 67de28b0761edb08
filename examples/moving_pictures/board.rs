//! What the board's display shows, recorded: the display thread of the program, with a file in the panel's place.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eomt_edge::config::Config;
use eomt_edge::sink::State;
use eomt_edge::sink::display::{Channel, Display, Framebuffer, Geometry, Open, Panel};
use eomt_edge_client::{MaskFrame, Subscriber};
use eomt_edge_core::data::{Frame, FrameReport, Segment};
use eomt_edge_core::pipeline::{NullSink, Sink};

use super::FRAME_MS;
use super::apng::Picture;

/// An ILI9341's usual panel, lying on its side.
const SIZE: (u32, u32) = (320, 240);

/// For the daemon to appear, and for each frame.
const PATIENCE: Duration = Duration::from_secs(10);

/// The panel has shown a picture when its memory stays the same for so long.
const SETTLED: Duration = Duration::from_millis(20);

/// How long a screen without a frame stays in the film, milliseconds.
const STATE_MS: u16 = 900;

/// The film of `frames` frames of the daemon at `socket`, then the screens of a source that has gone and of a new start. A frame comes
/// first, for viewers that show only one picture.
pub fn record(socket: &Path, frames: usize) -> Result<Vec<Picture>, Box<dyn Error>> {
    let mut subscriber = Subscriber::connect_retry(socket, PATIENCE)?;
    let panel = PanelFile::create()?;
    // faster than the demo's source: every frame is shown
    let config = Config::parse("", &["display.fps=60".to_owned()])?.display;
    let mut display = Display::start_on(&config, panel.opener());
    display.set_labels(subscriber.labels());
    let mut film = Vec::new();
    display.show(State::Starting);
    film.push(panel.picture(STATE_MS)?);
    let mut frame = MaskFrame::default();
    while film.len() <= frames {
        if !subscriber.next_into(&mut frame, Some(PATIENCE))? {
            return Err("no frame arrived".into());
        }
        show(&display, &frame)?;
        film.push(panel.picture(FRAME_MS)?);
    }
    display.show(State::NoSignal);
    film.push(panel.picture(STATE_MS)?);
    film.rotate_left(1);
    Ok(film)
}

/// Publishes a received frame as the daemon does, with the display looking on.
fn show(display: &Display, received: &MaskFrame) -> Result<(), Box<dyn Error>> {
    let rgb = received.rgb().ok_or("the daemon does not publish its frames: ring.include_frame=true")?;
    let frame = Frame::rgb(received.width(), received.height(), rgb.to_vec());
    let rows = received.segments.iter();
    let table: Vec<Segment> = rows
        .map(|row| Segment { id: row.id, category_id: row.class, score: row.score, area: row.area, bbox: row.bbox, track_id: row.track_id })
        .collect();
    let mut nobody = NullSink::default();
    display.tap(&mut nobody).publish(&frame, &mut |ids, publication| {
        ids.copy_from_slice(&received.ids);
        publication.table.clone_from(&table);
        publication.report = FrameReport { published_ns: received.info.published_ns, ..FrameReport::default() };
    })?;
    Ok(())
}

/// A file with a panel's memory.
struct PanelFile(PathBuf);

impl PanelFile {
    fn create() -> Result<PanelFile, Box<dyn Error>> {
        let path = std::env::temp_dir().join(format!("eomt-edge-panel-{}", std::process::id()));
        File::create(&path)?.set_len(u64::from(SIZE.0 * SIZE.1 * 2))?;
        Ok(PanelFile(path))
    }

    /// RGB565, rows without padding.
    fn opener(&self) -> Open {
        let path = self.0.clone();
        let channel = |offset, length| Channel { offset, length };
        let geometry = Geometry {
            width: SIZE.0,
            height: SIZE.1,
            xoffset: 0,
            yoffset: 0,
            bits_per_pixel: 16,
            line_length: SIZE.0 * 2,
            red: channel(11, 5),
            green: channel(5, 6),
            blue: channel(0, 5),
            transparency: channel(0, 0),
        };
        Box::new(move || {
            let file = File::options().write(true).open(&path).expect("the file was made by this program");
            Ok(Box::new(Framebuffer::with_geometry(&path, file, geometry, 0)?) as Box<dyn Panel>)
        })
    }

    /// What the panel shows once it stays the same; a picture that changes nothing ends the wait too.
    fn picture(&self, shown_ms: u16) -> Result<Picture, Box<dyn Error>> {
        let deadline = Instant::now() + Duration::from_millis(u64::from(FRAME_MS));
        let mut cells = std::fs::read(&self.0)?;
        let (first, mut changed) = (cells.clone(), false);
        loop {
            std::thread::sleep(SETTLED);
            let now = std::fs::read(&self.0)?;
            let same = now == cells;
            cells = now;
            changed |= cells != first;
            if same && (changed || Instant::now() > deadline) {
                break;
            }
        }
        let rgb = cells.chunks_exact(2).flat_map(|cell| {
            let cell = u16::from_le_bytes([cell[0], cell[1]]);
            [cell >> 11 << 3, (cell >> 5 & 63) << 2, (cell & 31) << 3].map(|level| level as u8)
        });
        Ok(Picture { width: SIZE.0, height: SIZE.1, rgb: rgb.collect(), shown_ms })
    }
}

impl Drop for PanelFile {
    fn drop(&mut self) {
        // a file in the folder for temporary ones; nothing else can be done about it
        let _ = std::fs::remove_file(&self.0);
    }
}
