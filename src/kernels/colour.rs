//! YUV to RGB, one row at a time, in fixed point with 16 fractional bits after ITU-R BT.601-7, section 2.5.3.

use super::arch::per_isa;

/// What a row of chroma adds to red, green and blue, each sample twice: three rows one after the other.
#[inline(always)]
fn spread_chroma_body(u: &[u8], v: &[u8], offsets: &mut [i32]) {
    let width = 2 * u.len();
    let (red, others) = offsets.split_at_mut(width);
    let (green, blue) = others.split_at_mut(width);
    let targets = red.as_chunks_mut::<2>().0.iter_mut().zip(green.as_chunks_mut::<2>().0).zip(blue.as_chunks_mut::<2>().0);
    for (((red, green), blue), (u, v)) in targets.zip(u.iter().zip(v)) {
        let (u, v) = (i32::from(*u) - 128, i32::from(*v) - 128);
        *red = [104_597 * v; 2];
        *green = [-25_675 * u - 53_279 * v; 2];
        *blue = [132_201 * u; 2];
    }
}

per_isa! {
    /// What a row of chroma at half resolution adds to `[red, green, blue]`, of `2 * u.len()` values each.
    pub fn spread_chroma(u: &[u8], v: &[u8], offsets: &mut [i32]) = spread_chroma_body;
}

#[inline(always)]
fn levels_body(luma: &[u8], offsets: &[i32], levels: &mut [u8]) {
    for (level, (luma, offset)) in levels.iter_mut().zip(luma.iter().zip(offsets)) {
        let scaled = (i32::from(*luma) - 16) * 76_309 + 32_768; // 255 / 219, and half a level for rounding
        *level = ((scaled + offset) >> 16).clamp(0, 255) as u8;
    }
}

per_isa! {
    /// One channel of a row.
    pub fn levels(luma: &[u8], offsets: &[i32], levels: &mut [u8]) = levels_body;
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
