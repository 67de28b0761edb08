//! Discs on a table: crossing, hidden, gone and back, alike, cut.

use super::*;
use crate::data::{ClassLogits, Frame, Logits, Segment};

const WIDTH: u32 = 160;
const HEIGHT: u32 = 120;
const FLOOR: u16 = 3;
const CLASSES: usize = 4;
const STEP_NS: u64 = 66_000_000;

/// A disc, later ones in front.
#[derive(Clone, Copy)]
struct Disc {
    x: f32,
    y: f32,
    radius: f32,
    class: u16,
    colour: [u8; 3],
}

fn disc(x: f32, y: f32, class: u16, colour: [u8; 3]) -> Disc {
    Disc { x, y, radius: 14.0, class, colour }
}

const RED: [u8; 3] = [200, 40, 40];
const BLUE: [u8; 3] = [40, 60, 200];
const GREEN: [u8; 3] = [60, 190, 70];

struct Stage {
    tracker: Tracker,
    now_ns: u64,
}

impl Stage {
    fn new() -> Stage {
        Stage::with(TrackConfig::default(), TrackIds::default())
    }

    fn with(config: TrackConfig, ids: TrackIds) -> Stage {
        let stuff = vec![false, false, false, true];
        Stage { tracker: Tracker::new(TrackConfig { stuff, ..config }, ids), now_ns: 1_000_000_000 }
    }

    /// Shows discs on a floor, and returns the id of each, 0 for one that is hidden; the floor's id comes last.
    fn show(&mut self, discs: &[Disc]) -> Vec<u32> {
        self.now_ns += STEP_NS;
        self.show_at(self.now_ns, (WIDTH, HEIGHT), discs)
    }

    fn show_at(&mut self, now_ns: u64, (width, height): (u32, u32), discs: &[Disc]) -> Vec<u32> {
        let owner = |at: u32| {
            let (x, y) = ((at % width) as f32 + 0.5, (at / width) as f32 + 0.5);
            discs.iter().rposition(|disc| (x - disc.x).powi(2) + (y - disc.y).powi(2) < disc.radius.powi(2))
        };
        let owners: Vec<Option<usize>> = (0..width * height).map(owner).collect();
        let data = owners.iter().flat_map(|owner| owner.map_or([120, 120, 120], |disc| discs[disc].colour)).collect();
        let frame = Frame { captured_ns: now_ns, ..Frame::rgb(width, height, data) };
        // the floor is segment 1, what is hidden has no segment
        let pixels = |disc: Option<usize>| owners.iter().enumerate().filter(move |(_, owner)| **owner == disc).map(|(at, _)| at as u32);
        let (mut table, mut id_of, mut queries) = (Vec::new(), vec![0; discs.len() + 1], Vec::new());
        let mut class_logits =
            ClassLogits { queries: discs.len() + 1, classes: CLASSES + 1, values: vec![0.0; (discs.len() + 1) * (CLASSES + 1)] };
        for (number, disc) in [None].into_iter().chain((0..discs.len()).map(Some)).enumerate() {
            let class = disc.map_or(FLOOR, |disc| discs[disc].class);
            class_logits.values[number * (CLASSES + 1) + usize::from(class)] = 6.0;
            let (mut area, mut low, mut high) = (0, [u32::MAX; 2], [0; 2]);
            for at in pixels(disc) {
                let place = [at % width, at / width];
                area += 1;
                (low, high) = ([0, 1].map(|axis| low[axis].min(place[axis])), [0, 1].map(|axis| high[axis].max(place[axis] + 1)));
            }
            if area > 0 {
                let (id, bbox) = (table.len() as u16 + 1, [low[0], low[1], high[0] - low[0], high[1] - low[1]]);
                id_of[disc.map_or(discs.len(), |disc| disc)] = id;
                table.push(Segment { id, category_id: class, score: 0.9, area, bbox, track_id: 0 });
                queries.push(number as u16);
            }
        }
        let mut ids: Vec<u16> = owners.iter().map(|owner| id_of[owner.unwrap_or(discs.len())]).collect();
        let logits = Logits { class: class_logits, ..Logits::default() };
        self.tracker.update(SegmentedFrame { frame: &frame, logits: &logits, queries: &queries, ids: &mut ids, table: &mut table });
        let mut given: Vec<u32> = table.iter().map(|row| row.track_id).filter(|id| *id > 0).collect();
        given.sort_unstable();
        given.dedup();
        assert!(given.len() == table.iter().filter(|row| row.track_id > 0).count(), "two segments share an id: {table:?}");
        id_of.iter().map(|id| table.iter().find(|row| row.id == *id).map_or(0, |row| row.track_id)).collect()
    }
}

