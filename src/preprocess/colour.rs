//! YUV to RGB.

/// Planar 4:2:0 to interleaved RGB: BT.601, limited range (16..235 luma), chroma of the 2x2 block a pixel lies in.
///
/// Fixed point with 16 fractional bits after ITU-R BT.601-7, section 2.5.3; every result is within one level of the formula.
pub fn yuv420_to_rgb(data: &[u8], width: usize, height: usize, rgb: &mut Vec<u8>) {
    let chroma_width = width.div_ceil(2);
    let (luma, chroma) = data.split_at(width * height);
    let (u_plane, v_plane) = chroma.split_at(chroma_width * height.div_ceil(2));
    rgb.resize(width * height * 3, 0);
    for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
        let luma = &luma[y * width..][..width];
        let (u_row, v_row) = (&u_plane[y / 2 * chroma_width..], &v_plane[y / 2 * chroma_width..]);
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let c = (i32::from(luma[x]) - 16) * 76_309 + 32_768; // 255 / 219, and half a level for rounding
            let (u, v) = (i32::from(u_row[x / 2]) - 128, i32::from(v_row[x / 2]) - 128);
            let level = |value: i32| (value >> 16).clamp(0, 255) as u8;
            pixel[0] = level(c + 104_597 * v);
            pixel[1] = level(c - 25_675 * u - 53_279 * v);
            pixel[2] = level(c + 132_201 * u);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula_within_a_level() {
        for (y, u, v) in [(16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110), (0, 0, 255), (200, 3, 77)] {
            let mut rgb = Vec::new();
            yuv420_to_rgb(&[y, u, v], 1, 1, &mut rgb);
            let (y, u, v) = (f64::from(y) - 16.0, f64::from(u) - 128.0, f64::from(v) - 128.0);
            // Kr = 0.299, Kb = 0.114; chroma spans 224 levels
            let (l, scale) = (y * 255.0 / 219.0, 255.0 / 224.0);
            let r = l + 2.0 * (1.0 - 0.299) * v * scale;
            let b = l + 2.0 * (1.0 - 0.114) * u * scale;
            let g = l - (0.114 * 2.0 * (1.0 - 0.114) * u + 0.299 * 2.0 * (1.0 - 0.299) * v) * scale / 0.587;
            for (ours, truth) in rgb.iter().zip([r, g, b]) {
                assert!((f64::from(*ours) - truth.clamp(0.0, 255.0)).abs() <= 1.0, "{rgb:?} against {r} {g} {b}");
            }
        }
    }

    #[test]
    fn odd_sizes_use_the_right_chroma() {
        // 3x3: chroma is 2x2; the last column and row have their own sample
        let mut data = vec![128u8; 9];
        data.extend([128, 128, 128, 255]); // U: only the lower right block is blue
        data.extend([128; 4]);
        let mut rgb = Vec::new();
        yuv420_to_rgb(&data, 3, 3, &mut rgb);
        let blue: Vec<u8> = rgb.chunks(3).map(|p| p[2]).collect();
        assert!(blue[8] > 250 && blue[..8].iter().all(|&b| b == blue[0]), "{blue:?}");
    }
}
