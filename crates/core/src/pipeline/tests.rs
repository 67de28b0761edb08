//! The pipeline around a network written by hand, compared with the definition of panoptic post-processing in doubles.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::data::{PixelFormat, Segment, Task, Thresholds, View};
use crate::kernels::arch::Isa;
use crate::model::{Metadata, Precision};

const SIZE: usize = 32;
const MASK: usize = SIZE / 4;

/// A clock that the stages under test advance by hand; it counts how often it is read.
#[derive(Debug, Clone, Default)]
struct HandClock {
    now_ns: Arc<AtomicU64>,
    readings: Arc<AtomicU64>,
}

impl HandClock {
    fn advance_us(&self, us: u64) {
        self.now_ns.fetch_add(us * 1000, Ordering::Relaxed);
    }

    fn take_readings(&self) -> u64 {
        self.readings.swap(0, Ordering::Relaxed)
    }
}

impl Clock for HandClock {
    fn now_ns(&self) -> u64 {
        self.readings.fetch_add(1, Ordering::Relaxed);
        self.now_ns.load(Ordering::Relaxed)
    }
}

/// Four queries with known logits: two halves, a disc inside of one, and one that says "no object".
struct ByHand {
    metadata: Metadata,
    clock: HandClock,
    /// The input of the last run.
    seen: Vec<f32>,
    /// Runs since the start or the last reset.
    runs: u64,
    broken: bool,
}

const CLASSES: [[f32; 4]; 4] = [[4.0, 0.0, 0.5, 0.0], [0.0, 5.0, 0.0, 1.0], [0.5, 0.0, 6.5, 0.0], [0.0, 0.0, 0.0, 9.0]];

/// `[MASK, MASK]` logits of a query.
fn mask(query: usize) -> Vec<f32> {
    let value = |at: usize| {
        let (y, x) = ((at / MASK) as f32, (at % MASK) as f32);
        match query {
            0 => 3.3 - x,
            1 => x - 3.4,
            2 => 20.0 - 9.0 * (y - 2.5).hypot(x - 5.5),
            _ => 1.0,
        }
    };
    (0..MASK * MASK).map(value).collect()
}

impl ByHand {
    fn new(clock: &HandClock) -> ByHand {
        let metadata = Metadata {
            name: "by hand".to_owned(),
            task: Task::Panoptic,
            labels: ["left", "right", "disc"].map(str::to_owned).to_vec(),
            stuff_classes: vec![],
            image_mean: [0.5, 0.25, 0.125],
            image_std: [0.5, 0.25, 0.125],
            input_size: (SIZE, SIZE),
            thresholds: Thresholds::default(),
            precision: Precision::F32,
            state: None,
            licence: String::new(),
            source_sha256: String::new(),
            converter: String::new(),
        };
        ByHand { metadata, clock: clock.clone(), seen: Vec::new(), runs: 0, broken: false }
    }
}

impl Network for ByHand {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn isa(&self) -> Isa {
        Isa::SCALAR
    }

    fn run(&mut self, input: &Tensor, keep: &mut Keep, logits: &mut Logits) -> Result<(), ModelError> {
        if self.broken {
            return Err(ModelError::Engine { action: "run", reason: "it is broken".to_owned() });
        }
        self.runs += 1;
        self.seen.clone_from(&input.values);
        logits.class = ClassLogits { queries: 4, classes: 4, values: CLASSES.as_flattened().to_vec() };
        logits.kept.clear();
        keep(&logits.class, &mut logits.kept);
        (logits.height, logits.width) = (MASK, MASK);
        logits.masks = logits.kept.iter().flat_map(|query| mask(*query)).collect();
        self.clock.advance_us(50);
        Ok(())
    }

    fn reset(&mut self) {
        self.runs = 0;
    }
}

fn config() -> PostProcessConfig {
    PostProcessConfig { thresholds: Thresholds { score: 0.5, mask: 0.5, overlap: 0.5 }, ..PostProcessConfig::default() }
}

