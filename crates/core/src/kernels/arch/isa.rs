//! The instruction set that kernels run on.

#[cfg(target_arch = "x86_64")]
use super::token::{Amx, Avx2, Avx512Bf16, Avx512Vnni, AvxVnni};
#[cfg(target_arch = "aarch64")]
use super::token::{Dotprod, I8mm, Neon};

/// Instruction sets that kernels are written for, the best first.
pub const ISAS: [&str; 9] = ["amx", "avx512bf16", "avx512vnni", "avxvnni", "avx2", "i8mm", "dotprod", "neon", "scalar"];

/// Why there are no kernels of the instruction set that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// There is no instruction set of this name.
    #[error("'{name}' is no instruction set; there are auto, {}", ISAS.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// This CPU lacks it.
    #[error("this CPU has no {name}; it has {available}")]
    Missing {
        /// What was asked for.
        name: String,
        /// What this CPU has, the best first.
        available: String,
    },
}

/// An instruction set of the running CPU: there is no other way to a value than [`Isa::available`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Kind);

/// The instruction sets that have kernels of their own, the plainest first, each with the token that proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The definition that the others are tested against.
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512Bf16),
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    #[cfg(target_arch = "aarch64")]
    Dotprod(Dotprod),
    #[cfg(target_arch = "aarch64")]
    I8mm(I8mm),
}

/// The registers that code vectorized by the compiler may use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    /// Those of every CPU of the target.
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512Vnni),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Isa {
    /// What every machine has.
    pub const SCALAR: Isa = Isa(Kind::Scalar);

    /// The best that this CPU has.
    pub fn detect() -> Isa {
        *Isa::available().last().expect("there is always the scalar one")
    }

    /// All that this CPU has, the best last.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![Isa::SCALAR];
        #[cfg(target_arch = "aarch64")]
        found.extend(
            [Neon::detect().map(Kind::Neon), Dotprod::detect().map(Kind::Dotprod), I8mm::detect().map(Kind::I8mm)]
                .into_iter()
                .flatten()
                .map(Isa),
        );
        #[cfg(target_arch = "x86_64")]
        found.extend(
            [
                Avx2::detect().map(Kind::Avx2),
                AvxVnni::detect().map(Kind::AvxVnni),
                Avx512Vnni::detect().map(Kind::Avx512Vnni),
                Avx512Bf16::detect().map(Kind::Avx512Bf16),
                Amx::detect().map(Kind::Amx),
            ]
            .into_iter()
            .flatten()
            .map(Isa),
        );
        found
    }

    /// The instruction set of this name; `None` and `auto` give the best.
    ///
    /// # Errors
    /// [`IsaError::Unknown`] for any other name, [`IsaError::Missing`] when this CPU lacks it.
    pub fn named(name: Option<&str>) -> Result<Isa, IsaError> {
        let Some(name) = name.filter(|name| *name != "auto") else { return Ok(Isa::detect()) };
        if !ISAS.contains(&name) {
            return Err(IsaError::Unknown { name: name.to_owned() });
        }
        let available = Isa::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<&str> = available.iter().rev().map(|isa| isa.name()).collect();
            IsaError::Missing { name: name.to_owned(), available: names.join(", ") }
        })
    }

    /// Its name, one of [`ISAS`].
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni(_) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16(_) => "avx512bf16",
            #[cfg(target_arch = "x86_64")]
            Kind::Amx(_) => "amx",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod(_) => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm(_) => "i8mm",
        }
    }

    /// The instruction set and its token, to match on.
    #[inline(always)]
    pub(crate) fn kind(self) -> Kind {
        self.0
    }

    /// The registers that compiled code may use.
    #[inline(always)]
    pub(crate) fn level(self) -> Level {
        match self.0 {
            Kind::Scalar => Level::Scalar,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(token) => Level::Avx2(token),
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni(token) => Level::Avx2(token.into()),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni(token) => Level::Avx512(token),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16(token) => Level::Avx512(token.into()),
            #[cfg(target_arch = "x86_64")]
            Kind::Amx(token) => Level::Avx512(token.into()),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(token) => Level::Neon(token),
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod(token) => Level::Neon(token.into()),
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm(token) => Level::Neon(token.into()),
        }
    }
}
