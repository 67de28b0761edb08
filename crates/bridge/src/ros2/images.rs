//! `eomt-edge-bridge images`: the pictures of another node's topic, for a program that knows no ROS. The daemon starts it for
//! `--source ros2:TOPIC` and reads its standard output, or reads a FIFO (`--fifo`) that a service of its own writes.
//!
//! The stream is frames of [`eomt_edge_ros::stream`]: a header of 112 bytes, then pixels or a file, whole.
//!
//! Invariants: the newest picture is handed on and older ones are left out, as many as the reader of the stream is too slow for; a message that
//! is no picture is told once and left out; a reader of standard output that is gone ends the program, one of a FIFO is waited for.
//! Refuses: to convert pixels.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use eomt_edge_ros::Message;
use eomt_edge_ros::cdr::CdrError;
use eomt_edge_ros::messages::sensor_msgs::{CompressedImage, Image};
use eomt_edge_ros::stream::{FrameHeader, StreamError};
use rustdds::bytes::Bytes;

use super::dds::{Dds, Reader};
use super::output::Output;
use crate::node::{Node, NodeArgs, absolute_topic};
use crate::stop::{self, Stop};

/// A signal is noticed within this.
const PATIENCE: Duration = Duration::from_millis(200);

/// The pictures of a ROS 2 topic, for a program without ROS
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// sensor_msgs/Image, or sensor_msgs/CompressedImage when it ends with /compressed
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Read CompressedImage whatever the topic's name is
    #[arg(long)]
    compressed: bool,
    /// Write to this FIFO, which is made if it is missing, and wait for its readers [default: standard output]
    #[arg(long, value_name = "PATH")]
    fifo: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    /// This machine's address on the network to use; may be repeated [default: all]
    #[arg(long, value_name = "ADDRESS")]
    interface: Vec<IpAddr>,
}

