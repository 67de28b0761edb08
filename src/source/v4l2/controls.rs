//! From the names and values of the configuration to a driver's controls.
//!
//! A control goes by the name that `v4l2-ctl -l` shows (`white_balance_automatic`), a menu entry by its number or name. Five
//! names mean the same on every camera: `exposure`, `gain`, `white_balance`, `focus` (each a number, or `"auto"`) and
//! `power_line_frequency` (`"off"`, `"50"`, `"60"`, `"auto"`).

use std::collections::BTreeMap;

use eomt_edge_core::data::ControlValue;
use v4l::v4l_sys::*;

use super::sys::{ControlInfo, ControlType};

/// What to set, in this order, and what cannot be set and why.
#[derive(Debug, Default, PartialEq)]
pub struct Plan<'a> {
    pub steps: Vec<(&'a ControlInfo, i64)>,
    pub complaints: Vec<String>,
}

/// One name for a manual setting on every camera: the control, the control that switches to automatic, and the two values of the switch.
struct ControlAlias {
    name: &'static str,
    value: &'static [u32],
    switch: u32,
    auto: i64,
    manual: i64,
}

/// <https://docs.kernel.org/userspace-api/media/v4l/ext-ctrls-camera.html> and `control.html`. Exposure times are in units of
/// 100 microseconds, white balance in kelvin.
const ALIASES: [ControlAlias; 4] = [
    ControlAlias {
        name: "exposure",
        value: &[V4L2_CID_EXPOSURE_ABSOLUTE, V4L2_CID_EXPOSURE],
        switch: V4L2_CID_EXPOSURE_AUTO,
        auto: v4l2_exposure_auto_type_V4L2_EXPOSURE_AUTO as i64,
        manual: v4l2_exposure_auto_type_V4L2_EXPOSURE_MANUAL as i64,
    },
    ControlAlias { name: "gain", value: &[V4L2_CID_GAIN, V4L2_CID_ANALOGUE_GAIN], switch: V4L2_CID_AUTOGAIN, auto: 1, manual: 0 },
    ControlAlias {
        name: "white_balance",
        value: &[V4L2_CID_WHITE_BALANCE_TEMPERATURE],
        switch: V4L2_CID_AUTO_WHITE_BALANCE,
        auto: 1,
        manual: 0,
    },
    ControlAlias { name: "focus", value: &[V4L2_CID_FOCUS_ABSOLUTE], switch: V4L2_CID_FOCUS_AUTO, auto: 1, manual: 0 },
];

/// Checks `requests` against what the driver offers. Switches come before the values that they lock.
pub fn plan<'a>(offered: &'a [ControlInfo], requests: &BTreeMap<String, ControlValue>) -> Plan<'a> {
    let mut plan = Plan::default();
    for (name, request) in requests {
        let steps = match ALIASES.iter().find(|alias| alias.name == name) {
            Some(alias) => by_alias(offered, alias, request),
            None => by_name(offered, name, request).map(|step| vec![step]),
        };
        match steps {
            Ok(steps) => plan.steps.extend(steps),
            Err(complaint) => plan.complaints.push(format!("camera.controls.{name}: {complaint}")),
        }
    }
    plan.steps.sort_by_key(|(control, _)| matches!(control.kind, ControlType::Integer | ControlType::Integer64));
    plan
}

/// The name as `v4l2-ctl` makes it: letters and digits in lower case, one `_` for whatever lies between.
pub fn key(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

fn by_alias<'a>(offered: &'a [ControlInfo], alias: &ControlAlias, request: &ControlValue) -> Result<Vec<(&'a ControlInfo, i64)>, String> {
    let by_id = |id: u32| offered.iter().find(|control| control.id == id);
    let switch = by_id(alias.switch);
    if *request == ControlValue::Text("auto".to_owned()) {
        let switch = switch.ok_or("this camera has no automatic for it")?;
        // many cameras know aperture priority (3) as their only automatic exposure
        let values = [alias.auto, i64::from(v4l2_exposure_auto_type_V4L2_EXPOSURE_APERTURE_PRIORITY)];
        let value = values.into_iter().find(|value| check(switch, *value).is_ok()).ok_or("this camera has no automatic for it")?;
        return Ok(vec![(switch, value)]);
    }
    let ControlValue::Number(number) = *request else { return Err("a number, or \"auto\"".to_owned()) };
    let control = alias.value.iter().find_map(|id| by_id(*id)).ok_or("this camera does not offer it")?;
    let mut steps = vec![(control, check(control, number)?)];
    if let Some(switch) = switch.filter(|switch| check(switch, alias.manual).is_ok()) {
        steps.insert(0, (switch, alias.manual));
    }
    Ok(steps)
}

fn by_name<'a>(offered: &'a [ControlInfo], name: &str, request: &ControlValue) -> Result<(&'a ControlInfo, i64), String> {
    let control = offered.iter().find(|control| key(&control.name) == key(name)).ok_or_else(|| {
        let names: Vec<String> = offered.iter().map(|control| key(&control.name)).collect();
        format!("this camera does not offer it; it has {}", names.join(", "))
    })?;
    let value = match request {
        ControlValue::Number(number) => *number,
        ControlValue::Switch(on) => i64::from(*on),
        ControlValue::Text(text) => entry(control, text)?,
    };
    Ok((control, check(control, value)?))
}

