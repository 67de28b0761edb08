//! Bags that rosbags, mcap's writer and rclpy made (`tests/data/bags/make_bags.py`), whole, cut and falsified.

use std::fs;

use super::*;

const CAMERA: &str = "/camera/image_raw";
const START: u64 = 1_700_000_000_000_000_001;
const BYTES_MAX: usize = 1 << 20;

/// Every file with the same four pictures, in each storage and compression.
const CLIPS: [&str; 15] = [
    "directory",
    "directory-zstd",
    "split",
    "plain.db3",
    "message-zstd.db3",
    "file-lz4.db3.lz4",
    "plain.mcap",
    "chunk-lz4.mcap",
    "chunk-zstd.mcap",
    "message-lz4.mcap",
    "message-zstd.mcap",
    "file-lz4.mcap.lz4",
    "file-zstd.mcap.zstd",
    "two-cameras.mcap",
    "rclpy.mcap",
];

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/bags").join(name)
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("eomt-edge-bag-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// The formula of make_bags.py.
fn pixels(t: usize) -> Vec<u8> {
    let pixel = |x: usize, y: usize| [7 * x + 40 * t, 9 * y + 5 * t, 3 * x + 3 * y].map(|level| level as u8);
    (0..12).flat_map(|y| (0..16).flat_map(move |x| pixel(x, y))).collect()
}

fn is_picture(t: usize, message: &Message) -> bool {
    let right_time = message.log_time_ns == START + t as u64 * 100_000_000 + 5_000_000;
    // a sequence is the last field of an Image, and CDR may pad the message's end
    let picture = pixels(t);
    right_time && message.topic.type_name == IMAGE && message.data.windows(picture.len()).rev().take(8).any(|end| end == picture)
}

/// The messages before the first error, and the errors.
fn read(messages: Messages) -> (Vec<Message>, Vec<String>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for message in messages {
        match message {
            Ok(message) => good.push(message),
            Err(error) => bad.push(error.to_string()),
        }
    }
    (good, bad)
}

fn whole(name: &str, topic: Option<&str>) -> Vec<Message> {
    let (good, bad) = read(Bag::open(&data(name), BYTES_MAX).unwrap().messages(topic));
    assert!(bad.is_empty(), "{name}: {bad:?}");
    good
}

#[test]
fn every_storage_and_compression_gives_the_same_messages() {
    for name in CLIPS {
        let messages = whole(name, Some(CAMERA));
        assert_eq!(messages.len(), 4, "{name}");
        assert!(messages.iter().enumerate().all(|(t, message)| is_picture(t, message)), "{name}");
        let topic = Bag::open(&data(name), BYTES_MAX).unwrap().image_topic(Some(CAMERA)).unwrap();
        assert_eq!((topic.type_name.as_str(), topic.encoding.as_str()), (IMAGE, "cdr"), "{name}");
    }
}

#[test]
fn all_topics_come_in_the_order_in_which_they_were_recorded() {
    for name in CLIPS.into_iter().filter(|name| !["two-cameras.mcap", "rclpy.mcap"].contains(name)) {
        let messages = whole(name, None);
        assert_eq!(messages.len(), 8, "{name}");
        assert!(messages.is_sorted_by_key(|message| message.log_time_ns), "{name}");
        assert!(messages[1].topic.name == "/chatter" && messages[1].data.windows(9).any(|words| words == b"between 0"), "{name}");
    }
}

#[test]
fn the_choice_of_a_topic_is_the_users_where_there_is_one() {
    let choose = |name: &str, topic| Bag::open(&data(name), BYTES_MAX).unwrap().image_topic(topic).map_err(|error| error.to_string());
    assert_eq!(choose("split", None).unwrap().name, CAMERA);
    assert_eq!(choose("two-cameras.mcap", Some("/left/image_raw")).unwrap().name, "/left/image_raw");
    for (name, topic, words) in [
        ("two-cameras.mcap", None, "name one of them behind a colon: /camera/image_raw, /left/image_raw"),
        ("two-cameras.mcap", Some("/x"), "no topic /x; the bag has /camera/image_raw, /chatter, /left/image_raw"),
        ("two-cameras.mcap", Some("/chatter"), "/chatter has messages of std_msgs/msg/String in cdr"),
        ("no-pictures.mcap", None, "no topic has pictures"),
    ] {
        let message = choose(name, topic).unwrap_err();
        assert!(message.contains(words) && message.contains(name) && message.lines().count() == 1, "{message}");
    }
}

/// Of a file that is cut anywhere come the first messages, all of them whole, and what is missing is told. How many of the longest part?
fn cut_everywhere(name: &str, bytes: &[u8], complete: &[Message]) -> usize {
    let mut most = 0;
    for len in (0..bytes.len()).step_by(101) {
        let (good, bad) = match Messages::of_bytes(&bytes[..len], BYTES_MAX) {
            Ok(messages) => read(messages),
            Err(error) => (Vec::new(), vec![error.to_string()]),
        };
        assert!(good == complete[..good.len()], "{name}, cut at {len}: other messages");
        assert!(good.len() == complete.len() || !bad.is_empty(), "{name}, cut at {len}: {} messages are missing", 8 - good.len());
        assert!(bad.len() <= 1 && bad.iter().all(|words| words.lines().count() == 1), "{name}, cut at {len}: {bad:?}");
        most = most.max(good.len());
    }
    most
}

#[test]
fn cut_files_are_read_as_far_as_they_go() {
    for name in CLIPS.into_iter().filter(|name| name.contains('.') && *name != "two-cameras.mcap" && *name != "rclpy.mcap") {
        let most = cut_everywhere(name, &fs::read(data(name)).unwrap(), &whole(name, None));
        // compressed as a whole, these files are one block, of which nothing comes before its end
        assert!(most > 3 || name.starts_with("file-"), "{name}: only {most} messages of the longest part");
    }
}

#[test]
fn compressed_files_are_read_up_to_the_last_whole_block() {
    fn in_blocks(mut encoder: impl std::io::Write, bytes: &[u8]) {
        bytes.chunks(600).for_each(|block| encoder.write_all(block).and_then(|()| encoder.flush()).unwrap());
    }
    for name in ["plain.mcap", "plain.db3"] {
        let (bytes, complete) = (fs::read(data(name)).unwrap(), whole(name, None));
        let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
        in_blocks(&mut zstd, &bytes);
        let mut lz4 = lz4::EncoderBuilder::new().build(Vec::new()).unwrap();
        in_blocks(&mut lz4, &bytes);
        for packed in [zstd.finish().unwrap(), lz4.finish().0] {
            assert!(cut_everywhere(name, &packed, &complete) > 3, "{name}");
        }
    }
}

/// SQLite fills what is missing of a page with zeros.
#[test]
fn a_page_that_was_cut_is_no_page() {
    let path = scratch("page").join("cut.db3");
    let (bytes, complete) = (fs::read(data("plain.db3")).unwrap(), whole("plain.db3", None));
    for len in (4096..bytes.len()).step_by(331) {
        fs::write(&path, &bytes[..len]).unwrap();
        let (good, bad) = read(Bag::open(&path, BYTES_MAX).unwrap().messages(None));
        assert!(good == complete[..good.len()], "cut at {len}: other messages");
        assert!(good.len() == complete.len() || bad.len() == 1, "cut at {len}: {} messages, {bad:?}", good.len());
    }
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn a_cut_file_has_topics_and_the_next_file_goes_on() {
    let folder = scratch("cut");
    for (number, name) in [(0, "plain.mcap"), (1, "plain.db3")] {
        let bytes = fs::read(data(name)).unwrap();
        let end = Path::new(name).extension().unwrap().to_str().unwrap();
        fs::write(folder.join(format!("cut_{number}.{end}")), &bytes[..bytes.len() * 3 / 4]).unwrap();
    }
    // as a recorder that was killed: without metadata.yaml
    let bag = Bag::open(&folder, BYTES_MAX).unwrap();
    assert_eq!(bag.image_topic(None).unwrap().name, CAMERA);
    let (good, bad) = read(bag.messages(Some(CAMERA)));
    assert!(bad.len() == 2 && bad[0].contains("cut_0.mcap") && bad[1].contains("cut_1.db3"), "{bad:?}");
    assert!(good.len() >= 2 && is_picture(0, &good[0]), "{}", good.len());
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn sqlites_log_beside_a_file_is_read_where_that_is_possible() {
    let folder = scratch("log");
    for name in ["log.db3", "log.db3-wal"] {
        fs::copy(data(name), folder.join(name)).unwrap();
    }
    let path = folder.join("log.db3");
    let (good, bad) = read(Bag::open(&path, BYTES_MAX).unwrap().messages(Some(CAMERA)));
    assert!(bad.is_empty() && good.len() == 4 && good.iter().enumerate().all(|(t, message)| is_picture(t, message)), "{bad:?}");
    fs::remove_file(folder.join("log.db3-wal")).unwrap();
    let (good, bad) = read(Bag::open(&path, BYTES_MAX).unwrap().messages(Some(CAMERA)));
    assert!(bad.is_empty() && good.len() == 2, "{bad:?}");
    // what is there and cannot be read is told
    fs::create_dir(folder.join("log.db3-wal")).unwrap();
    let (good, bad) = read(Bag::open(&path, BYTES_MAX).unwrap().messages(Some(CAMERA)));
    assert!(bad.len() == 1 && bad[0].contains("log.db3") && bad[0].contains("(-wal) cannot be read") && good.len() == 2, "{bad:?}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_is_no_bag_is_told_in_a_sentence() {
    let folder = scratch("none");
    let file = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    file("empty.mcap", b"");
    file("one.bag", b"#ROSBAG V2.0\n");
    file("text.mcap", b"a text that is long enough");
    file("other.db3", &fs::read(data("plain.db3")).unwrap()[..4096]);
    fs::create_dir_all(folder.join("listed")).unwrap();
    file("listed/metadata.yaml", b"rosbag2_bagfile_information:\n  version: 5\n");
    fs::create_dir_all(folder.join("bare")).unwrap();
    for (name, words) in [
        ("missing", "cannot be read"),
        ("empty.mcap", "it is empty"),
        ("one.bag", "ROS 1"),
        ("text.mcap", "neither as MCAP nor as SQLite"),
        ("listed", "relative_file_paths"),
        ("bare", "metadata.yaml"),
    ] {
        let message = Bag::open(&folder.join(name), BYTES_MAX).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains(name) && message.lines().count() == 1, "{message}");
        assert!(!Bag::is_at(&folder.join(name)));
    }
    let message = Bag::open(&folder.join("other.db3"), BYTES_MAX).unwrap().topics().unwrap_err().to_string();
    assert!(message.contains("other.db3: the bag is damaged after 0 messages"), "{message}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn tables_of_these_names_must_be_tables() {
    let folder = scratch("views");
    for (name, sql, words) in [
        ("none", "CREATE TABLE other(x)", "no table 'topics'"),
        ("view", "CREATE TABLE t(x); CREATE VIEW topics AS SELECT * FROM t; CREATE TABLE messages(x)", "no table 'topics'"),
        (
            "endless",
            "CREATE TABLE topics(id, name, type, serialization_format);
             CREATE VIEW messages AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS rowid FROM n",
            "no table 'messages'",
        ),
        ("columns", "CREATE TABLE topics(id, name); CREATE TABLE messages(x)", "no such column"),
    ] {
        let path = folder.join(name);
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let message = Bag::open(&path, BYTES_MAX).unwrap().topics().unwrap_err().to_string();
        assert!(message.contains(words) && message.lines().count() == 1, "{message}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn no_message_is_longer_than_allowed() {
    // each storage notices it elsewhere: a record, a row, an unpacked message
    for name in ["plain.mcap", "chunk-zstd.mcap", "chunk-lz4.mcap", "message-zstd.mcap", "message-lz4.mcap", "message-zstd.db3"] {
        let (good, bad) = read(Bag::open(&data(name), 500).unwrap().messages(Some(CAMERA)));
        assert!(good.is_empty() && !bad.is_empty(), "{name}");
    }
    // SQLite's smallest bound is above these messages
    let path = scratch("long").join("long.db3");
    fs::copy(data("plain.db3"), &path).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("UPDATE messages SET data = zeroblob(100000) WHERE rowid = 3").unwrap();
    drop(connection);
    let (good, bad) = read(Bag::open(&path, 65536).unwrap().messages(Some(CAMERA)));
    assert!(good.len() == 3 && bad.len() == 1 && bad[0].contains("row 3"), "{} {bad:?}", good.len());
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn falsified_bytes_never_panic() {
    let mut state = 20u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for name in CLIPS.into_iter().filter(|name| name.contains('.')) {
        let bytes = fs::read(data(name)).unwrap();
        for _ in 0..150 {
            let mut wrong = bytes.clone();
            for _ in 0..1 + random(4) {
                let at = random(wrong.len());
                wrong[at] = random(256) as u8;
            }
            if let Ok(messages) = Messages::of_bytes(&wrong, BYTES_MAX) {
                // a file that contradicts itself on every record still ends
                assert!(messages.take(100_000).count() < 100_000, "{name}");
            }
        }
    }
}
