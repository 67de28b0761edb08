//! Which GPIO chip has the header's lines, since its number says nothing.
//!
//! A Raspberry Pi 5 had its 40-pin header on `/dev/gpiochip4`, has it on `/dev/gpiochip0` from Linux 6.6.45 on
//! (<https://github.com/raspberrypi/linux/pull/6144>), and on still another one with 6.12.96, which starts at `/dev/gpiochip11`. What
//! stays is the chip's label, which is its driver's, and the names of its lines.

use std::path::{Path, PathBuf};

use linux_embedded_hal::gpio_cdev::Chip;

use crate::config::DisplayConfig;

/// Drivers of Raspberry Pi's headers: 5, 4, and all before.
const HEADERS: [&str; 3] = ["pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835"];

/// A chip as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ChipInfo {
    path: PathBuf,
    label: String,
    /// Of the line that is asked for, if it has a name.
    line: Option<String>,
}

/// The chip of `config`, and how it was found: "pinctrl-rp1".
///
/// # Errors
/// A sentence when `auto` finds none, or cannot decide.
pub fn gpio_chip(config: &DisplayConfig) -> Result<(PathBuf, String), String> {
    match &config.gpio_chip {
        Some(path) => Ok((path.clone(), "as configured".to_owned())),
        None => {
            let (chips, closed) = chips(Path::new("/dev"), config.dc);
            choose(&chips, &closed, config.dc).map(|(chip, how)| (chip.path.clone(), how))
        }
    }
}

/// Every chip of `directory`, and what could not be opened. Links are other names of chips.
fn chips(directory: &Path, line: u32) -> (Vec<ChipInfo>, Vec<String>) {
    let (mut chips, mut closed) = (Vec::new(), Vec::new());
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("gpiochip")?.parse::<u32>().ok();
    let mut nodes: Vec<(u32, PathBuf)> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
        .filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    nodes.sort();
    for (_, path) in nodes {
        match Chip::new(&path) {
            Ok(mut chip) => {
                let info = chip.get_line(line).and_then(|line| line.info()).ok();
                let line = info.and_then(|info| info.name().map(str::to_owned));
                chips.push(ChipInfo { label: chip.label().to_owned(), line, path });
            }
            Err(error) => closed.push(format!("{}: {error}", path.display())),
        }
    }
    (chips, closed)
}

/// The chip that has the header's `line`: by its label, by the line's name, or because there is no other. Never a guess: a line of
/// another chip may switch something else.
fn choose<'a>(chips: &'a [ChipInfo], closed: &[String], line: u32) -> Result<(&'a ChipInfo, String), String> {
    let by_label = HEADERS.iter().find_map(|header| chips.iter().find(|chip| chip.label == *header));
    if let Some(chip) = by_label {
        return Ok((chip, chip.label.clone()));
    }
    let name = format!("GPIO{line}");
    let named: Vec<&ChipInfo> = chips.iter().filter(|chip| chip.line.as_deref() == Some(&name)).collect();
    match (named.as_slice(), chips, closed) {
        ([chip], _, _) => Ok((chip, format!("{}, which has a line {name}", chip.label))),
        (_, [chip], []) => Ok((chip, format!("{}, the only one", chip.label))),
        (_, [], []) => Err("there is no GPIO chip (/dev/gpiochip*)".to_owned()),
        (_, _, [closed, ..]) => Err(format!("the chip of the header was not found; {closed}")),
        (_, chips, []) => {
            let list: Vec<String> = chips.iter().map(|chip| format!("{} ({})", chip.path.display(), chip.label)).collect();
            Err(format!("which chip has line {line} cannot be told: name one of {}", list.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(chips: &[(u32, &str)]) -> Vec<ChipInfo> {
        let chip = |(number, label): &(u32, &str)| ChipInfo {
            path: PathBuf::from(format!("/dev/gpiochip{number}")),
            label: (*label).to_owned(),
            line: None,
        };
        chips.iter().map(chip).collect()
    }

    /// What `gpiodetect` shows on each.
    #[test]
    fn the_header_is_found_whatever_its_number() {
        let brcmstb = "gpio-brcmstb@107d508500";
        for (board, number) in [
            (vec![(0, "pinctrl-bcm2835"), (1, "raspberrypi-exp-gpio")], 0),
            (vec![(0, "pinctrl-bcm2711"), (1, "raspberrypi-exp-gpio")], 0),
            (vec![(0, brcmstb), (1, "gpio-brcmstb@107d508520"), (4, "pinctrl-rp1")], 4),
            (vec![(0, "pinctrl-rp1"), (10, brcmstb), (11, "gpio-brcmstb@107d508520")], 0),
            (vec![(11, brcmstb), (12, "gpio-brcmstb@107d508520"), (15, "pinctrl-rp1")], 15),
            (vec![(3, "any board's only one")], 3),
        ] {
            let chips = table(&board);
            let (chip, how) = choose(&chips, &[], 25).unwrap();
            assert_eq!(chip.path, PathBuf::from(format!("/dev/gpiochip{number}")), "{how}");
        }
    }

    #[test]
    fn a_line_of_that_name_decides_and_what_cannot_be_told_is_said() {
        let mut chips = table(&[(0, "tegra234-gpio"), (1, "tegra234-gpio-aon")]);
        let message = choose(&chips, &[], 25).unwrap_err();
        assert!(message.contains("name one of /dev/gpiochip0 (tegra234-gpio), /dev/gpiochip1 (tegra234-gpio-aon)"), "{message}");
        chips[1].line = Some("GPIO25".to_owned());
        assert_eq!(choose(&chips, &[], 25).unwrap().0.path, PathBuf::from("/dev/gpiochip1"));
        assert!(choose(&chips, &[], 24).is_err());
        assert!(choose(&[], &[], 25).unwrap_err().contains("no GPIO chip"));
        let closed = ["/dev/gpiochip4: Permission denied".to_owned()];
        assert!(
            choose(&table(&[(0, "gpio-brcmstb")]), &closed, 25).unwrap_err().contains("gpiochip4: Permission denied"),
            "it may be that one"
        );
    }

    #[test]
    fn files_that_are_no_chips_are_said() {
        let directory = std::env::temp_dir().join(format!("eomt-gpio-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("gpiochip0"), "").unwrap();
        std::os::unix::fs::symlink("gpiochip0", directory.join("gpiochip4")).unwrap();
        let found = chips(&directory, 25);
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(found.0.is_empty() && found.1.len() == 1 && found.1[0].contains("gpiochip0"), "{found:?}");
    }
}
