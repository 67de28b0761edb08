//! The process that tries a model: limits itself, loads the file, runs one frame, and says in one line how that went.
//!
//! Whatever the inference engine does to it (an abort, memory without end, a loop), the daemon only loses this child.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use eomt_edge_core::data::Task;
use eomt_edge_core::model::ReuseConfig;
use eomt_edge_host::bounds;
use eomt_edge_host::contents::Contents;
use eomt_edge_host::files;
use rustix::process::{Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::set_no_new_privs;
use serde::{Deserialize, Serialize};

use super::builder::{LOAD_STACK, Network};
use crate::config::ModelConfig;

/// What is to be tried, but for the path, which may be any bytes and is an argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    threads: usize,
    cores: Vec<usize>,
    isa: String,
    normalization: String,
    bf16: bool,
    merge: String,
    task: Option<String>,
    reuse: Option<String>,
    sha256: String,
    /// Of processor time on each thread, after which the kernel ends an orphan.
    seconds: u64,
    /// By the daemon.
    held: Held,
}

/// Memory that a process holds, bytes: what its limits count.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Held {
    /// RLIMIT_DATA.
    data: u64,
    /// RLIMIT_AS.
    size: u64,
}

impl Held {
    /// By this process.
    fn now() -> Held {
        let status = system("/proc/self/status".as_ref()).unwrap_or_default();
        let field = |name| files::kibibytes(&status, name).unwrap_or(0);
        Held { data: field("VmData:"), size: field("VmSize:") }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It ran.
    Fine(Box<Tried>),
    /// It did not; one sentence.
    Refused {
        /// Names the file.
        sentence: String,
        /// The configuration is at fault.
        is_usage: bool,
    },
}

/// A model that has run one frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// What was read.
    pub contents: Contents,
    /// The model's name for people.
    pub name: String,
    /// Of the weights; empty where the file does not say.
    pub licence: String,
    /// Panoptic, instance or semantic.
    pub task: String,
    /// (height, width) of the input.
    pub input_size: (usize, usize),
    /// Number of classes.
    pub classes: usize,
    /// A network for video, which carries its queries from frame to frame.
    pub video: bool,
    /// Limits that the child could not set itself, and why.
    pub unlimited: Vec<String>,
}

impl Request {
    pub fn new(config: &ModelConfig, seconds: u64) -> Request {
        Request {
            threads: config.threads,
            cores: config.cores.clone(),
            isa: config.isa.clone(),
            normalization: config.normalization.name().to_owned(),
            bf16: config.bf16,
            merge: config.merge.to_string(),
            task: config.task.map(|task| task.name().to_owned()),
            reuse: config.reuse.map(|reuse| reuse.to_string()),
            sha256: config.sha256.clone(),
            seconds,
            held: Held::now(),
        }
    }

    fn config(&self, path: &Path) -> Result<ModelConfig, String> {
        Ok(ModelConfig {
            path: path.to_owned(),
            threads: self.threads,
            cores: self.cores.clone(),
            isa: self.isa.clone(),
            normalization: self.normalization.parse()?,
            bf16: self.bf16,
            merge: self.merge.parse()?,
            task: self.task.as_deref().map(str::parse::<Task>).transpose()?,
            reuse: self.reuse.as_deref().map(str::parse::<ReuseConfig>).transpose().map_err(|error| error.to_string())?,
            sha256: self.sha256.clone(),
            ..ModelConfig::default()
        })
    }
}

/// The longest request, bytes: some numbers and words.
const REQUEST_BYTES_MAX: u64 = 1 << 16;

/// Descriptors that a model and its files need, with room.
const FILES_MAX: u64 = 64;

/// No processor works for longer, seconds: a thousand years.
const SECONDS_MAX: u64 = 1 << 35;

/// However little memory is free, the program itself needs this much.
const MEMORY_MIN: u64 = 64 << 20;

