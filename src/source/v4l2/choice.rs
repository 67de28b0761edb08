//! Which of a camera's formats to take: the cheapest that gives the wanted size and rate.

use eomt_edge_core::data::PixelFormat;

use super::sys::{Rates, Sizes};
use crate::source::FormatRequest;

/// A format, size and rate that a camera offers.
#[derive(Debug, Clone, PartialEq)]
pub struct FormatCandidate {
    pub fourcc: [u8; 4],
    pub format: PixelFormat,
    pub width: u32,
    pub height: u32,
    /// The rate nearest to the request; `None` when the driver does not say.
    pub fps: Option<f64>,
}

/// Formats by the cost of turning a frame into a tensor, the cheapest first: `benches/processing.rs`, lines "preprocess 320"; formats
/// that differ in the order of their bytes stand together. RGB of 16 bits has few colours, so it comes before JPEG only; grey has none
/// and is last unless nothing else is there.
const BY_COST: [PixelFormat; 21] = [
    PixelFormat::Rgb24,
    PixelFormat::Bgr24,
    PixelFormat::Rgbx,
    PixelFormat::Xrgb,
    PixelFormat::Bgrx,
    PixelFormat::Xbgr,
    PixelFormat::Yuv420,
    PixelFormat::Nv12,
    PixelFormat::Nv21,
    PixelFormat::Nv16,
    PixelFormat::Nv61,
    PixelFormat::Yuyv,
    PixelFormat::Uyvy,
    PixelFormat::Yvyu,
    PixelFormat::Vyuy,
    PixelFormat::Nv24,
    PixelFormat::Nv42,
    PixelFormat::Rgb565,
    PixelFormat::Mjpg,
    PixelFormat::Grey,
    PixelFormat::Grey16,
];

/// A rate this much below the request is as good: 29.97 for 30.
const RATE_TOLERANCE: f64 = 0.95;

/// The candidate that suits best. In this order: the format that is forced; the size, or else the smallest larger one, or else the
/// largest; the rate, or else the fastest; the lowest cost.
pub fn choose<'a>(candidates: &'a [FormatCandidate], request: &FormatRequest) -> Option<&'a FormatCandidate> {
    let wanted = |candidate: &&FormatCandidate| request.format.is_none_or(|format| candidate.format == format);
    // grey only when asked for, or alone
    let any = request.format.is_some() || candidates.iter().all(|candidate| candidate.format.is_grey());
    let usable = |candidate: &&FormatCandidate| wanted(candidate) && (any || !candidate.format.is_grey());
    let pixels = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let rank = |candidate: &FormatCandidate| {
        let size = (candidate.width, candidate.height);
        let covers = size.0 >= request.size.0 && size.1 >= request.size.1;
        let distance = pixels(size).abs_diff(pixels(request.size));
        let size_rank = (u8::from(size != request.size), u8::from(!covers), distance);
        let fps = candidate.fps.unwrap_or(request.fps);
        // a thousandth of a frame a second is the resolution of the request
        let missing = if fps >= request.fps * RATE_TOLERANCE { 0 } else { ((request.fps - fps) * 1000.0) as u64 };
        let cost = BY_COST.iter().position(|format| *format == candidate.format);
        (size_rank, missing, cost)
    };
    candidates.iter().filter(usable).min_by_key(|candidate| rank(candidate))
}

/// The sizes of a driver's list; of a range, the one nearest to the request.
pub fn sizes_for(sizes: &[Sizes], request: (u32, u32)) -> Vec<(u32, u32)> {
    let nearest = |request: u32, min: u32, max: u32, step: u32| {
        let steps = request.clamp(min, max.max(min)).saturating_sub(min).div_ceil(step);
        // rounded up, unless that leaves the range
        let up = min.saturating_add(steps.saturating_mul(step));
        if up <= max { up } else { up.saturating_sub(step).max(min) }
    };
    let found = sizes.iter().map(|sizes| match *sizes {
        Sizes::Discrete { width, height } => (width, height),
        Sizes::Stepwise { min, max, step } => {
            (nearest(request.0, min.0, max.0, step.0.max(1)), nearest(request.1, min.1, max.1, step.1.max(1)))
        }
    });
    found.collect()
}

