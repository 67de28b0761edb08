//! The pictures of one topic of a ROS 2 bag as a camera.
//!
//! At the bag's own rate a picture is due as long after the first one as it was recorded after it. A gap of more than `GAP_MAX`, or a step
//! back, is a recorder that paused or a clock that was set: the next picture follows at once.
//!
//! Invariants: every picture keeps the stamp of its header; no call takes longer than `PATIENCE` and a picture. Pictures that cannot be
//! read, or are larger than the first one, are counted as broken and passed over. Refuses: to start over at the end.

use std::time::Duration;

use eomt_edge_core::data::{Frame, InputEnd, View};
use eomt_edge_core::pipeline::{Captured, Losses, Source, SourceError};
use eomt_edge_host::bags::{BagName, BagPicture, BagPictureError, BagPictures};

use super::replay::has_sides_of_a_frame;

/// The longest sleep in one call of `next`.
const PATIENCE: Duration = Duration::from_millis(50);

/// Longer gaps are not waited for.
const GAP_MAX: Duration = Duration::from_secs(60);

/// How a bag is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BagOptions {
    /// Time between frames; `None` = as they were recorded, zero = as fast as they are processed.
    pub interval: Option<Duration>,
    /// What the end of the bag means.
    pub end: InputEnd,
    /// Larger pictures are refused.
    pub max_pixels: u64,
    /// What becomes of its pictures later on: for [`Source::max_size`].
    pub view: View,
}

/// When a picture that was recorded at one time is played at another.
#[derive(Debug, Clone, Copy)]
struct Timeline {
    played_ns: u64,
    recorded_ns: u64,
    /// Of the last picture.
    last_ns: u64,
}

impl Timeline {
    fn starting(played_ns: u64, recorded_ns: u64) -> Timeline {
        Timeline { played_ns, recorded_ns, last_ns: recorded_ns }
    }

    /// When the picture is due; `None` where the recording has a gap before it, or a step back.
    fn due(&self, recorded_ns: u64) -> Option<u64> {
        let gap = recorded_ns.checked_sub(self.last_ns)?;
        let since = recorded_ns.checked_sub(self.recorded_ns)?;
        (u128::from(gap) <= GAP_MAX.as_nanos()).then(|| self.played_ns.saturating_add(since))
    }
}

/// Plays a bag once.
pub struct BagSource {
    name: BagName,
    pictures: BagPictures,
    options: BagOptions,
    /// The next one, which may not be due yet.
    ready: Option<BagPicture>,
    timeline: Option<Timeline>,
    /// (width, height) of the first picture.
    size: (u32, u32),
    sequence: u64,
    losses: Losses,
}

impl BagSource {
    /// Finds the topic and reads its first picture.
    ///
    /// # Errors
    /// When there is no such bag or topic, no picture of it can be read, or the view leaves nothing of its pictures.
    pub fn open(name: BagName, options: BagOptions) -> Result<BagSource, SourceError> {
        let fatal = |reason: String| SourceError::fatal(format!("bag:{name}"), reason);
        // these sentences name the file themselves
        let mut pictures = BagPictures::open(&name, options.max_pixels).map_err(|error| SourceError::fatal("bag", error))?;
        let (mut losses, mut failed) = (Losses::default(), None);
        let first = loop {
            match pictures.next() {
                Some(Ok(picture)) if has_sides_of_a_frame(picture.frame.width, picture.frame.height) => break picture,
                Some(Ok(picture)) => {
                    let Frame { width, height, .. } = picture.frame;
                    failed = failed.or(Some(fatal(format!("{width}x{height} pixels are too many for a frame in width or height"))));
                }
                Some(Err(error)) => failed = failed.or(Some(SourceError::fatal("bag", error))),
                None => return Err(failed.unwrap_or_else(|| fatal(format!("there is no picture in {}", pictures.topic())))),
            }
            losses.broken += 1;
        };
        if let Some(error) = failed {
            log::warn!("{error} ({} such pictures at the beginning are passed over)", losses.broken);
        }
        let size = (first.frame.width, first.frame.height);
        if options.view.size(size.0, size.1).is_none() {
            return Err(fatal("nothing is left of its pictures after camera.crop".to_owned()));
        }
        Ok(BagSource { name, pictures, options, ready: Some(first), timeline: None, size, sequence: 0, losses })
    }

