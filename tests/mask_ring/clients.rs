//! The C and Python clients against the Rust one: same layout, same frames.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

use eomt_edge_client::layout::*;
use eomt_edge_client::{MaskFrame, Subscriber, crc32};
use rustix::fs::SealFlags;
use serde_json::{Value, json};

use super::handmade::{self, Kind};
use super::support::{Process, Scratch, c_subscriber, compile, compiled, examples, python, writer};
use super::{check_content, next};

/// What the clients' `--json` print, without `skipped`, which is each reader's own.
fn as_json(frame: &MaskFrame, labels: &[String]) -> Value {
    let info = &frame.info;
    let segments: Vec<Value> = (frame.segments.iter())
        .map(|row| {
            json!({"id": row.id, "category_id": row.class, "label": labels.get(usize::from(row.class)), "score": f64::from(row.score),
                   "area": row.area, "bbox": row.bbox, "track_id": row.track_id})
        })
        .collect();
    let hash: String = info.model_hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    json!({"sequence": info.sequence, "frame_sequence": info.frame_sequence, "captured_ns": info.captured_ns,
           "published_ns": info.published_ns, "dropped": info.dropped, "width": info.width, "height": info.height,
           "source_id": info.source_id, "stale": frame.stale(), "no_signal": frame.no_signal(), "truncated": frame.truncated(),
           "stage_us": info.stage_us, "model_hash": hash, "ids_crc32": frame.ids_crc32(),
           "stamp_ns": info.stamp_ns, "dropped_busy": info.dropped_busy, "dropped_source": info.dropped_source,
           "dropped_corrupt": info.dropped_corrupt, "failed": info.failed, "frame_stride": info.frame_stride,
           "frame_bytes": info.frame_bytes, "frame_format": frame.frame().map(|frame| frame.format.name()),
           "frame_crc32": frame.frame().map(|frame| crc32(0, frame.bytes)), "checksum_ok": frame.checksum_ok(), "segments": segments})
}

/// A client's line as `as_json` writes it: scores are single precision, however they are printed.
fn parse(line: &str) -> Value {
    let mut value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let object = value.as_object_mut().expect("an object");
    object.remove("skipped").expect("every line counts skipped frames");
    for segment in object["segments"].as_array_mut().expect("segments") {
        segment["score"] = json!(f64::from(segment["score"].as_f64().expect("a score") as f32));
    }
    value
}

/// More than there are formats.
const FRAMES: usize = 25;

fn same_frames_as_rust(options: &[&str], client: impl FnOnce(&Scratch) -> Command) {
    let scratch = Scratch::new();
    let _writer = writer(&scratch.socket(), options);
    let mut reader = Subscriber::connect(scratch.socket()).expect("a live writer");
    let mut client = Process::spawn(client(&scratch));
    let mut ours = BTreeMap::new();
    let mut theirs = Vec::new();
    while theirs.len() < FRAMES {
        let frame = next(&mut reader);
        check_content(&frame);
        ours.insert(frame.sequence(), as_json(&frame, reader.labels()));
        theirs.extend(client.lines.try_iter().map(|line| parse(&line)));
        assert!(frame.sequence() < 2000, "the client printed {} lines; its stderr: {}", theirs.len(), client.stderr());
    }
    let mut compared = 0;
    for frame in &theirs {
        if let Some(expected) = ours.get(&frame["sequence"].as_u64().expect("a sequence")) {
            assert_eq!(frame, expected);
            compared += 1;
        }
    }
    assert!(compared >= FRAMES / 2, "only {compared} frames were seen by both");
    let formats: BTreeSet<&str> = theirs.iter().filter_map(|frame| frame["frame_format"].as_str()).collect();
    assert!(formats.len() > 5, "{formats:?}: one after the other, but for frames that were skipped");
    assert!(theirs.iter().all(|frame| frame["checksum_ok"] == true));
    assert_eq!(client.end(super::PATIENCE).code(), Some(0), "--frames ends cleanly");
}

#[test]
fn the_python_client_reads_what_rust_reads() {
    same_frames_as_rust(&["--fps", "25", "--width", "33", "--height", "17", "--formats"], |scratch| {
        let mut command = python();
        command.args(["-m", "eomt_edge_client", "--frames", "25", "--json", "--socket"]).arg(scratch.socket());
        command
    });
}

#[test]
fn the_c_client_reads_what_rust_reads() {
    same_frames_as_rust(&["--fps", "25", "--width", "35", "--height", "19", "--formats"], |scratch| {
        let mut command = c_subscriber();
        command.args(["--frames", "25", "--json", "--socket"]).arg(scratch.socket());
        command
    });
}

