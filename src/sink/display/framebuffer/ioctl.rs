//! The framebuffer's ioctls, which no maintained safe wrapper offers: layouts from the kernel's include/uapi/linux/fb.h.

#![allow(unsafe_code)]

use std::fs::File;
use std::mem::size_of;

use rustix::io;
use rustix::ioctl::{Getter, IntegerSetter, Opcode, ioctl};

use super::{Channel, Geometry};

const FBIOGET_VSCREENINFO: Opcode = 0x4600;
const FBIOGET_FSCREENINFO: Opcode = 0x4602;
const FBIOBLANK: Opcode = 0x4611;
const FB_BLANK_UNBLANK: usize = 0;

/// `struct fb_bitfield`
#[derive(Clone, Copy)]
#[repr(C)]
struct Bitfield {
    offset: u32,
    length: u32,
    msb_right: u32,
}

/// `struct fb_var_screeninfo`
#[repr(C)]
struct VarScreenInfo {
    xres: u32,
    yres: u32,
    xres_virtual: u32,
    yres_virtual: u32,
    xoffset: u32,
    yoffset: u32,
    bits_per_pixel: u32,
    grayscale: u32,
    red: Bitfield,
    green: Bitfield,
    blue: Bitfield,
    transp: Bitfield,
    rest: [u32; 20],
}

/// `struct fb_fix_screeninfo`
#[repr(C)]
struct FixScreenInfo {
    id: [u8; 16],
    smem_start: usize,
    smem_len: u32,
    kind: u32,
    type_aux: u32,
    visual: u32,
    xpanstep: u16,
    ypanstep: u16,
    ywrapstep: u16,
    line_length: u32,
    mmio_start: usize,
    mmio_len: u32,
    accel: u32,
    capabilities: u16,
    reserved: [u16; 2],
}

const _: () = assert!(size_of::<VarScreenInfo>() == 160);
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<FixScreenInfo>() == 80);

/// The layout as the kernel has it now.
pub fn geometry(file: &File) -> io::Result<Geometry> {
    // SAFETY: FBIOGET_VSCREENINFO fills a `struct fb_var_screeninfo`, which `VarScreenInfo` mirrors (size asserted above); every bit
    // pattern of it is valid. A file that is no framebuffer answers ENOTTY and fills nothing, which rustix returns as an error.
    let var: VarScreenInfo = unsafe { ioctl(file, Getter::<FBIOGET_VSCREENINFO, VarScreenInfo>::new()) }?;
    // SAFETY: FBIOGET_FSCREENINFO fills a `struct fb_fix_screeninfo`, which `FixScreenInfo` mirrors (size asserted above); every bit
    // pattern of it is valid, and an error fills nothing.
    let fix: FixScreenInfo = unsafe { ioctl(file, Getter::<FBIOGET_FSCREENINFO, FixScreenInfo>::new()) }?;
    let channel = |field: Bitfield| Channel { offset: field.offset, length: field.length };
    Ok(Geometry {
        width: var.xres,
        height: var.yres,
        xoffset: var.xoffset,
        yoffset: var.yoffset,
        bits_per_pixel: var.bits_per_pixel,
        line_length: fix.line_length,
        red: channel(var.red),
        green: channel(var.green),
        blue: channel(var.blue),
        transparency: channel(var.transp),
    })
}

/// Switches a screen on that the console has blanked; drivers that cannot say so, and nothing is lost.
pub fn unblank(file: &File) {
    // SAFETY: FBIOBLANK takes an integer, not a pointer, and this one is a level that fb.h defines.
    let result = unsafe { ioctl(file, IntegerSetter::<FBIOBLANK>::new_usize(FB_BLANK_UNBLANK)) };
    if let Err(error) = result {
        log::debug!("the framebuffer cannot be switched on: {error}");
    }
}
