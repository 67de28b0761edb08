//! Bags in MCAP: record by record from the front, so that a file without its end is read as far as it goes.
//!
//! The `mcap` crate splits the file into records and unpacks chunks; the few records that matter are parsed here, since its own parser copies
//! every text of a record before anybody asked for it.
//!
//! ```text
//! schema    id u16, name
//! channel   id u16, schema u16, topic, encoding
//! message   channel u16, sequence u32, log time u64, publish time u64, data to the end
//! ```
//! Integers are little-endian, a text is a u32 length and UTF-8 (mcap.dev/spec).

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use mcap::McapError;
use mcap::records::op;
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};

use super::error::Fault;
use super::{Message, NAME_BYTES_MAX, TOPICS_MAX, Topic};

/// Bytes that are read at once: a record may say that it is as long as it likes.
const PIECE: usize = 256 << 10;

/// A footer and the magic behind it, bytes, and where in them the start of the summary stands.
const TAIL: u64 = 1 + 8 + 20 + 8;
const SUMMARY_START: std::ops::Range<usize> = 9..17;

enum Input {
    /// Its index can be read first.
    File(BufReader<File>),
    Stream(Box<dyn Read + Send>),
}

/// An MCAP file that is being read.
pub(super) struct McapFile {
    input: Input,
    reader: LinearReader,
    schemas: HashMap<u16, String>,
    channels: BTreeMap<u16, Arc<Topic>>,
    record_bytes_max: usize,
}

impl McapFile {
    pub fn of_file(file: File, message_bytes_max: usize) -> McapFile {
        McapFile::new(Input::File(BufReader::with_capacity(PIECE, file)), message_bytes_max)
    }

    pub fn of_stream(stream: Box<dyn Read + Send>, message_bytes_max: usize) -> McapFile {
        McapFile::new(Input::Stream(stream), message_bytes_max)
    }

    fn new(input: Input, message_bytes_max: usize) -> McapFile {
        // a message's head beside its data
        let record_bytes_max = message_bytes_max.saturating_add(64);
        McapFile { input, reader: reader(record_bytes_max, false), schemas: HashMap::new(), channels: BTreeMap::new(), record_bytes_max }
    }

    /// From the summary at the end, or else from all of the file. Nothing else can be read after that.
    pub fn topics(&mut self) -> Result<Vec<Topic>, String> {
        if let Some(start) = self.summary_start().map_err(|error| error.to_string())? {
            self.reader = reader(self.record_bytes_max, true);
            let Input::File(file) = &mut self.input else { unreachable!("only a file has a summary that can be sought") };
            file.seek(SeekFrom::Start(start)).map_err(|error| error.to_string())?;
            if self.drain().is_ok() && !self.channels.is_empty() {
                return Ok(self.found());
            }
            self.reader = reader(self.record_bytes_max, false);
            let Input::File(file) = &mut self.input else { unreachable!("as above") };
            file.rewind().map_err(|error| error.to_string())?;
        }
        match self.drain() {
            Err(fault) if self.channels.is_empty() => Err(fault.reason),
            _ => Ok(self.found()),
        }
    }

    fn found(&self) -> Vec<Topic> {
        self.channels.values().map(|topic| Topic::clone(topic)).collect()
    }

