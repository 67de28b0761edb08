//! Pictures of every encoding against what numpy and OpenCV make of them (`tests/data/bags/make_bags.py`).

use std::sync::Arc;

use eomt_edge_ros::messages::std_msgs::Header;

use super::*;
use crate::pictures::read_picture;

const MAX: u64 = 1 << 16;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/bags").join(name)
}

fn name(file: &str, topic: &str) -> BagName {
    BagName { path: data(file), topic: Some(topic.to_owned()) }
}

/// The only picture of a topic.
fn picture(topic: &str) -> Result<BagPicture, String> {
    let pictures: Vec<_> = BagPictures::open(&name("encodings.mcap", topic), MAX).unwrap().collect();
    assert_eq!(pictures.len(), 1, "{topic}");
    pictures.into_iter().next().unwrap().map_err(|error| error.to_string())
}

#[test]
fn every_encoding_is_what_others_make_of_it() {
    let mut seen = 0;
    for entry in std::fs::read_dir(data("expected")).unwrap() {
        let path = entry.unwrap().path();
        let encoding = path.file_stem().unwrap().to_str().unwrap();
        let expected = read_picture(&path, MAX).unwrap();
        let picture = picture(&format!("/{encoding}")).unwrap();
        assert_eq!((picture.stamp_ns, picture.log_time_ns), (1_700_000_000_000_000_001, 1_700_000_000_005_000_001), "{encoding}");
        let ours = picture.into_rgb().unwrap();
        assert_eq!((ours.width, ours.height), (expected.width, expected.height), "{encoding}");
        let differences = ours.data.iter().zip(&expected.data).map(|(ours, theirs)| ours.abs_diff(*theirs));
        let is_yuv = ["yuv", "uyvy", "nv12"].iter().any(|part| encoding.contains(part));
        // fixed point against floating point; two decoders of JPEG
        let allowed = if is_yuv {
            1
        } else if encoding == "jpeg" {
            4
        } else {
            0
        };
        assert!(differences.max().unwrap() <= allowed, "{encoding}: {:?}", &ours.data[..12]);
        seen += 1;
    }
    assert_eq!(seen, 25);
}

#[test]
fn messages_that_lie_are_refused_in_a_sentence() {
    for (topic, words) in [
        ("/unknown", "its encoding is '32FC1'; read are rgb8"),
        ("/short", "it has 575 bytes of pixels, and 12 rows of rgb8, 48 bytes apart, have 576"),
        ("/narrow", "its rows are 47 bytes apart, which 16 pixels of rgb8 do not fit"),
        ("/empty", "0x0 pixels"),
        ("/depth", "compressedDepth png': distances"),
    ] {
        let message = picture(topic).unwrap_err();
        assert!(message.contains(words) && message.contains(&format!("encodings.mcap: picture 0 of {topic}: ")), "{message}");
    }
    let image = Image { height: 2, width: 2, encoding: "rgb8".into(), step: 6, data: vec![0; 12], ..Image::default() };
    let of = |image: &Image, max_pixels| {
        let topic = Topic { name: "/x".into(), type_name: IMAGE.into(), encoding: "cdr".into() };
        let message = Message { topic: Arc::new(topic), log_time_ns: 0, data: image.to_cdr() };
        BagPicture::of(&message, 0, max_pixels)
    };
    assert!(of(&image, 4).is_ok());
    assert!(of(&image, 3).unwrap_err().contains("2x2 pixels are more than the 3 allowed"));
    for wrong in [
        Image { height: u32::MAX, width: u32::MAX, ..image.clone() },
        Image { step: u32::MAX, ..image.clone() },
        Image { step: 0, ..image.clone() },
        Image { height: 3, ..image.clone() },
        Image { encoding: "bayer_rggb8".into(), width: 1, height: 12, step: 1, ..image.clone() },
        Image { encoding: "bayer_rggb12".into(), ..image.clone() },
        Image { encoding: "nv12".into(), ..image.clone() },
        Image { encoding: String::new(), ..image.clone() },
    ] {
        let message = of(&wrong, MAX).unwrap_err();
        assert!(message.lines().count() == 1, "{message}");
    }
    let mut longer = image.clone();
    longer.data.push(0);
    assert!(of(&longer, MAX).unwrap_err().contains("13 bytes"));
}

#[test]
fn compressed_pictures_are_known_by_their_content() {
    let of = |format: &str, data: Vec<u8>| {
        let message = CompressedImage { header: Header::default(), format: format.into(), data };
        let topic = Topic { name: "/x".into(), type_name: COMPRESSED_IMAGE.into(), encoding: "cdr".into() };
        let message = Message { topic: Arc::new(topic), log_time_ns: 0, data: message.to_cdr() };
        BagPicture::of(&message, 0, MAX).and_then(BagPicture::into_rgb)
    };
    let jpeg = std::fs::read(data("../jpeg/turned.jpg")).unwrap();
    // as image_transport takes it: what EXIF says does not count
    let picture = of("png", jpeg.clone()).unwrap();
    assert_eq!((picture.width, picture.height), (64, 48));
    for (format, data) in
        [("jpeg", Vec::new()), ("jpeg", b"GIF89a".to_vec()), ("jpeg", jpeg[..jpeg.len() / 2].to_vec()), ("png", vec![0; 99])]
    {
        assert!(of(format, data).is_err());
    }
}

#[test]
fn names_have_their_topic_behind_a_colon() {
    let parse = |text| {
        let BagName { path, topic } = BagName::parse(text);
        (path.to_string_lossy().into_owned(), topic)
    };
    assert_eq!(parse("/a/b.mcap:/camera/image"), ("/a/b.mcap".into(), Some("/camera/image".into())));
    assert_eq!(parse("2026:01:02 10.mcap"), ("2026:01:02 10.mcap".into(), None));
    assert_eq!(parse("a:/b:/c"), ("a:/b".into(), Some("/c".into())));
    assert_eq!(BagName::at(&data("split")), Some(BagName { path: data("split"), topic: None }));
    let topic = data("two-cameras.mcap").display().to_string() + ":/left/image_raw";
    assert_eq!(BagName::at(Path::new(&topic)), Some(name("two-cameras.mcap", "/left/image_raw")));
    assert_eq!(BagName::at(&data("expected")), None);
    assert_eq!(BagName::at(&data("expected/rgb8.png")), None);
    assert_eq!(BagName::at(Path::new("/nowhere:/x")), None);
}

#[test]
fn an_unpacked_bag_is_a_directory_of_pictures_and_leaves_nothing() {
    let bag = unpack(&name("directory-zstd", "/camera/image_raw"), MAX, |number| number != 1).unwrap();
    assert_eq!(bag.names, ["1700000000000000001.png", "1700000000200000001.png", "1700000000300000001.png"]);
    let picture = read_picture(&bag.path().join(&bag.names[2]), MAX).unwrap();
    assert_eq!((picture.width, picture.height, &picture.data[..3]), (16, 12, &[120, 15, 0][..]));
    let path = bag.path().to_owned();
    drop(bag);
    assert!(!path.exists());
    let error = unpack(&name("encodings.mcap", "/short"), MAX, |_| true).err().unwrap().to_string();
    assert!(error.contains("no picture can be read") && error.contains("/short") && error.lines().count() == 1, "{error}");
}