/// The one frame of a daemon made by hand, as the Rust, C and Python clients tell it.
fn told_by_all(name: &str, ring: &handmade::Ring) -> [Value; 3] {
    let greeting = handmade::hello(ring.info.abi_version, HELLO_OK, ring, "");
    let (path, daemon) = handmade::serve(name, ring, &greeting);
    let mut reader = Subscriber::connect(&path).expect("a daemon");
    let rust = as_json(&next(&mut reader), reader.labels());
    daemon.join().expect("it greeted");
    let mut c = c_subscriber();
    c.arg("--json");
    let mut py = python();
    py.args(["-m", "eomt_edge_client", "--json"]);
    let [c, py] = [c, py].map(|mut command| {
        let (path, daemon) = handmade::serve(name, ring, &greeting);
        let output = command.args(["--frames", "1", "--timeout", "60", "--socket"]).arg(&path).output().expect("a client");
        daemon.join().expect("it greeted");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        parse(&String::from_utf8_lossy(&output.stdout))
    });
    [rust, c, py]
}

#[test]
fn all_clients_read_a_ring_of_abi_1() {
    let ring = handmade::Ring::of_abi(1, SealFlags::SHRINK, Kind::Eventfd);
    ring.publish(1);
    // reserved words of ABI 1
    ring.put(ring.slot(1) + (offset_of!(SlotHeader, info) + offset_of!(SlotInfo, stamp_ns)) as u64, &[7; 16]);
    let [rust, c, py] = told_by_all("abi-1", &ring);
    assert_eq!((&rust["dropped"], &rust["dropped_busy"], &rust["failed"], &rust["stamp_ns"]), (&json!(5), &json!(0), &json!(0), &json!(0)));
    assert_eq!(rust["segments"][0]["bbox"], json!([1, 0, 2, 2]));
    assert_eq!((&rust, &rust), (&c, &py));
}

#[test]
fn all_clients_step_over_columns_that_they_do_not_know() {
    let mut ring = handmade::Ring::with_rows(4, SealFlags::SHRINK, Kind::Eventfd);
    (ring.info.max_segments, ring.info.row_bytes) = (2, 56);
    ring.put_header(&ring.info);
    ring.publish(1);
    ring.put_slot_info(1, offset_of!(SlotInfo, segment_count), 2);
    let table = ring.slot(1) + ring.info.table_offset;
    ring.put(table + 32, &[0xFF; 24]);
    let second = [0x0001_0003, 0.25f32.to_bits(), 2, 1, 1, 1, 1, 9];
    ring.put(table + 56, &second.map(u32::to_le_bytes).concat());
    let [rust, c, py] = told_by_all("long-rows", &ring);
    let rows: Vec<_> = rust["segments"].as_array().expect("rows").iter().map(|row| (row["id"].as_u64(), row["bbox"].clone())).collect();
    assert_eq!(rows, [(Some(7), json!([1, 0, 2, 2])), (Some(3), json!([2, 1, 1, 1]))]);
    assert_eq!((&rust, &rust), (&c, &py));
}

