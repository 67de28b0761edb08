//! Resident memory of this process, from `/proc/self/status` (proc(5)).

use std::path::Path;

use anyhow::{Context, Result};
use eomt_edge_host::{bounds, files};

/// Peak resident memory, MiB.
pub(super) fn peak_rss_mib() -> Result<f64> {
    status_mib("VmHWM:")
}

/// Resident memory now, MiB.
pub(super) fn rss_mib() -> Result<f64> {
    status_mib("VmRSS:")
}

fn status_mib(key: &str) -> Result<f64> {
    let status = files::read_text(Path::new("/proc/self/status"), &bounds::SYSTEM).context("/proc/self/status: cannot be read")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("/proc/self/status: there is no {key}"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("/proc/self/status: {key} is no number"))?;
    Ok(kib / 1024.0)
}
