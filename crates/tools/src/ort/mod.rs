//! ONNX Runtime as the reference runtime, from a shared library that is loaded on request: nothing is linked, nothing is shipped.
//!
//! ```text
//! let library = Library::open("libonnxruntime.so".as_ref())?;
//! let session = Session::open(library, "model.onnx".as_ref(), 1)?;
//! let outputs = session.run(&[(&[1, 3, 2, 2], &[0.0; 12])])?;
//! println!("{} values", outputs.floats(0)?.len());
//! ```
//!
//! Invariants: a session has all optimizations, the CPU provider, and the given number of threads inside an operator, one between operators;
//! every object is released once. Refuses: other elements than f32, other providers, unloading the library (its threads may
//! still be ending).
#![allow(unsafe_code)]

mod api;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

use api::{Api, ApiBase, Outcome};

/// Why ONNX Runtime gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrtError {
    #[error("{}: this is no library that can be loaded: {reason}", path.display())]
    NoLibrary { path: PathBuf, reason: String },
    #[error("{}: this library is not ONNX Runtime", path.display())]
    NotOnnxRuntime { path: PathBuf },
    #[error("{}: ONNX Runtime {version} is too old; {} or newer is needed", path.display(), api::OLDEST_RELEASE)]
    TooOld { path: PathBuf, version: String },
    #[error("{}: ONNX Runtime cannot {action} it: {reason}", path.display())]
    Model { path: PathBuf, action: &'static str, reason: String },
    #[error("ONNX Runtime cannot {action}: {reason}")]
    Call { action: &'static str, reason: String },
}

/// A loaded ONNX Runtime.
pub(crate) struct Library {
    api: Api,
    version: String,
}

impl Library {
    /// Loads the library at `path`; it stays loaded until the process ends.
    pub fn open(path: &Path) -> Result<&'static Library, OrtError> {
        // a name without a slash would be searched for in the system's folders
        let file = path.canonicalize().map_err(|error| OrtError::NoLibrary { path: path.to_owned(), reason: error.to_string() })?;
        // SAFETY: runs the initializers of a library that the user names for this purpose, as linking it would.
        let library = unsafe { libloading::Library::new(&file) }
            .map_err(|error| OrtError::NoLibrary { path: path.to_owned(), reason: last_cause(&error, &file) })?;
        // never dropped: worker threads of a session may outlive it by a moment
        let library = Box::leak(Box::new(library));
        let not_ort = || OrtError::NotOnnxRuntime { path: path.to_owned() };
        // SAFETY: a symbol of this name is ONNX Runtime's, and the published header declares it so.
        let get_base = unsafe { library.get::<unsafe extern "C" fn() -> *const ApiBase>(b"OrtGetApiBase\0") }.map_err(|_| not_ort())?;
        // SAFETY: the function takes nothing and returns a pointer to a static structure.
        let base = unsafe { get_base().as_ref() }.ok_or_else(not_ort)?;
        // SAFETY: returns a static string.
        let version = unsafe { text((base.get_version)()) };
        // SAFETY: returns a static table, or null for a version that the library does not know.
        let table = unsafe { (base.get_api)(api::TABLE_VERSION) };
        if table.is_null() {
            return Err(OrtError::TooOld { path: path.to_owned(), version });
        }
        // SAFETY: the table of this very version, not null.
        let api = unsafe { Api::of_table(table) };
        Ok(Box::leak(Box::new(Library { api, version })))
    }

    /// As the library reports it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `Err` with the first line of the library's reason.
    fn check(&self, outcome: Outcome) -> Result<(), String> {
        if outcome.is_null() {
            return Ok(());
        }
        // SAFETY: not null, so it is an error that this call owns: read once, then released.
        let reason = unsafe {
            let reason = text((self.api.error_message)(outcome));
            (self.api.release_status)(outcome);
            reason
        };
        Err(reason.lines().next().unwrap_or("it does not say why").trim().to_owned())
    }
}

/// The loader's own words, without the path that they open with.
fn last_cause(error: &dyn std::error::Error, file: &Path) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let words = cause.to_string();
    words.strip_prefix(&format!("{}: ", file.display())).map_or(words.clone(), str::to_owned)
}

