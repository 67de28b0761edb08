//! Times of everything around the network for a 640x480 camera and a 320x320 input: `cargo bench --bench processing`.
//!
//! The logits are synthetic: 200 queries and 133 classes, of which eight queries see an object: soft discs that overlap, as a
//! network's masks do. `noise` is the worst case, in which every query competes for every pixel.

use std::hint::black_box;
use std::time::Instant;

use eomt_edge_core::data::{ClassLogits, Frame, Geometry, Logits, PixelFormat, Task, Tensor, View};
use eomt_edge_core::preprocess::{FrameDecoder, Preprocessor};
use eomt_edge_core::segment::{PostProcessConfig, Segmenter};

const QUERIES: usize = 200;
const CLASSES: usize = 134;
/// Of a mask.
const SIDE: usize = 80;
const ROUNDS: usize = 40;

/// A linear congruential generator, -1..1.
struct Random(u32);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / 8_388_608.0 - 1.0
    }
}

/// `kept` masks; query `25 i` sees an object of class `i`.
fn logits(kept: Vec<usize>, noise: bool) -> Logits {
    let mut random = Random(7);
    let mut class = ClassLogits { queries: QUERIES, classes: CLASSES, values: vec![0.0; QUERIES * CLASSES] };
    for query in 0..QUERIES {
        let row = &mut class.values[query * CLASSES..][..CLASSES];
        row.iter_mut().for_each(|value| *value = random.next());
        row[if query % 25 == 0 { query / 25 } else { CLASSES - 1 }] += 9.0 + random.next();
    }
    let mut masks = Vec::with_capacity(kept.len() * SIDE * SIDE);
    for &query in &kept {
        let (cy, cx) = (SIDE as f32 * (0.4 + 0.4 * random.next()), SIDE as f32 * (0.5 + 0.5 * random.next()));
        let radius = if query == 0 { 90.0 } else { 14.0 + 6.0 * random.next() };
        for at in 0..SIDE * SIDE {
            let distance = ((at / SIDE) as f32 - cy).hypot((at % SIDE) as f32 - cx);
            masks.push(if noise { 8.0 * random.next() } else { (1.2 * (radius - distance)).clamp(-18.0, 12.0) + 0.5 * random.next() });
        }
    }
    Logits { class, kept, height: SIDE, width: SIDE, masks }
}

fn time(name: &str, rounds: usize, mut work: impl FnMut()) {
    work();
    let mut millis: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    millis.sort_by(f64::total_cmp);
    println!("{name:<24}{:>9.3}{:>9.3}", millis[0], millis[rounds / 2]);
}

fn main() {
    println!("{:<24}{:>9}{:>9}   milliseconds, one thread", "", "min", "median");
    let mut random = Random(1);
    let frame = Frame::rgb(640, 480, (0..640 * 480 * 3).map(|_| (random.next() * 127.0 + 128.0) as u8).collect());
    for side in [320, 640] {
        let mut preprocessor = Preprocessor::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], (side, side));
        let mut tensor = Tensor::zeros(side, side);
        time(&format!("preprocess {side}"), ROUNDS, || {
            black_box(preprocessor.run(black_box(&frame), &mut tensor));
        });
    }
    let mut preprocessor = Preprocessor::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], (320, 320));
    let mut tensor = Tensor::zeros(320, 320);
    for (format, name) in PixelFormat::NAMES.into_iter().skip(1) {
        let Some(len) = format.frame_len(640, 480) else { continue };
        // some formats have more bytes a pixel than RGB
        let data = frame.data.iter().copied().cycle().take(len).collect();
        let frame = Frame { format, data, ..frame.clone() };
        time(&format!("preprocess 320, {name}"), ROUNDS, || {
            black_box(preprocessor.run(black_box(&frame), &mut tensor));
        });
    }
    let mut jpeg = Vec::new();
    // smooth, as a camera's picture is: noise would take several times as long
    let smooth = (0..640 * 480).flat_map(|at| [at % 640 / 3, at / 640 / 2, (at % 640 + at / 640) / 5].map(|level| level as u8)).collect();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 85);
    let smooth = Frame::rgb(640, 480, smooth);
    image::ImageEncoder::write_image(encoder, &smooth.data, 640, 480, image::ExtendedColorType::Rgb8).expect("memory");
    for (name, view) in [("decode mjpg", View::default()), ("decode mjpg, rotate", View { turns: 1, ..View::default() })] {
        let mut decoder = FrameDecoder::new(view);
        time(name, ROUNDS, || {
            let frame = Frame { format: PixelFormat::Mjpg, data: jpeg.clone(), ..smooth.clone() };
            black_box(decoder.decode(frame).expect("a picture"));
        });
    }
    let mut decoder = FrameDecoder::new(View { turns: 1, ..View::default() });
    time("rotate rgb24", ROUNDS, || {
        black_box(decoder.decode(frame.clone()).expect("a picture"));
    });
    let geometry = Geometry::fit((480, 640), (320, 320));
    let mut ids = vec![0u16; 640 * 480];
    let eight: Vec<usize> = (0..QUERIES).step_by(25).collect();
    for (name, task, kept, noise, rounds) in [
        ("panoptic", Task::Panoptic, eight.clone(), false, ROUNDS),
        ("panoptic, noise", Task::Panoptic, eight.clone(), true, ROUNDS),
        ("instance", Task::Instance, eight.clone(), false, ROUNDS),
        ("instance, noise", Task::Instance, eight, true, ROUNDS),
        ("semantic", Task::Semantic, (0..QUERIES).collect(), false, 3),
    ] {
        let logits = logits(kept, noise);
        let mut segmenter = Segmenter::new(PostProcessConfig { task, ..PostProcessConfig::default() }.with_stuff(&[0]));
        time(name, rounds, || {
            black_box(segmenter.run(black_box(&logits), &geometry, &mut ids));
        });
    }
}
