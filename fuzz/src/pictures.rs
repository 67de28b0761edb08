//! Pictures: frames of a camera that sends JPEG, and the files of a replay folder.

use eomt_edge_core::data::{Crop, Exif, Frame, PixelFormat, View};
use eomt_edge_core::preprocess::{FrameDecoder, JpegDecoder};
use eomt_edge_host::pictures::{read_picture_as, size};

use super::assert_sentence;
use super::scratch::Scratch;

/// Pixels; a hundredth of what the daemon allows by default, so that a full picture takes no hundredth of a second.
const PIXELS_MAX: u64 = 1 << 19;

/// A JPEG picture: as a camera's frame, cut and turned as its length says, and as a file.
pub(crate) fn jpeg(input: &[u8]) {
    let mut rgb = Vec::new();
    let fits = |width, height| width as u64 * height as u64 <= PIXELS_MAX;
    let found = JpegDecoder::default().decode(input, fits, &mut rgb);
    match &found {
        Ok(picture) => {
            let (width, height) = (picture.size.0 as u32, picture.size.1 as u32);
            assert_eq!(rgb.len(), 3 * picture.size.0 * picture.size.1);
            decode_as_frame(input, width, height, &rgb);
        }
        Err(error) => assert_sentence(&error.to_string()),
    }
    let scratch = Scratch::new();
    let read = read_picture_as(&scratch.file("000000.jpg", input), PIXELS_MAX, Exif::Ignore);
    if image_is_jpeg(input) {
        assert_eq!(read.is_ok(), found.is_ok(), "a frame and a file are decoded alike");
    }
}

/// A PNG picture of a replay folder, with its orientation and without.
pub(crate) fn png(input: &[u8]) {
    let scratch = Scratch::new();
    let path = scratch.file("000000.png", input);
    for exif in [Exif::Apply, Exif::Ignore] {
        let stated = size(&path, exif);
        match read_picture_as(&path, PIXELS_MAX, exif) {
            Ok(frame) => {
                assert!(u64::from(frame.width) * u64::from(frame.height) <= PIXELS_MAX);
                assert_eq!(Some(frame.data.len()), PixelFormat::Rgb24.frame_len(frame.width, frame.height));
                assert!(
                    stated.is_ok_and(|size| size.shown == (frame.width, frame.height)),
                    "the header says another size than the picture has"
                );
            }
            Err(error) => assert_sentence(&error.to_string()),
        }
    }
}

fn image_is_jpeg(input: &[u8]) -> bool {
    input.starts_with(&[0xFF, 0xD8, 0xFF])
}

fn decode_as_frame(input: &[u8], width: u32, height: u32, rgb: &[u8]) {
    let choice = input.len();
    let crop = Crop { x: (choice / 16 % 40) as u32, y: (choice / 640 % 40) as u32, width: 33, height: 21 };
    let view = View {
        crop: (choice % 2 == 1).then_some(crop),
        turns: (choice / 2 % 4) as u8,
        mirrored: choice / 8 % 2 == 1,
        upside_down: choice / 32 % 2 == 1,
    };
    let frame = Frame { format: PixelFormat::Mjpg, data: input.to_vec(), ..Frame::rgb(width, height, rgb.to_vec()) };
    match FrameDecoder::new(view).decode(frame) {
        Ok(frame) => {
            assert_eq!(Some((frame.width, frame.height)), view.size(width, height));
            assert_eq!(Some(frame.data.len()), PixelFormat::Rgb24.frame_len(frame.width, frame.height));
            assert!(!view.is_plain() || frame.data == rgb);
        }
        Err((error, _)) => {
            assert_sentence(&error.to_string());
            assert_eq!(view.size(width, height), None, "a picture that decodes once decodes again");
        }
    }
}
