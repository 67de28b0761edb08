//! YUV to RGB, one row at a time, in fixed point with 16 fractional bits after ITU-R BT.601-7 (section 2.5.3) and BT.709-6 (3.3, 3.5).

use super::arch::per_isa;

/// One colour space and range: what a step of each sample adds to red, green and blue, in 65536ths of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YuvToRgb {
    /// Luma of black.
    pub black: i32,
    pub luma: i32,
    pub v_to_red: i32,
    pub u_to_green: i32,
    pub v_to_green: i32,
    pub u_to_blue: i32,
}

impl YuvToRgb {
    /// From the weights of red and blue in luma (`Kr`, `Kb` of the standards); `full_range` for samples of 0 to 255 instead of
    /// 16 to 235 (luma) and 240 (chroma).
    pub fn new(kr: f64, kb: f64, full_range: bool) -> YuvToRgb {
        let (luma, chroma) = if full_range { (1.0, 1.0) } else { (255.0 / 219.0, 255.0 / 224.0) };
        let kg = 1.0 - kr - kb;
        let fixed = |value: f64| (value * 65_536.0).round() as i32;
        YuvToRgb {
            black: if full_range { 0 } else { 16 },
            luma: fixed(luma),
            v_to_red: fixed(2.0 * (1.0 - kr) * chroma),
            u_to_green: fixed(-2.0 * kb * (1.0 - kb) / kg * chroma),
            v_to_green: fixed(-2.0 * kr * (1.0 - kr) / kg * chroma),
            u_to_blue: fixed(2.0 * (1.0 - kb) * chroma),
        }
    }
}

/// What a row of chroma adds to red, green and blue, each sample twice: three rows one after the other.
#[inline(always)]
fn spread_chroma_body(space: &YuvToRgb, u: &[u8], v: &[u8], offsets: &mut [i32]) {
    let space = *space;
    let width = 2 * u.len();
    let (red, others) = offsets.split_at_mut(width);
    let (green, blue) = others.split_at_mut(width);
    let targets = red.as_chunks_mut::<2>().0.iter_mut().zip(green.as_chunks_mut::<2>().0).zip(blue.as_chunks_mut::<2>().0);
    for (((red, green), blue), (u, v)) in targets.zip(u.iter().zip(v)) {
        let (u, v) = (i32::from(*u) - 128, i32::from(*v) - 128);
        *red = [space.v_to_red * v; 2];
        *green = [space.u_to_green * u + space.v_to_green * v; 2];
        *blue = [space.u_to_blue * u; 2];
    }
}

per_isa! {
    /// What a row of chroma at half resolution adds to `[red, green, blue]`, of `2 * u.len()` values each.
    pub fn spread_chroma(space: &YuvToRgb, u: &[u8], v: &[u8], offsets: &mut [i32]) = spread_chroma_body;
}

#[inline(always)]
fn levels_body(space: &YuvToRgb, luma: &[u8], offsets: &[i32], levels: &mut [u8]) {
    let space = *space;
    for (level, (luma, offset)) in levels.iter_mut().zip(luma.iter().zip(offsets)) {
        let scaled = (i32::from(*luma) - space.black) * space.luma + 32_768; // half a level for rounding
        *level = ((scaled + offset) >> 16).clamp(0, 255) as u8;
    }
}

per_isa! {
    /// One channel of a row.
    pub fn levels(space: &YuvToRgb, luma: &[u8], offsets: &[i32], levels: &mut [u8]) = levels_body;
}

#[inline(always)]
fn interleave_body(red: &[u8], green: &[u8], blue: &[u8], rgb: &mut [u8]) {
    for (pixel, ((red, green), blue)) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(red.iter().zip(green).zip(blue)) {
        *pixel = [*red, *green, *blue];
    }
}

per_isa! {
    /// Three rows become one of interleaved pixels.
    pub fn interleave(red: &[u8], green: &[u8], blue: &[u8], rgb: &mut [u8]) = interleave_body;
}

#[inline(always)]
fn split_pairs_body(pairs: &[u8], first: &mut [u8], second: &mut [u8]) {
    for ([a, b], (first, second)) in pairs.as_chunks::<2>().0.iter().zip(first.iter_mut().zip(second)) {
        (*first, *second) = (*a, *b);
    }
}

per_isa! {
    /// Alternating bytes become two rows.
    pub fn split_pairs(pairs: &[u8], first: &mut [u8], second: &mut [u8]) = split_pairs_body;
}

#[inline(always)]
fn swap_red_blue_body(pixels: &[u8], swapped: &mut [u8]) {
    for ([a, b, c], target) in pixels.as_chunks::<3>().0.iter().zip(swapped.as_chunks_mut::<3>().0) {
        *target = [*c, *b, *a];
    }
}

per_isa! {
    /// BGR to RGB, or back.
    pub fn swap_red_blue(pixels: &[u8], swapped: &mut [u8]) = swap_red_blue_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bt601_limited_has_the_published_constants() {
        // 65536 times the 1.164, 1.596, -0.392, -0.813 and 2.017 that textbooks round to
        let expected =
            YuvToRgb { black: 16, luma: 76_309, v_to_red: 104_597, u_to_green: -25_675, v_to_green: -53_279, u_to_blue: 132_201 };
        assert_eq!(YuvToRgb::new(0.299, 0.114, false), expected);
    }
}
