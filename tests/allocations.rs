//! Nothing allocates on the frame path after warm-up: decoder, preprocessing, inference, choice of queries, segmentation, tracking, the
//! ring, and what goes round between threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use eomt_edge_core::data::{ClassLogits, Frame, Logits, PixelFormat, Task, Tensor, Thresholds, Unpublished};
use eomt_edge_core::model::{LoadOptions, Model};
use eomt_edge_core::pipeline::{NullSink, Publication, SegmentedFrame, Sink, TemporalStage};
use eomt_edge_core::preprocess::Preprocessor;
use eomt_edge_core::segment::{PostProcessConfig, Segmenter, survivors};
use eomt_edge_core::track::{TrackConfig, TrackIds, Tracker};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting calls and bytes per thread.
struct Counting;

fn count(size: usize) {
    ALLOCATIONS.with(|allocations| allocations.set(allocations.get() + 1));
    BYTES.with(|bytes| bytes.set(bytes.get() + size));
}

// SAFETY: every call goes to the system's allocator with the arguments as they came; counting touches thread-local cells that are
// initialized at compile time and have no destructor, so it neither allocates nor unwinds.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const QUERIES: usize = 20;
const CLASSES: usize = 7;

/// Discs of changing size and place; every third query sees nothing, one class is seen more than once.
fn class_logits(frame: usize) -> ClassLogits {
    let mut values = vec![0.0; QUERIES * CLASSES];
    for (query, row) in values.chunks_exact_mut(CLASSES).enumerate() {
        row[if query % 3 == 0 { CLASSES - 1 } else { (query + frame) % (CLASSES - 1) }] = 5.0;
    }
    ClassLogits { queries: QUERIES, classes: CLASSES, values }
}

fn fill_masks(frame: usize, logits: &mut Logits) {
    let (height, width) = (logits.height, logits.width);
    logits.masks.resize(logits.kept.len() * height * width, 0.0);
    for (&query, mask) in logits.kept.iter().zip(logits.masks.chunks_exact_mut(height * width)) {
        let (cy, cx) = ((7 * query + frame) % height, (11 * query + 2 * frame) % width);
        for (at, value) in mask.iter_mut().enumerate() {
            let distance = ((at / width) as f32 - cy as f32).hypot((at % width) as f32 - cx as f32);
            *value = 4.0 + (query % 5) as f32 - distance;
        }
    }
}

fn frames(format: PixelFormat) -> Vec<Frame> {
    let (width, height) = (320, 240);
    let length = format.frame_len(width, height).unwrap();
    let frame = |number: usize| {
        let data = (0..length).map(|at| (at * (number + 3) % 251) as u8).collect();
        Frame { format, data, ..Frame::rgb(width, height, vec![0; 3 * width as usize * height as usize]) }
    };
    (0..4).map(frame).collect()
}

#[test]
fn a_frame_allocates_nothing_after_warm_up() {
    for (task, format) in [
        (Task::Panoptic, PixelFormat::Rgb24),
        (Task::Panoptic, PixelFormat::Yuv420),
        (Task::Panoptic, PixelFormat::Nv12),
        (Task::Panoptic, PixelFormat::Yuyv),
        (Task::Instance, PixelFormat::Rgb24),
        (Task::Semantic, PixelFormat::Rgb24),
    ] {
        let (frames, classes) = (frames(format), (0..4).map(class_logits).collect::<Vec<_>>());
        let thresholds = Thresholds { score: 0.5, mask: 0.5, overlap: 0.3 };
        let config = PostProcessConfig { task, thresholds, ..PostProcessConfig::default() }.with_stuff(&[1, 2]);
        let mut preprocessor = Preprocessor::new([0.5; 3], [0.25; 3], (160, 160));
        let mut segmenter = Segmenter::new(config.clone());
        let mut tracker = Tracker::new(TrackConfig { stuff: config.stuff.clone(), ..TrackConfig::default() }, TrackIds::default());
        let mut tensor = Tensor::zeros(160, 160);
        let mut logits = Logits { height: 40, width: 40, ..Logits::default() };
        let mut sink = NullSink::default();
        let mut seen = 0;
        for round in 0..12 {
            if round == 4 {
                ALLOCATIONS.with(|allocations| allocations.set(0));
            }
            let number = round % 4;
            let geometry = preprocessor.run(&frames[number], &mut tensor);
            logits.class.values.clear();
            logits.class.values.extend_from_slice(&classes[number].values);
            (logits.class.queries, logits.class.classes) = (QUERIES, CLASSES);
            survivors(&logits.class, &config, &mut logits.kept);
            fill_masks(number, &mut logits);
            let mut fill = |ids: &mut [u16], publication: &mut Publication| {
                let (frame, segments) = (&frames[number], segmenter.run(&logits, &geometry, ids));
                publication.table.clone_from(&segments.rows);
                let table = &mut publication.table;
                tracker.update(SegmentedFrame { frame, logits: &logits, queries: &segments.queries, ids, table });
            };
            sink.publish(&frames[number], &mut fill).expect("the null sink takes all");
            seen += sink.last.table.len();
        }
        let allocations = ALLOCATIONS.with(Cell::get);
        assert_eq!(allocations, 0, "{task}, {format:?}");
        assert!(seen > 24, "there is something to segment: {seen}");
    }
}

