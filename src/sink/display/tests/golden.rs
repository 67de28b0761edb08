//! Pictures as panels of several sizes show them, pixel by pixel as they were approved by eye.

use eomt_edge_core::overlay::Canvas;

use super::super::panel::Depth;
use super::super::scene::{Look, Scene};
use super::super::{mono, status};
use super::{data, picture};
use crate::sink::State;

/// Compares with `tests/data/display/NAME.png`; what differs is left in the temporary directory to be looked at.
#[derive(Default)]
struct Gallery(Vec<String>);

impl Gallery {
    fn check(&mut self, name: &str, rgb: &[u8], (width, height): (usize, usize)) {
        let approved = data(&format!("display/{name}.png"));
        let expected = image::open(&approved).map(|image| image.into_rgb8()).unwrap_or_default();
        if expected.dimensions() != (width as u32, height as u32) || expected.as_raw() != rgb {
            let seen = std::env::temp_dir().join(format!("{name}.png"));
            image::save_buffer(&seen, rgb, width as u32, height as u32, image::ColorType::Rgb8).expect("a temporary directory");
            self.0.push(format!("{} is not what was drawn: {}", approved.display(), seen.display()));
        }
    }
}

impl Drop for Gallery {
    fn drop(&mut self) {
        assert!(self.0.is_empty() || std::thread::panicking(), "{}", self.0.join("\n"));
    }
}

fn canvas(size: (usize, usize), draw: impl FnOnce(&mut Canvas)) -> Vec<u8> {
    // grey: whatever is not drawn shows
    let mut rgb = vec![99; size.0 * size.1 * 3];
    draw(&mut Canvas { rgb: &mut rgb, width: size.0, height: size.1 });
    rgb
}

#[test]
fn scenes() {
    let mut gallery = Gallery::default();
    let (mut scene, picture) = (Scene::default(), picture());
    let line = status::line(Some(9.8), Some(54.4));
    for size in [(320, 240), (240, 240), (800, 480)] {
        let look = Look { labels: true, opacity: 0.45 };
        gallery.check(&format!("scene-{}x{}", size.0, size.1), &canvas(size, |canvas| scene.draw(canvas, &picture, look, &line)), size);
    }
    let look = Look { labels: false, opacity: 1.0 };
    gallery.check("scene-128x160-plain", &canvas((128, 160), |canvas| scene.draw(canvas, &picture, look, "")), (128, 160));
}

#[test]
fn oleds() {
    let mut gallery = Gallery::default();
    let (mut scene, picture) = (Scene::default(), picture());
    for size in [(128, 64), (128, 32)] {
        let rgb = canvas(size, |canvas| mono::draw(&mut scene, canvas, &picture, &status::line(Some(12.2), Some(54.4))));
        assert!(rgb.chunks_exact(3).all(|pixel| pixel == [0; 3] || pixel == [255; 3]), "black and white only");
        gallery.check(&format!("oled-{}x{}", size.0, size.1), &rgb, size);
    }
}

#[test]
fn states() {
    let mut gallery = Gallery::default();
    let reason = "/usr/share/eomt-edge/model.onnx: not an ONNX file: unexpected end after 4096 bytes".to_owned();
    let colour = [
        ("starting-320x240", State::Starting, (320, 240)),
        ("no-signal-240x240", State::NoSignal, (240, 240)),
        ("model-error-320x240", State::ModelError(reason.clone()), (320, 240)),
        ("failure-800x480", State::Failure(reason), (800, 480)),
        ("stopped-128x160", State::Stopped, (128, 160)),
    ];
    for (name, state, size) in colour {
        gallery.check(name, &canvas(size, |canvas| state.draw(canvas, Depth::Colour)), size);
    }
    for (name, state) in [("starting", State::Starting), ("no-signal", State::NoSignal), ("model-error", State::ModelError(String::new()))]
    {
        gallery.check(&format!("oled-{name}-128x64"), &canvas((128, 64), |canvas| state.draw(canvas, Depth::Mono)), (128, 64));
    }
}

/// Whatever the sizes, nothing panics and every pixel is drawn.
#[test]
fn any_size_is_drawn_in_full() {
    let (mut scene, picture) = (Scene::default(), picture());
    for size in [(1, 1), (3, 400), (400, 3), (64, 48), (17, 23)] {
        let all_states = [State::Starting, State::NoSignal, State::ModelError("x".repeat(500)), State::Stopped];
        for state in all_states {
            let rgb = canvas(size, |canvas| state.draw(canvas, Depth::Colour));
            assert!(rgb.chunks_exact(3).all(|pixel| pixel != [99; 3]));
        }
        canvas(size, |canvas| scene.draw(canvas, &picture, Look { labels: true, opacity: 0.5 }, "99 fps"));
        canvas(size, |canvas| mono::draw(&mut scene, canvas, &picture, "99 fps"));
    }
}

#[test]
fn rate_and_temperature() {
    let mut meter = status::Meter::default();
    assert_eq!(meter.rate(1, 1_000), None);
    assert_eq!(meter.rate(5, 400_000_000), None);
    assert_eq!(meter.rate(13, 1_000_001_000), Some(12.0));
    assert_eq!(meter.rate(14, 1_100_000_000), Some(12.0), "until the next second is full");
    assert_eq!(status::line(None, None), "");
    assert_eq!(status::line(Some(0.44), None), "0.4 fps");
    assert_eq!(status::temperature(&data("display/no-such-zone")), None);
}
