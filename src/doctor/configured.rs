//! Whether what the configuration names is there.

use super::Report;
use crate::config::{Config, DisplayConfig, DisplayKind};
use crate::daemon::source_options;
use crate::socket::check_group;
use crate::source::SourceKinds;

pub(super) fn configured(report: &mut Report, config: &Config) {
    source(report, config);
    display(report, config);
    for (key, group) in [("ring.group", &config.ring.group), ("control.group", &config.control.group)] {
        if !group.is_empty()
            && let Err(error) = check_group(group)
        {
            report.problem("config", format!("{key}: {error}"));
        }
    }
    let models = &config.control.models;
    if !models.as_os_str().is_empty() && !models.is_dir() {
        report.problem("config", format!("control.models: {} is no directory", models.display()));
    }
}

fn source(report: &mut Report, config: &Config) {
    let found = SourceKinds::default().parse(&config.source.uri).and_then(|uri| uri.check(&source_options(config)));
    if let Err(reason) = found {
        report.problem("config", format!("source.uri: {reason}"));
    }
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
