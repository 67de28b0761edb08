//! One file of a bag: undoes whole-file compression, tells MCAP from SQLite by content, and gives messages.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use eomt_edge_files::files;

use super::mcap::McapFile;
use super::sqlite::SqliteFile;
use super::unpack;
use super::{BagError, Message, Topic, listing, sqlite};

/// A SQLite file that is compressed as a whole, or was cut, is read from memory, since SQLite reads here and there: recorders split files far
/// below.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// How many of these there is room for, once as it is read and once as SQLite keeps it.
fn unpacked_bytes_max() -> u64 {
    files::free_memory().map_or(UNPACKED_BYTES_MAX, |free| UNPACKED_BYTES_MAX.min(free / 3))
}

/// How MCAP files begin, and SQLite's.
const MCAP_MAGIC: &[u8] = b"\x89MCAP0\r\n";
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

enum Reader {
    Mcap(McapFile),
    Sqlite(SqliteFile),
}

/// An open file.
pub(super) struct Storage {
    path: PathBuf,
    reader: Reader,
    /// Messages so far.
    count: u64,
    message_bytes_max: usize,
    ended: bool,
}

/// Whether the file begins as one of a bag.
pub(super) fn check(path: &Path) -> Result<(), BagError> {
    let mut input = plain(path, listing::open(path)?)?;
    let head = head(path, &mut input)?;
    if is_mcap(&head) || is_sqlite(&head) { Ok(()) } else { Err(no_bag(path, &head)) }
}

impl Storage {
    pub fn open(path: &Path, message_bytes_max: usize) -> Result<Storage, BagError> {
        let mut file = listing::open(path)?;
        let packing = unpack::packing(&head(path, &mut file)?);
        rewind(path, &mut file)?;
        if packing.is_some() {
            return Storage::of_stream(path, plain(path, file)?, message_bytes_max);
        }
        let head = head(path, &mut file)?;
        rewind(path, &mut file)?;
        if let Some(whole) = is_sqlite(&head).then(|| sqlite::cut_page(&mut file)).transpose().map_err(io(path))?.flatten() {
            if whole > unpacked_bytes_max() {
                let reason = format!("it ends within a page; cut it to whole ones first: truncate -s {whole} {}", path.display());
                return Err(damaged(path)(reason));
            }
            rewind(path, &mut file)?;
            return Storage::of_stream(path, Box::new(file), message_bytes_max);
        }
        let reader = match () {
            () if is_mcap(&head) => Reader::Mcap(McapFile::of_file(file, message_bytes_max)),
            () if is_sqlite(&head) => Reader::Sqlite(SqliteFile::open(path, message_bytes_max).map_err(damaged(path))?),
            () => return Err(no_bag(path, &head)),
        };
        Ok(Storage::new(path, reader, message_bytes_max))
    }

    /// `bytes` as a file called `-`.
    pub fn of_bytes(bytes: &[u8], message_bytes_max: usize) -> Result<Storage, BagError> {
        let path = Path::new("-");
        let input: Box<dyn Read + Send> = match unpack::packing(bytes) {
            Some(packing) => unpack::reader(packing, Cursor::new(bytes.to_vec())).map_err(io(path))?,
            None => Box::new(Cursor::new(bytes.to_vec())),
        };
        Storage::of_stream(path, input, message_bytes_max)
    }

    fn of_stream(path: &Path, mut input: Box<dyn Read + Send>, message_bytes_max: usize) -> Result<Storage, BagError> {
        let head = head(path, &mut input)?;
        let stream = Cursor::new(head.clone()).chain(input);
        let reader = if is_mcap(&head) {
            Reader::Mcap(McapFile::of_stream(Box::new(BufReader::new(stream)), message_bytes_max))
        } else if is_sqlite(&head) {
            let mut bytes = Vec::new();
            let most = unpacked_bytes_max();
            // what a cut file has before its end is kept
            let cut = stream.take(most + 1).read_to_end(&mut bytes).err();
            if bytes.len() as u64 > most {
                let reason = format!("it has more than the {most} bytes that memory has room for; unpack it first (zstd -d, lz4 -d)");
                return Err(BagError::NoBag { path: path.to_owned(), reason });
            }
            let file = SqliteFile::of_bytes(&bytes, message_bytes_max);
            Reader::Sqlite(file.map_err(|reason| damaged(path)(cut.map_or(reason, |cut| cut.to_string())))?)
        } else {
            return Err(no_bag(path, &head));
        };
        Ok(Storage::new(path, reader, message_bytes_max))
    }

