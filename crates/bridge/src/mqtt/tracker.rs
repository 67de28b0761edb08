//! Frames to values: which classes are there, how many segments, how much of picture and zones.
//!
//! Invariants: presence changes only after a class was seen, or missing, without a break for the configured time by the frames' own clock;
//! until that is known it has no value. Maps without signal, and a daemon that is away, change no value and interrupt what was waited for.

use eomt_edge_client::MaskFrame;

use super::board::Board;
use super::config::{Config, Presence};
use super::layout::ClassTopics;
use super::zones::Raster;

/// ON and OFF with patience.
#[derive(Debug, Clone, Copy, Default)]
struct Debounce {
    state: Option<bool>,
    /// Since when it is otherwise, nanoseconds.
    since: Option<u64>,
}

impl Debounce {
    fn update(&mut self, seen: bool, now_ns: u64, presence: Presence) -> Option<bool> {
        if self.state == Some(seen) {
            self.since = None;
            return self.state;
        }
        let patience = if seen { presence.on_after } else { presence.off_after };
        // before the first state, seen and missing both wait
        let since = *self.since.get_or_insert(now_ns);
        if now_ns.saturating_sub(since) as f64 >= patience * 1e9 {
            (self.state, self.since) = (Some(seen), None);
        }
        self.state
    }
}

#[derive(Debug)]
struct Watched {
    topics: ClassTopics,
    present: Debounce,
    /// What it was at the last frame, while the state is not known.
    was_seen: bool,
    zones: Vec<(Debounce, bool)>,
}

/// What is known of the classes.
#[derive(Debug)]
pub struct Tracker {
    presence: Presence,
    watched: Vec<Watched>,
    /// Index into `watched` of each class.
    place: Vec<Option<usize>>,
    zones: Zones,
}

/// Zones for pictures of one size.
#[derive(Debug, Default)]
struct Zones {
    config: Vec<super::config::Zone>,
    size: (u32, u32),
    rasters: Vec<Raster>,
    /// Pixels of each id, of one zone.
    by_id: Vec<u32>,
}

impl Tracker {
    /// For `topics` of a model with `classes` classes.
    pub fn new(config: &Config, topics: Vec<ClassTopics>, classes: usize) -> Tracker {
        let mut place = vec![None; classes];
        topics.iter().enumerate().for_each(|(at, topics)| place[topics.class] = Some(at));
        let zones = vec![(Debounce::default(), false); config.zones.len()];
        let watch = |topics| Watched { topics, present: Debounce::default(), was_seen: false, zones: zones.clone() };
        let watched = topics.into_iter().map(watch).collect();
        Tracker { presence: config.presence, watched, place, zones: Zones { config: config.zones.clone(), ..Zones::default() } }
    }

    /// What comes next does not follow what was.
    pub fn interrupt(&mut self) {
        for watched in &mut self.watched {
            watched.present.since = None;
            watched.zones.iter_mut().for_each(|(zone, _)| zone.since = None);
        }
    }

    /// Sets the values of a frame with signal.
    pub fn frame(&mut self, frame: &MaskFrame, board: &mut Board) {
        let (now_ns, presence) = (frame.info.published_ns, self.presence);
        let pixels = f64::from(frame.width()) * f64::from(frame.height());
        let mut sums = vec![(0u64, 0u64); self.watched.len()];
        for segment in &frame.segments {
            if let Some(at) = self.place.get(usize::from(segment.class)).copied().flatten() {
                sums[at].0 += 1;
                sums[at].1 += u64::from(segment.area);
            }
        }
        for (watched, (count, area)) in self.watched.iter_mut().zip(sums) {
            let fraction = fraction(area as f64, pixels);
            board.set(watched.topics.count, count.to_string());
            board.set(watched.topics.area, fraction.to_string());
            let seen = count > 0 && area as f64 >= presence.min_area * pixels;
            follow(&mut watched.present, &mut watched.was_seen, seen, now_ns, presence, watched.topics.present, board);
        }
        self.zones.fit(frame);
        for zone in 0..self.zones.rasters.len() {
            self.zone(zone, frame, board);
        }
    }

    fn zone(&mut self, zone: usize, frame: &MaskFrame, board: &mut Board) {
        let by_id = self.zones.count(zone, frame);
        let mut sums = vec![0u64; self.watched.len()];
        for segment in &frame.segments {
            if let Some(at) = self.place.get(usize::from(segment.class)).copied().flatten() {
                sums[at] += u64::from(by_id.get(usize::from(segment.id)).copied().unwrap_or(0));
            }
        }
        let (pixels, presence) = (self.zones.rasters[zone].pixels() as f64, self.presence);
        for (watched, area) in self.watched.iter_mut().zip(sums) {
            let (present, area_topic) = watched.topics.zones[zone];
            board.set(area_topic, fraction(area as f64, pixels).to_string());
            let seen = area > 0 && area as f64 >= presence.min_area * pixels;
            let (debounce, was_seen) = &mut watched.zones[zone];
            follow(debounce, was_seen, seen, frame.info.published_ns, presence, present, board);
        }
    }
}

fn follow(debounce: &mut Debounce, was_seen: &mut bool, seen: bool, now_ns: u64, presence: Presence, topic: usize, board: &mut Board) {
    if debounce.state.is_none() && *was_seen != seen {
        debounce.since = None;
    }
    *was_seen = seen;
    if let Some(state) = debounce.update(seen, now_ns, presence) {
        board.set(topic, if state { "ON" } else { "OFF" });
    }
}

/// To four digits: finer changes are noise. A picture without pixels has nothing in it.
fn fraction(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole * 1e4).round() / 1e4 } else { 0.0 }
}