/// Why a message is not handed on.
#[derive(Debug, thiserror::Error)]
enum PictureError {
    #[error("not a picture: {0}")]
    Cdr(#[from] CdrError),
    #[error("not to be handed on: {0}")]
    Stream(#[from] StreamError),
    #[error("{width}x{height} {encoding} in rows of {step} bytes take {need} bytes, the message has {have}")]
    Size { width: u32, height: u32, encoding: String, step: u32, need: u64, have: usize },
}

impl ImagesArgs {
    /// Runs until a signal comes or nobody reads the stream any more.
    ///
    /// # Errors
    /// [`Usage`](crate::options::Usage); `DdsError`; when the output cannot be written.
    pub fn run(&self) -> anyhow::Result<()> {
        let topic = absolute_topic(&self.topic)?;
        let compressed = self.compressed || topic.ends_with("/compressed");
        let node = self.node.node()?;
        let stop = Stop::install()?;
        let (mut dds, mut inbox) = self.join(&node, &topic, compressed)?;
        // after the network: what cannot start leaves no FIFO behind
        let mut output = match &self.fifo {
            Some(path) => Output::fifo(path)?,
            None => Output::standard().context("standard output is closed")?,
        };
        let (mut complaints, mut looked, mut pictures) = (BTreeSet::new(), Instant::now(), 0_u64);
        stop::ready();
        log::info!("waiting for pictures on {topic} in domain {}", node.domain);
        while !stop.requested() && !output.is_over() {
            if looked.elapsed() >= Duration::from_secs(1) {
                looked = Instant::now();
                stop::alive(&format!("{pictures} pictures handed on"));
                if dds.must_join_again() {
                    drop((inbox, dds));
                    (dds, inbox) = self.join(&node, &topic, compressed)?;
                }
            }
            let is_read = output.is_read().context("the FIFO cannot be opened")?;
            let Some(sample) = inbox.newest(PATIENCE).filter(|_| is_read) else { continue };
            let frame = if compressed { compressed_frame(&sample) } else { raw_frame(&sample) };
            match frame {
                Ok((header, bytes)) => {
                    output.write(&[&header, &bytes], &stop).context("pictures cannot be written")?;
                    pictures += 1;
                }
                Err(error) if complaints.len() < COMPLAINTS_MAX && complaints.insert(error.to_string()) => log::warn!("{topic}: {error}"),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn join(&self, node: &Node, topic: &str, compressed: bool) -> anyhow::Result<(Dds, Inbox)> {
        let mut dds = Dds::join(node, self.node.distro, &self.interface)?;
        let reader = dds.reader(topic, if compressed { CompressedImage::DEFINITION } else { Image::DEFINITION })?;
        dds.announce()?;
        Ok((dds, Inbox::new(reader)))
    }
}

/// Others decide what they send: the log has an end.
const COMPLAINTS_MAX: usize = 20;

type Frame = ([u8; eomt_edge_ros::stream::HEADER_BYTES], Vec<u8>);

fn raw_frame(sample: &[u8]) -> Result<Frame, PictureError> {
    let Image { header, height, width, encoding, is_bigendian, step, data } = Image::from_cdr(sample)?;
    let need = u64::from(step) * u64::from(height);
    if (data.len() as u64) < need || width == 0 || height == 0 {
        return Err(PictureError::Size { width, height, encoding, step, need, have: data.len() });
    }
    let is_bigendian = is_bigendian != 0;
    let header =
        FrameHeader { encoding, is_file: false, is_bigendian, width, height, step, bytes: data.len() as u64, stamp_ns: header.stamp.ns() };
    Ok((header.encode()?, data))
}

fn compressed_frame(sample: &[u8]) -> Result<Frame, PictureError> {
    let CompressedImage { header, format, data } = CompressedImage::from_cdr(sample)?;
    let header =
        FrameHeader { encoding: format, is_file: true, bytes: data.len() as u64, stamp_ns: header.stamp.ns(), ..Default::default() };
    Ok((header.encode()?, data))
}

/// A reader that one thread waits on.
struct Inbox {
    reader: Reader,
    waker: Waker,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Inbox {
    fn new(reader: Reader) -> Inbox {
        Inbox { reader, waker: Waker::from(Arc::new(Unpark(std::thread::current()))) }
    }

    /// The newest sample; `None` when none comes within `patience`.
    fn newest(&self, patience: Duration) -> Option<Bytes> {
        // first the waker, then the look: what comes between is seen
        self.reader.set_waker(Some(self.waker.clone()));
        self.take().or_else(|| {
            std::thread::park_timeout(patience);
            self.take()
        })
    }

    fn take(&self) -> Option<Bytes> {
        self.reader.drain_read_notifications();
        let mut newest = None;
        loop {
            match self.reader.try_take_one() {
                Ok(Some(sample)) => newest = Some(sample.into_value()),
                Ok(None) => return newest,
                Err(error) => log::debug!("a sample was left out: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use eomt_edge_ros::messages::builtin_interfaces::Time;
    use eomt_edge_ros::messages::std_msgs::Header;
    use eomt_edge_ros::stream::HEADER_BYTES;

    use super::*;

    fn header() -> Header {
        Header { stamp: Time { sec: 5, nanosec: 6 }, frame_id: "c".into() }
    }

    fn image(data: Vec<u8>) -> Image {
        Image { header: header(), height: 2, width: 3, encoding: "mono8".into(), is_bigendian: 1, step: 4, data }
    }

    fn decoded(frame: &Frame) -> FrameHeader {
        FrameHeader::decode(&frame.0, 1 << 20).unwrap()
    }

    #[test]
    fn a_picture_keeps_its_bytes_and_stamp() {
        let frame = raw_frame(&image((0..8).collect()).to_cdr()).unwrap();
        let expected = FrameHeader {
            encoding: "mono8".into(),
            is_bigendian: true,
            width: 3,
            height: 2,
            step: 4,
            bytes: 8,
            stamp_ns: 5_000_000_006,
            ..Default::default()
        };
        assert_eq!((decoded(&frame), frame.1), (expected, (0..8).collect::<Vec<u8>>()));
        let file = CompressedImage { header: header(), format: "jpeg".into(), data: vec![1, 2, 3] };
        let frame = compressed_frame(&file.to_cdr()).unwrap();
        let told = decoded(&frame);
        assert_eq!((told.encoding.as_str(), told.is_file, told.bytes, frame.0.len()), ("jpeg", true, 3, HEADER_BYTES));
    }

    #[test]
    fn what_is_no_picture_is_told() {
        let error = raw_frame(&image(vec![0; 7]).to_cdr()).unwrap_err().to_string();
        assert_eq!(error, "3x2 mono8 in rows of 4 bytes take 8 bytes, the message has 7");
        assert!(raw_frame(&[0, 1, 0, 0, 1]).unwrap_err().to_string().starts_with("not a picture: cut"));
        let nameless = CompressedImage { header: header(), ..CompressedImage::default() };
        assert!(compressed_frame(&nameless.to_cdr()).unwrap_err().to_string().contains("encoding"));
    }
}
