//! `[display]`: a small screen beside the camera.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::{ConfigError, FrameSize, from_str, optional_from_str};

/// What the display hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisplayKind {
    /// No display.
    None,
    /// A Linux framebuffer: HDMI, DSI or a panel that the kernel drives.
    Framebuffer,
    /// A colour panel on SPI that this program drives.
    Spi,
    /// A 1-bit OLED on I2C that this program drives.
    Oled,
}

impl FromStr for DisplayKind {
    type Err = String;

    fn from_str(text: &str) -> Result<DisplayKind, String> {
        match text {
            "none" => Ok(DisplayKind::None),
            "fb" => Ok(DisplayKind::Framebuffer),
            "spi" => Ok(DisplayKind::Spi),
            "oled" => Ok(DisplayKind::Oled),
            _ => Err(format!("unknown display '{text}': none, fb, spi or oled")),
        }
    }
}

/// The chip on the panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Sitronix, 240x320 RGB.
    St7789,
    /// Ilitek, 240x320 RGB.
    Ili9341,
    /// Sitronix, 132x162 RGB.
    St7735,
    /// Solomon Systech, 128x64 monochrome.
    Ssd1306,
    /// Sino Wealth, 132x64 monochrome.
    Sh1106,
}

impl Controller {
    /// Pixels that its memory has behind the panel (width, height), without rotation: no panel is larger.
    pub fn memory(self) -> (u32, u32) {
        match self {
            Controller::St7789 | Controller::Ili9341 => (240, 320),
            Controller::St7735 => (132, 162),
            // of the 132 columns the usual panel shows the middle 128
            Controller::Ssd1306 | Controller::Sh1106 => (128, 64),
        }
    }

    /// The usual panel (width, height).
    fn usual(self) -> FrameSize {
        let (width, height) = match self {
            Controller::St7735 => (128, 160),
            _ => self.memory(),
        };
        FrameSize { width, height }
    }

    /// The datasheet's shortest write cycle as a clock, hertz: 16 ns (ST7789V), 100 ns (ILI9341), 66 ns (ST7735S).
    fn clock_max(self) -> u32 {
        match self {
            Controller::St7789 => 62_500_000,
            Controller::St7735 => 15_000_000,
            _ => 10_000_000,
        }
    }
}

impl FromStr for Controller {
    type Err = String;

    fn from_str(text: &str) -> Result<Controller, String> {
        match text {
            "st7789" => Ok(Controller::St7789),
            "ili9341" => Ok(Controller::Ili9341),
            "st7735" => Ok(Controller::St7735),
            "ssd1306" => Ok(Controller::Ssd1306),
            "sh1106" => Ok(Controller::Sh1106),
            _ => Err(format!("unknown controller '{text}': st7789, ili9341 or st7735 (spi), ssd1306 or sh1106 (oled)")),
        }
    }
}

/// Panels of SSD1306 that its driver knows (width, height).
const SSD1306_SIZES: [(u32, u32); 5] = [(128, 64), (128, 32), (96, 16), (72, 40), (64, 48)];