/// The whole life of the process; `main` calls it for the hidden subcommand.
///
/// # Errors
/// When the request cannot be read, the parent has gone, or the answer cannot be written.
pub fn try_model_main(parent: i32, path: &Path) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // it may have gone before
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent) {
        return Err(io::Error::other("the daemon has gone"));
    }
    let mut text = String::new();
    io::stdin().take(REQUEST_BYTES_MAX).read_to_string(&mut text)?;
    let request: Request = serde_json::from_str(&text)?;
    let answer = match no_room(&request.held) {
        Some(reason) => Answer::Refused { sentence: format!("{}: it cannot be tried: {reason}", path.display()), is_usage: false },
        None => answer(&request, path, limit(&request)),
    };
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &answer)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

fn answer(request: &Request, path: &Path, unlimited: Vec<String>) -> Answer {
    let config = match request.config(path) {
        Ok(config) => config,
        Err(sentence) => return Answer::Refused { sentence, is_usage: true },
    };
    // with less than the daemon has for it: what passes here fits there
    match Network::start_on(LOAD_STACK / 2, &config, None) {
        Err(error) => {
            let (sentence, is_usage) = (error.to_string(), error.is_usage());
            let is_named = is_usage || sentence.contains(&*path.to_string_lossy());
            Answer::Refused { sentence: if is_named { sentence } else { format!("{}: {sentence}", path.display()) }, is_usage }
        }
        Ok(network) => {
            let metadata = network.pipeline.model().metadata();
            Answer::Fine(Box::new(Tried {
                name: metadata.name.clone(),
                licence: metadata.licence.clone(),
                task: metadata.task.name().to_owned(),
                input_size: metadata.input_size,
                classes: metadata.labels.len(),
                video: metadata.state.is_some(),
                contents: network.contents,
                unlimited,
            }))
        }
    }
}

/// Half of what the daemon may still take of a limit of which it holds so much: frames go on while a model is loaded, and the first ones
/// that it sees take memory as well, when the old one's has gone back to an allocator's arena and not to the system.
fn room(resource: Resource, held: u64) -> Option<u64> {
    let left = getrlimit(resource).current?.saturating_sub(held);
    Some(left / 2)
}

/// Why a model finds no room beside what runs, when not even this process does.
fn no_room(daemon: &Held) -> Option<String> {
    let own = Held::now();
    let limits = [(Resource::Data, daemon.data, own.data, "-d"), (Resource::As, daemon.size, own.size, "-v")];
    limits.into_iter().find_map(|(resource, held, needed, flag)| {
        let room = room(resource, held).filter(|room| *room < needed)?;
        Some(format!("out of memory: only {} MiB are left for it beside what runs (`ulimit {flag}`)", room >> 20))
    })
}

/// At most `most`, and no more than there was; the hard limit lies above the soft one by `above`.
fn lowered(Rlimit { current, maximum }: Rlimit, most: u64, above: u64) -> Rlimit {
    let soft = [current, maximum].into_iter().flatten().fold(most, u64::min);
    Rlimit { current: Some(soft), maximum: Some(maximum.map_or(soft + above, |hard| hard.min(soft + above))) }
}

/// Bounds what this process can take; returns what could not be bounded. Dumps and files are none of its business, and when memory is
/// short, the kernel shall take it first.
fn limit(request: &Request) -> Vec<String> {
    let threads = match request.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let mut failed = Vec::new();
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            failed.push(format!("{what} ({error})"));
        }
    };
    let limits = [
        ("core dumps", Resource::Core, Some(0), 0),
        ("files that it writes", Resource::Fsize, Some(0), 0),
        ("open files", Resource::Nofile, Some(FILES_MAX), 0),
        // SIGXCPU, which has a name, comes before SIGKILL
        ("processor time", Resource::Cpu, Some(request.seconds.saturating_mul(threads as u64 + 1).min(SECONDS_MAX)), 1),
        ("memory", Resource::Data, memory().map(|bytes| bytes.max(MEMORY_MIN)), 0),
        ("memory beside what runs", Resource::Data, room(Resource::Data, request.held.data), 0),
        // Only where it is limited: allocators and threads reserve far more of it than they use.
        ("address space", Resource::As, room(Resource::As, request.held.size), 0),
    ];
    for (what, resource, most, above) in limits {
        if let Some(most) = most {
            note(what, setrlimit(resource, lowered(getrlimit(resource), most, above)).map_err(io::Error::from));
        }
    }
    note("privileges", set_no_new_privs(true).map_err(io::Error::from));
    note("its place when memory is short", std::fs::write("/proc/self/oom_score_adj", "1000"));
    failed
}

