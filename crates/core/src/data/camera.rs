//! How a camera is used: the part of its picture that counts, which side of it is up, and the values of its controls.

use std::str::FromStr;

/// What the configuration sets a camera's control to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlValue {
    /// In the control's own unit.
    Number(i64),
    /// On or off.
    Switch(bool),
    /// "auto", or a menu entry's name.
    Text(String),
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// `WIDTHxHEIGHT+X+Y`, as X11 geometries and ImageMagick write it.
impl FromStr for Crop {
    type Err = String;

    fn from_str(text: &str) -> Result<Crop, String> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number <= 16384);
        let parse = || {
            let (width, rest) = text.split_once('x')?;
            let mut rest = rest.split('+');
            let (height, x, y) = (rest.next()?, rest.next()?, rest.next()?);
            let crop = Crop { x: number(x)?, y: number(y)?, width: number(width)?, height: number(height)? };
            (rest.next().is_none() && crop.width > 0 && crop.height > 0).then_some(crop)
        };
        parse().ok_or_else(|| format!("'{text}' is not a crop such as 640x480+0+40 (WIDTHxHEIGHT+X+Y)"))
    }
}

/// What is done to a camera's picture: cut, then turned, then mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View {
    /// In the picture as the camera sends it; what lies outside of that picture is left out.
    pub crop: Option<Crop>,
    /// Clockwise quarter turns, 0 to 3.
    pub turns: u8,
    /// Left becomes right.
    pub mirrored: bool,
    /// Top becomes bottom.
    pub upside_down: bool,
}

impl View {
    /// Whether the picture stays as it is.
    pub fn is_plain(&self) -> bool {
        *self == View::default()
    }

    /// The part that is used of a picture of `width` x `height`; `None` when nothing is left of it.
    pub fn area(&self, width: u32, height: u32) -> Option<Crop> {
        let whole = Crop { x: 0, y: 0, width, height };
        let Some(crop) = self.crop else { return Some(whole) };
        let width = crop.width.min(width.checked_sub(crop.x)?);
        let height = crop.height.min(height.checked_sub(crop.y)?);
        (width > 0 && height > 0).then_some(Crop { width, height, ..crop })
    }

    /// (width, height) of the result.
    pub fn size(&self, width: u32, height: u32) -> Option<(u32, u32)> {
        let Crop { width, height, .. } = self.area(width, height)?;
        Some(if self.turns % 2 == 1 { (height, width) } else { (width, height) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_parse_and_stay_inside() {
        let crop: Crop = "300x200+100+50".parse().unwrap();
        assert_eq!(crop, Crop { x: 100, y: 50, width: 300, height: 200 });
        for bad in ["", "300x200", "300x200+1", "300x200+1+2+3", "0x200+1+2", "300x200+-1+2", "ax2+1+2", "99999x1+0+0"] {
            assert!(bad.parse::<Crop>().is_err(), "{bad}");
        }
        let view = View { crop: Some(crop), turns: 1, ..View::default() };
        assert_eq!(view.size(640, 480), Some((200, 300)));
        assert_eq!(view.size(320, 240), Some((190, 220)));
        assert_eq!(view.size(100, 240), None);
    }
}
