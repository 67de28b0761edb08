//! The client against a daemon made by hand: what arrives, what is refused, and by which sentence.

mod handmade;

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eomt_edge_client::layout::*;
use eomt_edge_client::{ClientError, Drops, MaskFrame, Subscriber, crc32};
use rustix::fs::SealFlags;

use handmade::{Kind, METADATA, Ring, hello, ids, serve};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

fn refused(name: &str, seals: SealFlags, hello: impl Fn(&Ring) -> Vec<u8>) -> (ClientError, PathBuf) {
    let ring = Ring::new(seals, Kind::Pipe);
    let (path, daemon) = serve(name, &ring, &hello(&ring));
    let error = Subscriber::connect(&path).expect_err("a bad daemon");
    daemon.join().expect("it greeted");
    (error, path)
}

#[test]
fn frames_arrive_as_they_were_written_until_the_ring_is_closed() {
    for (abi, kind) in [(ABI_VERSION, Kind::Pipe), (ABI_VERSION, Kind::Eventfd), (1, Kind::Eventfd)] {
        frames_arrive(abi, kind);
    }
}

fn frames_arrive(abi: u32, kind: Kind) {
    let ring = Ring::of_abi(abi, SealFlags::SHRINK | SealFlags::GROW, kind);
    ring.publish(1);
    let (path, daemon) = serve("frames", &ring, &hello(abi, HELLO_OK, &ring, ""));
    let mut masks = Subscriber::connect(&path).expect("a daemon");
    let _connection = daemon.join().expect("it greeted");
    assert_eq!((masks.generation(), masks.labels(), masks.metadata().as_bytes()), (4, &["sky", "car"].map(String::from)[..], METADATA));

    let frame = masks.next(PATIENCE).expect("a live ring").expect("a frame");
    let info = &frame.info;
    assert_eq!((frame.sequence(), info.frame_sequence, info.captured_ns, info.published_ns, info.dropped), (1, 10, 1000, 9000, 5));
    assert_eq!((frame.width(), frame.height(), frame.source_id(), info.stage_us), (3, 2, 0xC0FF_EE00, [11, 12, 13, 14]));
    assert_eq!((frame.stale(), frame.no_signal(), frame.truncated(), frame.rgb(), frame.checksum_ok()), (true, false, false, None, None));
    let told = (frame.stamp_ns(), frame.failed(), frame.drops());
    match abi {
        1 => assert_eq!(told, (None, 0, Drops { total: 5, ..Drops::default() })),
        _ => assert_eq!(told, (Some(1_700_000_000_000_000_000), 6, Drops { total: 5, busy: 1, source: 2, corrupt: 2 })),
    }
    assert_eq!(frame.ids, ids(1));
    let row = frame.segments[0];
    assert_eq!((row.id, masks.label(row.class), row.score, row.bbox, row.area), (7, Some("car"), 0.5, [1, 0, 2, 2], 4));
    assert_eq!(frame.ids_crc32(), crc32(0, &ids(1).map(u16::to_le_bytes).concat()));

    // a slot that is being written is not read, and the copy of the caller is reused
    let mut frame = MaskFrame::default();
    ring.publish(2);
    ring.put(ring.slot(2) + offset_of!(SlotHeader, lock) as u64, &3u64.to_le_bytes());
    assert!(!masks.latest(&mut frame).expect("a live ring"));
    assert!(masks.retries() > 0);
    ring.publish(2);
    ring.publish(3);
    assert!(masks.next_into(&mut frame, PATIENCE).expect("a live ring"));
    assert_eq!((frame.sequence(), frame.ids.as_slice(), masks.skipped()), (3, &ids(3)[..], 1));

    ring.put(offset_of!(RingHeader, closed) as u64, &1u32.to_le_bytes());
    assert!(matches!(masks.next(PATIENCE), Err(ClientError::Ended { clean: true, .. })));
}

#[test]
fn a_daemon_that_dies_is_an_end_that_is_not_clean() {
    let ring = Ring::new(SealFlags::SHRINK, Kind::Pipe);
    let (path, daemon) = serve("dies", &ring, &hello(ABI_VERSION, HELLO_OK, &ring, ""));
    let mut masks = Subscriber::connect(&path).expect("a daemon");
    drop(daemon.join().expect("it greeted"));
    assert!(matches!(masks.next(PATIENCE), Err(ClientError::Ended { clean: false, .. })));
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let sealed = SealFlags::SHRINK;
    let says = |error: &ClientError, path: &Path, words: &str| {
        let sentence = error.to_string();
        assert!(sentence.contains(words) && sentence.contains(path.to_str().expect("UTF-8")), "{sentence}");
    };
    let (error, path) = refused("abi", sealed, |ring| hello(3, HELLO_OK, ring, ""));
    assert!(matches!(error, ClientError::Abi { theirs: 3, ours: ABI_VERSION, .. }));
    says(&error, &path, "ABI 3 of the mask ring, this client 1 to 2");
    let (error, path) = refused("full", sealed, |ring| hello(ABI_VERSION, HELLO_REFUSED, ring, "it is full"));
    says(&error, &path, "it is full");
    let (error, path) = refused("other", sealed, |_| b"220 mail.example ESMTP".to_vec());
    says(&error, &path, "not a mask socket");
    let (error, path) = refused("unsealed", SealFlags::GROW, |ring| hello(ABI_VERSION, HELLO_OK, ring, ""));
    says(&error, &path, "not sealed against shrinking");
    let (error, path) = refused("longer", sealed, |ring| {
        let mut bytes = hello(ABI_VERSION, HELLO_OK, ring, "");
        bytes[24..32].copy_from_slice(&(ring.info.total_bytes + 4096).to_le_bytes());
        bytes
    });
    says(&error, &path, "mask ring");
    let missing = std::env::temp_dir().join("eomt-client-nobody.sock");
    says(&Subscriber::connect(&missing).expect_err("nobody"), &missing, "cannot connect");
}