#[test]
fn ids_stay_while_things_move() {
    let mut stage = Stage::new();
    let first = stage.show(&[disc(30.0, 30.0, 0, RED), disc(100.0, 80.0, 1, BLUE)]);
    assert_eq!(first.iter().filter(|id| **id == 0).count(), 0, "an id from the first frame on");
    for t in 1..25 {
        let t = t as f32;
        assert_eq!(stage.show(&[disc(30.0 + 4.0 * t, 30.0 + t, 0, RED), disc(100.0 - 3.0 * t, 80.0, 1, BLUE)]), first, "frame {t}");
    }
}

#[test]
fn two_of_a_class_and_a_colour_keep_their_ids_as_they_pass_each_other() {
    let mut stage = Stage::new();
    let at = |t: f32| [disc(20.0 + 5.0 * t, 50.0, 0, RED), disc(140.0 - 5.0 * t, 72.0, 0, RED)];
    let first = stage.show(&at(0.0));
    for t in 1..25 {
        assert_eq!(stage.show(&at(t as f32)), first, "frame {t}");
    }
}

#[test]
fn a_thing_that_was_hidden_or_outside_gets_its_id_back() {
    let mut stage = Stage::new();
    let scene = |x: f32| [disc(x, 60.0, 0, RED), Disc { radius: 34.0, ..disc(80.0, 60.0, 1, BLUE) }];
    let first = stage.show(&scene(20.0));
    let mut hidden = 0;
    for t in 1..30 {
        let ids = stage.show(&scene(20.0 + 4.0 * t as f32));
        hidden += usize::from(ids[0] == 0);
        assert!(ids[0] == 0 || ids == first, "frame {t}: {ids:?} instead of {first:?}");
    }
    assert!(hidden >= 8, "it was hidden in {hidden} frames");
    // on beyond the border, and back after a second and a half
    for t in 0..12 {
        stage.show(&scene(140.0 + 4.0 * t as f32));
    }
    for _ in 0..20 {
        assert_eq!(stage.show(&[disc(300.0, 60.0, 0, RED), scene(0.0)[1]])[0], 0);
    }
    for t in 0..10 {
        let ids = stage.show(&scene(166.0 - 4.0 * t as f32));
        assert!(ids[0] == 0 || ids == first, "{ids:?} instead of {first:?}");
    }
}

#[test]
fn another_thing_at_the_same_place_is_another_thing() {
    let mut stage = Stage::new();
    let before = [disc(40.0, 60.0, 0, RED), disc(110.0, 60.0, 1, GREEN)];
    let old = (0..10).map(|_| stage.show(&before)).last().unwrap();
    // a cut: other colours, one class the same
    let new = stage.show(&[disc(40.0, 60.0, 0, BLUE), disc(110.0, 60.0, 2, RED)]);
    assert!(new[..2].iter().all(|id| !old.contains(id)), "{old:?} {new:?}");
    assert_eq!(new[2], old[2], "stuff has one id per class");
}

#[test]
fn memory_ends() {
    for (memory_s, pause, same) in [(5, 10, true), (5, 80, false), (1, 20, false), (0, 1, false)] {
        let mut stage = Stage::with(TrackConfig { memory_ns: memory_s * 1_000_000_000, ..TrackConfig::default() }, TrackIds::default());
        let scene = [disc(40.0, 60.0, 0, RED)];
        let old = (0..40).map(|_| stage.show(&scene)).last().unwrap();
        (0..pause).for_each(|_| drop(stage.show(&[])));
        assert_eq!(stage.show(&scene) == old, same, "{pause} frames with a memory of {memory_s} s");
    }
    // what was seen once is not remembered for long
    let mut stage = Stage::new();
    let old = stage.show(&[disc(40.0, 60.0, 0, RED)]);
    (0..10).for_each(|_| drop(stage.show(&[])));
    assert_ne!(stage.show(&[disc(40.0, 60.0, 0, RED)])[0], old[0]);
}

#[test]
fn another_scene_never_gets_an_old_id() {
    let scene = [disc(40.0, 60.0, 0, RED), disc(110.0, 60.0, 1, BLUE)];
    let mut stage = Stage::new();
    let mut seen = stage.show(&scene);
    let mut fresh = |ids: Vec<u32>, why: &str| {
        assert!(ids.iter().all(|id| *id > 0 && !seen.contains(id)), "{why}: {ids:?} after {seen:?}");
        seen.extend(ids);
    };
    stage.tracker.reset();
    fresh(stage.show(&scene), "reset");
    let now_ns = stage.now_ns;
    fresh(stage.show_at(now_ns - 1, (WIDTH, HEIGHT), &scene), "time goes back");
    fresh(stage.show_at(now_ns, (WIDTH, HEIGHT + 40), &scene), "another size");
    let ids = stage.show_at(now_ns, (WIDTH, HEIGHT + 40), &scene);
    assert_eq!(stage.show_at(now_ns, (WIDTH, HEIGHT + 40), &scene), ids, "the same time again");
    let later = stage.show_at(now_ns + 60_000_000_000, (WIDTH, HEIGHT + 40), &scene);
    assert!(later[..2].iter().all(|id| !ids.contains(id)), "a minute later: {later:?}");
    // another tracker that counts on
    let ids = TrackIds::default();
    let first = Stage::with(TrackConfig::default(), ids.clone()).show(&scene);
    let second = Stage::with(TrackConfig::default(), ids).show(&scene);
    assert!(second.iter().all(|id| !first.contains(id)));
}

