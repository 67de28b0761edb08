//! What this CPU can do, found at run time. SIMD twins of the kernels will live beside this file, each behind a token that only
//! this detection gives out.
#![allow(unsafe_code)] // each block says why it is sound

mod mark;
#[cfg(target_arch = "aarch64")]
pub(super) mod peak_aarch64;
#[cfg(target_arch = "x86_64")]
pub(super) mod peak_x86_64;

pub use mark::mark;
#[cfg(target_arch = "aarch64")]
pub(super) use peak_aarch64 as peak;
#[cfg(target_arch = "x86_64")]
pub(super) use peak_x86_64 as peak;

/// Instruction sets that kernels are written for, the best first.
pub const ISAS: [&str; 7] = ["avx512vnni", "avxvnni", "avx2", "i8mm", "dotprod", "neon", "scalar"];

/// Why there are no kernels of the instruction set that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    #[error("'{name}' is no instruction set; there are auto, {}", ISAS.join(", "))]
    Unknown { name: String },
    #[error("this CPU has no {name}; it has {}", available_isas().join(", "))]
    Missing { name: &'static str },
}

/// Those of [`ISAS`] that this CPU has, the best first; the last is always `scalar`.
pub fn available_isas() -> Vec<&'static str> {
    let features = features();
    let has = |all: &[&str]| all.iter().all(|name| features.contains(name));
    let available = |isa: &&str| match *isa {
        "avx512vnni" => has(&["avx512f", "avx512vnni", "avx2", "fma"]),
        "avxvnni" => has(&["avxvnni", "avx2", "fma"]),
        "avx2" => has(&["avx2", "fma"]),
        "scalar" => true,
        other => features.contains(&other),
    };
    ISAS.into_iter().filter(available).collect()
}

/// The instruction set called `name`; `None` and `auto` give the best that this CPU has.
pub fn choose_isa(name: Option<&str>) -> Result<&'static str, IsaError> {
    let available = available_isas();
    let Some(name) = name.filter(|name| *name != "auto") else { return Ok(available[0]) };
    let known = ISAS.into_iter().find(|isa| *isa == name).ok_or_else(|| IsaError::Unknown { name: name.to_owned() })?;
    if available.contains(&known) { Ok(known) } else { Err(IsaError::Missing { name: known }) }
}

/// CPU features that matter to kernels, found at run time.
pub fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "aarch64")]
    {
        let all = [
            ("neon", std::arch::is_aarch64_feature_detected!("neon")),
            ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
            ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
            ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ];
        found.extend(all.iter().filter(|(_, present)| *present).map(|(name, _)| *name));
    }
    #[cfg(target_arch = "x86_64")]
    {
        let all = [
            ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
            ("avxvnni", std::arch::is_x86_feature_detected!("avxvnni")),
        ];
        found.extend(all.iter().filter(|(_, present)| *present).map(|(name, _)| *name));
    }
    found
}

/// The widest of them for f32 products, which is what tract picks its kernels by.
pub fn widest_f32() -> &'static str {
    let features = features();
    ["avx512f", "fma", "neon"].into_iter().find(|name| features.contains(name)).unwrap_or("generic")
}