fn picture() -> Frame {
    let data = (0..SIZE * SIZE * 3).map(|at| (at * 7919 % 251) as u8).collect();
    Frame { sequence: 41, captured_ns: 5, stamp_ns: 6, ..Frame::rgb(SIZE as u32, SIZE as u32, data) }
}

/// Ids and (class, area) by the definition: bilinear enlargement (half-pixel centres), each pixel to the query with the largest
/// class score times mask probability, segments that win more than half of their own mask (transformers,
/// `EomtImageProcessor.post_process_panoptic_segmentation`).
fn definition() -> (Vec<u16>, Vec<(u16, u32)>) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let score = |query: usize| {
        let exps = CLASSES[query].map(|logit| f64::from(logit).exp());
        let class = (0..3).max_by(|a, b| exps[*a].total_cmp(&exps[*b])).unwrap();
        (class, exps[class] / exps.iter().sum::<f64>(), exps[3] >= exps[class])
    };
    let kept: Vec<usize> = (0..4).filter(|query| !score(*query).2 && score(*query).1 > 0.5).collect();
    assert_eq!(kept, [0, 1, 2]);
    let tap = |at: usize| {
        let from = ((at as f64 + 0.5) / 4.0 - 0.5).max(0.0);
        let low = from.floor() as usize;
        (low, (low + 1).min(MASK - 1), from - from.floor())
    };
    let probability = |query: usize, pixel: usize| {
        let values = mask(query);
        let (y0, y1, fy) = tap(pixel / SIZE);
        let (x0, x1, fx) = tap(pixel % SIZE);
        let value = |y: usize, x: usize| f64::from(values[y * MASK + x]);
        let row = |y: usize| value(y, x0) * (1.0 - fx) + value(y, x1) * fx;
        sigmoid(row(y0) * (1.0 - fy) + row(y1) * fy)
    };
    let weighted = |query: usize, pixel: usize| score(query).1 * probability(query, pixel);
    let winner = |pixel| kept.iter().copied().max_by(|a, b| weighted(*a, pixel).total_cmp(&weighted(*b, pixel))).unwrap();
    let (mut ids, mut table) = (vec![0; SIZE * SIZE], Vec::new());
    for &query in &kept {
        let inside: Vec<usize> = (0..SIZE * SIZE).filter(|pixel| probability(query, *pixel) >= 0.5).collect();
        let won: Vec<usize> = inside.iter().copied().filter(|pixel| winner(*pixel) == query).collect();
        if won.len() as f64 / inside.len() as f64 > 0.5 {
            table.push((score(query).0 as u16, won.len() as u32));
            won.into_iter().for_each(|pixel| ids[pixel] = table.len() as u16);
        }
    }
    (ids, table)
}

#[test]
fn another_network_gives_the_segments_of_the_definition() {
    let clock = HandClock::default();
    let mut pipeline = Pipeline::new(ByHand::new(&clock), config());
    let frame = picture();
    let mut sink = NullSink::default();
    let unpublished = Unpublished { busy: 3, source: 4, corrupt: 5, failed: 6 };
    pipeline.process(&frame, unpublished, &mut sink, &clock).expect("runs");
    let (ids, table) = definition();
    assert_eq!(table.len(), 3, "each of the three is seen: {table:?}");
    assert_eq!(sink.ids, ids);
    assert_eq!(sink.last.table.iter().map(|row| (row.category_id, row.area)).collect::<Vec<_>>(), table);
    let report = sink.last.report;
    assert_eq!((report.sequence, report.captured_ns, report.stamp_ns, report.unpublished), (41, 5, 6, unpublished));
    assert_eq!(report.unpublished.dropped(), 12);
    let tensor = (0..3 * SIZE * SIZE).map(|at| {
        let (channel, pixel) = (at / (SIZE * SIZE), at % (SIZE * SIZE));
        let (mean, std) = ([0.5, 0.25, 0.125][channel], [0.5, 0.25, 0.125][channel]);
        (f32::from(frame.data[pixel * 3 + channel]) / 255.0 - mean) / std
    });
    assert_eq!(pipeline.model().seen, tensor.collect::<Vec<_>>());
    assert_eq!(pipeline.segments(&frame).expect("runs").ids, ids);
}

