//! zstd and lz4, as files and messages are compressed with them; the first bytes tell which.
//!
//! A message in CDR begins with a zero byte, so that none is mistaken for a compressed one. rosbag2 and rosbags call compressed messages
//! `cdr` all the same.

use std::io::{self, BufReader, Read};

/// A kind of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Zstd,
    Lz4,
}

/// Of what begins with `head`.
pub(super) fn packing(head: &[u8]) -> Option<Packing> {
    match head {
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(Packing::Zstd),
        [0x04, 0x22, 0x4D, 0x18, ..] => Some(Packing::Lz4),
        _ => None,
    }
}

/// What is in `input`.
pub(super) fn reader(packing: Packing, input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    Ok(match packing {
        Packing::Zstd => Box::new(zstd::Decoder::new(input)?),
        Packing::Lz4 => Box::new(lz4::Decoder::new(BufReader::new(input))?),
    })
}

/// What is in `data`, at most `bytes_max` of it.
pub(super) fn unpack(packing: Packing, data: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = bytes_max as u64 + 1;
    let read = match packing {
        Packing::Zstd => zstd::Decoder::with_buffer(data).and_then(|decoder| decoder.take(limit).read_to_end(&mut bytes)),
        Packing::Lz4 => lz4::Decoder::new(data).and_then(|mut decoder| {
            decoder.by_ref().take(limit).read_to_end(&mut bytes)?;
            // lz4's decoder takes a stream that was cut for one that ends
            if bytes.len() as u64 == limit { Ok(0) } else { decoder.finish().1.map(|()| 0) }
        }),
    };
    match read {
        Err(error) => Err(error.to_string()),
        Ok(_) if bytes.len() > bytes_max => Err(format!("it has more than the {bytes_max} bytes allowed")),
        Ok(_) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_unpacked_within_their_bound() {
        let data = vec![7; 100_000];
        let packed = zstd::encode_all(&data[..], 3).unwrap();
        assert_eq!(packing(&packed), Some(Packing::Zstd));
        assert_eq!(unpack(Packing::Zstd, &packed, 100_000).unwrap(), data);
        assert!(unpack(Packing::Zstd, &packed, 99_999).unwrap_err().contains("99999 bytes"));
        assert!(unpack(Packing::Zstd, &packed[..packed.len() / 2], 100_000).is_err());
        let mut encoder = lz4::EncoderBuilder::new().build(Vec::new()).unwrap();
        io::Write::write_all(&mut encoder, &data).unwrap();
        let (packed, _) = encoder.finish();
        assert_eq!(packing(&packed), Some(Packing::Lz4));
        assert_eq!(unpack(Packing::Lz4, &packed, 100_000).unwrap(), data);
        assert!(unpack(Packing::Lz4, &packed, 99_999).unwrap_err().contains("99999 bytes"));
        assert!(unpack(Packing::Lz4, &packed[..packed.len() - 8], 100_000).is_err());
        assert_eq!(packing(&[0, 1, 0, 0]), None);
    }
}
