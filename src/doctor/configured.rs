//! Whether what the configuration names is there.

use std::path::Path;

use super::Report;
use crate::config::{Config, DisplayConfig, DisplayKind};
use crate::sink::ring::check_group;
use crate::source::SourceSpec;
#[cfg(feature = "camera")]
use crate::source::v4l2;

pub(super) fn configured(report: &mut Report, config: &Config) {
    source(report, config);
    display(report, config);
    if !config.ring.group.is_empty()
        && let Err(error) = check_group(&config.ring.group)
    {
        report.problem("config", format!("ring.group: {error}"));
    }
}

fn source(report: &mut Report, config: &Config) {
    match config.source.uri.parse() {
        Err(reason) => report.problem("config", format!("source.uri: {reason}")),
        Ok(SourceSpec::V4l2 { device: Some(path) }) if !path.exists() => {
            report.problem("config", format!("source.uri: {} is not there; the service waits for it", path.display()));
        }
        Ok(SourceSpec::V4l2 { device: Some(path) }) => camera(report, &path, config),
        Ok(SourceSpec::V4l2 { device: None }) => any_camera(report, config),
        Ok(SourceSpec::Replay { directory, .. }) if !directory.is_dir() => {
            report.problem("config", format!("source.uri: {} is no directory", directory.display()));
        }
        Ok(_) => {}
    }
}

#[cfg(feature = "camera")]
fn camera(report: &mut Report, path: &Path, config: &Config) {
    if let Err(reason) = v4l2::usable(path, &super::wish(config)) {
        report.problem("config", format!("source.uri: {}: {reason}", path.display()));
    }
}

#[cfg(feature = "camera")]
fn any_camera(report: &mut Report, config: &Config) {
    if let Err(reason) = v4l2::pick(&super::wish(config)) {
        report.problem("config", format!("source.uri: v4l2: {reason}; the service waits for a camera"));
    }
}

#[cfg(not(feature = "camera"))]
fn any_camera(report: &mut Report, _: &Config) {
    report.problem("config", "source.uri: this program was built without cameras");
}

#[cfg(not(feature = "camera"))]
fn camera(report: &mut Report, _: &Path, _: &Config) {
    report.problem("config", "source.uri: this program was built without cameras");
}

fn display(report: &mut Report, config: &Config) {
    let display = &config.display;
    let hint = match display.kind {
        DisplayKind::None => return,
        DisplayKind::Framebuffer => "no screen is connected, or the kernel has no driver for it",
        DisplayKind::Spi => "the bus is off (Raspberry Pi OS: dtparam=spi=on in config.txt)",
        DisplayKind::Oled => "the bus is off (Raspberry Pi OS: dtparam=i2c_arm=on in config.txt) or the module i2c-dev is not loaded",
    };
    let device = display.device();
    if !device.exists() {
        report.problem("config", format!("display.device: {} is not there: {hint}", device.display()));
    }
    if display.kind == DisplayKind::Spi {
        gpio_chip(report, display);
    }
}

#[cfg(feature = "display")]
fn gpio_chip(report: &mut Report, display: &DisplayConfig) {
    match crate::sink::display::gpio_chip(display) {
        Ok((path, _)) if !path.exists() => report.problem("config", format!("display.gpio_chip: {} is not there", path.display())),
        Ok((path, how)) => report.line("config", format!("display.gpio_chip: {} ({how})", path.display())),
        Err(reason) => report.problem("config", format!("display.gpio_chip: {reason}")),
    }
}

#[cfg(not(feature = "display"))]
fn gpio_chip(_: &mut Report, _: &DisplayConfig) {}
