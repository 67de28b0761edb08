//! Temperature, throttling and the daemon's memory, as `/sys` and `/proc` tell them.
//!
//! Invariants: read at most once a second, however often it is asked; so many entries of each kind and no more ([`ENTRIES_MAX`]); what is
//! not there, hidden or no number gives no fact. Refuses: to take another process for the daemon.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eomt_edge_files::{bounds, files};

/// Facts are this old at most.
const FRESH: Duration = Duration::from_secs(1);
/// Most zones, cooling devices and processors.
const ENTRIES_MAX: usize = 256;
/// Most characters of a name that a driver gives.
const NAME_CHARS_MAX: usize = 60;

/// What the firmware of a Raspberry Pi limits now: the low bits of `get_throttled`.
const LIMITS: [&str; 4] = ["undervoltage", "frequency_capped", "throttled", "soft_temperature_limit"];

/// A thermal zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Its number.
    pub zone: usize,
    /// The driver's name: `cpu-thermal`.
    pub kind: String,
    /// Its temperature.
    pub celsius: f64,
}

/// Something that cools: a fan, or a processor's lower frequencies.
#[derive(Debug, Clone, PartialEq)]
pub struct Cooling {
    /// Its number.
    pub device: usize,
    /// The driver's name: `cpufreq-cpu0`.
    pub kind: String,
    /// 0 = it does nothing.
    pub state: u64,
    /// The most it can do.
    pub most: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Thermal zones.
    pub zones: Vec<Zone>,
    /// Cooling devices.
    pub cooling: Vec<Cooling>,
    /// Processor, `core` or `package`, and how often it was too hot since the machine started (x86).
    pub throttles: Vec<(usize, &'static str, u64)>,
    /// What the firmware limits, and whether it does now (Raspberry Pi).
    pub limits: Vec<(&'static str, bool)>,
    /// The daemon's memory now, bytes.
    pub resident: Option<u64>,
    /// The most it had, bytes.
    pub peak: Option<u64>,
}

/// Where facts come from.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    read: Option<(Instant, Option<u32>, Facts)>,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine { root: "/".into(), read: None }
    }
}

impl Machine {
    /// Facts of about now. `pid`: the daemon's process.
    pub fn facts(&mut self, pid: Option<u32>) -> Facts {
        if let Some((at, of, facts)) = &self.read
            && at.elapsed() < FRESH
            && *of == pid
        {
            return facts.clone();
        }
        let facts = read(&self.root, pid);
        self.read = Some((Instant::now(), pid, facts.clone()));
        facts
    }
}

fn read(root: &Path, pid: Option<u32>) -> Facts {
    let thermal = root.join("sys/class/thermal");
    let zones = numbered(&thermal, "thermal_zone").into_iter().filter_map(|(zone, path)| {
        let millidegrees: i32 = number(&path.join("temp"))?;
        Some(Zone { zone, kind: name(&path.join("type"))?, celsius: f64::from(millidegrees) / 1000.0 })
    });
    let cooling = numbered(&thermal, "cooling_device").into_iter().filter_map(|(device, path)| {
        let (state, most) = (number(&path.join("cur_state"))?, number(&path.join("max_state"))?);
        Some(Cooling { device, kind: name(&path.join("type"))?, state, most })
    });
    let throttles = numbered(&root.join("sys/devices/system/cpu"), "cpu").into_iter().flat_map(|(cpu, path)| {
        let counter = |scope, file| Some((cpu, scope, number(&path.join("thermal_throttle").join(file))?));
        [counter("core", "core_throttle_count"), counter("package", "package_throttle_count")].into_iter().flatten()
    });
    let status = pid.and_then(|pid| daemon_status(root, pid));
    let memory = |name| status.as_deref().and_then(|status| files::kibibytes(status, name));
    Facts {
        zones: zones.collect(),
        cooling: cooling.collect(),
        throttles: throttles.collect(),
        limits: limits(root),
        resident: memory("VmRSS:"),
        peak: memory("VmHWM:"),
    }
}