/// # Safety
/// `pointer` is null or a string that ends in a zero.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// One network, ready to run. Its fields are null until they are made, so that a half-made one is released too.
pub(crate) struct Session {
    library: &'static Library,
    env: *mut api::Env,
    options: *mut api::SessionOptions,
    session: *mut api::Session,
    memory: *mut api::MemoryInfo,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

impl Session {
    /// Opens an ONNX file; `threads` work inside an operator.
    pub fn open(library: &'static Library, model: &Path, threads: usize) -> Result<Session, OrtError> {
        let (env, options, session, memory) = (null_mut(), null_mut(), null_mut(), null_mut());
        let mut this = Session { library, env, options, session, memory, inputs: Vec::new(), outputs: Vec::new() };
        let failed = |reason| OrtError::Model { path: model.to_owned(), action: "open", reason };
        let path = CString::new(model.as_os_str().as_bytes()).map_err(|error| failed(error.to_string()))?;
        let threads = c_int::try_from(threads).map_err(|error| failed(error.to_string()))?;
        let Library { api, .. } = library;
        // SAFETY: pointers to fields that live through each call; strings that end in a zero; objects made by the calls before.
        unsafe {
            let check = |outcome| library.check(outcome).map_err(failed);
            check((api.create_env)(api::LOG_ERRORS, c"eomt-edge".as_ptr(), &raw mut this.env))?;
            check((api.disable_telemetry)(this.env))?;
            check((api.create_session_options)(&raw mut this.options))?;
            check((api.set_optimization_level)(this.options, api::OPTIMIZE_ALL))?;
            check((api.set_intra_op_threads)(this.options, threads))?;
            check((api.set_inter_op_threads)(this.options, 1))?;
            check((api.create_session)(this.env, path.as_ptr(), this.options, &raw mut this.session))?;
            check((api.cpu_memory)(api::DEVICE_ALLOCATOR, api::MEMORY_DEFAULT, &raw mut this.memory))?;
        }
        this.read_names().map_err(failed)?;
        Ok(this)
    }

    fn read_names(&mut self) -> Result<(), String> {
        let Library { api, .. } = self.library;
        let (mut inputs, mut outputs, mut allocator) = (0, 0, null_mut());
        // SAFETY: pointers to variables that live through the calls; the session exists.
        unsafe {
            self.library.check((api.input_count)(self.session, &raw mut inputs))?;
            self.library.check((api.output_count)(self.session, &raw mut outputs))?;
            self.library.check((api.default_allocator)(&raw mut allocator))?;
        }
        let name = |of: unsafe extern "C" fn(_, usize, _, *mut *mut c_char) -> Outcome, index: usize| -> Result<CString, String> {
            let mut name = null_mut();
            // SAFETY: `index` is below the count; the name is copied, then freed by the allocator that made it.
            unsafe {
                self.library.check(of(self.session.cast_const(), index, allocator, &raw mut name))?;
                let copy = CStr::from_ptr(name).to_owned();
                self.library.check((api.allocator_free)(allocator, name.cast()))?;
                Ok(copy)
            }
        };
        let inputs = (0..inputs).map(|index| name(api.input_name, index)).collect::<Result<_, _>>()?;
        let outputs = (0..outputs).map(|index| name(api.output_name, index)).collect::<Result<_, _>>()?;
        (self.inputs, self.outputs) = (inputs, outputs);
        Ok(())
    }

    /// The index of the output `name`.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|output| output.to_bytes() == name.as_bytes())
    }