    /// Reads to the end for the sake of the channels.
    fn drain(&mut self) -> Result<(), Fault> {
        loop {
            match self.step(|_| false) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(fault) if fault.is_end => return Err(fault),
                Err(_) => {}
            }
        }
    }

    /// Where the summary starts, of a whole file that has one; the file is where it was then.
    fn summary_start(&mut self) -> io::Result<Option<u64>> {
        let Input::File(file) = &mut self.input else { return Ok(None) };
        let len = file.seek(SeekFrom::End(0))?;
        let mut tail = [0; TAIL as usize];
        if len > TAIL {
            file.seek(SeekFrom::Start(len - TAIL))?;
            file.read_exact(&mut tail)?;
        }
        file.rewind()?;
        let start = u64::from_le_bytes(tail[SUMMARY_START].try_into().expect("eight bytes"));
        let is_whole = tail.ends_with(mcap::MAGIC) && tail[0] == op::FOOTER;
        Ok(Some(start).filter(|start| is_whole && *start > 0 && *start < len - TAIL))
    }

    /// The next message of `wanted`, or of any topic.
    pub fn next(&mut self, wanted: Option<&str>) -> Result<Option<Message>, Fault> {
        let mut message = None;
        loop {
            let go_on = self.step(|found| {
                let Found { topic, log_time_ns, data } = found;
                let is_wanted = wanted.is_none_or(|wanted| wanted == topic.name);
                if is_wanted {
                    message = Some(Message { topic: Arc::clone(topic), log_time_ns, data: data.to_vec() });
                }
                is_wanted
            })?;
            if !go_on || message.is_some() {
                return Ok(message);
            }
        }
    }

    /// Reads up to one record and shows a message to `take`. False at the end of the messages.
    fn step(&mut self, mut take: impl FnMut(Found) -> bool) -> Result<bool, Fault> {
        let McapFile { input, reader, schemas, channels, .. } = self;
        match reader.next_event() {
            None => Ok(false),
            // the chunk's records were given already, and the next chunk may be fine
            Some(Err(error @ McapError::BadChunkCrc { .. })) => Err(Fault::passing(error)),
            Some(Err(McapError::UnexpectedEof)) => Err(Fault::end("it ends in the middle")),
            Some(Err(error)) => Err(Fault::end(error)),
            Some(Ok(LinearReadEvent::ReadRequest(wanted))) => {
                let buffer = reader.insert(wanted.clamp(1, PIECE));
                let read = match input {
                    Input::File(file) => read(file, buffer),
                    Input::Stream(stream) => read(stream, buffer),
                };
                // a compressed stream that was cut is an error of its decoder
                let read = read.map_err(Fault::end)?;
                reader.notify_read(read);
                Ok(true)
            }
            Some(Ok(LinearReadEvent::Record { opcode, data })) => {
                let known = match opcode {
                    op::SCHEMA => schema(data).map(|(id, name)| drop(schemas.insert(id, name))),
                    op::CHANNEL => channel(data, schemas).map(|(id, topic)| drop(channels.insert(id, Arc::new(topic)))),
                    op::MESSAGE => message(data, channels).map(|found| _ = take(found)),
                    // where a chunk's records are longer than the chunk, the reader takes for them what follows it, other chunks too
                    op::CHUNK => return Err(Fault::end("a chunk contradicts itself")),
                    // the index follows, and behind it nothing that counts
                    op::DATA_END => return Ok(false),
                    op::FOOTER => return Ok(false),
                    _ => Some(()),
                };
                if channels.len() > TOPICS_MAX || schemas.len() > TOPICS_MAX {
                    return Err(Fault::end(format!("it has more than {TOPICS_MAX} topics")));
                }
                known.map(|()| true).ok_or_else(|| Fault::passing(format!("a record ({opcode:#04x}) contradicts itself")))
            }
        }
    }
}

fn reader(record_bytes_max: usize, is_summary: bool) -> LinearReader {
    let options = LinearReaderOptions::default().with_record_length_limit(record_bytes_max).with_validate_chunk_crcs(true);
    LinearReader::new_with_options(options.with_skip_start_magic(is_summary))
}

fn read(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A message where the reader holds it.
struct Found<'a> {
    topic: &'a Arc<Topic>,
    log_time_ns: u64,
    data: &'a [u8],
}

/// Takes `N` bytes from the front.
fn take<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = data.split_first_chunk::<N>()?;
    *data = rest;
    Some(*head)
}

fn name(data: &mut &[u8]) -> Option<String> {
    let len = u32::from_le_bytes(take(data)?) as usize;
    let (text, rest) = data.split_at_checked(len).filter(|_| len <= NAME_BYTES_MAX)?;
    *data = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn schema(mut data: &[u8]) -> Option<(u16, String)> {
    Some((u16::from_le_bytes(take(&mut data)?), name(&mut data)?))
}

fn channel(mut data: &[u8], schemas: &HashMap<u16, String>) -> Option<(u16, Topic)> {
    let (id, schema) = (u16::from_le_bytes(take(&mut data)?), u16::from_le_bytes(take(&mut data)?));
    let (name, encoding) = (name(&mut data)?, name(&mut data)?);
    Some((id, Topic { name, type_name: schemas.get(&schema).cloned().unwrap_or_default(), encoding }))
}

fn message<'a>(mut data: &'a [u8], channels: &'a BTreeMap<u16, Arc<Topic>>) -> Option<Found<'a>> {
    let topic = channels.get(&u16::from_le_bytes(take(&mut data)?))?;
    let _sequence: [u8; 4] = take(&mut data)?;
    let log_time_ns = u64::from_le_bytes(take(&mut data)?);
    let _publish_time: [u8; 8] = take(&mut data)?;
    Some(Found { topic, log_time_ns, data })
}
