//! A recording that was cut or damaged, written whole again as far as it can be read.
//!
//! ```text
//! for each record of the input, up to the end of the data or the first that cannot be one:
//!     chunk      checksum right: all its messages; wrong: none; cut by the end of the file: those before the cut
//!     schema, channel, message, metadata: as they are
//!     anything else is an index, which is made anew, or an attachment, which is left out and counted
//! ```
//!
//! Invariants: what is kept is bit for bit what was recorded; what is left out is counted. Memory is bounded by [`RECORD_BYTES_MAX`] and
//! [`DEFINITION_BYTES_MAX`], whatever the file says. Refuses: files that do not begin as MCAP, and to guess where records go on after damage
//! to their lengths.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom, Write};

use mcap::records::{Record, op};
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use mcap::write::NoSeek;
use mcap::{McapError, Writer};

use super::book;

/// A message, or a chunk before or after compression, bytes: a second of raw 4K video is no larger.
const RECORD_BYTES_MAX: usize = 256 << 20;
/// Definitions, channels and metadata in all, bytes: a robot's hundred topics have one megabyte.
const DEFINITION_BYTES_MAX: usize = 64 << 20;
/// Bytes that are read at once: a record may say that it is as long as it likes.
const PIECE: usize = 256 << 10;
/// Chunks of the output, bytes before compression.
const CHUNK_BYTES: u64 = 1 << 20;
/// Opcode and length.
const HEAD: usize = 9;
/// A footer, and the magic behind it: the file's last bytes.
const TAIL: usize = HEAD + 20 + mcap::MAGIC.len();

/// Why nothing comes of it.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Of the system.
    #[error("cannot be read")]
    Read(#[from] io::Error),
    /// Another format.
    #[error("is no MCAP file")]
    Foreign,
    /// A codec that this program does not have.
    #[error("its chunks are compressed by '{0}', which this program cannot read: try `mcap recover` of github.com/foxglove/mcap")]
    Compression(String),
    /// The output's disk.
    #[error("the recovered file cannot be written ({0})")]
    Write(McapError),
}

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Messages that are kept; none of a file that was cut before the first.
    pub messages: u64,
    /// Messages that no channel explains, and records that contradict themselves: left out.
    pub lost: u64,
    /// Chunks whose checksum is wrong, or which are larger than this program reads: left out.
    pub damaged_chunks: u64,
    /// Left out.
    pub attachments: u64,
    /// Where the readable part ends, bytes.
    pub end: u64,
    /// The input's bytes.
    pub bytes: u64,
    /// The data ends as it should.
    pub is_whole: bool,
}

/// Reads `input` and writes what can be read to `output`, which is given back whole.
///
/// # Errors
/// [`RecoverError`].
pub fn recover<W: Write>(input: &mut (impl Read + Seek), output: W) -> Result<(Recovered, W), RecoverError> {
    let bytes = input.seek(SeekFrom::End(0))?;
    input.rewind()?;
    let mut magic = [0; mcap::MAGIC.len()];
    input.read_exact(&mut magic).map_err(|_| RecoverError::Foreign)?;
    if magic != mcap::MAGIC {
        return Err(RecoverError::Foreign);
    }
    let profile = profile(input)?;
    let options = book::options().profile(profile).chunk_size(Some(CHUNK_BYTES));
    let writer = options.create(NoSeek::new(output)).map_err(RecoverError::Write)?;
    let found = Recovered { bytes, ..Recovered::default() };
    let known = HashSet::new();
    let mut recovery = Recovery { writer, known, definition_bytes: 0, has_chunks: false, unknown_compression: None, found };
    recovery.summary(input)?;
    recovery.run(input)?;
    let Recovery { mut writer, found, unknown_compression, .. } = recovery;
    if let (0, Some(name)) = (found.messages, unknown_compression) {
        return Err(RecoverError::Compression(name));
    }
    writer.finish().map_err(RecoverError::Write)?;
    Ok((found, writer.into_inner().into_inner()))
}

/// What the header says of the messages' kind: `ros2`. Empty when there is none.
fn profile(input: &mut impl Read) -> io::Result<String> {
    let mut begin = Vec::new();
    input.take(1024).read_to_end(&mut begin)?;
    let Some((head, rest)) = begin.split_first_chunk() else { return Ok(String::new()) };
    let (opcode, len) = record_head(head);
    let body = rest.get(..len as usize).filter(|body| opcode == op::HEADER && texts_fit(opcode, body).is_some());
    Ok(match body.map(|body| mcap::parse_record(opcode, body)) {
        Some(Ok(Record::Header(header))) => header.profile,
        _ => String::new(),
    })
}