/// Raspberry Pi OS's kernel passes the firmware's word on; others have a driver that tells of low voltage only.
fn limits(root: &Path) -> Vec<(&'static str, bool)> {
    let word = text(&root.join("sys/devices/platform/soc/soc:firmware/get_throttled"));
    if let Some(bits) = word.and_then(|word| u32::from_str_radix(&word, 16).ok()) {
        return LIMITS.iter().enumerate().map(|(bit, &limit)| (limit, bits >> bit & 1 == 1)).collect();
    }
    let sensors = numbered(&root.join("sys/class/hwmon"), "hwmon");
    let volt = sensors.into_iter().find(|(_, path)| name(&path.join("name")).is_some_and(|name| name == "rpi_volt"));
    let alarm: Option<u8> = volt.and_then(|(_, path)| number(&path.join("in0_lcrit_alarm")));
    alarm.map(|alarm| (LIMITS[0], alarm != 0)).into_iter().collect()
}

/// `/proc/PID/status`, when it is the daemon's: in a container the number may be another process's.
fn daemon_status(root: &Path, pid: u32) -> Option<String> {
    let status = text(&root.join("proc").join(pid.to_string()).join("status"))?;
    let name = status.lines().find_map(|line| line.strip_prefix("Name:"))?;
    (name.trim() == "eomt-edge").then_some(status)
}

/// Entries `PREFIX` + number, by number.
fn numbered(directory: &Path, prefix: &str) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let number = |entry: std::fs::DirEntry| Some((entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?, entry.path()));
    let mut found: Vec<(usize, PathBuf)> = entries.take(16 * ENTRIES_MAX).flatten().filter_map(number).collect();
    found.sort();
    found.truncate(ENTRIES_MAX);
    found
}

fn text(path: &Path) -> Option<String> {
    Some(files::read_text(path, &bounds::SYSTEM).ok()?.trim().to_owned())
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

fn name(path: &Path) -> Option<String> {
    Some(text(path)?.chars().take(NAME_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of files.
    fn machine(test: &str, contents: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("eomt-edge-machine-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for (path, content) in contents {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn a_raspberry_pi() {
        let root = machine(
            "pi",
            &[
                ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
                ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
                ("sys/class/thermal/thermal_zone10/temp", "-1500\n"),
                ("sys/class/thermal/thermal_zone10/type", "outside\n"),
                ("sys/class/thermal/thermal_zone2/temp", "hot\n"),
                ("sys/class/thermal/cooling_device0/cur_state", "2\n"),
                ("sys/class/thermal/cooling_device0/max_state", "4\n"),
                ("sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
                ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
                ("proc/77/status", "Name:\teomt-edge\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n"),
                ("proc/78/status", "Name:\tbash\nVmRSS:\t   1024 kB\n"),
            ],
        );
        let facts = read(&root, Some(77));
        let zone = |zone, kind: &str, celsius| Zone { zone, kind: kind.to_owned(), celsius };
        assert_eq!(facts.zones, [zone(0, "cpu-thermal", 48.312), zone(10, "outside", -1.5)]);
        assert_eq!(facts.cooling, [Cooling { device: 0, kind: "pwm-fan".to_owned(), state: 2, most: 4 }]);
        let limits = [("undervoltage", true), ("frequency_capped", false), ("throttled", true), ("soft_temperature_limit", false)];
        assert_eq!(facts.limits, limits);
        assert_eq!((facts.resident, facts.peak), (Some(1024 << 10), Some(2048 << 10)));
        assert!(facts.throttles.is_empty());
        assert_eq!(read(&root, Some(78)).resident, None, "another program");
        assert_eq!(read(&root, Some(79)).resident, None, "no such process");
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_desk_and_a_pi_with_debian_s_kernel() {
        let root = machine(
            "desk",
            &[
                ("sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "7\n"),
                ("sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count", "9\n"),
                ("sys/devices/system/cpu/cpufreq/policy0/cpuinfo_cur_freq", "1\n"),
                ("sys/class/hwmon/hwmon3/name", "rpi_volt\n"),
                ("sys/class/hwmon/hwmon3/in0_lcrit_alarm", "1\n"),
            ],
        );
        let facts = read(&root, None);
        assert_eq!(facts.throttles, [(1, "core", 7), (1, "package", 9)]);
        assert_eq!(facts.limits, [("undervoltage", true)]);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_machine_that_tells_nothing() {
        assert_eq!(read(Path::new("/nowhere"), Some(1)), Facts::default());
    }
}
