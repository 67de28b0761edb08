//! YUV to RGB, one row at a time, in fixed point with 16 fractional bits after ITU-R BT.601-7 (section 2.5.3) and BT.709-6 (3.3, 3.5).

use super::arch::per_isa;

/// One colour space and range: how much a step of each sample adds to red, green and blue, in 65536ths of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YuvToRgb {
    /// Luma of black.
    pub black: i32,
    /// Y to all three.
    pub luma: i32,
    /// V (Cr) to red.
    pub v_to_red: i32,
    /// U (Cb) to green.
    pub u_to_green: i32,
    /// V (Cr) to green.
    pub v_to_green: i32,
    /// U (Cb) to blue.
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

/// The share of a row of chroma in red, green and blue, each sample twice: three rows one after the other.
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
    /// The share of a row of chroma at half resolution in `[red, green, blue]`: `2 * u.len()` values each, in 65536ths of a level.
    pub fn spread_chroma(space: &YuvToRgb, u: &[u8], v: &[u8], offsets: &mut [i32]) = spread_chroma_body;
}

/// As [`spread_chroma_body`], for one sample a pixel.
#[inline(always)]
fn full_chroma_body(space: &YuvToRgb, u: &[u8], v: &[u8], offsets: &mut [i32]) {
    let space = *space;
    let (red, others) = offsets.split_at_mut(u.len());
    let (green, blue) = others.split_at_mut(u.len());
    for (((red, green), blue), (u, v)) in red.iter_mut().zip(green).zip(blue).zip(u.iter().zip(v)) {
        let (u, v) = (i32::from(*u) - 128, i32::from(*v) - 128);
        *red = space.v_to_red * v;
        *green = space.u_to_green * u + space.v_to_green * v;
        *blue = space.u_to_blue * u;
    }
}

per_isa! {
    /// The share of a row of chroma at full resolution in `[red, green, blue]`: `u.len()` values each, in 65536ths of a level.
    pub fn full_chroma(space: &YuvToRgb, u: &[u8], v: &[u8], offsets: &mut [i32]) = full_chroma_body;
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
    /// One channel of a row: luma plus that channel's `offsets`, as 8-bit levels.
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

/// Bytes `R`, `G` and `B` of four.
#[inline(always)]
fn three_of_four_body<const R: usize, const G: usize, const B: usize>(pixels: &[u8], rgb: &mut [u8]) {
    for (pixel, target) in pixels.as_chunks::<4>().0.iter().zip(rgb.as_chunks_mut::<3>().0) {
        *target = [pixel[R], pixel[G], pixel[B]];
    }
}

per_isa! {
    /// Pixels of R, G, B and a byte without meaning to RGB.
    pub fn rgbx_to_rgb(pixels: &[u8], rgb: &mut [u8]) = three_of_four_body::<0, 1, 2>;
}

per_isa! {
    /// Pixels of a byte without meaning, R, G and B to RGB.
    pub fn xrgb_to_rgb(pixels: &[u8], rgb: &mut [u8]) = three_of_four_body::<1, 2, 3>;
}

per_isa! {
    /// Pixels of B, G, R and a byte without meaning to RGB.
    pub fn bgrx_to_rgb(pixels: &[u8], rgb: &mut [u8]) = three_of_four_body::<2, 1, 0>;
}

per_isa! {
    /// Pixels of a byte without meaning, B, G and R to RGB.
    pub fn xbgr_to_rgb(pixels: &[u8], rgb: &mut [u8]) = three_of_four_body::<3, 2, 1>;
}

#[inline(always)]
fn rgb565_to_rgb_body(pixels: &[u8], rgb: &mut [u8]) {
    for (pixel, target) in pixels.as_chunks::<2>().0.iter().zip(rgb.as_chunks_mut::<3>().0) {
        let bits = u32::from(u16::from_le_bytes(*pixel));
        // 31 and 63 steps to 255, rounded: the same as dividing, checked below for every level
        let five = |level: u32| ((level * 527 + 23) >> 6) as u8;
        let six = |level: u32| ((level * 259 + 33) >> 6) as u8;
        *target = [five(bits >> 11), six(bits >> 5 & 63), five(bits & 31)];
    }
}

per_isa! {
    /// 16-bit pixels, little-endian, of 5 bits of red, 6 of green and 5 of blue to RGB.
    pub fn rgb565_to_rgb(pixels: &[u8], rgb: &mut [u8]) = rgb565_to_rgb_body;
}

#[inline(always)]
fn narrow_levels_body(wide: &[u8], levels: &mut [u8]) {
    for (wide, level) in wide.as_chunks::<2>().0.iter().zip(levels) {
        // 65535 steps to 255, rounded: the same as (v + 128) / 257, checked below for every level
        *level = ((u32::from(u16::from_le_bytes(*wide)) * 255 + 32_895) >> 16) as u8;
    }
}

per_isa! {
    /// 16-bit levels, little-endian, to 8 bits.
    pub fn narrow_levels(wide: &[u8], levels: &mut [u8]) = narrow_levels_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;

    #[test]
    fn bt601_limited_has_the_published_constants() {
        // 65536 times the 1.164, 1.596, -0.392, -0.813 and 2.017 that textbooks round to
        let expected =
            YuvToRgb { black: 16, luma: 76_309, v_to_red: 104_597, u_to_green: -25_675, v_to_green: -53_279, u_to_blue: 132_201 };
        assert_eq!(YuvToRgb::new(0.299, 0.114, false), expected);
    }

    #[test]
    fn levels_of_few_and_of_many_bits_are_scaled_and_rounded() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let (levels, rgb) = suite::everywhere("levels", |isa| {
            let (mut levels, mut rgb) = (vec![0; 65_536], vec![0; 3 * 65_536]);
            narrow_levels(isa, &all, &mut levels);
            rgb565_to_rgb(isa, &all, &mut rgb);
            (levels, rgb)
        });
        let scaled = |value: usize, max: f64| (value as f64 * 255.0 / max).round() as u8;
        for value in 0..65_536 {
            assert_eq!(levels[value], scaled(value, 65_535.0), "{value}");
            let expected = [scaled(value >> 11, 31.0), scaled(value >> 5 & 63, 63.0), scaled(value & 31, 31.0)];
            assert_eq!(rgb[3 * value..][..3], expected, "{value:#06x}");
        }
    }
}
