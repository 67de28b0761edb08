//! The functions of ONNX Runtime's C API that a comparison needs, by their place in its table.
//!
//! The library exports one symbol, `OrtGetApiBase`; what it returns gives a table of function pointers. The table only ever
//! grows at its end, so a place stays valid in every later release.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

/// The version of the table to request: that of release 1.16. Older releases do not have it.
pub const TABLE_VERSION: u32 = 16;
/// Its name, to tell those who have an older library.
pub const OLDEST_RELEASE: &str = "1.16";

/// Declares types that exist only behind pointers.
macro_rules! opaque {
    ($($name:ident)*) => { $(
        #[repr(C)]
        pub struct $name {
            _opaque: [u8; 0],
        }
    )* };
}
opaque!(Status Env SessionOptions Session RunOptions Value MemoryInfo Allocator TensorInfo);

/// What `OrtGetApiBase` returns.
#[repr(C)]
pub struct ApiBase {
    pub get_api: unsafe extern "C" fn(version: u32) -> *const *const c_void,
    pub get_version: unsafe extern "C" fn() -> *const c_char,
}

/// Null when all went well.
pub type Outcome = *mut Status;

macro_rules! table {
    ($($slot:literal $name:ident ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, typed.
        #[derive(Clone, Copy)]
        pub struct Api {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// # Safety
            /// `table` is what `get_api(TABLE_VERSION)` of an ONNX Runtime returned, not null.
            pub unsafe fn of_table(table: *const *const c_void) -> Api {
                // SAFETY: the table of that version has more places than the highest here, each a function with the C
                // calling convention and the arguments that the published header declares for it.
                unsafe {
                    Api { $($name: std::mem::transmute::<*const c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(
                        *table.add($slot),
                    ),)* }
                }
            }
        }
    };
}

table! {
    2 error_message(*const Status) -> *const c_char;
    3 create_env(c_int, *const c_char, *mut *mut Env) -> Outcome;
    6 disable_telemetry(*const Env) -> Outcome;
    7 create_session(*const Env, *const c_char, *const SessionOptions, *mut *mut Session) -> Outcome;
    9 run(*mut Session, *const RunOptions, *const *const c_char, *const *const Value, usize, *const *const c_char, usize, *mut *mut Value) -> Outcome;
    10 create_session_options(*mut *mut SessionOptions) -> Outcome;
    23 set_optimization_level(*mut SessionOptions, c_int) -> Outcome;
    24 set_intra_op_threads(*mut SessionOptions, c_int) -> Outcome;
    25 set_inter_op_threads(*mut SessionOptions, c_int) -> Outcome;
    30 input_count(*const Session, *mut usize) -> Outcome;
    31 output_count(*const Session, *mut usize) -> Outcome;
    36 input_name(*const Session, usize, *mut Allocator, *mut *mut c_char) -> Outcome;
    37 output_name(*const Session, usize, *mut Allocator, *mut *mut c_char) -> Outcome;
    49 tensor_over(*const MemoryInfo, *mut c_void, usize, *const i64, usize, c_int, *mut *mut Value) -> Outcome;
    51 tensor_data(*mut Value, *mut *mut c_void) -> Outcome;
    60 element_type(*const TensorInfo, *mut c_int) -> Outcome;
    64 element_count(*const TensorInfo, *mut usize) -> Outcome;
    65 tensor_info(*const Value, *mut *mut TensorInfo) -> Outcome;
    69 cpu_memory(c_int, c_int, *mut *mut MemoryInfo) -> Outcome;
    76 allocator_free(*mut Allocator, *mut c_void) -> Outcome;
    78 default_allocator(*mut *mut Allocator) -> Outcome;
    92 release_env(*mut Env);
    93 release_status(*mut Status);
    94 release_memory(*mut MemoryInfo);
    95 release_session(*mut Session);
    96 release_value(*mut Value);
    99 release_tensor_info(*mut TensorInfo);
    100 release_session_options(*mut SessionOptions);
}

/// Elements are f32.
pub const FLOAT: c_int = 1;
/// Errors only; warnings about a model are for its author.
pub const LOG_ERRORS: c_int = 3;
/// Every optimization.
pub const OPTIMIZE_ALL: c_int = 99;
/// The allocator without an arena, for memory that is ours.
pub const DEVICE_ALLOCATOR: c_int = 0;
/// Memory that the CPU provider uses by default.
pub const MEMORY_DEFAULT: c_int = 0;
