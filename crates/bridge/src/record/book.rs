//! One MCAP file that is being written.
//!
//! ```text
//! header | metadata | chunk, its message indexes | chunk, its message indexes | ... | summary
//! ```
//!
//! Invariants: a chunk holds whole frames (all topics of each), and is closed by [`Book::close_chunk`] only. Text of message definitions and
//! channels stands in the file before their first message. Refuses: names of files, and what happens when the disk is full.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use mcap::records::{MessageHeader, Metadata};
use mcap::write::NoSeek;
use mcap::{Compression, WriteOptions, Writer};

use super::LIBRARY;
use super::error::RecordError;
use super::spool::{Room, Spool};

/// The name of the metadata record that says whose masks these are.
pub const METADATA: &str = "eomt-edge";

/// A message as it is written.
#[derive(Debug, Clone)]
pub struct Sample<'a> {
    /// With its namespace.
    pub topic: &'a str,
    /// Its type.
    pub schema: &'a Schema,
    /// Whether late readers get the last one (durability transient local).
    pub is_latched: bool,
    /// Of the picture: nanoseconds since 1970.
    pub stamp_ns: u64,
    /// When its masks were complete: nanoseconds since 1970.
    pub published_ns: u64,
    /// Of the ring.
    pub sequence: u32,
    /// CDR with encapsulation header.
    pub cdr: &'a [u8],
}

/// A message type as recordings carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// `sensor_msgs/msg/Image`.
    pub name: &'static str,
    /// All of it, with the types in it.
    pub definition: String,
}

/// The file.
pub struct Book {
    path: PathBuf,
    spool: Spool,
    writer: Writer<NoSeek<Spool>>,
    channels: HashMap<String, u16>,
    opened: Instant,
    chunk_opened: Option<Instant>,
    chunk_bytes: usize,
    chunks: u64,
}

