//! Changed areas: replayed, they give the picture; what has not changed is not sent.

use super::super::changes::{Grid, Shown};
use super::Numbers;

#[test]
fn replayed_areas_give_the_picture_and_nothing_else_is_sent() {
    let mut numbers = Numbers(3);
    for (width, height, cell, tile) in
        [(240, 240, 2, (16, 16)), (101, 37, 3, (16, 16)), (128, 8, 1, (8, 1)), (7, 5, 4, (16, 16)), (1, 1, 2, (1, 1))]
    {
        let grid = Grid { width, height, cell, tile };
        let mut shown = Shown::new(grid);
        let (mut picture, mut panel) = (numbers.bytes(grid.bytes()), vec![0; grid.bytes()]);
        for round in 0..60 {
            let before = panel.clone();
            let mut sent = vec![0u32; width * height];
            for area in shown.update(&picture) {
                assert!(area.width > 0 && area.x + area.width <= width && area.height > 0 && area.y + area.height <= height, "{area:?}");
                for y in 0..area.height {
                    let at = (area.y + y) * width + area.x;
                    panel[at * cell..(at + area.width) * cell].copy_from_slice(grid.row(&picture, *area, y));
                    sent[at..at + area.width].iter_mut().for_each(|count| *count += 1);
                }
            }
            assert_eq!(panel, picture, "round {round}");
            // tile by tile, naively: sent once where something differs, else not at all
            for (top, left) in (0..height).step_by(tile.1).flat_map(|y| (0..width).step_by(tile.0).map(move |x| (y, x))) {
                let inside: Vec<usize> = (top..(top + tile.1).min(height))
                    .flat_map(|y| (left..(left + tile.0).min(width)).map(move |x| y * width + x))
                    .collect();
                let differs = inside.iter().any(|at| before[at * cell..(at + 1) * cell] != picture[at * cell..(at + 1) * cell]);
                let expected = u32::from(differs || round == 0);
                assert!(inside.iter().all(|at| sent[*at] == expected), "round {round}, tile at {left}, {top}");
            }
            for _ in 0..numbers.below(6) {
                let at = numbers.below(picture.len());
                picture[at] = picture[at].wrapping_add(1);
            }
        }
        shown.forget();
        assert_eq!(shown.update(&picture).len(), 1);
    }
}

#[test]
fn a_solid_change_is_one_area() {
    let grid = Grid { width: 64, height: 64, cell: 1, tile: (16, 16) };
    let mut shown = Shown::new(grid);
    let mut picture = vec![0; 4096];
    shown.update(&picture);
    for y in 20..50 {
        picture[y * 64 + 18..y * 64 + 46].fill(9);
    }
    let areas = shown.update(&picture);
    assert_eq!(areas.len(), 1);
    assert_eq!((areas[0].x, areas[0].y, areas[0].width, areas[0].height), (16, 16, 32, 48));
}