/// Gives each class a number that lasts, and counts the frames in which it was seen.
struct Counting {
    clock: HandClock,
    first: Vec<u16>,
    frames: u64,
}

impl TemporalStage for Counting {
    fn update(&mut self, segmented: SegmentedFrame) {
        assert_eq!(segmented.logits.kept, [0, 1, 2]);
        self.frames += 1;
        for row in segmented.table {
            if !self.first.contains(&row.category_id) {
                self.first.push(row.category_id);
            }
            let place = self.first.iter().position(|class| *class == row.category_id).unwrap();
            row.track_id = 1000 * self.frames as u32 + place as u32 + 1;
        }
        // an id map that the stage changes is the one that is published
        segmented.ids[0] = segmented.frame.sequence as u16;
        self.clock.advance_us(7);
    }

    fn reset(&mut self) {
        (self.first, self.frames) = (Vec::new(), 0);
    }
}

#[test]
fn a_temporal_stage_sees_every_frame_until_it_is_reset() {
    let clock = HandClock::default();
    let stage = Counting { clock: clock.clone(), first: Vec::new(), frames: 0 };
    let mut pipeline = Pipeline::new(ByHand::new(&clock), config()).with_temporal_stage(Box::new(stage));
    let mut sink = NullSink::default();
    let mut tracks = |pipeline: &mut Pipeline<ByHand>| {
        let report = pipeline.process(&picture(), Unpublished::default(), &mut sink, &clock).expect("runs");
        assert_eq!(report.times.micros, [0, 50, 7, 0], "the stage's time is segmentation's");
        assert_eq!(sink.ids[0], 41);
        sink.last.table.iter().map(|row: &Segment| row.track_id).collect::<Vec<_>>()
    };
    assert_eq!(tracks(&mut pipeline), [1001, 1002, 1003]);
    assert_eq!(tracks(&mut pipeline), [2001, 2002, 2003]);
    assert_eq!(pipeline.model().runs, 2);
    pipeline.reset();
    assert_eq!(pipeline.model().runs, 0);
    assert_eq!(tracks(&mut pipeline), [1001, 1002, 1003]);
}

/// Takes its time between the masks and their publication.
struct Slow(HandClock);

impl Sink for Slow {
    fn publish(&mut self, frame: &Frame, fill: &mut dyn FnMut(&mut [u16], &mut Publication)) -> Result<(), SinkError> {
        fill(&mut vec![0; (frame.width * frame.height) as usize], &mut Publication::default());
        self.0.advance_us(9);
        Ok(())
    }
}

/// Only the pipeline reads the clock: once before the decoder, and then at the end of each stage. So what happens between the first
/// two readings, decoding and rotation among it, is the time of preprocessing.
#[test]
fn preprocessing_begins_before_the_decoder() {
    let clock = HandClock::default();
    let mut pipeline = Pipeline::new(ByHand::new(&clock), config());
    let mut decoder = FrameDecoder::new(View { turns: 1, ..View::default() });
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 90);
    let size = SIZE as u32;
    image::ImageEncoder::write_image(encoder, &picture().data, size, size, image::ExtendedColorType::Rgb8).expect("encodes");
    let compressed = Frame { format: PixelFormat::Mjpg, data: jpeg.clone(), ..picture() };
    let (result, frame) = pipeline.process_captured(compressed, &mut decoder, Unpublished::default(), &mut Slow(clock.clone()), &clock);
    assert_eq!(result.expect("runs").times.micros, [0, 50, 0, 9]);
    assert_eq!(clock.take_readings(), 5);
    assert_eq!((frame.format, frame.data.len()), (PixelFormat::Rgb24, SIZE * SIZE * 3), "the decoded picture's memory comes back");
    let broken = Frame { format: PixelFormat::Mjpg, data: jpeg[..60].to_vec(), ..picture() };
    let (result, frame) = pipeline.process_captured(broken, &mut decoder, Unpublished::default(), &mut Slow(clock.clone()), &clock);
    assert!(matches!(result, Err(PipelineError::Decode(_))));
    assert_eq!(clock.take_readings(), 1, "before the decoder, and the decoder failed");
    assert_eq!(frame.data, jpeg[..60]);
}