#[test]
fn the_python_client_never_sees_a_torn_frame() {
    let scratch = Scratch::new();
    let _writer = writer(&scratch.socket(), &["--slots", "2", "--width", "64", "--height", "48"]);
    let script = "\
import sys, time, eomt_edge_client
end = time.monotonic() + 2
with eomt_edge_client.Subscriber(sys.argv[1], timeout=120) as masks:
    assert masks.labels == ['sky', 'road', 'car', 'ärm \"x\"'], masks.labels
    assert masks.metadata['task'] == 'panoptic'
    last = seen = 0
    for frame in masks:
        assert frame.checksum_ok is True and frame.sequence > last, frame
        assert frame.captured_ns == 1000 * frame.sequence and frame.ids.shape == (48, 64)
        assert all(s.track_id == frame.sequence for s in frame.segments)
        last, seen = frame.sequence, seen + 1
        if time.monotonic() > end and seen >= 100:
            break
    print(seen, 'frames of', last, masks.skipped, 'skipped', masks.retries, 'retries')
";
    let output = python().args(["-c", script]).arg(scratch.socket()).output().expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_c_client_never_sees_a_torn_frame() {
    let source = r#"
#include "eomt_edge.h"
int main(int argc, char **argv) {
    eomt_edge_subscriber sub;
    eomt_edge_frame frame = EOMT_EDGE_FRAME_INIT;
    uint64_t end = 0, last = 0, seen = 0;
    struct timespec now;
    if (argc != 2 || eomt_edge_connect(&sub, argv[1]) != 0) return 2;
    do {
        size_t i, pixels;
        /* two minutes: such a writer can starve an emulated reader on a busy machine for a while */
        if (eomt_edge_next(&sub, &frame, 120000) != EOMT_EDGE_FRAME) return 3;
        pixels = (size_t)frame.info.width * frame.info.height;
        for (i = 0; i < pixels; i++)
            if (frame.ids[i] != (uint16_t)frame.info.sequence) return 4;
        if (frame.info.sequence <= last || frame.info.captured_ns != 1000 * frame.info.sequence) return 5;
        last = frame.info.sequence;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (end == 0) end = (uint64_t)now.tv_sec + 3;
    } while (++seen < 30 || (uint64_t)now.tv_sec < end);
    printf("%llu frames, %llu skipped, %llu retries\n", (unsigned long long)seen, (unsigned long long)sub.skipped,
           (unsigned long long)sub.retries);
    eomt_edge_frame_free(&frame);
    eomt_edge_close(&sub);
    return 0;
}
"#;
    let scratch = Scratch::new();
    let (file, program) = (scratch.join("torn.c"), scratch.join("torn"));
    std::fs::write(&file, source).expect("a writable directory");
    compile(&file, &program);
    let _writer = writer(&scratch.socket(), super::FASTER_WRITER);
    let output = compiled(&program).arg(scratch.socket()).output().expect("the program just compiled");
    assert_eq!(output.status.code(), Some(0), "4 and 5 mean a torn frame");
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

/// Both clients name the path when nobody is there.
#[test]
fn a_missing_daemon_is_a_sentence() {
    let scratch = Scratch::new();
    let mut py = python();
    py.args(["-m", "eomt_edge_client", "--socket"]).arg(scratch.socket());
    let mut c = c_subscriber();
    c.arg("--socket").arg(scratch.socket());
    for mut command in [py, c] {
        let output = command.output().expect("a client");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains("masks.sock") && stderr.contains("No such file"), "{stderr}");
    }
}

/// A struct of the layout as the three languages call it, and `(field, offset)` of each field.
struct Shape {
    rust: &'static str,
    c: &'static str,
    python: &'static str,
    size: usize,
    fields: Vec<(&'static str, usize)>,
}

macro_rules! shape {
    ($rust:ident, $c:literal, $python:literal: $($field:ident)+) => {
        Shape { rust: stringify!($rust), c: $c, python: $python, size: size_of::<$rust>(),
                fields: vec![$((stringify!($field), offset_of!($rust, $field))),+] }
    };
}

fn shapes() -> Vec<Shape> {
    vec![
        shape!(Hello, "eomt_edge_hello", "HELLO": magic abi_version status generation ring_bytes writer_pid reserved message),
        shape!(RingInfo, "eomt_edge_ring_info", "RING_INFO": magic abi_version header_bytes slot_count max_segments max_width
               max_height slots_offset slot_stride total_bytes table_offset ids_offset frame_offset labels_offset labels_bytes
               metadata_offset metadata_bytes label_count flags writer_pid row_bytes created_ns reserved_words),
        shape!(RingHeader, "eomt_edge_ring_header", "RING_HEADER": info latest heartbeat_ns closed reserved),
        shape!(SlotInfo, "eomt_edge_slot_info", "SLOT_INFO": sequence frame_sequence captured_ns published_ns dropped width height
               source_id flags segment_count checksum stage_us model_hash stamp_ns dropped_busy dropped_source dropped_corrupt failed
               frame_format frame_stride frame_bytes frame_colour reserved),
        shape!(SlotHeader, "eomt_edge_slot_header", "SLOT_HEADER": magic abi_version lock info),
        shape!(SegmentRow, "eomt_edge_segment", "SEGMENT_ROW": id class score bbox area track_id),
    ]
}

/// `(C name, Python name, value)`.
fn constants() -> Vec<(&'static str, &'static str, u64)> {
    vec![
        ("EOMT_EDGE_ABI_VERSION", "ABI_VERSION", ABI_VERSION.into()),
        ("EOMT_EDGE_ABI_OLDEST", "ABI_OLDEST", ABI_OLDEST.into()),
        ("EOMT_EDGE_SLOT_HEADER_BYTES_V1", "SLOT_HEADER_BYTES_V1", SLOT_HEADER_BYTES_V1 as u64),
        ("EOMT_EDGE_MAX_ROW_BYTES", "MAX_ROW_BYTES", MAX_ROW_BYTES.into()),
        ("EOMT_EDGE_BT709", "FRAME_BT709", FRAME_BT709.into()),
        ("EOMT_EDGE_FULL_RANGE", "FRAME_FULL_RANGE", FRAME_FULL_RANGE.into()),
        ("EOMT_EDGE_RING_MAGIC", "RING_MAGIC", RING_MAGIC),
        ("EOMT_EDGE_HELLO_MAGIC", "HELLO_MAGIC", HELLO_MAGIC),
        ("EOMT_EDGE_SLOT_MAGIC", "SLOT_MAGIC", SLOT_MAGIC.into()),
        ("EOMT_EDGE_MIN_SLOTS", "MIN_SLOTS", MIN_SLOTS.into()),
        ("EOMT_EDGE_MAX_SLOTS", "MAX_SLOTS", MAX_SLOTS.into()),
        ("EOMT_EDGE_MAX_SIDE", "MAX_SIDE", MAX_SIDE.into()),
        ("EOMT_EDGE_MAX_SEGMENTS", "MAX_SEGMENTS", MAX_SEGMENTS.into()),
        ("EOMT_EDGE_MAX_RING_BYTES", "MAX_RING_BYTES", MAX_RING_BYTES),
        ("EOMT_EDGE_MAX_TEXT_BYTES", "MAX_TEXT_BYTES", MAX_TEXT_BYTES),
        ("EOMT_EDGE_STALE", "SLOT_STALE", SLOT_STALE.into()),
        ("EOMT_EDGE_NO_SIGNAL", "SLOT_NO_SIGNAL", SLOT_NO_SIGNAL.into()),
        ("EOMT_EDGE_HAS_FRAME", "SLOT_HAS_FRAME", SLOT_HAS_FRAME.into()),
        ("EOMT_EDGE_HAS_CHECKSUM", "SLOT_HAS_CHECKSUM", SLOT_HAS_CHECKSUM.into()),
        ("EOMT_EDGE_TRUNCATED", "SLOT_TRUNCATED", SLOT_TRUNCATED.into()),
        ("EOMT_EDGE_HELLO_OK", "HELLO_OK", HELLO_OK.into()),
    ]
}

#[test]
fn the_c_header_has_rusts_layout() {
    let scratch = Scratch::new();
    let mut source = String::from("#include \"eomt_edge.h\"\nint main(void) {\n");
    let mut expected = String::new();
    for shape in shapes() {
        let c = shape.c;
        writeln!(source, "printf(\"{c} %zu\\n\", sizeof({c}));").expect("a string");
        writeln!(expected, "{c} {}", shape.size).expect("a string");
        for (field, offset) in shape.fields {
            let field = if field == "class" { "class_index" } else { field };
            writeln!(source, "printf(\"{c}.{field} %zu\\n\", offsetof({c}, {field}));").expect("a string");
            writeln!(expected, "{c}.{field} {offset}").expect("a string");
        }
    }
    for (c, _, value) in constants() {
        writeln!(source, "printf(\"{c} %llu\\n\", (unsigned long long){c});").expect("a string");
        writeln!(expected, "{c} {value}").expect("a string");
    }
    source += "return 0;\n}\n";
    for suffix in ["c", "cpp"] {
        let file = scratch.join(&format!("layout.{suffix}"));
        std::fs::write(&file, &source).expect("a writable directory");
        let program = scratch.join(suffix);
        if suffix == "cpp" && !builds_cpp() {
            panic!("a C++ compiler is needed to test that the C header is one for C++ too (apt install g++)");
        }
        compile(&file, &program);
        let output = compiled(&program).output().expect("the program just compiled");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{suffix}");
    }
    // And the whole of it, used: every function is compiled as C++.
    std::fs::copy(examples().join("c/subscriber.c"), scratch.join("subscriber.cpp")).expect("our own file");
    compile(&scratch.join("subscriber.cpp"), &scratch.join("subscriber"));
}

fn builds_cpp() -> bool {
    let compiler = std::env::var_os("EOMT_EDGE_TEST_CC").or_else(|| std::env::var_os("CC")).unwrap_or_else(|| "cc".into());
    let test = Command::new(compiler).args(["-x", "c++", "-std=c++17", "-fsyntax-only", "/dev/null"]).output();
    test.is_ok_and(|output| output.status.success())
}

#[test]
fn the_python_client_has_rusts_layout() {
    let script = "\
import json, sys, eomt_edge_client as c
names, constants = json.loads(sys.argv[1])
shapes = {n: [getattr(c, n).itemsize, {f: getattr(c, n).fields[f][1] for f in getattr(c, n).names}] for n in names}
print(json.dumps([shapes, {n: getattr(c, n) for n in constants}]))
";
    let names: Vec<&str> = shapes().iter().map(|shape| shape.python).collect();
    let values: Vec<&str> = constants().iter().map(|constant| constant.1).collect();
    let output = python().args(["-c", script, &json!([names, values]).to_string()]).output().expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for shape in shapes() {
        let fields: BTreeMap<&str, usize> = shape.fields.into_iter().collect();
        assert_eq!(answer[0][shape.python], json!([shape.size, fields]), "{}", shape.rust);
    }
    for (_, name, value) in constants() {
        assert_eq!(answer[1][name], json!(value), "{name}");
    }
}