/// The frame path beside a display that takes pictures: copying them is part of it.
#[cfg(feature = "display")]
#[test]
fn a_display_lets_the_frame_path_allocate_nothing() {
    use eomt_edge::config::DisplayConfig;
    use eomt_edge::sink::display::{Channel, Display, Framebuffer, Geometry, Panel};
    use std::time::{Duration, Instant};
    let path = std::env::temp_dir().join(format!("eomt-edge-allocations-{}", std::process::id()));
    let byte = |offset| Channel { offset, length: 8 };
    let geometry = Geometry {
        width: 32,
        height: 24,
        xoffset: 0,
        yoffset: 0,
        bits_per_pixel: 32,
        line_length: 128,
        red: byte(16),
        green: byte(8),
        blue: byte(0),
        transparency: byte(24),
    };
    let file = path.clone();
    let open = move || {
        let plain = std::fs::File::create(&file).expect("a scratch file");
        Framebuffer::with_geometry(&file, plain, geometry, 0).map(|panel| Box::new(panel) as Box<dyn Panel>)
    };
    let config = DisplayConfig { fps: 60.0, ..DisplayConfig::default() };
    let display = Display::start_on(&config, Box::new(open));
    let (frames, mut sink) = (frames(PixelFormat::Yuyv), NullSink::default());
    let (mut before, mut shown) = (Vec::new(), 0);
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut number = 0;
    while shown < 12 {
        assert!(Instant::now() < deadline, "{shown} pictures were shown");
        number += 1;
        ALLOCATIONS.set(0);
        let mut fill = |ids: &mut [u16], _: &mut Publication| ids.fill(number as u16);
        display.tap(&mut sink).publish(&frames[number % 4], &mut fill).expect("the null sink takes all");
        let allocations = ALLOCATIONS.get();
        // the first pictures make the buffers
        assert!(shown < 4 || allocations == 0, "{allocations} after {shown} pictures");
        std::thread::sleep(Duration::from_millis(5));
        let now = std::fs::read(&path).unwrap_or_default();
        shown += u32::from(now != before);
        before = now;
    }
    drop(display);
    std::fs::remove_file(&path).expect("a scratch file");
}

/// `Model::run` on the caller's thread, the way the pipeline calls it, tract's plan included: the operators' outputs go round, and the
/// plan ends before the reshapes that would copy them.
#[test]
fn inference_allocates_nothing_after_warm_up() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/eomt-nano-scenes.onnx")).expect("the shipped model");
    for merge in ["0", "0.4@2", "0.3@1,0.6@3"] {
        assert_inference_allocates_nothing(&bytes, merge);
    }
}