/// Keeps the JPEG picture of the last frame.
#[derive(Default)]
struct Jpeg(Vec<u8>);

impl Sink for Jpeg {
    fn publish(&mut self, frame: &Frame, fill: &mut dyn FnMut(&mut [u16], &mut Publication)) -> Result<(), SinkError> {
        fill(&mut vec![0; (frame.width * frame.height) as usize], &mut Publication::default());
        self.0.clone_from(&frame.jpeg);
        Ok(())
    }
}

#[test]
fn a_sink_sees_the_picture_as_the_camera_sent_it() {
    let clock = HandClock::default();
    let mut pipeline = Pipeline::new(ByHand::new(&clock), config());
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 90);
    let size = SIZE as u32;
    image::ImageEncoder::write_image(encoder, &picture().data, size, size, image::ExtendedColorType::Rgb8).expect("encodes");
    let (mut decoder, mut sink) = (FrameDecoder::default(), Jpeg::default());
    for frame in [Frame { format: PixelFormat::Mjpg, data: jpeg.clone(), ..picture() }, picture()] {
        let expected = if frame.format == PixelFormat::Mjpg { jpeg.clone() } else { Vec::new() };
        let (result, used) = pipeline.process_captured(frame, &mut decoder, Unpublished::default(), &mut sink, &clock);
        result.expect("runs");
        assert_eq!((sink.0.as_slice(), used.jpeg.len()), (&expected[..], 0), "its memory is the decoder's again");
    }
}

struct Full;

impl Sink for Full {
    fn publish(&mut self, _: &Frame, _: &mut dyn FnMut(&mut [u16], &mut Publication)) -> Result<(), SinkError> {
        Err(SinkError("it is full".to_owned()))
    }
}

#[test]
fn a_frame_that_fails_is_named_by_its_number() {
    let clock = HandClock::default();
    let mut pipeline = Pipeline::new(ByHand::new(&clock), config());
    let mut errors = vec![pipeline.process(&picture(), Unpublished::default(), &mut Full, &clock).expect_err("full")];
    let mut decoder = FrameDecoder::default();
    let garbage = Frame { format: PixelFormat::Mjpg, data: vec![1, 2, 3], ..picture() };
    errors.push(
        pipeline.process_captured(garbage, &mut decoder, Unpublished::default(), &mut NullSink::default(), &clock).0.expect_err("garbage"),
    );
    let beside = Some(crate::data::Crop { x: 500, y: 0, width: 5, height: 5 });
    let mut decoder = FrameDecoder::new(View { crop: beside, ..View::default() });
    errors.push(
        pipeline.process_captured(picture(), &mut decoder, Unpublished::default(), &mut NullSink::default(), &clock).0.expect_err("empty"),
    );
    pipeline.network.broken = true;
    errors.push(pipeline.process(&picture(), Unpublished::default(), &mut NullSink::default(), &clock).expect_err("broken"));
    for (error, reason) in errors.iter().zip(["it is full", "no JPEG", "after the crop", "it is broken"]) {
        let sentence = error.to_string();
        assert!(sentence.starts_with("frame 41") && sentence.contains(reason), "{sentence}");
        assert_eq!((error.sequence(), sentence.matches("41").count()), (41, 1));
    }
    pipeline.network.broken = false;
    pipeline.process(&picture(), Unpublished::default(), &mut NullSink::default(), &clock).expect("usable afterwards");
}
