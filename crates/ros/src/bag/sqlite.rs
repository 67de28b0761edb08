//! Bags in SQLite, rosbag2's first storage: a table of topics and a table of messages, read by the messages' row ids, which is the order in
//! which they were recorded.
//!
//! The file may be anybody's. SQLite is asked for simple things of two ordinary tables; views and virtual tables of these names are refused,
//! functions in the schema are not trusted, and no value may be longer than a message.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use super::error::Fault;
use super::{Message, NAME_BYTES_MAX, TOPICS_MAX, Topic};

/// The head of a SQLite file, bytes.
const HEAD_BYTES: u64 = 100;

/// A SQLite file that is being read.
pub(super) struct SqliteFile {
    connection: Connection,
    topics: HashMap<i64, Arc<Topic>>,
    /// The row that was read last.
    row: i64,
    /// Why the log beside the file is missing from what is read.
    lost_log: Option<String>,
}

impl SqliteFile {
    pub fn open(path: &Path, message_bytes_max: usize) -> Result<SqliteFile, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        // a recorder that was killed leaves its last messages beside the file, and SQLite must be asked to look there
        let log = path.with_file_name(format!("{}-wal", path.file_name().unwrap_or_default().to_string_lossy()));
        let with_log = std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
        let open = |suffix| {
            let connection = Connection::open_with_flags(uri(path, suffix), flags).map_err(told)?;
            SqliteFile::new(connection, message_bytes_max)
        };
        // the file as it is, without locks: also on a medium that cannot be written to
        let alone = "?immutable=1";
        if !with_log {
            return open(alone);
        }
        open("").or_else(|reason| {
            let lost = format!("the log beside it (-wal) cannot be read ({reason}): copy both to a folder that can be written to");
            Ok(SqliteFile { lost_log: Some(lost), ..open(alone)? })
        })
    }

    pub fn of_bytes(bytes: &[u8], message_bytes_max: usize) -> Result<SqliteFile, String> {
        let bytes = &bytes[..bytes.len() - bytes.len() % page_bytes(bytes).max(1) as usize];
        let mut connection = Connection::open_in_memory().map_err(told)?;
        connection.deserialize_read_exact("main", Cursor::new(bytes), bytes.len(), true).map_err(told)?;
        SqliteFile::new(connection, message_bytes_max)
    }

    fn new(connection: Connection, message_bytes_max: usize) -> Result<SqliteFile, String> {
        let limit = i32::try_from(message_bytes_max).unwrap_or(i32::MAX).max(1 << 16);
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, limit).map_err(told)?;
        // writable_schema: a file that is shorter than its header says is read as far as it goes. Nothing is written: it is open for reading
        let settings = "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA writable_schema = ON;";
        connection.execute_batch(settings).map_err(told)?;
        for table in ["topics", "messages"] {
            let find = "SELECT count(*) FROM sqlite_master WHERE name = ?1 AND type = 'table' AND rootpage > 0";
            let found: i64 = connection.query_row(find, [table], |row| row.get(0)).map_err(told)?;
            if found != 1 {
                return Err(format!("it has no table '{table}', which rosbag2 writes"));
            }
        }
        let topics = topics(&connection).map_err(told)?;
        if topics.len() > TOPICS_MAX {
            return Err(format!("it has more than {TOPICS_MAX} topics"));
        }
        Ok(SqliteFile { connection, topics, row: i64::MIN, lost_log: None })
    }

    pub fn topics(&self) -> Vec<Topic> {
        self.topics.values().map(|topic| Topic::clone(topic)).collect()
    }

    /// The next message of `wanted`, or of any topic.
    pub fn next(&mut self, wanted: Option<&str>) -> Result<Option<Message>, Fault> {
        loop {
            // the row first: what follows may fail for it alone
            let next = "SELECT rowid, topic_id, timestamp FROM messages WHERE rowid > ?1 ORDER BY rowid LIMIT 1";
            let mut statement = self.connection.prepare_cached(next).map_err(fault)?;
            let head = |row: &Row| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
            let Some((row, topic, timestamp)) = statement.query_row([self.row], head).optional().map_err(fault)? else {
                return self.lost_log.take().map_or(Ok(None), |reason| Err(Fault::end(reason)));
            };
            if row <= self.row {
                // a damaged tree, which would go round
                return Err(Fault::end(format!("row {row} comes after row {}", self.row)));
            }
            self.row = row;
            let Some(topic) = self.topics.get(&topic) else { continue };
            if wanted.is_some_and(|wanted| wanted != topic.name) {
                continue;
            }
            let log_time_ns = u64::try_from(timestamp).map_err(|_| Fault::passing(format!("row {row} is of a time before 1970")))?;
            let mut statement = self.connection.prepare_cached("SELECT data FROM messages WHERE rowid = ?1").map_err(fault)?;
            return match statement.query_row([row], |row| row.get(0)) {
                Ok(data) => Ok(Some(Message { topic: Arc::clone(topic), log_time_ns, data })),
                Err(error) => Err(Fault::passing(format!("row {row}: {}", told(error)))),
            };
        }
    }
}

/// Where a file's last page would be, if only a part of it is there: SQLite reads zeros for the rest.
pub(super) fn cut_page(file: &mut File) -> io::Result<Option<u64>> {
    let len = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    let page = page_bytes(&head);
    Ok((page > 0 && len % page > 0).then(|| len - len % page))
}

/// Of a page, as the file's head says (sqlite.org/fileformat, 1.3.2): 512 to 65536, else 0.
fn page_bytes(head: &[u8]) -> u64 {
    match head.get(16..18).map(|size| u16::from_be_bytes([size[0], size[1]])) {
        Some(1) => 65536,
        Some(size) if size >= 512 && size.is_power_of_two() => size.into(),
        _ => 0,
    }
}

fn topics(connection: &Connection) -> rusqlite::Result<HashMap<i64, Arc<Topic>>> {
    let mut statement = connection.prepare("SELECT id, name, type, serialization_format FROM topics LIMIT ?1")?;
    let topic = |row: &Row| {
        let text = |at| {
            row.get::<_, String>(at).map(|mut text| {
                let end = text.floor_char_boundary(NAME_BYTES_MAX);
                text.truncate(end);
                text
            })
        };
        Ok((row.get(0)?, Arc::new(Topic { name: text(1)?, type_name: text(2)?, encoding: text(3)? })))
    };
    statement.query_map([TOPICS_MAX as i64 + 1], topic)?.collect()
}

/// A path as SQLite's URIs take it.
fn uri(path: &Path, suffix: &str) -> String {
    use std::os::unix::ffi::OsStrExt;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let escape = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    format!("file:{}{suffix}", absolute.as_os_str().as_bytes().iter().map(escape).collect::<String>())
}

fn told(error: rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(words)) => words,
        other => other.to_string(),
    }
}

fn fault(error: rusqlite::Error) -> Fault {
    Fault::end(told(error))
}
