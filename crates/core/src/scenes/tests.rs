//! What must hold for whole pictures.

use super::*;

struct Picture {
    rgb: Vec<u8>,
    ids: Vec<u16>,
    classes: Vec<(u16, u16)>,
}

fn shoot(scene: &mut Scene, t: f64) -> Picture {
    let pixels = scene.width * scene.height;
    let (mut rgb, mut ids) = (vec![7; 3 * pixels], vec![77; pixels]);
    let classes = scene.render(t, &mut rgb, &mut ids);
    Picture { rgb, ids, classes }
}

/// FNV-1a over pixels and ids.
fn fingerprint(rgb: &[u8], ids: &[u16]) -> u64 {
    let bytes = rgb.iter().copied().chain(ids.iter().flat_map(|id| id.to_le_bytes()));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The table must name exactly the ids that occur, in order, with classes that fit.
fn check_table(ids: &[u16], classes: &[(u16, u16)], context: &str) {
    let mut occurring = ids.to_vec();
    occurring.sort_unstable();
    occurring.dedup();
    occurring.retain(|&id| id != 0);
    assert_eq!(classes.iter().map(|&(id, _)| id).collect::<Vec<_>>(), occurring, "{context}");
    for &(id, class) in classes {
        let label = LABELS[usize::from(class)];
        let expected = [None, Some("floor"), Some("wall"), Some("sky")].get(usize::from(id)).copied().flatten();
        assert!(expected.map_or(class < 6, |name| name == label), "{context}: id {id} is a {label}");
    }
}

#[test]
fn the_same_scene_twice_is_the_same_whatever_was_drawn_between() {
    let (mut one, mut other) = (Scene::new(5, 96, 72), Scene::new(5, 96, 72));
    let first = shoot(&mut one, 1.25);
    shoot(&mut other, 9.0);
    let second = shoot(&mut other, 1.25);
    assert!(first.rgb == second.rgb && first.ids == second.ids && first.classes == second.classes);
    assert_eq!(sample(3, 8, 64), sample(3, 8, 64));
}

/// The same on x86_64 and aarch64. A deliberate change of the look changes these numbers; nothing else may.
#[test]
fn pixels_are_the_recorded_ones() {
    let frame = shoot(&mut Scene::new(1, 128, 96), 2.5);
    let stills = (0..8).fold(0, |hash: u64, index| {
        let picture = sample(1, index, 64);
        hash.rotate_left(7) ^ fingerprint(&picture.rgb, &picture.ids)
    });
    assert_eq!([fingerprint(&frame.rgb, &frame.ids), stills], [17491416480387397225, 7721234592646511741]);
}

#[test]
fn seeds_indices_and_times_differ() {
    let picture = |seed, t| shoot(&mut Scene::new(seed, 64, 48), t).rgb;
    assert_ne!(picture(1, 0.0), picture(2, 0.0));
    assert_ne!(picture(1, 0.0), picture(1, 0.1));
    assert_ne!(sample(1, 0, 48), sample(1, 1, 48));
    assert_ne!(sample(1, 0, 48), sample(2, 0, 48));
    assert_ne!(sample(0, 1, 48), sample(1, 0, 48));
}

#[test]
fn tables_match_pictures() {
    for seed in 0..12 {
        let mut scene = Scene::new(seed, 80, 60);
        assert!((5..=7).contains(&scene.objects.len()));
        for frame in 0..10 {
            let picture = shoot(&mut scene, f64::from(frame) * 0.7);
            check_table(&picture.ids, &picture.classes, &format!("seed {seed}, frame {frame}"));
        }
    }
    for index in 0..60 {
        let picture = sample(4, index, 72);
        check_table(&picture.ids, &picture.classes, &format!("sample {index}"));
        for &(id, _) in &picture.classes {
            assert!(picture.ids.iter().filter(|&&other| other == id).count() >= 16, "sample {index}: crumbs of {id}");
        }
    }
}

#[test]
fn an_id_keeps_its_class_and_follows_its_object() {
    for seed in 0..6 {
        let mut scene = Scene::new(seed, 120, 90);
        let mut known = std::collections::HashMap::new();
        let mut seen = 0;
        for frame in 0..40 {
            let picture = shoot(&mut scene, f64::from(frame) / 15.0);
            for &(id, class) in &picture.classes {
                assert_eq!(*known.entry(id).or_insert(class), class, "seed {seed}, id {id}");
            }
            // The object in front is hidden by nobody: where its middle is, its id is (a ring has nothing there).
            let front = scene.objects.len() - 1;
            let ([x, y], class) = (scene.objects[front].centre(), scene.objects[front].class);
            if class != Form::Ring.class() && (0.0..119.0).contains(&x) && (0.0..89.0).contains(&y) {
                assert_eq!(usize::from(picture.ids[y as usize * 120 + x as usize]), front + 4, "seed {seed}, frame {frame}");
                seen += 1;
            }
        }
        assert!(seen > 0 || scene.objects.last().map(|object| object.class) == Some(Form::Ring.class()), "seed {seed}");
    }
}

/// Dyes one object at a time: the picture must change on its pixels, and nowhere but on them and their border.
#[test]
fn ids_are_where_the_colour_is() {
    let (width, height) = (97, 71);
    for seed in 0..8 {
        let build = || {
            let mut scene = Scene::new(seed, width as u32, height);
            scene.grain.silence();
            scene.objects.iter_mut().for_each(Object::without_shadow);
            scene
        };
        let t = 1.7;
        let before = shoot(&mut build(), t);
        for object in 0..build().objects.len() {
            let mut scene = build();
            scene.objects[object].dye([0, 255, 0]);
            let after = shoot(&mut scene, t);
            assert_eq!(after.ids, before.ids, "colour does not change ids");
            let id = FIRST_OBJECT + object as u16;
            let mut strays = 0;
            for (i, &owner) in before.ids.iter().enumerate() {
                let changed = before.rgb[3 * i..3 * i + 3] != after.rgb[3 * i..3 * i + 3];
                assert!(owner != id || changed, "seed {seed}: pixel {i} is not drawn by {id}");
                strays += i32::from(changed && !touches(&before.ids, width, i, id));
            }
            // What shows of a tip or a sliver may be thinner than a pixel, and only a quarter of a pixel gives it its id.
            assert!(strays <= 4, "seed {seed}: {id} drew on {strays} pixels far from its ids");
        }
    }
}

/// Whether pixel `i` or one of its eight neighbours has the id.
fn touches(ids: &[u16], width: usize, i: usize, id: u16) -> bool {
    (0..9).any(|k| {
        let (x, y) = ((i % width + k % 3).wrapping_sub(1), (i / width + k / 3).wrapping_sub(1));
        x < width && y < ids.len() / width && ids[y * width + x] == id
    })
}

#[test]
fn a_ball_has_the_area_of_a_ball() {
    let rng = &mut Rng::new(1, 99);
    let mut scene = Scene::new(1, 200, 150);
    let outline = Outline::new(Form::Ball, 60.0, 1.0);
    scene.objects = vec![Object::new(rng, 400, Form::Ball, 60.0, outline, Path::resting([210.3, 140.7]))];
    let picture = shoot(&mut scene, 0.0);
    let area = picture.ids.iter().filter(|&&id| id == FIRST_OBJECT).count() as f64;
    // 60 doubled pixels are 30 of the picture.
    assert!((area / (std::f64::consts::PI * 900.0) - 1.0).abs() < 0.02, "{area} pixels");
}

#[test]
fn what_moves_changes_the_picture_and_what_stands_does_not() {
    let mut scene = Scene::new(2, 160, 120);
    scene.grain.silence();
    scene.objects.iter_mut().for_each(Object::without_shadow);
    let (first, second) = (shoot(&mut scene, 0.0), shoot(&mut scene, 0.4));
    let (mut still, mut changed_still, mut revealed, mut changed_revealed) = (0, 0, 0, 0);
    for (i, (a, b)) in first.ids.iter().zip(&second.ids).enumerate() {
        // Away from objects in both frames: pixels on a border are mixed.
        let bare = |ids: &[u16]| (0..7).all(|object| !touches(ids, 160, i, FIRST_OBJECT + object));
        let changed = first.rgb[3 * i..3 * i + 3] != second.rgb[3 * i..3 * i + 3];
        if bare(&first.ids) && bare(&second.ids) {
            still += 1;
            changed_still += i32::from(changed);
        } else if a != b {
            revealed += 1;
            changed_revealed += i32::from(changed);
        }
    }
    assert!(still > 2000 && changed_still == 0, "{changed_still} of {still} pixels changed behind nothing");
    assert!(revealed > 100 && changed_revealed * 100 > revealed * 98, "{changed_revealed} of {revealed} pixels changed");
}

#[test]
fn odd_and_tiny_sizes_are_drawn() {
    for (width, height) in [(1, 1), (7, 5), (1, 400), (400, 1), (2, 3), (33, 17)] {
        for seed in 0..4 {
            let mut scene = Scene::new(seed, width, height);
            for t in [0.0, 3.3, -5.0, 1e12, 1e300] {
                let picture = shoot(&mut scene, t);
                check_table(&picture.ids, &picture.classes, &format!("{width}x{height} at {t} s"));
            }
        }
    }
    for size in 1..20 {
        let picture = sample(0, u64::from(size), size);
        check_table(&picture.ids, &picture.classes, &format!("sample of {size}"));
    }
    assert!(sample(0, 0, 1).classes.is_empty(), "one pixel is less than a segment");
}

#[test]
fn stills_vary_as_promised() {
    let (mut skies, mut counts, mut classes) = (0, [0; 8], [0; 9]);
    for index in 0..200 {
        let picture = sample(11, index, 64);
        skies += i32::from(picture.classes.iter().any(|&(id, _)| id == SKY));
        counts[picture.classes.iter().filter(|&&(id, _)| id >= FIRST_OBJECT).count()] += 1;
        picture.classes.iter().for_each(|&(_, class)| classes[usize::from(class)] += 1);
    }
    assert!((90..150).contains(&skies), "{skies} of 200 have a sky");
    assert!(counts[1..].iter().all(|&count| count > 0), "objects per picture: {counts:?}");
    assert!(classes[..6].iter().all(|&count| count > 60), "pictures or objects per class: {classes:?}");
}