    fn new(path: &Path, reader: Reader, message_bytes_max: usize) -> Storage {
        Storage { path: path.to_owned(), reader, count: 0, message_bytes_max, ended: false }
    }

    /// All topics. The messages cannot be read after that.
    pub fn topics(&mut self) -> Result<Vec<Topic>, BagError> {
        match &mut self.reader {
            Reader::Mcap(file) => file.topics().map_err(damaged(&self.path)),
            Reader::Sqlite(file) => Ok(file.topics()),
        }
    }

    /// The next message of `wanted`, or of any topic, as it is stored. After an error there may be more.
    pub fn next(&mut self, wanted: Option<&str>) -> Result<Option<Message>, BagError> {
        if self.ended {
            return Ok(None);
        }
        let next = match &mut self.reader {
            Reader::Mcap(file) => file.next(wanted),
            Reader::Sqlite(file) => file.next(wanted),
        };
        match next {
            Ok(Some(message)) => {
                self.count += 1;
                Ok(Some(message))
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(fault) => {
                self.ended = fault.is_end;
                Err(BagError::Damaged { path: self.path.clone(), messages: self.count, reason: fault.reason })
            }
        }
    }

    /// With the message's own compression undone.
    pub fn unpacked(&self, message: Message) -> Result<Message, BagError> {
        let Some(packing) = unpack::packing(&message.data) else { return Ok(message) };
        match unpack::unpack(packing, &message.data, self.message_bytes_max) {
            Ok(data) => Ok(Message { data, ..message }),
            Err(reason) => {
                Err(BagError::Message { path: self.path.clone(), number: self.count, topic: message.topic.name.clone(), reason })
            }
        }
    }
}

fn io(path: &Path) -> impl Fn(io::Error) -> BagError {
    move |source| BagError::Io { path: path.to_owned(), source }
}

fn damaged(path: &Path) -> impl Fn(String) -> BagError {
    move |reason| BagError::Damaged { path: path.to_owned(), messages: 0, reason }
}

fn is_mcap(head: &[u8]) -> bool {
    head.starts_with(MCAP_MAGIC)
}

fn is_sqlite(head: &[u8]) -> bool {
    head.starts_with(SQLITE_MAGIC)
}

fn no_bag(path: &Path, head: &[u8]) -> BagError {
    let reason = match head {
        [] => "it is empty",
        head if head.starts_with(b"#ROSBAG") => "it is a bag of ROS 1; rosbags-convert makes one of ROS 2 from it",
        _ => "it begins neither as MCAP nor as SQLite",
    };
    BagError::NoBag { path: path.to_owned(), reason: reason.to_owned() }
}

/// The file without its compression.
fn plain(path: &Path, mut file: File) -> Result<Box<dyn Read + Send>, BagError> {
    let packing = unpack::packing(&head(path, &mut file)?);
    rewind(path, &mut file)?;
    match packing {
        Some(packing) => unpack::reader(packing, file).map_err(io(path)),
        None => Ok(Box::new(file)),
    }
}

/// As many of the first bytes as tell one kind of file from another.
fn head(path: &Path, input: &mut impl Read) -> Result<Vec<u8>, BagError> {
    let mut head = Vec::new();
    match input.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut head) {
        // compressed, and cut or damaged right at its beginning
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(io(path)(error)),
        _ => Ok(head),
    }
}

fn rewind(path: &Path, file: &mut File) -> Result<(), BagError> {
    file.seek(SeekFrom::Start(0)).map(|_| ()).map_err(io(path))
}