fn record_head(head: &[u8; HEAD]) -> (u8, u64) {
    let [opcode, len @ ..] = *head;
    (opcode, u64::from_le_bytes(len))
}

/// Why a chunk was not read to its end.
enum Fault {
    /// Its bytes.
    Chunk,
    Fatal(RecoverError),
}

struct Recovery<W: Write> {
    writer: Writer<NoSeek<W>>,
    /// Opcodes and ids of definitions.
    known: HashSet<(u8, u16)>,
    definition_bytes: usize,
    /// Messages are in chunks: what looks like one elsewhere is none.
    has_chunks: bool,
    /// Of some chunk: the file's, or damage.
    unknown_compression: Option<String>,
    found: Recovered,
}

impl<W: Write> Recovery<W> {
    fn run(&mut self, input: &mut (impl Read + Seek)) -> Result<(), RecoverError> {
        self.found.end = mcap::MAGIC.len() as u64;
        let mut head = [0; HEAD];
        while input.seek(SeekFrom::Start(self.found.end))? + (HEAD as u64) <= self.found.bytes {
            input.read_exact(&mut head)?;
            let (opcode, len) = record_head(&head);
            let end = self.found.end.saturating_add(HEAD as u64).saturating_add(len);
            let is_cut = end > self.found.bytes;
            match opcode {
                op::DATA_END | op::FOOTER => {
                    self.found.is_whole = true;
                    return Ok(());
                }
                op::CHUNK => self.chunk(head, &mut input.take(len), is_cut)?,
                // zeros are what a power cut leaves
                0 | 0x10..0x80 => return Ok(()),
                op::SCHEMA | op::CHANNEL | op::MESSAGE if self.has_chunks => return Ok(()),
                _ if is_cut => return Ok(()),
                op::SCHEMA | op::CHANNEL | op::MESSAGE | op::METADATA if len <= RECORD_BYTES_MAX as u64 => {
                    let mut body = Vec::new();
                    input.take(len).read_to_end(&mut body)?;
                    self.take(opcode, &body)?;
                }
                op::SCHEMA | op::CHANNEL | op::MESSAGE | op::METADATA => self.found.lost += 1,
                op::ATTACHMENT => self.found.attachments += 1,
                _ => {}
            }
            if is_cut {
                return Ok(());
            }
            self.found.end = end;
        }
        Ok(())
    }

    /// Definitions that a whole file's end repeats: they outlive damage to the chunk that has them.
    fn summary(&mut self, input: &mut (impl Read + Seek)) -> Result<(), RecoverError> {
        let mut tail = [0; TAIL];
        let Some(footer) = self.found.bytes.checked_sub(TAIL as u64) else { return Ok(()) };
        input.seek(SeekFrom::Start(footer))?;
        input.read_exact(&mut tail)?;
        let start = tail[HEAD..].first_chunk().map_or(0, |start| u64::from_le_bytes(*start));
        if tail[0] != op::FOOTER || !tail.ends_with(mcap::MAGIC) || start == 0 || start >= footer {
            return Ok(());
        }
        let (mut at, mut head, mut body) = (start, [0; HEAD], Vec::new());
        while at + (HEAD as u64) <= footer {
            input.seek(SeekFrom::Start(at))?;
            input.read_exact(&mut head)?;
            let (opcode, len) = record_head(&head);
            at = at.saturating_add(HEAD as u64).saturating_add(len);
            if at > footer {
                break;
            }
            if matches!(opcode, op::SCHEMA | op::CHANNEL) && len <= DEFINITION_BYTES_MAX as u64 {
                body.clear();
                input.take(len).read_to_end(&mut body)?;
                self.take(opcode, &body)?;
            }
        }
        self.found.lost = 0; // what is wrong in the summary may be right where it belongs
        Ok(())
    }