impl Book {
    /// With its header, in memory.
    ///
    /// # Errors
    /// [`RecordError::Mcap`].
    pub fn new(spool: Spool, path: PathBuf, now: Instant) -> Result<Book, RecordError> {
        let writer = options().create(NoSeek::new(spool.clone()));
        let writer = writer.map_err(|source| RecordError::Mcap { path: path.clone(), source })?;
        Ok(Book { path, spool, writer, channels: HashMap::new(), opened: now, chunk_opened: None, chunk_bytes: 0, chunks: 0 })
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What lies behind it.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Bytes so far, but for the open chunk.
    pub fn bytes(&self) -> u64 {
        self.spool.bytes()
    }

    /// When it was opened.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Chunks that are closed.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// When the open chunk got its first message, and its bytes before compression.
    pub fn open_chunk(&self) -> Option<(Instant, usize)> {
        self.chunk_opened.map(|since| (since, self.chunk_bytes))
    }

    /// Says whose masks follow. Closes the chunk.
    ///
    /// # Errors
    /// [`RecordError::Mcap`].
    pub fn metadata(&mut self, metadata: &BTreeMap<String, String>) -> Result<(), RecordError> {
        self.close_chunk()?;
        let record = Metadata { name: METADATA.to_owned(), metadata: metadata.clone() };
        self.writer.write_metadata(&record).map_err(|source| self.failed(source))
    }

    /// Appends a message to the open chunk, or to a new one.
    ///
    /// # Errors
    /// [`RecordError::Mcap`].
    pub fn write(&mut self, sample: &Sample, now: Instant) -> Result<(), RecordError> {
        let channel_id = self.channel(sample)?;
        let Sample { sequence, stamp_ns: log_time, published_ns: publish_time, cdr, .. } = *sample;
        let header = MessageHeader { channel_id, sequence, log_time, publish_time };
        self.writer.write_to_known_channel(&header, cdr).map_err(|source| self.failed(source))?;
        self.chunk_opened.get_or_insert(now);
        self.chunk_bytes += cdr.len();
        Ok(())
    }

    fn channel(&mut self, sample: &Sample) -> Result<u16, RecordError> {
        if let Some(&id) = self.channels.get(sample.topic) {
            return Ok(id);
        }
        let Schema { name, definition } = sample.schema;
        let added = self.writer.add_schema(name, "ros2msg", definition.as_bytes()).and_then(|schema| {
            let profiles = BTreeMap::from([("offered_qos_profiles".to_owned(), qos(sample.is_latched))]);
            self.writer.add_channel(schema, sample.topic, "cdr", &profiles)
        });
        let id = added.map_err(|source| self.failed(source))?;
        self.channels.insert(sample.topic.to_owned(), id);
        Ok(id)
    }

    /// Compresses the open chunk, if any, into the spool.
    ///
    /// # Errors
    /// [`RecordError::Mcap`].
    pub fn close_chunk(&mut self) -> Result<(), RecordError> {
        if self.chunk_opened.take().is_some() {
            self.writer.flush().map_err(|source| self.failed(source))?;
            (self.chunk_bytes, self.chunks) = (0, self.chunks + 1);
        }
        Ok(())
    }

    /// Writes the summary, with the last bytes of the disk if need be; the file is complete then.
    ///
    /// # Errors
    /// [`RecordError::Unfinished`] when the disk is full, [`RecordError::Write`] when it fails.
    pub fn finish(mut self) -> Result<(PathBuf, Spool), RecordError> {
        self.writer.finish().map_err(|source| RecordError::Mcap { path: self.path.clone(), source })?;
        let Book { path, spool, .. } = self;
        match spool.drain(0) {
            Ok(Room::Enough) => Ok((path, spool)),
            Ok(Room::None { .. }) => Err(RecordError::Unfinished { path, missing: spool.waiting() }),
            Err(source) => Err(RecordError::Write { path, source }),
        }
    }

    fn failed(&self, source: mcap::McapError) -> RecordError {
        RecordError::Mcap { path: self.path.clone(), source }
    }
}

/// How files are written, here and after a recovery. Most of their bytes are pictures that are compressed already: the fastest level.
pub fn options() -> WriteOptions {
    let options = WriteOptions::new().profile("ros2").library(format!("{LIBRARY} {}", env!("CARGO_PKG_VERSION")));
    options.compression(Some(Compression::Zstd)).compression_level(1).compression_threads(0).disable_seeking(true).chunk_size(None)
}

/// As rosbag2 notes the quality of service of a topic (a list in YAML), so that `ros2 bag play` offers the same. Numbers of `rmw/types.h`, which
/// all releases read: 1 is keep last, reliable, transient local and automatic, 2 is volatile.
fn qos(is_latched: bool) -> String {
    let (depth, durability) = if is_latched { (1, 1) } else { (5, 2) };
    let forever = "{sec: 9223372036, nsec: 854775807}";
    format!(
        "- {{history: 1, depth: {depth}, reliability: 1, durability: {durability}, deadline: {forever}, lifespan: {forever}, liveliness: 1, \
         liveliness_lease_duration: {forever}, avoid_ros_namespace_conventions: false}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::testing::scratch;

    fn schema() -> Schema {
        Schema { name: "std_msgs/msg/UInt32", definition: "uint32 data\n".to_owned() }
    }

    fn sample<'a>(schema: &'a Schema, sequence: u32, cdr: &'a [u8]) -> Sample<'a> {
        let stamp_ns = 1_764_500_000_000_000_000 + u64::from(sequence);
        Sample { topic: "/n", schema, is_latched: false, stamp_ns, published_ns: stamp_ns + 1, sequence, cdr }
    }

    #[test]
    fn a_file_grows_by_whole_chunks_and_ends_with_a_summary() {
        let (path, schema, now) = (scratch("book").join("out.mcap"), schema(), Instant::now());
        let spool = Spool::new(std::fs::File::create(&path).unwrap());
        let mut book = Book::new(spool, path.clone(), now).unwrap();
        book.metadata(&BTreeMap::from([("name".into(), "nano".into())])).unwrap();
        for sequence in 0..10 {
            book.write(&sample(&schema, sequence, &[0, 1, 0, 0, sequence as u8, 0, 0, 0]), now).unwrap();
            if sequence % 4 == 3 {
                book.close_chunk().unwrap();
                book.spool().drain(0).unwrap();
            }
        }
        assert_eq!((book.chunks(), book.open_chunk()), (2, Some((now, 16))));
        // what is on the disk now is what a killed recorder leaves
        assert_eq!(std::fs::metadata(&path).unwrap().len(), book.bytes());
        book.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let summary = mcap::Summary::read(&bytes).unwrap().unwrap();
        assert_eq!(
            (summary.stats.as_ref().unwrap().message_count, summary.chunk_indexes.len(), summary.metadata_indexes.len()),
            (10, 3, 1)
        );
        let found: Vec<_> = mcap::MessageStream::new(&bytes).unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), 10);
        for (sequence, message) in (0..).zip(&found) {
            assert_eq!((message.sequence, message.data[4], message.publish_time - message.log_time), (sequence, sequence as u8, 1));
            assert_eq!(message.channel.schema.as_ref().unwrap().name, "std_msgs/msg/UInt32");
        }
    }

    #[test]
    fn a_disk_that_is_full_to_the_end_is_told() {
        let (schema, now) = (schema(), Instant::now());
        let spool = Spool::new(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let mut book = Book::new(spool, "full.mcap".into(), now).unwrap();
        book.write(&sample(&schema, 1, &[0; 8]), now).unwrap();
        let error = book.finish().err().unwrap().to_string();
        assert!(error.contains("full.mcap") && error.contains("recover"), "{error}");
    }
}