    /// Runs the network on a tensor, shape and values, for each of its inputs in the file's order.
    pub fn run(&self, tensors: &[(&[i64], &[f32])]) -> Result<Outputs<'_>, OrtError> {
        let Library { api, .. } = self.library;
        let failed = |reason| OrtError::Call { action: "run the network", reason };
        if tensors.len() != self.inputs.len() {
            return Err(failed(format!("it has {} inputs, not {}", self.inputs.len(), tensors.len())));
        }
        let mut inputs = Inputs { session: self, values: Vec::new() };
        for (shape, values) in tensors {
            inputs.push(shape, values).map_err(failed)?;
        }
        let input_names: Vec<*const c_char> = self.inputs.iter().map(|name| name.as_ptr()).collect();
        let names: Vec<*const c_char> = self.outputs.iter().map(|name| name.as_ptr()).collect();
        let mut outputs = Outputs { session: self, values: vec![null_mut(); names.len()] };
        let (count, values) = (names.len(), outputs.values.as_mut_ptr());
        let (feeds, fed) = (inputs.values.as_ptr().cast::<*const api::Value>(), inputs.values.len());
        // SAFETY: the tensors borrow the values of `tensors`, which live through the call; a network does not write to its inputs. Names
        // and values are arrays of the lengths given.
        unsafe {
            let ran = (api.run)(self.session, null(), input_names.as_ptr(), feeds, fed, names.as_ptr(), count, values);
            self.library.check(ran).map_err(failed)?;
        }
        Ok(outputs)
    }
}

/// Tensors over the caller's values, for one run.
struct Inputs<'a> {
    session: &'a Session,
    values: Vec<*mut api::Value>,
}

impl<'a> Inputs<'a> {
    /// Adds a tensor.
    fn push(&mut self, shape: &[i64], values: &'a [f32]) -> Result<(), String> {
        assert_eq!(shape.iter().product::<i64>(), values.len() as i64, "the shape is the input's");
        let Session { library, memory, .. } = self.session;
        let (data, mut value) = (values.as_ptr().cast_mut().cast::<c_void>(), null_mut());
        let (bytes, rank) = (size_of_val(values), shape.len());
        // SAFETY: `data` and `shape` are of the lengths given; the tensor is released with `self`, which `values` outlives.
        let made = unsafe { (library.api.tensor_over)(*memory, data, bytes, shape.as_ptr(), rank, api::FLOAT, &raw mut value) };
        library.check(made)?;
        self.values.push(value);
        Ok(())
    }
}

impl Drop for Inputs<'_> {
    fn drop(&mut self) {
        for &value in &self.values {
            // SAFETY: made by this library, released once.
            unsafe { (self.session.library.api.release_value)(value) };
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Library { api, .. } = self.library;
        // SAFETY: made by this library, released once, the session before what it was made from; null is accepted.
        unsafe {
            (api.release_memory)(self.memory);
            (api.release_session)(self.session);
            (api.release_session_options)(self.options);
            (api.release_env)(self.env);
        }
    }
}

/// The outputs of one run.
pub(crate) struct Outputs<'a> {
    session: &'a Session,
    values: Vec<*mut api::Value>,
}

impl Outputs<'_> {
    /// The values of the output with the index `place`.
    pub fn floats(&self, place: usize) -> Result<&[f32], OrtError> {
        let library = self.session.library;
        let failed = |reason| OrtError::Call { action: "give an output", reason };
        let (value, mut info, mut element, mut count, mut data) = (self.values[place], null_mut(), 0, 0, null_mut());
        // SAFETY: a run that went well filled every value; pointers to variables that live through the calls.
        unsafe {
            library.check((library.api.tensor_info)(value, &raw mut info)).map_err(failed)?;
            let described = library
                .check((library.api.element_type)(info, &raw mut element))
                .and_then(|()| library.check((library.api.element_count)(info, &raw mut count)));
            (library.api.release_tensor_info)(info);
            described.map_err(failed)?;
            library.check((library.api.tensor_data)(value, &raw mut data)).map_err(failed)?;
        }
        if element != api::FLOAT || data.is_null() {
            return Err(failed(format!("its output '{}' is not f32", self.session.outputs[place].to_string_lossy())));
        }
        // SAFETY: `count` f32 that the value owns, which lives as long as `self`; nobody writes to them.
        Ok(unsafe { std::slice::from_raw_parts(data.cast::<f32>(), count) })
    }
}

impl Drop for Outputs<'_> {
    fn drop(&mut self) {
        for &value in &self.values {
            // SAFETY: made by this library, released once; null is accepted.
            unsafe { (self.session.library.api.release_value)(value) };
        }
    }
}