/// A menu entry by its name; "50" also means "50 Hz", and "off" "Disabled", as `power_line_frequency` wants it.
fn entry(control: &ControlInfo, text: &str) -> Result<i64, String> {
    let ControlType::Menu(entries) = &control.kind else { return Err(format!("'{text}' is no number")) };
    let wanted = match key(text).as_str() {
        "off" => "disabled".to_owned(),
        wanted => wanted.to_owned(),
    };
    let equal = |name: &str| key(name) == wanted || key(name).replace('_', "") == wanted.clone() + "hz" || key(name) == key(text);
    let found = entries.iter().find(|(_, name)| equal(name)).map(|(value, _)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = entries.iter().map(|(_, name)| name.as_str()).collect();
        format!("'{text}' is none of: {}", names.join(", "))
    })
}

fn check(control: &ControlInfo, value: i64) -> Result<i64, String> {
    let ControlInfo { min, max, step, .. } = *control;
    if control.read_only {
        return Err("it cannot be set on this camera".to_owned());
    }
    if let ControlType::Menu(entries) = &control.kind
        && !entries.iter().any(|(entry, _)| *entry == value)
    {
        return Err(format!("{value} is no entry of its menu"));
    }
    if !(min..=max).contains(&value) {
        return Err(format!("{value} lies outside of {min} to {max}"));
    }
    let steps = i64::try_from(step).unwrap_or(i64::MAX);
    if matches!(control.kind, ControlType::Integer | ControlType::Integer64) && value.abs_diff(min) % steps.unsigned_abs() != 0 {
        return Err(format!("{value} is not reached in steps of {step} from {min}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(id: u32, name: &str, kind: ControlType, (min, max, step): (i64, i64, u64)) -> ControlInfo {
        ControlInfo { id, name: name.to_owned(), kind, min, max, step, default: min, read_only: false }
    }

    /// What a Logitech C920 lists, in part.
    fn webcam() -> Vec<ControlInfo> {
        let menu = |entries: &[(i64, &str)]| ControlType::Menu(entries.iter().map(|(v, n)| (*v, (*n).to_owned())).collect());
        vec![
            control(V4L2_CID_BRIGHTNESS, "Brightness", ControlType::Integer, (0, 255, 1)),
            control(V4L2_CID_AUTO_WHITE_BALANCE, "White Balance, Automatic", ControlType::Boolean, (0, 1, 1)),
            control(V4L2_CID_GAIN, "Gain", ControlType::Integer, (0, 255, 1)),
            control(V4L2_CID_POWER_LINE_FREQUENCY, "Power Line Frequency", menu(&[(0, "Disabled"), (1, "50 Hz"), (2, "60 Hz")]), (0, 2, 1)),
            control(V4L2_CID_WHITE_BALANCE_TEMPERATURE, "White Balance Temperature", ControlType::Integer, (2000, 6500, 10)),
            control(V4L2_CID_EXPOSURE_AUTO, "Auto Exposure", menu(&[(1, "Manual Mode"), (3, "Aperture Priority Mode")]), (0, 3, 1)),
            control(V4L2_CID_EXPOSURE_ABSOLUTE, "Exposure Time, Absolute", ControlType::Integer, (3, 2047, 1)),
        ]
    }

    fn planned(requests: &[(&str, ControlValue)]) -> (Vec<(String, i64)>, Vec<String>) {
        let requests = requests.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let offered = webcam();
        let plan = plan(&offered, &requests);
        (plan.steps.iter().map(|(control, value)| (key(&control.name), *value)).collect(), plan.complaints)
    }

    #[test]
    fn switches_come_before_the_values_they_lock() {
        use ControlValue::{Number, Switch, Text};
        let (steps, complaints) = planned(&[
            ("exposure", Number(157)),
            ("white_balance", Number(4600)),
            ("gain", Number(12)),
            ("power_line_frequency", Text("50".to_owned())),
            ("Brightness", Number(128)),
        ]);
        assert_eq!(complaints, Vec::<String>::new());
        let position = |name: &str| steps.iter().position(|(step, _)| step == name).unwrap();
        assert!(position("auto_exposure") < position("exposure_time_absolute"));
        assert!(position("white_balance_automatic") < position("white_balance_temperature"));
        for step in [("auto_exposure", 1), ("white_balance_automatic", 0), ("power_line_frequency", 1), ("brightness", 128)] {
            assert!(steps.contains(&(step.0.to_owned(), step.1)), "{step:?} in {steps:?}");
        }
        let (steps, _) = planned(&[("exposure", Text("auto".to_owned())), ("white_balance_automatic", Switch(true))]);
        assert_eq!(steps, [("auto_exposure".to_owned(), 3), ("white_balance_automatic".to_owned(), 1)]);
        for off in ["off", "Disabled"] {
            assert_eq!(planned(&[("power_line_frequency", Text(off.to_owned()))]).0[0].1, 0);
        }
    }

    #[test]
    fn what_the_camera_does_not_offer_is_said() {
        use ControlValue::{Number, Text};
        for (name, value, words) in [
            ("gain", Number(256), "0 to 255"),
            ("gain", Text("auto".to_owned()), "no automatic"),
            ("gain", Text("much".to_owned()), "a number"),
            ("focus", Number(3), "not offer"),
            ("white_balance", Number(4601), "steps of 10"),
            ("auto_exposure", Number(2), "no entry"),
            ("power_line_frequency", Text("55".to_owned()), "Disabled, 50 Hz, 60 Hz"),
            ("sharpnes", Number(3), "white_balance_temperature"),
            ("brightness", Text("high".to_owned()), "no number"),
        ] {
            let (steps, complaints) = planned(&[(name, value)]);
            assert!(steps.is_empty() && complaints.len() == 1, "{name}");
            assert!(complaints[0].contains(words) && complaints[0].contains(name), "{}", complaints[0]);
        }
    }
}