/// `[display]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DisplayConfig {
    /// What it hangs on.
    #[serde(deserialize_with = "from_str")]
    pub kind: DisplayKind,
    /// Default: `/dev/fb0`, `/dev/spidev0.0` or `/dev/i2c-1`, by kind.
    pub device: Option<PathBuf>,
    /// Pictures a second, at most.
    pub fps: f64,
    /// Label and score of each segment.
    pub labels: bool,
    /// Of the segments' colours over the frame, 0 to 1.
    pub opacity: f32,
    /// Clockwise, degrees: 0, 90, 180 or 270; an OLED takes 0 or 180.
    pub rotation: u32,
    /// Default: st7789 on SPI, ssd1306 on I2C.
    #[serde(deserialize_with = "optional_from_str")]
    pub controller: Option<Controller>,
    /// Of the panel before rotation; default: the controller's.
    #[serde(deserialize_with = "optional_from_str")]
    pub size: Option<FrameSize>,
    /// First column and row of the controller's memory that the panel shows, before rotation.
    pub offset: [u32; 2],
    /// Colours; default: true for st7789, whose panels are mostly IPS.
    pub invert: Option<bool>,
    /// The panel's red and blue are swapped.
    pub bgr: bool,
    /// SPI clock; default: half of what the controller's datasheet allows to write with.
    pub speed_hz: Option<u32>,
    /// `None` ("auto") = the one that has the header's lines, by its label or its lines' names.
    #[serde(deserialize_with = "path_or_auto")]
    pub gpio_chip: Option<PathBuf>,
    /// GPIO line of `gpio_chip`: data/command.
    pub dc: u32,
    /// GPIO line of the reset, if it is wired.
    pub reset: Option<u32>,
    /// GPIO line of the backlight, if it is wired.
    pub backlight: Option<u32>,
    /// 7-bit I2C address.
    pub address: u8,
}

impl Default for DisplayConfig {
    fn default() -> DisplayConfig {
        DisplayConfig {
            kind: DisplayKind::None,
            device: None,
            fps: 10.0,
            labels: true,
            opacity: 0.45,
            rotation: 0,
            controller: None,
            size: None,
            offset: [0, 0],
            invert: None,
            bgr: false,
            speed_hz: None,
            gpio_chip: None,
            dc: 25,
            reset: None,
            backlight: None,
            address: 0x3c,
        }
    }
}

impl DisplayConfig {
    /// The device, or the usual one of its kind.
    pub fn device(&self) -> PathBuf {
        let usual = match self.kind {
            DisplayKind::None | DisplayKind::Framebuffer => "/dev/fb0",
            DisplayKind::Spi => "/dev/spidev0.0",
            DisplayKind::Oled => "/dev/i2c-1",
        };
        self.device.clone().unwrap_or_else(|| PathBuf::from(usual))
    }

    /// The controller, or the usual one of its kind.
    pub fn controller(&self) -> Controller {
        self.controller.unwrap_or(if self.kind == DisplayKind::Oled { Controller::Ssd1306 } else { Controller::St7789 })
    }

    /// Of the panel on SPI or I2C before rotation.
    pub fn size(&self) -> FrameSize {
        self.size.unwrap_or_else(|| self.controller().usual())
    }

    /// Whether the panel shows inverted colours.
    pub fn invert(&self) -> bool {
        self.invert.unwrap_or(self.controller() == Controller::St7789)
    }

    /// SPI clock in hertz.
    pub fn speed_hz(&self) -> u32 {
        self.speed_hz.unwrap_or(self.controller().clock_max() / 2)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: String, reason| Err(ConfigError::Value { key, value, reason });
        if !(0.1..=60.0).contains(&self.fps) {
            return refuse("display.fps", self.fps.to_string(), "it must lie between 0.1 and 60");
        }
        if !(0.0..=1.0).contains(&self.opacity) {
            return refuse("display.opacity", self.opacity.to_string(), "it must lie between 0 and 1");
        }
        if ![0, 90, 180, 270].contains(&self.rotation) {
            return refuse("display.rotation", self.rotation.to_string(), "0, 90, 180 or 270 degrees");
        }
        if self.speed_hz.is_some_and(|speed| !(100_000..=125_000_000).contains(&speed)) {
            return refuse("display.speed_hz", self.speed_hz().to_string(), "hertz, 100000 to 125000000");
        }
        if !(0x08..=0x77).contains(&self.address) {
            return refuse("display.address", format!("{:#04x}", self.address), "7-bit addresses of devices lie between 0x08 and 0x77");
        }
        match self.kind {
            DisplayKind::None | DisplayKind::Framebuffer => Ok(()),
            DisplayKind::Spi | DisplayKind::Oled => self.check_panel(),
        }
    }

