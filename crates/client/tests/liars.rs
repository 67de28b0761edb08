//! The client against everything that may listen on a mask socket: one clear sentence, in time, and nothing left open.
//!
//! One test, in a process of its own: it counts the process's descriptors and mappings.

mod handmade;

use std::time::Duration;

use eomt_edge_client::{ClientError, MaskFrame, Subscriber};

use handmade::lies::{Liar, lies};

/// Two frames, of which an honest liar sends one.
fn two_frames(path: &std::path::Path, timeout: Duration) -> Result<(), ClientError> {
    let mut masks = Subscriber::connect_within(path, timeout)?;
    let mut frame = MaskFrame::default();
    for _ in 0..2 {
        if !masks.next_into(&mut frame, Some(timeout))? {
            break;
        }
    }
    Ok(())
}

/// Descriptors, and mappings of memfds.
fn open() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("/proc").count();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    (descriptors, maps.lines().filter(|line| line.contains("memfd:")).count())
}

#[test]
fn every_lie_is_called_by_its_name_and_leaves_nothing_open() {
    let before = open();
    for lie in lies() {
        let timeout = Duration::from_millis(if lie.times_out { 1000 } else { 60_000 });
        let liar = Liar::start(&lie);
        let sentence = match two_frames(&liar.path, timeout) {
            Ok(()) => "no frame".to_owned(),
            Err(error) => {
                let (sentence, path) = (error.to_string(), liar.path.to_str().expect("UTF-8"));
                assert!(sentence.contains(path), "{}: {sentence}", lie.name);
                sentence.replace(path, "")
            }
        };
        assert!(sentence.contains(lie.says[0]) && !sentence.contains(char::is_control), "{}: {sentence}", lie.name);
        drop(liar);
        assert_eq!(open(), before, "left open after {}", lie.name);
    }
}