    /// `content` follows `head`.
    fn chunk(&mut self, head: [u8; HEAD], content: &mut impl Read, is_cut: bool) -> Result<(), RecoverError> {
        // of a chunk that is there to its end, nothing is believed before its checksum is
        let options = LinearReaderOptions::default().with_skip_start_magic(true).with_skip_end_magic(true);
        self.has_chunks = true;
        let options = options.with_record_length_limit(RECORD_BYTES_MAX).with_prevalidate_chunk_crcs(!is_cut);
        match self.unpack(LinearReader::new_with_options(options), &mut head.as_slice().chain(content)) {
            Ok(()) => Ok(()),
            Err(Fault::Chunk) => {
                self.found.damaged_chunks += u64::from(!is_cut);
                Ok(())
            }
            Err(Fault::Fatal(error)) => Err(error),
        }
    }

    fn unpack(&mut self, mut reader: LinearReader, bytes: &mut impl Read) -> Result<(), Fault> {
        while let Some(event) = reader.next_event() {
            match event {
                Ok(LinearReadEvent::ReadRequest(wanted)) => {
                    let read = bytes.read(reader.insert(wanted.min(PIECE)));
                    reader.notify_read(read.map_err(|error| Fault::Fatal(error.into()))?);
                }
                Ok(LinearReadEvent::Record { opcode, data }) => self.take(opcode, data).map_err(Fault::Fatal)?,
                Err(McapError::UnsupportedCompression(name)) => {
                    self.unknown_compression = Some(name);
                    return Err(Fault::Chunk);
                }
                Err(_) => return Err(Fault::Chunk),
            }
        }
        Ok(())
    }

    /// Writes a record that counts.
    fn take(&mut self, opcode: u8, body: &[u8]) -> Result<(), RecoverError> {
        let is_definition = matches!(opcode, op::SCHEMA | op::CHANNEL | op::METADATA);
        if !is_definition && opcode != op::MESSAGE {
            return Ok(());
        }
        if is_definition && !(texts_fit(opcode, body).is_some() && self.affords(opcode, body)) {
            self.found.lost += 1;
            return Ok(());
        }
        let written = match mcap::parse_record(opcode, body) {
            Ok(Record::Schema { header, data }) => {
                self.writer.add_schema_with_id(header.id, &header.name, &header.encoding, &data).map(drop)
            }
            Ok(Record::Channel(channel)) => {
                let mcap::records::Channel { id, schema_id, topic, message_encoding, metadata } = &channel;
                self.writer.add_channel_with_id(*id, *schema_id, topic, message_encoding, metadata).map(drop)
            }
            Ok(Record::Metadata(metadata)) => self.writer.write_metadata(&metadata),
            Ok(Record::Message { header, data }) => self.writer.write_to_known_channel(&header, &data).map(|()| self.found.messages += 1),
            _ => Err(McapError::UnexpectedEoc),
        };
        match written {
            Ok(()) => Ok(()),
            Err(error @ (McapError::Io(_) | McapError::AttemptedWriteAfterFailure)) => Err(RecoverError::Write(error)),
            // a channel of an id that another has, a message of no channel ...
            Err(_) => {
                self.found.lost += 1;
                Ok(())
            }
        }
    }

    /// Whether there is memory for a definition; one that is repeated takes none.
    fn affords(&mut self, opcode: u8, body: &[u8]) -> bool {
        let id = body.first_chunk().map(|id| u16::from_le_bytes(*id)).unwrap_or_default();
        let is_new = opcode == op::METADATA || self.known.insert((opcode, id));
        self.definition_bytes += if is_new { body.len() } else { 0 };
        self.definition_bytes <= DEFINITION_BYTES_MAX
    }
}