#[test]
fn after_the_last_number_nothing_is_tracked() {
    let mut stage = Stage::with(TrackConfig::default(), TrackIds::after(u32::MAX - 2));
    let ids = stage.show(&[disc(40.0, 60.0, 0, RED), disc(110.0, 60.0, 1, BLUE)]);
    assert_eq!(ids, [u32::MAX, 0, u32::MAX - 1]);
    assert_eq!(stage.show(&[disc(42.0, 60.0, 0, RED), disc(112.0, 60.0, 1, BLUE)]), ids);
}

#[test]
fn memory_has_a_bound() {
    let mut stage = Stage::new();
    let mut state = 7u32;
    let mut next = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for _ in 0..120 {
        let discs: Vec<Disc> = (0..next(40))
            .map(|_| {
                let colour = [0; 3].map(|_: u8| next(256) as u8);
                Disc { radius: 2.0 + next(6) as f32, ..disc(next(WIDTH) as f32, next(HEIGHT) as f32, next(3) as u16, colour) }
            })
            .collect();
        stage.show(&discs);
        let tracker = &stage.tracker;
        assert!(tracker.tracks.len() <= TRACKS_MAX);
        assert_eq!(tracker.shares.len(), tracker.tracks.len() * CLASSES);
        assert!(tracker.grid.cells.iter().all(|place| usize::from(*place) <= tracker.tracks.len()));
    }
}

/// A network without classes in its logits, rows without queries, boxes and ids that fit nothing: no panic, an id each.
#[test]
fn odd_tables_do_no_harm() {
    let mut tracker = Tracker::new(TrackConfig::default(), TrackIds::default());
    let frame = Frame::rgb(3, 2, vec![7; 18]);
    let row = |id: u16, class: u16| Segment { id, category_id: class, score: f32::NAN, area: 0, bbox: [0; 4], track_id: 9 };
    for _ in 0..3 {
        let mut table = vec![row(40_000, 65_535), row(2, 0)];
        let (mut ids, queries) = (vec![2, 2, 0, 40_000, 65_535, 3], [9]);
        tracker.update(SegmentedFrame { frame: &frame, logits: &Logits::default(), queries: &queries, ids: &mut ids, table: &mut table });
        assert!(table.iter().all(|row| row.track_id > 0) && table[0].track_id != table[1].track_id);
        assert_eq!(ids, [2, 2, 0, 40_000, 65_535, 3], "the id map stays as it is");
    }
}

#[test]
fn a_cut_ends_tracks_and_a_lamp_does_not() {
    let floor = |level: u8| Disc { radius: 400.0, class: FLOOR, ..disc(0.0, 0.0, FLOOR, [level; 3]) };
    let wall = |level: u8| Disc { radius: 90.0, class: 2, ..disc(40.0, -30.0, 2, [level; 3]) };
    let lit = |colour: [u8; 3], gain: f32| colour.map(|level| (f32::from(level) * gain) as u8);
    let scene = |gain: f32| [disc(40.0, 90.0, 0, lit(RED, gain)), disc(110.0, 60.0, 1, lit(BLUE, gain))];
    for (after, same) in [([wall(120), floor(60)], true), ([floor(200), wall(30)], false)] {
        let mut stage = Stage::new();
        let show =
            |stage: &mut Stage, back: [Disc; 2], things: [Disc; 2]| stage.show(&[back[1], back[0], things[0], things[1]])[2..4].to_vec();
        let old = (0..10).map(|_| show(&mut stage, [wall(200), floor(100)], scene(1.0))).last().unwrap();
        // the lamp goes out: all is darker, at its place; the cut: two things of the same classes and colours elsewhere
        let things = if same { scene(0.8) } else { [disc(120.0, 100.0, 0, RED), disc(20.0, 30.0, 1, BLUE)] };
        let new = show(&mut stage, after, things);
        assert_eq!(new == old, same, "{old:?} {new:?}");
        assert!(same || new.iter().all(|id| !old.contains(id)), "{old:?} {new:?}");
    }
}