/// The same with a state that goes from frame to frame.
#[test]
fn inference_of_a_clip_allocates_nothing_after_warm_up() {
    use eomt_edge_tools::convert::{ConvertOptions, convert};
    let checkpoint = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/videomt/transformers");
    let onnx = std::env::temp_dir().join(format!("eomt-edge-allocations-{}.onnx", std::process::id()));
    convert(checkpoint.as_ref(), &onnx, &ConvertOptions::default()).expect("converts");
    assert_inference_allocates_nothing(&std::fs::read(&onnx).expect("there"), "0");
    std::fs::remove_file(&onnx).expect("a scratch file");
}

fn assert_inference_allocates_nothing(bytes: &[u8], merge: &str) {
    let options = LoadOptions { merging: merge.parse().expect("a ratio"), ..LoadOptions::default() };
    let mut model = Model::load(bytes, &options).expect("loads");
    let (height, width) = model.metadata().input_size;
    let mut input = Tensor::zeros(height, width);
    input.values.iter_mut().enumerate().for_each(|(at, value)| *value = ((at * 7919 % 255) as f32 - 127.0) / 64.0);
    let config = PostProcessConfig { task: model.metadata().task, ..PostProcessConfig::default() };
    for all in [false, true] {
        let mut logits = Logits::default();
        for frame in 0..6 {
            ALLOCATIONS.set(0);
            BYTES.set(0);
            let keep = |class: &ClassLogits, kept: &mut Vec<usize>| match all {
                true => kept.extend(0..class.queries),
                false => survivors(class, &config, kept),
            };
            model.run(&input, keep, &mut logits).expect("runs");
            let (allocations, bytes) = (ALLOCATIONS.get(), BYTES.get());
            if frame >= 2 {
                assert_eq!((allocations, bytes), (0, 0), "merging {merge}, all queries {all}, frame {frame}: allocations, bytes");
            }
        }
    }
}

/// The same with reuse over time: whole frames, still ones, and others in between, of which each chooses another number of patches.
#[test]
fn reuse_allocates_nothing_after_warm_up() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/eomt-nano-scenes.onnx")).expect("the shipped model");
    let reuse = Some("6,0.6,9".parse().expect("a setting"));
    let mut model = Model::load(&bytes, &LoadOptions { reuse, ..LoadOptions::default() }).expect("loads");
    let (height, width) = model.metadata().input_size;
    let mut input = Tensor::zeros(height, width);
    let mut logits = Logits::default();
    let mut full = 0;
    for frame in 0..40 {
        let rows = if frame % 10 == 9 { height } else { frame % 7 * 13 };
        input.values[..rows * width].iter_mut().enumerate().for_each(|(at, value)| *value = ((at * 7919 + frame) % 255) as f32 / 64.0);
        ALLOCATIONS.set(0);
        BYTES.set(0);
        model.run(&input, |class: &ClassLogits, kept: &mut Vec<usize>| kept.extend(0..class.queries), &mut logits).expect("runs");
        let (allocations, bytes) = (ALLOCATIONS.get(), BYTES.get());
        full += u32::from(model.reuse_counts().expect("reuse is on").full > u64::from(full));
        // the buffers of one thread grow to the frame that needs most
        assert!(frame < 12 || (allocations, bytes) == (0, 0), "frame {frame}: {allocations} allocations, {bytes} bytes");
    }
    assert!((4..20).contains(&full), "{full} whole frames");
}

/// A camera's picture of 320x240 pixels.
fn jpeg(number: usize) -> Vec<u8> {
    let frame = &frames(PixelFormat::Rgb24)[number];
    let smooth: Vec<u8> = (0..frame.data.len()).map(|at| (at / 3 % 320 / 2 + number * 20) as u8 ^ (at / 960 % 64) as u8).collect();
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
    image::ImageEncoder::write_image(encoder, &smooth, 320, 240, image::ExtendedColorType::Rgb8).expect("encodes");
    bytes
}

/// What zune-jpeg allocates for a picture on its own; it has no memory that goes round.
fn allocations_of_zune(jpeg: &[u8]) -> u64 {
    use zune_jpeg::JpegDecoder;
    use zune_jpeg::zune_core::bytestream::ZCursor;
    use zune_jpeg::zune_core::colorspace::ColorSpace;
    use zune_jpeg::zune_core::options::DecoderOptions;
    let mut target = vec![0; 320 * 240 * 3];
    ALLOCATIONS.set(0);
    let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    decoder.decode_into(&mut target).expect("decodes");
    drop(decoder);
    ALLOCATIONS.get()
}