    fn passing(&self, reason: impl ToString) -> SourceError {
        SourceError::passing(format!("bag:{}", self.name), reason)
    }

    /// The next picture from the file; `None` at its end.
    fn read(&mut self) -> Result<Option<BagPicture>, SourceError> {
        match self.pictures.next() {
            None => Ok(None),
            Some(Ok(picture)) if picture.frame.width <= self.size.0 && picture.frame.height <= self.size.1 => Ok(Some(picture)),
            Some(Ok(BagPicture { frame: Frame { width, height, .. }, number, .. })) => {
                self.losses.broken += 1;
                let (w, h) = self.size;
                Err(self.passing(format!("picture {number} has {width}x{height} pixels, more than the {w}x{h} of the first one")))
            }
            Some(Err(error)) => {
                self.losses.broken += u64::from(matches!(error, BagPictureError::Picture { .. }));
                Err(SourceError::passing("bag", error))
            }
        }
    }

    fn ended(&self) -> Result<Captured, SourceError> {
        match self.options.end {
            InputEnd::Stop => Ok(Captured::End),
            InputEnd::Fail => {
                let reason = format!("the bag ended after {} pictures; if it is meant to, set source.end=stop", self.sequence);
                Err(SourceError::fatal(format!("bag:{}", self.name), reason))
            }
        }
    }

    /// How long the picture is not due yet at `now_ns`.
    fn early(&mut self, recorded_ns: u64, now_ns: u64) -> Duration {
        if self.options.interval.is_some() {
            return Duration::ZERO;
        }
        let Some(timeline) = &mut self.timeline else {
            self.timeline = Some(Timeline::starting(now_ns, recorded_ns));
            return Duration::ZERO;
        };
        match timeline.due(recorded_ns) {
            Some(due) if due > now_ns => Duration::from_nanos(due - now_ns),
            Some(_) => {
                timeline.last_ns = recorded_ns;
                Duration::ZERO
            }
            None => {
                let gap = (recorded_ns as f64 - timeline.last_ns as f64) / 1e9;
                log::info!("bag:{}: {gap:.1} s between two pictures are not waited for", self.name);
                self.timeline = Some(Timeline::starting(now_ns, recorded_ns));
                Duration::ZERO
            }
        }
    }
}

impl Source for BagSource {
    fn describe(&self) -> String {
        let rate = match self.options.interval {
            None => "as recorded".to_owned(),
            Some(Duration::ZERO) => "as fast as they are processed".to_owned(),
            Some(interval) => format!("{} a second", 1.0 / interval.as_secs_f64()),
        };
        format!("pictures of {} in {}, {rate}", self.pictures.topic(), self.name.path.display())
    }

    fn max_size(&self) -> (u32, u32) {
        self.options.view.size(self.size.0, self.size.1).unwrap_or(self.size)
    }

    fn interval(&self) -> Option<Duration> {
        self.options.interval
    }

    fn losses(&self) -> Losses {
        self.losses
    }