impl Zones {
    /// Pixels of each id in a zone.
    fn count(&mut self, zone: usize, frame: &MaskFrame) -> &[u32] {
        let largest = frame.segments.iter().map(|segment| usize::from(segment.id)).max().unwrap_or(0);
        self.by_id.clear();
        self.by_id.resize(largest + 1, 0);
        self.rasters[zone].count(&frame.ids, &mut self.by_id);
        &self.by_id
    }

    fn fit(&mut self, frame: &MaskFrame) {
        let size = (frame.width(), frame.height());
        if self.size == size {
            return;
        }
        self.size = size;
        let raster = |zone: &super::config::Zone| Raster::new(zone, size.0 as usize, size.1 as usize);
        self.rasters = self.config.iter().map(raster).collect();
        for (zone, _) in self.config.iter().zip(&self.rasters).filter(|(_, raster)| raster.pixels() == 0) {
            log::warn!("zones.{}.polygon: no pixel of the picture, which has {}x{}, lies in it", zone.name, size.0, size.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use eomt_edge_client::layout::{SegmentRow, SlotInfo};

    use super::super::layout;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    struct Bench {
        board: Board,
        tracker: Tracker,
    }

    impl Bench {
        fn new(text: &str, labels: &[&str]) -> Bench {
            let config = Config::parse(text, "pi").unwrap();
            let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
            let mut board = Board::new(Duration::ZERO);
            let topics = layout::classes(&config, &labels, &mut board);
            Bench { tracker: Tracker::new(&config, topics, labels.len()), board }
        }

        /// A frame of 4x2 at `ns`: ids, and the class of ids 1, 2 ...
        fn frame(&mut self, ns: u64, ids: [u16; 8], classes: &[u16]) {
            let info = SlotInfo { width: 4, height: 2, published_ns: ns, ..SlotInfo::default() };
            let row = |(at, &class): (usize, &u16)| {
                let id = at as u16 + 1;
                let area = ids.iter().filter(|&&pixel| pixel == id).count() as u32;
                SegmentRow { id, class, area, ..SegmentRow::default() }
            };
            let segments = classes.iter().enumerate().map(row).collect();
            self.tracker.frame(&MaskFrame { info, segments, ids: ids.to_vec(), ..MaskFrame::default() }, &mut self.board);
        }

        /// What is new at the broker, without its common beginning.
        fn told(&mut self) -> Vec<String> {
            let mut told = Vec::new();
            while let Some(due) = self.board.due(Instant::now()) {
                told.push(format!("{}={}", due.topic.trim_start_matches("eomt-edge/pi/"), String::from_utf8_lossy(&due.payload)));
                self.board.told(due, Instant::now());
            }
            told
        }
    }

    #[test]
    fn counts_and_areas_of_picture_and_zones() {
        let zones =
            "presence = { on_after = 0, off_after = 0 }\n[[zones]]\nname = \"Left\"\npolygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]";
        let mut bench = Bench::new(zones, &["cup", "dog"]);
        bench.frame(SECOND, [1, 2, 2, 0, 1, 3, 3, 3], &[0, 1, 0]);
        let told = bench.told();
        assert_eq!(
            told,
            [
                "class/cup/present=ON",
                "class/cup/count=2",
                "class/cup/area=0.625",
                "zone/left/cup/present=ON",
                "zone/left/cup/area=0.75",
                "class/dog/present=ON",
                "class/dog/count=1",
                "class/dog/area=0.25",
                "zone/left/dog/present=ON",
                "zone/left/dog/area=0.25",
            ]
        );
        // a segment of a class that the model does not name
        bench.frame(2 * SECOND, [0, 0, 1, 1, 0, 0, 2, 2], &[1, 77]);
        let told = bench.told();
        assert!(told.contains(&"zone/left/dog/present=OFF".to_owned()) && told.contains(&"class/cup/count=0".to_owned()), "{told:?}");
        assert!(!told.iter().any(|line| line.starts_with("class/dog/present")), "{told:?}");
    }

    #[test]
    fn presence_waits_and_does_not_flutter() {
        let mut bench = Bench::new("presence = { on_after = 1, off_after = 2 }", &["cup"]);
        let present = |bench: &mut Bench, seen: bool, ms: u64| {
            bench.frame(SECOND + ms * 1_000_000, [u16::from(seen); 8], &[0]);
            bench.told().into_iter().find_map(|line| line.strip_prefix("class/cup/present=").map(str::to_owned))
        };
        // a segment whose pixels are gone has a row of area 0 here: min_area 0 counts it, as the model does
        bench.tracker.presence.min_area = 0.01;
        assert_eq!(present(&mut bench, true, 0), None, "not known yet");
        assert_eq!(present(&mut bench, false, 900), None);
        assert_eq!(present(&mut bench, true, 1000), None, "interrupted: both begin anew");
        assert_eq!(present(&mut bench, true, 1999), None);
        assert_eq!(present(&mut bench, true, 2000).as_deref(), Some("ON"));
        assert_eq!(present(&mut bench, false, 2100), None);
        assert_eq!(present(&mut bench, true, 4000), None, "seen again");
        assert_eq!(present(&mut bench, false, 4100), None);
        assert_eq!(present(&mut bench, false, 6099), None);
        assert_eq!(present(&mut bench, false, 6100).as_deref(), Some("OFF"));
        // the daemon was away: the time in between counts for nothing
        assert_eq!(present(&mut bench, true, 7000), None);
        bench.tracker.interrupt();
        assert_eq!(present(&mut bench, true, 99_000), None);
        assert_eq!(present(&mut bench, true, 100_000).as_deref(), Some("ON"));
    }
}