/// As the daemon's inference thread does it: memory from the pool, a frame through the mailbox, decoding and rotation, the network,
/// segments into a ring that also carries the frame. Only the decoder behind ours allocates, as much as without us.
#[test]
fn the_whole_path_allocates_nothing_after_warm_up() {
    use std::time::Duration;

    use eomt_edge::sink::RingSink;
    use eomt_edge::sink::ring::{RingConfig, ServerConfig};
    use eomt_edge_core::data::{Crop, View};
    use eomt_edge_core::pipeline::{Mailbox, Pipeline, Pool, Taken};
    use eomt_edge_core::preprocess::FrameDecoder;
    use eomt_edge_host::MonotonicClock;

    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/eomt-nano-scenes.onnx")).expect("the shipped model");
    let socket = std::env::temp_dir().join(format!("eomt-edge-allocations-{}.sock", std::process::id()));
    let crop = Some(Crop { x: 10, y: 20, width: 250, height: 200 });
    let turned = View { crop, turns: 1, mirrored: true, upside_down: false };
    for (format, view, source_format) in [
        (PixelFormat::Mjpg, View::default(), false),
        (PixelFormat::Mjpg, View::default(), true),
        (PixelFormat::Mjpg, turned, true),
        (PixelFormat::Yuyv, turned, false),
        (PixelFormat::Rgb24, turned, false),
        (PixelFormat::Nv12, View::default(), false),
        (PixelFormat::Nv12, View::default(), true),
    ] {
        let mut captured = frames(if format == PixelFormat::Mjpg { PixelFormat::Rgb24 } else { format });
        if format == PixelFormat::Mjpg {
            captured.iter_mut().enumerate().for_each(|(number, frame)| (frame.format, frame.data) = (format, jpeg(number)));
        }
        let model = Model::load(&bytes, &LoadOptions::default()).expect("loads");
        let metadata = model.metadata();
        let thresholds = Thresholds { score: 0.05, mask: 0.5, overlap: 0.1 };
        let config = PostProcessConfig { task: metadata.task, thresholds, ..PostProcessConfig::default() };
        let config = config.with_stuff(&metadata.stuff_classes);
        let ring = RingConfig {
            slots: 4,
            max_width: 320,
            max_height: 320,
            max_segments: model.queries() as u32,
            include_frame: true,
            source_format,
            checksum: true,
            model_hash: [0; 16],
        };
        let mut pipeline = Pipeline::new(model, config);
        let mut sink = RingSink::start(ring, "{}".to_owned(), ServerConfig::new(&socket), Box::new(MonotonicClock)).expect("a ring");
        let (pool, mailbox, mut decoder) = (Pool::default(), Mailbox::default(), FrameDecoder::new(view));
        let mut spare = Frame::rgb(0, 0, Vec::new());
        for round in 0..20 {
            let picture = &captured[round % 4];
            let expected = if format == PixelFormat::Mjpg { allocations_of_zune(&picture.data) } else { 0 };
            ALLOCATIONS.set(0);
            spare.data = pool.take();
            spare.copy_from(picture);
            mailbox.put(spare);
            let Taken::Value(frame) = mailbox.take(Duration::ZERO) else { panic!("the frame that was put in") };
            let (result, mut frame) = pipeline.process_captured(frame, &mut decoder, Unpublished::default(), &mut sink, &MonotonicClock);
            pool.give_back(std::mem::take(&mut frame.data));
            spare = frame;
            let allocations = ALLOCATIONS.get();
            result.expect("runs");
            // memory goes round: the last buffer grows to its size in the first rounds
            assert!(round < 12 || allocations == expected, "{format:?}, {view:?}, round {round}: {allocations}, of zune {expected}");
        }
        assert_eq!(sink.published(), 20);
        sink.stop();
    }
}