/// Whether the texts of a definition lie within it. The library makes room for as much as a length says before it reads: 4 GiB for a record of
/// forty bytes.
fn texts_fit(opcode: u8, body: &[u8]) -> Option<()> {
    fn text(rest: &[u8]) -> Option<&[u8]> {
        let (len, rest) = rest.split_first_chunk()?;
        rest.get(u32::from_le_bytes(*len) as usize..)
    }
    fn map(rest: &[u8]) -> Option<()> {
        let (len, rest) = rest.split_first_chunk()?;
        let mut entries = rest.get(..u32::from_le_bytes(*len) as usize)?;
        while !entries.is_empty() {
            entries = text(text(entries)?)?;
        }
        Some(())
    }
    match opcode {
        // an id; name, encoding, data
        op::SCHEMA => text(text(text(body.get(2..)?)?)?).map(drop),
        // two ids; topic, encoding, metadata
        op::CHANNEL => map(text(text(body.get(4..)?)?)?),
        op::METADATA => map(text(body)?),
        // profile, library
        op::HEADER => text(text(body)?).map(drop),
        _ => Some(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Cursor;

    use mcap::{Compression, WriteOptions};

    use super::*;

    #[test]
    fn texts_lie_within_their_record() {
        let text = |text: &str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let pair = [text("a"), text("b")].concat();
        let map = [&(pair.len() as u32).to_le_bytes()[..], &pair].concat();
        let schema = [vec![1, 0], text("pkg/msg/A"), text("ros2msg"), text("int32 x")].concat();
        let channel = [vec![1, 0, 1, 0], text("/a"), text("cdr"), map.clone()].concat();
        let metadata = [text("eomt-edge"), map].concat();
        let header = [text("ros2"), text("")].concat();
        for (opcode, body) in [(op::SCHEMA, schema), (op::CHANNEL, channel), (op::METADATA, metadata), (op::HEADER, header)] {
            assert!(texts_fit(opcode, &body).is_some());
            for cut in 0..body.len() {
                assert!(texts_fit(opcode, &body[..cut]).is_none(), "{opcode:#x} cut at {cut}");
            }
        }
    }

    const MESSAGES: u32 = 24;
    const MESSAGES_PER_CHUNK: u32 = 4;

    fn payload(sequence: u32) -> Vec<u8> {
        // two of three are the same again, so that there is something to compress
        (0..40 + sequence).map(|at| (at * if sequence.is_multiple_of(3) { 37 } else { 1 } + sequence) as u8).collect()
    }

    /// A file as the recorder leaves it: whole chunks, and between them metadata.
    fn recorded(options: WriteOptions) -> Vec<u8> {
        let mut writer = options.create(NoSeek::new(Vec::new())).unwrap();
        let metadata = mcap::records::Metadata { name: "eomt-edge".into(), metadata: BTreeMap::from([("a".into(), "b".into())]) };
        writer.write_metadata(&metadata).unwrap();
        for sequence in 0..MESSAGES {
            let schema = writer.add_schema("std_msgs/msg/UInt32", "ros2msg", b"uint32 data").unwrap();
            let topic = if sequence % 2 == 0 { "/even" } else { "/odd" };
            let channel_id = writer.add_channel(schema, topic, "cdr", &BTreeMap::new()).unwrap();
            let header = mcap::records::MessageHeader { channel_id, sequence, log_time: 100 + u64::from(sequence), publish_time: 7 };
            writer.write_to_known_channel(&header, &payload(sequence)).unwrap();
            if sequence % MESSAGES_PER_CHUNK == MESSAGES_PER_CHUNK - 1 {
                writer.flush().unwrap();
            }
        }
        writer.finish().unwrap();
        writer.into_inner().into_inner()
    }

    /// Recovers, and returns the sequence numbers; every message is as it was recorded.
    fn recovered(bytes: &[u8]) -> Result<(Recovered, Vec<u32>), RecoverError> {
        let (found, whole) = recover(&mut Cursor::new(bytes), Vec::new())?;
        assert!(mcap::Summary::read(&whole).unwrap().unwrap().stats.unwrap().message_count == found.messages);
        let mut sequences = Vec::new();
        for message in mcap::MessageStream::new(&whole).unwrap() {
            let message = message.unwrap();
            let topic = if message.sequence % 2 == 0 { "/even" } else { "/odd" };
            assert_eq!((message.channel.topic.as_str(), &*message.data), (topic, &*payload(message.sequence)));
            assert_eq!((message.log_time, message.publish_time), (100 + u64::from(message.sequence), 7));
            assert_eq!(message.channel.schema.as_ref().unwrap().data, b"uint32 data".as_slice());
            sequences.push(message.sequence);
        }
        assert_eq!(sequences.len() as u64, found.messages);
        Ok((found, sequences))
    }

    /// Byte offsets behind each chunk.
    fn chunk_ends(bytes: &[u8]) -> Vec<usize> {
        let indexes = mcap::Summary::read(bytes).unwrap().unwrap().chunk_indexes;
        indexes.iter().map(|index| (index.chunk_start_offset + index.chunk_length) as usize).collect()
    }

    #[test]
    fn a_whole_file_comes_back_whole() {
        let (found, sequences) = recovered(&recorded(book::options())).unwrap();
        assert!(found.is_whole && found.lost == 0 && found.damaged_chunks == 0, "{found:?}");
        assert!(sequences.into_iter().eq(0..MESSAGES));
        // metadata and profile too
        let whole = recover(&mut Cursor::new(recorded(book::options())), Vec::new()).unwrap().1;
        assert_eq!(mcap::Summary::read(&whole).unwrap().unwrap().metadata_indexes[0].name, "eomt-edge");
        assert_eq!(profile(&mut &whole[mcap::MAGIC.len()..]).unwrap(), "ros2");
    }

    #[test]
    fn cut_anywhere_all_whole_chunks_come_back() {
        for (options, name) in [(book::options(), "zstd"), (book::options().compression(None), "none")] {
            let bytes = recorded(options);
            let ends = chunk_ends(&bytes);
            assert_eq!(ends.len() as u32, MESSAGES / MESSAGES_PER_CHUNK);
            for cut in 0..bytes.len() {
                let least = ends.iter().filter(|end| **end <= cut).count() as u32 * MESSAGES_PER_CHUNK;
                match recovered(&bytes[..cut]) {
                    Ok((found, sequences)) => {
                        assert!(sequences.len() as u32 >= least, "{name}, cut at {cut}: {} of {least}", sequences.len());
                        assert!(sequences.into_iter().eq(0..found.messages as u32), "{name}, cut at {cut}: not the beginning");
                        assert!((found.damaged_chunks, found.lost) == (0, 0) && found.end <= cut as u64, "{name}, cut at {cut}: {found:?}");
                    }
                    Err(error) => {
                        assert!(cut < mcap::MAGIC.len() && matches!(error, RecoverError::Foreign), "{name}, {cut}: {error}")
                    }
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_never_changes_a_message_that_is_kept() {
        let bytes = recorded(book::options());
        let end = *chunk_ends(&bytes).last().unwrap();
        let mut kept = 0;
        for at in mcap::MAGIC.len()..end {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            // what is kept is compared in there
            if let Ok((_, sequences)) = recovered(&damaged) {
                assert!(sequences.is_sorted_by(|a, b| a < b));
                kept += sequences.len();
            }
        }
        // damage costs one chunk of six, unless it is in a length
        assert!(kept > (end - mcap::MAGIC.len()) * MESSAGES as usize * 3 / 4, "{kept}");
    }

    #[test]
    fn files_without_chunks_and_zeros_at_the_end() {
        let bytes = recorded(book::options().use_chunks(false));
        let (found, sequences) = recovered(&bytes[..bytes.len() / 2]).unwrap();
        assert!(!found.is_whole && sequences.len() > 2 && sequences.len() < MESSAGES as usize, "{found:?}");
        let bytes = recorded(book::options());
        let mut torn = bytes[..chunk_ends(&bytes)[2]].to_vec();
        torn.resize(torn.len() + 5000, 0);
        assert_eq!(recovered(&torn).unwrap().1.len() as u32, 3 * MESSAGES_PER_CHUNK);
    }

    #[test]
    fn what_is_no_recording_is_refused() {
        assert!(matches!(recovered(b""), Err(RecoverError::Foreign)));
        assert!(matches!(recovered(b"#ROSBAG V2.0\n and so on"), Err(RecoverError::Foreign)));
        assert_eq!(recovered(mcap::MAGIC).unwrap().0.messages, 0);
        let mut other = recorded(book::options());
        while let Some(at) = other.windows(4).position(|four| four == b"zstd") {
            other[at..at + 4].copy_from_slice(b"xz99");
        }
        assert!(matches!(recovered(&other), Err(RecoverError::Compression(name)) if name == "xz99"));
    }

    #[test]
    fn lengths_that_lie_cost_no_memory() {
        let mut bytes = mcap::MAGIC.to_vec();
        for (opcode, len) in [(op::METADATA, 1_u64 << 40), (op::CHUNK, u64::MAX), (op::HEADER, u64::MAX - 8)] {
            let mut file = bytes.clone();
            file.push(opcode);
            file.extend(len.to_le_bytes());
            file.extend([0xff; 100]);
            assert_eq!(recovered(&file).unwrap().0.messages, 0);
        }
        bytes.extend([0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(recovered(&bytes).unwrap().0.messages, 0);
    }

    #[test]
    fn other_codecs_are_read() {
        let bytes = recorded(book::options().compression(Some(Compression::Lz4)));
        assert_eq!(recovered(&bytes).unwrap().0.messages, u64::from(MESSAGES));
    }
}
