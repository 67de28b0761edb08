//! What a camera lets one set: <https://docs.kernel.org/userspace-api/media/v4l/extended-controls.html>.

use std::io;

use rustix::io::Errno;
use v4l::v4l_sys::*;
use v4l::v4l2::vidioc;

use super::{Device, ENTRIES_MAX, Plain, Request, plain, text};

plain!(v4l2_query_ext_ctrl, v4l2_querymenu, v4l2_ext_control, v4l2_ext_controls);

const QUERY_EXT_CTRL: Request<v4l2_query_ext_ctrl> = Request::new(vidioc::VIDIOC_QUERY_EXT_CTRL);
const QUERYMENU: Request<v4l2_querymenu> = Request::new(vidioc::VIDIOC_QUERYMENU);
const S_EXT_CTRLS: Request<v4l2_ext_controls> = Request::new(vidioc::VIDIOC_S_EXT_CTRLS);

/// What cameras have in common: <https://docs.kernel.org/userspace-api/media/v4l/control.html>, `ext-ctrls-camera.html`.
const COMMON: [u32; 19] = [
    V4L2_CID_BRIGHTNESS,
    V4L2_CID_CONTRAST,
    V4L2_CID_SATURATION,
    V4L2_CID_HUE,
    V4L2_CID_AUTO_WHITE_BALANCE,
    V4L2_CID_GAMMA,
    V4L2_CID_EXPOSURE,
    V4L2_CID_AUTOGAIN,
    V4L2_CID_GAIN,
    V4L2_CID_POWER_LINE_FREQUENCY,
    V4L2_CID_WHITE_BALANCE_TEMPERATURE,
    V4L2_CID_SHARPNESS,
    V4L2_CID_BACKLIGHT_COMPENSATION,
    V4L2_CID_EXPOSURE_AUTO,
    V4L2_CID_EXPOSURE_ABSOLUTE,
    V4L2_CID_FOCUS_ABSOLUTE,
    V4L2_CID_FOCUS_AUTO,
    V4L2_CID_ZOOM_ABSOLUTE,
    V4L2_CID_ANALOGUE_GAIN,
];

/// How a control's value is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlType {
    Integer,
    Integer64,
    Boolean,
    /// (value, name) of each entry; integer menus name their entries by number.
    Menu(Vec<(i64, String)>),
}

/// One control as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlInfo {
    pub id: u32,
    /// As the driver calls it: "White Balance, Automatic".
    pub name: String,
    pub kind: ControlType,
    pub min: i64,
    pub max: i64,
    pub step: u64,
    pub default: i64,
    pub read_only: bool,
}

impl Device {
    /// VIDIOC_QUERY_EXT_CTRL and VIDIOC_QUERYMENU: every control with a number for a value. Some cameras fail at one of their
    /// controls (EIO, EPIPE, ETIMEDOUT) and so end the list early: then the common ones are asked for by their ids.
    ///
    /// # Errors
    /// ENODEV only: the camera is gone.
    pub fn controls(&self) -> io::Result<Vec<ControlInfo>> {
        let mut found = Vec::new();
        let mut id = 0;
        // a driver has some dozens; one that does not end its list must not hold us
        for _ in 0..4 * ENTRIES_MAX {
            match self.query(id | V4L2_CTRL_FLAG_NEXT_CTRL) {
                Ok(raw) => {
                    id = raw.id;
                    found.push(raw);
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INVAL | Errno::NOTTY) => break,
                    Some(Errno::NODEV) => return Err(error),
                    _ => {
                        let missing = COMMON.iter().filter(|common| found.iter().all(|raw| raw.id != **common));
                        let more: Vec<v4l2_query_ext_ctrl> = missing.filter_map(|id| self.query(*id).ok()).collect();
                        found.extend(more);
                        break;
                    }
                },
            }
        }
        let usable = found.iter().filter(|raw| raw.flags & V4L2_CTRL_FLAG_DISABLED == 0);
        Ok(usable.filter_map(|raw| self.describe(raw)).collect())
    }

    fn query(&self, id: u32) -> io::Result<v4l2_query_ext_ctrl> {
        let mut raw = v4l2_query_ext_ctrl { id, ..v4l2_query_ext_ctrl::zeroed() };
        self.call(&QUERY_EXT_CTRL, &mut raw)?;
        Ok(raw)
    }

    #[allow(non_upper_case_globals, reason = "names of the C header")]
    fn describe(&self, raw: &v4l2_query_ext_ctrl) -> Option<ControlInfo> {
        let kind = match raw.type_ {
            v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER | v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK => ControlType::Integer,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER64 => ControlType::Integer64,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN => ControlType::Boolean,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU => ControlType::Menu(self.menu(raw, false)),
            v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => ControlType::Menu(self.menu(raw, true)),
            _ => return None,
        };
        Some(ControlInfo {
            id: raw.id,
            name: text(&raw.name.map(|byte| byte as u8)),
            kind,
            min: raw.minimum,
            max: raw.maximum,
            step: raw.step.max(1),
            default: raw.default_value,
            read_only: raw.flags & V4L2_CTRL_FLAG_READ_ONLY != 0,
        })
    }

    /// Indices between the limits may be missing: such a call gives EINVAL.
    fn menu(&self, control: &v4l2_query_ext_ctrl, integers: bool) -> Vec<(i64, String)> {
        let first = u32::try_from(control.minimum).unwrap_or(0);
        let last = u32::try_from(control.maximum).unwrap_or(0).min(first.saturating_add(ENTRIES_MAX));
        let entry = |index: u32| {
            let mut raw = v4l2_querymenu { id: control.id, index, ..v4l2_querymenu::zeroed() };
            self.call(&QUERYMENU, &mut raw).ok()?;
            let name = match integers {
                // SAFETY: the control's type says which member of the union the driver has filled.
                true => unsafe { raw.__bindgen_anon_1.value }.to_string(),
                // SAFETY: a menu of names: the driver has filled the bytes of `name`, and any bytes are valid.
                false => text(unsafe { &raw.__bindgen_anon_1.name }),
            };
            Some((i64::from(index), name))
        };
        (first..=last).filter_map(entry).collect()
    }

    /// VIDIOC_S_EXT_CTRLS for one control, now.
    pub fn set_control(&self, control: &ControlInfo, value: i64) -> io::Result<()> {
        let mut one = v4l2_ext_control { id: control.id, ..v4l2_ext_control::zeroed() };
        match control.kind {
            ControlType::Integer64 => one.__bindgen_anon_1.value64 = value,
            _ => one.__bindgen_anon_1.value = value as i32,
        }
        // `which` stays 0: the current value, of whatever class
        self.call(&S_EXT_CTRLS, &mut v4l2_ext_controls { count: 1, controls: &raw mut one, ..v4l2_ext_controls::zeroed() })
    }
}