/// The rate nearest to the request: the slowest that reaches it, or else the fastest. `None` when the driver lists none.
pub fn rate_for(rates: &[Rates], request: f64) -> Option<f64> {
    let offered = rates.iter().map(|rates| match *rates {
        Rates::Discrete(rate) => rate,
        Rates::Range { slowest, fastest } => request.min(fastest).max(slowest),
    });
    let reaches = |rate: &f64| *rate >= request * RATE_TOLERANCE;
    let (enough, less): (Vec<f64>, Vec<f64>) = offered.partition(reaches);
    enough.into_iter().min_by(f64::total_cmp).or_else(|| less.into_iter().max_by(f64::total_cmp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(format: PixelFormat, (width, height): (u32, u32), fps: f64) -> FormatCandidate {
        FormatCandidate { fourcc: *b"TEST", format, width, height, fps: (fps > 0.0).then_some(fps) }
    }

    /// What a common USB 2 camera lists.
    fn webcam() -> Vec<FormatCandidate> {
        let mut candidates = Vec::new();
        for (size, yuyv, mjpg) in [((320, 240), 30.0, 30.0), ((640, 480), 30.0, 30.0), ((1280, 720), 10.0, 30.0), ((1920, 1080), 5.0, 30.0)]
        {
            candidates.extend([candidate(PixelFormat::Mjpg, size, mjpg), candidate(PixelFormat::Yuyv, size, yuyv)]);
        }
        candidates.push(candidate(PixelFormat::Grey, (640, 480), 60.0));
        candidates
    }

    #[test]
    fn the_cheapest_that_gives_size_and_rate_is_chosen() {
        let pick = |size, fps, format| {
            let candidates = webcam();
            choose(&candidates, &FormatRequest { size, fps, format }).map(|candidate| (candidate.format, candidate.width, candidate.fps))
        };
        assert_eq!(pick((640, 480), 30.0, None), Some((PixelFormat::Yuyv, 640, Some(30.0))));
        assert_eq!(pick((1280, 720), 30.0, None), Some((PixelFormat::Mjpg, 1280, Some(30.0))));
        assert_eq!(pick((1280, 720), 10.0, None), Some((PixelFormat::Yuyv, 1280, Some(10.0))));
        assert_eq!(pick((1280, 720), 0.0, None), Some((PixelFormat::Yuyv, 1280, Some(10.0))));
        assert_eq!(pick((800, 600), 10.0, None), Some((PixelFormat::Yuyv, 1280, Some(10.0))), "the next larger one");
        assert_eq!(pick((4000, 3000), 10.0, None), Some((PixelFormat::Mjpg, 1920, Some(30.0))), "the largest");
        assert_eq!(pick((640, 480), 30.0, Some(PixelFormat::Mjpg)), Some((PixelFormat::Mjpg, 640, Some(30.0))));
        assert_eq!(pick((640, 480), 30.0, Some(PixelFormat::Grey)), Some((PixelFormat::Grey, 640, Some(60.0))));
        assert_eq!(pick((640, 480), 60.0, None), Some((PixelFormat::Yuyv, 640, Some(30.0))), "colour before speed");
        assert_eq!(pick((640, 480), 30.0, Some(PixelFormat::Nv12)), None);
        let grey = [candidate(PixelFormat::Grey, (752, 480), 0.0)];
        assert!(choose(&grey, &FormatRequest { size: (640, 480), fps: 30.0, format: None }).is_some(), "alone it will do");
    }

    #[test]
    fn ranges_are_met_on_their_steps() {
        let range = |min, max, step| [Sizes::Stepwise { min, max, step }];
        assert_eq!(sizes_for(&range((32, 32), (3840, 2160), (2, 2)), (641, 479)), [(642, 480)]);
        assert_eq!(sizes_for(&range((32, 32), (640, 480), (16, 16)), (2000, 2000)), [(640, 480)]);
        assert_eq!(sizes_for(&range((100, 100), (105, 105), (10, 10)), (104, 90)), [(100, 100)]);
        assert_eq!(sizes_for(&range((1, 1), (u32::MAX, u32::MAX), (1, 1)), (640, 480)), [(640, 480)]);
        assert_eq!(rate_for(&[Rates::Range { slowest: 1.0, fastest: 60.0 }], 30.0), Some(30.0));
        assert_eq!(rate_for(&[Rates::Range { slowest: 1.0, fastest: 20.0 }], 30.0), Some(20.0));
        assert_eq!(rate_for(&[Rates::Discrete(29.97), Rates::Discrete(15.0), Rates::Discrete(60.0)], 30.0), Some(29.97));
        assert_eq!(rate_for(&[], 30.0), None);
    }
}
