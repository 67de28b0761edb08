//! Bags in SQLite, rosbag2's first storage: a table of topics and a table of messages, read by the messages' row ids, which is the order in
//! which they were recorded.
//!
//! The file may be anybody's. SQLite is asked for simple things of two ordinary tables; views and virtual tables of these names are refused,
//! functions in the schema are not trusted, and no value may be longer than a message.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use super::storage::Fault;
use super::{Message, NAME_BYTES_MAX, TOPICS_MAX, Topic};

/// A SQLite file that is being read.
pub(super) struct SqliteFile {
    connection: Connection,
    topics: HashMap<i64, Arc<Topic>>,
    /// The row that was read last.
    row: i64,
}

impl SqliteFile {
    pub fn open(path: &Path, message_bytes_max: usize) -> Result<SqliteFile, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        // a recorder that was killed leaves its last messages beside the file, and SQLite must be asked to look there
        let log = path.with_file_name(format!("{}-wal", path.file_name().unwrap_or_default().to_string_lossy()));
        let with_log = std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
        let open = |suffix| Connection::open_with_flags(uri(path, suffix), flags).map_err(told);
        let file = if with_log { open("").and_then(|found| SqliteFile::new(found, message_bytes_max)) } else { Err(String::new()) };
        // without a log, or where it cannot be read (a read-only medium): the file as it is, without locks
        file.or_else(|_| open("?immutable=1").and_then(|found| SqliteFile::new(found, message_bytes_max)))
    }

    pub fn of_bytes(bytes: &[u8], message_bytes_max: usize) -> Result<SqliteFile, String> {
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
        Ok(SqliteFile { connection, topics, row: i64::MIN })
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
            let Some((row, topic, timestamp)) = statement.query_row([self.row], head).optional().map_err(fault)? else { return Ok(None) };
            self.row = row;
            let Some(topic) = self.topics.get(&topic) else { continue };
            if wanted.is_some_and(|wanted| wanted != topic.name) {
                continue;
            }
            let log_time_ns =
                u64::try_from(timestamp).map_err(|_| Fault::passing(format!("row {row} is of a time before 1970")))?;
            let mut statement = self.connection.prepare_cached("SELECT data FROM messages WHERE rowid = ?1").map_err(fault)?;
            return match statement.query_row([row], |row| row.get(0)) {
                Ok(data) => Ok(Some(Message { topic: Arc::clone(topic), log_time_ns, data })),
                Err(error) => Err(Fault::passing(format!("row {row}: {}", told(error)))),
            };
        }
    }
}

fn topics(connection: &Connection) -> rusqlite::Result<HashMap<i64, Arc<Topic>>> {
    let mut statement = connection.prepare("SELECT id, name, type, serialization_format FROM topics LIMIT ?1")?;
    let topic = |row: &Row| {
        let text = |at| row.get::<_, String>(at).map(|mut text| {
            let end = text.floor_char_boundary(NAME_BYTES_MAX);
            text.truncate(end);
            text
        });
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
