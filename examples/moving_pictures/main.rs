//! Moving pictures of a running daemon, for people: what `make demo` leaves beside the overlays, and what the README shows.
//!
//! ```text
//! cargo run --release --example moving_pictures -- masks demo-output demo-output/masks.png
//! cargo run --release --example moving_pictures -- display /run/eomt-edge/masks.sock 24 demo-output/display.png
//! ```
//! `masks` joins the overlays that `view --save` wrote. `display` subscribes to a daemon that publishes its camera frames
//! (`ring.include_frame`), shows them with their segments on the program's own display thread, and reads what arrives at the panel: a plain
//! file with the layout of a 320x240 framebuffer of 16 bits per pixel. Both write an APNG, which browsers play.

mod apng;
mod board;

use std::error::Error;
use std::path::{Path, PathBuf};

use apng::Picture;

/// A tenth of a second each, as the demo's source gives them.
const FRAME_MS: u16 = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (pictures, output) = match words[..] {
        ["masks", folder, output] => (overlays(Path::new(folder))?, output),
        ["display", socket, frames, output] => (board::record(Path::new(socket), frames.parse()?)?, output),
        _ => return Err("usage: moving_pictures masks FOLDER OUT.png | display SOCKET FRAMES OUT.png".into()),
    };
    apng::write(Path::new(output), &pictures)?;
    let bytes = std::fs::metadata(output)?.len();
    println!("{output}: {} pictures, {} KB", pictures.len(), bytes / 1000);
    Ok(())
}

/// The `*.overlay.png` of a folder, in the order of their names.
fn overlays(folder: &Path) -> Result<Vec<Picture>, Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.to_string_lossy().ends_with(".overlay.png"));
    paths.sort();
    let read = |path: &PathBuf| {
        let rgb = image::open(path)?.into_rgb8();
        let (width, height) = rgb.dimensions();
        Ok(Picture { width, height, rgb: rgb.into_raw(), shown_ms: FRAME_MS })
    };
    paths.iter().map(read).collect()
}