/// Memory that this process may take without others losing theirs, bytes: what is free or can be freed, of the machine and of the control
/// groups.
fn memory() -> Option<u64> {
    let info = system("/proc/meminfo".as_ref())?;
    let machine = files::kibibytes(&info, "MemAvailable:")? + files::kibibytes(&info, "SwapFree:").unwrap_or(0);
    Some(control_groups().into_iter().fold(machine, u64::min))
}

/// The text of a file of the system.
fn system(path: &Path) -> Option<String> {
    files::read_text(path, &bounds::SYSTEM).ok()
}

/// What is left in each control group (version 2) above this process that has a limit.
fn control_groups() -> Vec<u64> {
    let listed = system("/proc/self/cgroup".as_ref()).unwrap_or_default();
    let Some(own) = listed.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let root = PathBuf::from("/sys/fs/cgroup");
    let group = root.join(own);
    let number = |path: PathBuf| system(&path)?.trim().parse::<u64>().ok();
    let left = |group: &Path| {
        let most = number(group.join("memory.max"))?;
        let used = number(group.join("memory.current"))?;
        let stat = system(&group.join("memory.stat")).unwrap_or_default();
        Some(most.saturating_sub(used.saturating_sub(file_pages(&stat))))
    };
    group.ancestors().take_while(|group| group.starts_with(&root)).filter_map(left).collect()
}

/// Pages of files, which go when others need room, bytes: read lately or not.
fn file_pages(memory_stat: &str) -> u64 {
    let value = |name: &str| memory_stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
    value("inactive_file ") + value("active_file ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_lowered_only() {
        let limit = |current, maximum| Rlimit { current, maximum };
        for (before, most, above, after) in [
            (limit(None, None), 100, 0, (100, 100)),
            (limit(None, None), 100, 1, (100, 101)),
            (limit(Some(50), None), 100, 0, (50, 50)),
            (limit(Some(50), Some(70)), 100, 1, (50, 51)),
            (limit(Some(70), Some(70)), 100, 1, (70, 70)),
            (limit(Some(500), Some(700)), 100, 0, (100, 100)),
        ] {
            let Rlimit { current, maximum } = lowered(before, most, above);
            assert_eq!((current, maximum), (Some(after.0), Some(after.1)));
        }
    }

    #[test]
    fn all_pages_of_files_can_go() {
        let stat = "anon 7\nfile 100\ninactive_anon 3\nactive_anon 4\ninactive_file 60\nactive_file 30\nunevictable 0\n";
        assert_eq!((file_pages(stat), file_pages("")), (90, 0));
    }

    #[test]
    fn what_is_held_is_told() {
        let Held { data, size } = Held::now();
        assert!(0 < data && data < size, "{data} of {size}");
    }

    #[test]
    fn a_request_survives_the_way() {
        let reuse = Some(ReuseConfig { threshold: 2.5, budget: 0.25, refresh: 9 });
        let (isa, sha256) = ("scalar".to_owned(), "ab".to_owned());
        let config = ModelConfig { threads: 3, cores: vec![1, 2], isa, sha256, reuse, bf16: true, ..ModelConfig::default() };
        let text = serde_json::to_string(&Request::new(&config, 5)).unwrap();
        let request: Request = serde_json::from_str(&text).unwrap();
        assert_eq!(request.config(&config.path), Ok(config));
    }

    #[test]
    fn free_memory_is_told() {
        assert!(memory().is_some_and(|bytes| bytes > 0));
    }
}