    fn check_panel(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: String, reason| Err(ConfigError::Value { key, value, reason });
        let (controller, FrameSize { width, height }) = (self.controller(), self.size());
        let is_oled = matches!(controller, Controller::Ssd1306 | Controller::Sh1106);
        if is_oled != (self.kind == DisplayKind::Oled) {
            let name = format!("{controller:?}").to_lowercase();
            return refuse("display.controller", name, "st7789, ili9341 and st7735 are of kind spi, ssd1306 and sh1106 of kind oled");
        }
        let (memory, [left, top]) = (controller.memory(), self.offset);
        let fits = |offset: u32, side: u32, memory: u32| offset.checked_add(side).is_some_and(|end| end <= memory);
        if !fits(left, width, memory.0) || !fits(top, height, memory.1) {
            return refuse("display.size", format!("{width}x{height}"), "with display.offset, more than the controller's memory has");
        }
        if controller == Controller::Ssd1306 && !SSD1306_SIZES.contains(&(width, height)) {
            return refuse("display.size", format!("{width}x{height}"), "ssd1306 comes as 128x64, 128x32, 96x16, 72x40 and 64x48");
        }
        if is_oled && !height.is_multiple_of(8) {
            return refuse("display.size", format!("{width}x{height}"), "an OLED's height is a multiple of 8");
        }
        if is_oled && self.offset != [0, 0] {
            return refuse("display.offset", format!("{:?}", self.offset), "an OLED's follows from its size");
        }
        if is_oled && !self.rotation.is_multiple_of(180) {
            return refuse("display.rotation", self.rotation.to_string(), "an OLED takes 0 or 180");
        }
        Ok(())
    }
}

/// "auto" is `None`.
fn path_or_auto<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    Ok((path.as_os_str() != "auto").then_some(path))
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn what_does_not_fit_a_panel_is_refused() {
        let cases: [(&[&str], &str); 12] = [
            (&["display.kind=hdmi"], "none, fb, spi or oled"),
            (&["display.knid=fb"], "knid"),
            (&["display.fps=0"], "display.fps"),
            (&["display.opacity=1.5"], "display.opacity"),
            (&["display.rotation=45"], "display.rotation"),
            (&["display.kind=spi", "display.controller=ssd1306"], "display.controller"),
            (&["display.kind=spi", "display.size=320x240"], "display.size"),
            (&["display.kind=spi", "display.size=240x240", "display.offset=[0, 81]"], "display.size"),
            (&["display.kind=spi", "display.offset=[4294967295, 0]"], "display.size"),
            (&["display.kind=oled", "display.size=100x64"], "128x32"),
            (&["display.kind=oled", "display.rotation=90"], "display.rotation"),
            (&["display.kind=oled", "display.address=200"], "display.address"),
        ];
        for (overrides, expected) in cases {
            let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
            let message = Config::parse("", &overrides).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn usual_panels_need_few_words() {
        let parse = |items: &[&str]| Config::parse("", &items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap().display;
        let oled = parse(&["display.kind=oled", "display.controller=sh1106"]);
        assert_eq!((oled.device().to_str(), oled.size().width), (Some("/dev/i2c-1"), 128));
        let hat = parse(&["display.kind=spi", "display.size=240x240", "display.offset=[0, 80]", "display.rotation=270"]);
        assert!(hat.invert() && hat.speed_hz() == 31_250_000);
        assert_eq!(parse(&["display.kind=spi", "display.controller=ili9341"]).speed_hz(), 5_000_000);
        assert_eq!(hat.gpio_chip, parse(&["display.kind=spi", "display.gpio_chip=auto"]).gpio_chip);
        let named = parse(&["display.kind=spi", "display.gpio_chip=/dev/gpiochip4"]).gpio_chip;
        assert_eq!(named.as_deref().and_then(std::path::Path::to_str), Some("/dev/gpiochip4"));
        assert_eq!(parse(&["display.kind=fb"]).device().to_str(), Some("/dev/fb0"));
    }
}