    fn next(&mut self, now_ns: u64, buffer: Vec<u8>) -> Result<Captured, SourceError> {
        let picture = match self.ready.take() {
            Some(picture) => picture,
            None => match self.read()? {
                Some(picture) => picture,
                None => return self.ended(),
            },
        };
        let early = self.early(picture.log_time_ns, now_ns);
        if !early.is_zero() {
            self.ready = Some(picture);
            std::thread::sleep(early.min(PATIENCE));
            return Ok(Captured::NotYet(buffer));
        }
        self.sequence += 1;
        let stamp_ns = picture.stamp_ns;
        Ok(Captured::Frame(Frame { sequence: self.sequence, captured_ns: now_ns, stamp_ns, ..picture.frame }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const START: u64 = 1_700_000_000_000_000_001;
    const MS: u64 = 1_000_000;

    fn open(name: &str, interval: Option<Duration>, end: InputEnd) -> Result<BagSource, SourceError> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bags");
        let options = BagOptions { interval, end, max_pixels: 1 << 20, view: View::default() };
        BagSource::open(BagName::parse(&folder.join(name).to_string_lossy()), options)
    }

    /// The frame at `now_ns`, or `None` where it is not due.
    fn next(source: &mut BagSource, now_ns: u64) -> Option<Frame> {
        match source.next(now_ns, Vec::new()).unwrap() {
            Captured::Frame(frame) => Some(frame),
            Captured::NotYet(_) => None,
            Captured::End => panic!("the end"),
        }
    }

    #[test]
    fn pictures_are_due_as_they_were_recorded() {
        let mut source = open("chunk-zstd.mcap", None, InputEnd::Stop).unwrap();
        assert_eq!((source.max_size(), source.interval()), ((16, 12), None));
        let first = next(&mut source, 5000 * MS).unwrap();
        assert_eq!((first.sequence, first.captured_ns, first.stamp_ns), (1, 5000 * MS, START));
        // 100 ms apart, by the recorder's clock, whenever the last one was asked for
        assert_eq!(next(&mut source, 5099 * MS), None);
        let second = next(&mut source, 5130 * MS).unwrap();
        assert_eq!((second.sequence, second.captured_ns, second.stamp_ns), (2, 5130 * MS, START + 100 * MS));
        assert_eq!(next(&mut source, 5199 * MS), None);
        assert!(next(&mut source, 5200 * MS).is_some());
        // late: at once
        assert_eq!(next(&mut source, 9000 * MS).unwrap().stamp_ns, START + 300 * MS);
        assert_eq!(source.next(9000 * MS, Vec::new()).unwrap(), Captured::End);
    }

    #[test]
    fn gaps_and_steps_back_are_not_waited_for() {
        let timeline = Timeline::starting(7, 1000 * MS);
        assert_eq!(timeline.due(1500 * MS), Some(7 + 500 * MS));
        assert_eq!(timeline.due(61_000 * MS), Some(7 + 60_000 * MS));
        assert_eq!((timeline.due(61_001 * MS), timeline.due(999 * MS), timeline.due(u64::MAX)), (None, None, None));
    }

    #[test]
    fn the_end_is_what_the_user_says() {
        for (end, words) in
            [(InputEnd::Stop, None), (InputEnd::Fail, Some("ended after 4 pictures; if it is meant to, set source.end=stop"))]
        {
            let mut source = open("plain.db3:/camera/image_raw", Some(Duration::ZERO), end).unwrap();
            let stamps: Vec<u64> = (0..4).filter_map(|at| next(&mut source, at)).map(|frame| frame.stamp_ns).collect();
            assert_eq!(stamps, [0, 100, 200, 300].map(|ms| START + ms * MS));
            match (source.next(4, Vec::new()), words) {
                (Ok(Captured::End), None) => {}
                (Err(error), Some(words)) => assert!(error.fatal && error.to_string().contains(words), "{error}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_cannot_be_played_is_named() {
        for (name, words) in [
            ("nowhere.mcap", "nowhere.mcap: cannot be read"),
            ("two-cameras.mcap", "/camera/image_raw, /left/image_raw"),
            ("two-cameras.mcap:/right", "there is no topic /right; the bag has /camera/image_raw, /chatter, /left/image_raw"),
            ("two-cameras.mcap:/chatter", "/chatter has messages of std_msgs/msg/String"),
            ("no-pictures.mcap", "no topic has pictures"),
            ("encodings.mcap:/unknown", "picture 0 of /unknown: its encoding is '32FC1'"),
            ("make_bags.py", "this is no bag"),
        ] {
            let error = open(name, None, InputEnd::Fail).err().unwrap().to_string();
            assert!(error.contains(words) && error.starts_with("bag:") && error.lines().count() == 1, "{name}: {error}");
        }
    }
}
