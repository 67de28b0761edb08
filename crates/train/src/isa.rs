//! The instruction set that trains.

use std::sync::LazyLock;

use eomt_edge_core::kernels::arch::{Isa, IsaError};
use eomt_edge_host::model_file::ISA_VARIABLE;

/// What the environment names ([`ISA_VARIABLE`]), else the best that this CPU has.
pub(super) static ISA: LazyLock<Isa> = LazyLock::new(|| named().unwrap_or_else(|_| Isa::detect()));

/// The same, or why the environment names none: a run asks before it starts.
pub(super) fn named() -> Result<Isa, IsaError> {
    let name = std::env::var_os(ISA_VARIABLE).map(|name| name.to_string_lossy().into_owned());
    Isa::named(name.as_deref().filter(|name| !name.is_empty()))
}
