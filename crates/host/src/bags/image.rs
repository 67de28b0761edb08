//! sensor_msgs/Image and CompressedImage to frames.
//!
//! Encodings are those of sensor_msgs/image_encodings.hpp. YUV samples are taken for BT.601 with limited range, as ROS's own nodes do.
//! A picture of 16 bits becomes one of 8, rounded. What cv_bridge refuses is refused too: rows that are closer than their pixels need,
//! data of another length than rows and step make.

use eomt_edge_core::data::{Frame, PixelFormat, RawLayout, Stride};
use eomt_edge_core::preprocess::Bayer;
use eomt_edge_ros::messages::sensor_msgs::Image;

use crate::pictures;

/// The longest row that is believed, bytes: `source.stride` has the same.
const STEP_MAX: u32 = 1 << 20;

/// What an encoding is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Encoding {
    /// Of a mosaic: the format of its samples.
    format: PixelFormat,
    mosaic: Option<Bayer>,
}

/// Every encoding that is read.
const ENCODINGS: [(&str, PixelFormat); 14] = [
    ("rgb8", PixelFormat::Rgb24),
    ("bgr8", PixelFormat::Bgr24),
    ("rgba8", PixelFormat::Rgbx),
    ("bgra8", PixelFormat::Bgrx),
    ("mono8", PixelFormat::Grey),
    ("mono16", PixelFormat::Grey16),
    ("yuv422_yuy2", PixelFormat::Yuyv),
    ("yuyv", PixelFormat::Yuyv),
    ("yuv422", PixelFormat::Uyvy),
    ("uyvy", PixelFormat::Uyvy),
    ("nv12", PixelFormat::Nv12),
    ("nv21", PixelFormat::Nv21),
    ("nv16", PixelFormat::Nv16),
    ("nv24", PixelFormat::Nv24),
];

const MOSAICS: [(&str, Bayer); 4] =
    [("bayer_rggb", Bayer::Rggb), ("bayer_bggr", Bayer::Bggr), ("bayer_gbrg", Bayer::Gbrg), ("bayer_grbg", Bayer::Grbg)];

fn encoding(name: &str) -> Option<Encoding> {
    let plain = ENCODINGS.iter().find(|(known, _)| *known == name).map(|(_, format)| Encoding { format: *format, mosaic: None });
    plain.or_else(|| {
        let (_, mosaic, bits) = MOSAICS.iter().find_map(|(known, mosaic)| Some((known, *mosaic, name.strip_prefix(known)?)))?;
        let format = match bits {
            "8" => PixelFormat::Grey,
            "16" => PixelFormat::Grey16,
            _ => return None,
        };
        Some(Encoding { format, mosaic: Some(mosaic) })
    })
}

/// A raw picture.
pub(super) fn raw(image: &Image, max_pixels: u64) -> Result<Frame, String> {
    let Image { width, height, step, encoding: name, .. } = image;
    let (width, height, step) = (*width, *height, *step);
    let Some(Encoding { format, mosaic }) = encoding(name) else {
        let known: Vec<&str> = ENCODINGS.iter().map(|(name, _)| *name).collect();
        return Err(format!("its encoding is '{name}'; read are {}, bayer_*8 and bayer_*16", known.join(", ")));
    };
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(format!("it says that it has {width}x{height} pixels"));
    }
    if pixels > max_pixels {
        return Err(format!("{width}x{height} pixels are more than the {max_pixels} allowed"));
    }
    if mosaic.is_some() && width.min(height) < 2 {
        return Err(format!("a mosaic of {width}x{height} pixels has not all colours"));
    }
    let layout = RawLayout::new(format, (width, height), Stride::Bytes(step)).ok().filter(|_| step <= STEP_MAX);
    let Some(layout) = layout else {
        return Err(format!("its rows are {step} bytes apart, which {width} pixels of {name} do not fit"));
    };
    if image.data.len() != layout.len() {
        let (found, right) = (image.data.len(), layout.len());
        return Err(format!("it has {found} bytes of pixels, and {height} rows of {name}, {step} bytes apart, have {right}"));
    }
    let mut data = Vec::new();
    layout.tighten(&image.data, &mut data);
    if format == PixelFormat::Grey16 && image.is_bigendian != 0 {
        data.as_chunks_mut::<2>().0.iter_mut().for_each(|level| level.reverse());
    }
    let (format, data) = match mosaic {
        None => (format, data),
        Some(mosaic) => (PixelFormat::Rgb24, demosaic(mosaic, format, &data, width)),
    };
    Ok(frame(width, height, format, data))
}

/// A picture in a file: JPEG stays as it is, for the frame's decoder; PNG is decoded.
pub(super) fn compressed(bytes: Vec<u8>, form: &str, max_pixels: u64) -> Result<Frame, String> {
    if form.contains("compressedDepth") {
        return Err(format!("its format is '{form}': distances, and no picture"));
    }
    let too_large = |(width, height): (u32, u32)| u64::from(width) * u64::from(height) > max_pixels;
    // as image_transport decodes it: what EXIF says of an orientation does not count
    let Some((size, is_jpeg)) = pictures::stored_size(&bytes) else {
        return Err(format!("its format is '{form}', and it is neither a JPEG nor a PNG picture"));
    };
    let (width, height) = size;
    if too_large(size) || width == 0 || height == 0 {
        return Err(format!("{width}x{height} pixels are more than the {max_pixels} allowed, or none"));
    }
    if is_jpeg {
        return Ok(frame(width, height, PixelFormat::Mjpg, bytes));
    }
    let (rgb, is_grey) = pictures::decode_png(&bytes)?;
    // a mosaic is packed as the grey picture that it is
    let mosaic = form.split(';').next().and_then(encoding).and_then(|encoding| encoding.mosaic).filter(|_| is_grey);
    let data = match mosaic {
        None => rgb,
        Some(_) if width.min(height) < 2 => return Err(format!("a mosaic of {width}x{height} pixels has not all colours")),
        Some(mosaic) => {
            let levels: Vec<u8> = rgb.iter().step_by(3).copied().collect();
            demosaic(mosaic, PixelFormat::Grey, &levels, width)
        }
    };
    Ok(frame(width, height, PixelFormat::Rgb24, data))
}

fn frame(width: u32, height: u32, format: PixelFormat, data: Vec<u8>) -> Frame {
    Frame { width, height, format, data, ..Frame::rgb(0, 0, Vec::new()) }
}

fn demosaic(mosaic: Bayer, format: PixelFormat, data: &[u8], width: u32) -> Vec<u8> {
    let mut rgb = Vec::new();
    if format == PixelFormat::Grey16 {
        let narrow = |level: &[u8; 2]| ((u32::from(u16::from_le_bytes(*level)) * 255 + 32_767) / 65_535) as u8;
        let levels: Vec<u8> = data.as_chunks::<2>().0.iter().map(narrow).collect();
        mosaic.demosaic(&levels, width as usize, &mut rgb);
    } else {
        mosaic.demosaic(data, width as usize, &mut rgb);
    }
    rgb
}
