//! What this CPU can do, found at run time. SIMD twins of the kernels will live beside this file, each behind a token that only
//! this detection gives out.

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
