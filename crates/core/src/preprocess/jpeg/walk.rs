//! Whether all of a JPEG picture is there, and where it ends.
//!
//! A decoder shows what it can: it fills missing data with grey, shifts blocks where bytes are lost, and reports no error if an
//! end-of-image marker follows. So this module walks through every code of every scan once, without computing a pixel. It knows sequential
//! and progressive Huffman pictures of 8 bits; the decoder judges others.
//!
//! ```text
//! segments: tables, frame header, restart interval are noted; the rest is skipped, thumbnails in it too
//! a scan:   every unit of every block: its codes must exist, stay inside the block, and come before the next marker
//!           between restart markers as many units as the interval says; hardly anything may be left before a marker
//! EOI:      the picture ends here, whatever follows (padding, another picture, a film)
//! ```

use super::bits::{Bits, Table};
use super::few::Few;
use super::flaw::Flaw;
use super::typical::TYPICAL_TABLES;

/// Bytes before a marker that are ignored, as decoders do: some cameras add one or two. More are a displaced part of the picture.
const EXTRA_MAX: usize = 2;
/// Equal bytes behind the last unit that are ignored: some cameras add more there.
const FILLERS_MAX: usize = 16;

/// A colour component of the frame header, and the state of its blocks between progressive scans.
#[derive(Debug, Clone, Default)]
struct Component {
    id: u8,
    /// Sampling factors.
    across: usize,
    down: usize,
    /// Blocks per row and rows of blocks in a scan of this component alone.
    blocks: (usize, usize),
    /// One bit for each coefficient of each block that is not zero so far.
    history: Vec<u64>,
    /// One bit for each coefficient that is complete to its last bit.
    complete: u64,
}

/// A frame header (T.81 B.2.2).
#[derive(Debug, Clone, Default)]
struct Header {
    progressive: bool,
    components: Few<Component>,
    /// Units of an interleaved scan.
    units: usize,
}

/// The parameters of a scan (T.81 B.2.3).
struct Scan {
    /// Index of the component, numbers of its DC and AC tables.
    parts: Few<(usize, usize, usize)>,
    /// First and last coefficient.
    band: (u32, u32),
    /// A progressive scan that adds a bit to what earlier ones gave.
    refines: bool,
    /// No more bits will follow for its coefficients.
    last: bool,
}

/// The state before a scan.
#[derive(Debug)]
struct Walk<'a> {
    jpeg: &'a [u8],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    interval: usize,
    header: Option<Header>,
    scans: usize,
}

/// Walks through the picture at the start of `jpeg` and returns the index behind its end-of-image marker. A (width, height) that `fits`
/// rejects is [`Flaw::Size`], before any memory is allocated for it.
pub(super) fn end(jpeg: &[u8], fits: impl Fn(usize, usize) -> bool) -> Result<usize, Flaw> {
    let mut walk = Walk { jpeg, dc: Default::default(), ac: Default::default(), interval: 0, header: None, scans: 0 };
    walk.tables(&TYPICAL_TABLES[4..])?;
    if !jpeg.starts_with(&[0xFF, 0xD8]) {
        return Err(Flaw::NoStart);
    }
    let mut at = 2;
    loop {
        // fill bytes may stand before a marker (T.81 B.1.1.2)
        let kind = match *jpeg.get(at..).unwrap_or_default() {
            [0xFF, 0xFF, ..] => {
                at += 1;
                continue;
            }
            [0xFF, kind, ..] => kind,
            [] | [0xFF] => return Err(Flaw::Cut),
            _ => return Err(Flaw::Header),
        };
        at += 2;
        match kind {
            0xD9 if walk.header.as_ref().is_some_and(|header| !header.is_complete()) => return Err(Flaw::Cut),
            0xD9 if walk.scans == 0 => return Err(Flaw::Cut),
            0xD9 => return Ok(at),
            // markers without a segment: a restart behind the last unit is harmless
            0x01 | 0xD0..=0xD7 => continue,
            _ => {}
        }
        let len = jpeg.get(at..at + 2).map(|len| usize::from(u16::from_be_bytes([len[0], len[1]]))).ok_or(Flaw::Cut)?;
        let segment = jpeg.get(at + 2..at + len.max(2)).ok_or(Flaw::Cut)?;
        at += len.max(2);
        match kind {
            0xC4 => walk.tables(segment)?,
            0xC0..=0xC2 => walk.header = header(segment, kind == 0xC2, &fits)?,
            0xDD => walk.interval = segment.get(..2).map(|n| usize::from(u16::from_be_bytes([n[0], n[1]]))).ok_or(Flaw::Header)?,
            0xDA => {
                walk.scans += 1;
                at = walk.scan(segment, at).map_err(|flaw| match flaw {
                    // not even an end follows
                    Flaw::Short if !jpeg[at..].windows(2).any(|pair| pair == [0xFF, 0xD9]) => Flaw::Cut,
                    flaw => flaw,
                })?;
            }
            _ => {}
        }
    }
}

/// `None` for what the decoder will refuse: other precisions than 8 bits, a height that comes later.
fn header(segment: &[u8], progressive: bool, fits: impl Fn(usize, usize) -> bool) -> Result<Option<Header>, Flaw> {
    let [precision, h1, h0, w1, w0, count, ref parts @ ..] = *segment else { return Err(Flaw::Header) };
    let (width, height) = (usize::from(u16::from_be_bytes([w1, w0])), usize::from(u16::from_be_bytes([h1, h0])));
    if precision != 8 || width == 0 || height == 0 {
        return Ok(None);
    }
    if !fits(width, height) {
        return Err(Flaw::Size(width, height));
    }
    let parts = parts.as_chunks::<3>().0.get(..usize::from(count)).ok_or(Flaw::Header)?;
    let component = |[id, factors, _]: &[u8; 3]| {
        let (across, down) = (usize::from(factors >> 4), usize::from(factors & 15));
        Some(Component { id: *id, across, down, ..Component::default() })
    };
    let mut components = Few::collect(parts.iter().map(component)).ok_or(Flaw::Header)?;
    let most = |factor: fn(&Component) -> usize| components.iter().map(factor).max().unwrap_or_default();
    let (across, down) = (most(|c| c.across), most(|c| c.down));
    if components.iter().any(|c| !(1..=4).contains(&c.across) || !(1..=4).contains(&c.down)) || count == 0 {
        return Err(Flaw::Header);
    }
    for c in components.iter_mut() {
        c.blocks = ((width * c.across).div_ceil(8 * across), (height * c.down).div_ceil(8 * down));
        c.history = if progressive { vec![0; c.blocks.0 * c.blocks.1] } else { Vec::new() };
    }
    let units = width.div_ceil(8 * across) * height.div_ceil(8 * down);
    Ok(Some(Header { progressive, components, units }))
}

impl<'a> Walk<'a> {
    /// A DHT segment's tables.
    fn tables(&mut self, mut segment: &[u8]) -> Result<(), Flaw> {
        while let [kind, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(Flaw::Header)?;
            let len = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, rest) = rest.split_at_checked(len).ok_or(Flaw::Header)?;
            let place = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *place.get_mut(usize::from(kind & 15)).ok_or(Flaw::Header)? = Some(Table::new(counts, values).ok_or(Flaw::Header)?);
            segment = rest;
        }
        Ok(())
    }

    /// The scan whose data begin at `at`: where the marker behind them is.
    fn scan(&mut self, segment: &[u8], at: usize) -> Result<usize, Flaw> {
        let Some(mut header) = self.header.take() else { return Ok(Bits::new(self.jpeg, at).rest().1) };
        let scan = Scan::new(segment, &header)?;
        // zune-jpeg 0.5 gives noise for them
        let subsampled = header.components.iter().any(|c| (c.across, c.down) != (1, 1));
        if !header.progressive && scan.parts.len() < header.components.len() && subsampled {
            return Err(Flaw::Apart);
        }
        let single = scan.parts.len() == 1;
        let units = match &scan.parts[..] {
            [(index, ..)] => header.components[*index].blocks.0 * header.components[*index].blocks.1,
            _ => header.units,
        };
        let jpeg: &'a [u8] = self.jpeg;
        let mut bits = Bits::new(jpeg, at);
        let mut run = 0; // blocks that an end-of-band code covers
        for unit in 0..units {
            if self.interval != 0 && unit != 0 && unit % self.interval == 0 {
                bits = restart(jpeg, &bits)?;
                run = 0;
            }
            for &(index, dc, ac) in scan.parts.iter() {
                let component = &mut header.components[index];
                let (dc, ac) = (self.dc[dc].as_ref(), self.ac[ac].as_ref());
                let blocks = if single { 1 } else { component.across * component.down };
                for _ in 0..blocks {
                    match header.progressive {
                        false => sequential(&mut bits, dc.ok_or(Flaw::Header)?, ac.ok_or(Flaw::Header)?)?,
                        true if scan.band.0 == 0 && scan.refines => drop(bits.take(1)?),
                        true if scan.band.0 == 0 => first_coefficient(&mut bits, dc.ok_or(Flaw::Header)?)?,
                        true => {
                            let history = component.history.get_mut(unit).ok_or(Flaw::Header)?;
                            let ac = ac.ok_or(Flaw::Header)?;
                            let walk = if scan.refines { refined } else { progressive };
                            walk(&mut bits, ac, scan.band, &mut run, history)?;
                        }
                    }
                }
            }
        }
        header.note(&scan);
        self.header = Some(header);
        let (extra, marker) = bits.rest();
        let fillers = extra.len() <= FILLERS_MAX && extra.iter().all(|byte| *byte == extra[0]);
        if fillers || extra.len() <= EXTRA_MAX { Ok(marker) } else { Err(Flaw::Extra) }
    }
}

/// The bits behind the restart marker that must come next. Its number is ignored, as decoders do: where a whole interval is lost, units
/// are missing at the end.
fn restart<'a>(jpeg: &'a [u8], bits: &Bits<'_>) -> Result<Bits<'a>, Flaw> {
    let (extra, mut at) = bits.rest();
    if extra.len() > EXTRA_MAX {
        return Err(Flaw::Extra);
    }
    while jpeg.get(at..at + 2) == Some(&[0xFF, 0xFF]) {
        at += 1;
    }
    match jpeg.get(at..at + 2) {
        Some([0xFF, 0xD0..=0xD7]) => Ok(Bits::new(jpeg, at + 2)),
        _ => Err(Flaw::Short),
    }
}

impl Header {
    /// Marks the coefficients that `scan` completes.
    fn note(&mut self, scan: &Scan) {
        let (first, last) = if self.progressive { scan.band } else { (0, 63) };
        let band = (u64::MAX >> (63 - last)) & (u64::MAX << first);
        for (index, ..) in scan.parts.iter().filter(|_| scan.last || !self.progressive) {
            self.components[*index].complete |= band;
        }
    }

    /// Whether all scans came: a progressive picture that lacks the last ones is blurred.
    fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.complete == u64::MAX)
    }
}

impl Scan {
    fn new(segment: &[u8], header: &Header) -> Result<Scan, Flaw> {
        let (count, rest) = segment.split_first().ok_or(Flaw::Header)?;
        let (parts, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or(Flaw::Header)?;
        let [first, last, bits, ..] = *rest else { return Err(Flaw::Header) };
        let part = |[id, tables]: &[u8; 2]| {
            let index = header.components.iter().position(|c| c.id == *id)?;
            Some((index, usize::from(tables >> 4) & 3, usize::from(tables & 3)))
        };
        let parts = Few::collect(parts.as_chunks::<2>().0.iter().map(part)).ok_or(Flaw::Header)?;
        // beyond the first coefficient, a progressive scan has one component (T.81 G.1.1.1.1)
        let alone = parts.len() == 1 || !header.progressive || (first, last) == (0, 0);
        if parts.is_empty() || !alone || (header.progressive && (last > 63 || first > last || (first == 0 && last != 0))) {
            return Err(Flaw::Header);
        }
        Ok(Scan { parts, band: (u32::from(first), u32::from(last)), refines: bits >> 4 != 0, last: bits & 15 == 0 })
    }
}

/// T.81 F.2.2.1.
fn first_coefficient(bits: &mut Bits, dc: &Table) -> Result<(), Flaw> {
    match bits.value(dc)? {
        size @ 0..=16 => bits.skip(size.into()),
        _ => Err(Flaw::NoCode),
    }
}

/// A block of a sequential scan: T.81 F.2.2.
fn sequential(bits: &mut Bits, dc: &Table, ac: &Table) -> Result<(), Flaw> {
    first_coefficient(bits, dc)?;
    let mut next = 1;
    while next < 64 {
        let code = bits.value(ac)?;
        let (run, size) = (u32::from(code >> 4), u32::from(code & 15));
        match size {
            0 if run < 15 => break,
            _ => next += run + 1,
        }
        bits.skip(size)?;
    }
    if next > 64 { Err(Flaw::Full) } else { Ok(()) }
}

/// A block of a progressive scan that gives coefficients their first bits: T.81 G.1.2.2.
fn progressive(bits: &mut Bits, ac: &Table, (first, last): (u32, u32), run: &mut u32, history: &mut u64) -> Result<(), Flaw> {
    if *run > 0 {
        *run -= 1;
        return Ok(());
    }
    let mut next = first;
    while next <= last {
        let code = bits.value(ac)?;
        let (zeros, size) = (u32::from(code >> 4), u32::from(code & 15));
        if size == 0 && zeros < 15 {
            *run = (1 << zeros) - 1 + bits.take(zeros)?;
            return Ok(());
        }
        next += zeros + 1;
        if next > last + 1 {
            return Err(Flaw::Full);
        }
        if size > 0 {
            *history |= 1 << (next - 1);
        }
        bits.skip(size)?;
    }
    Ok(())
}

/// A block of a progressive scan that adds a bit: T.81 G.1.2.3.
fn refined(bits: &mut Bits, ac: &Table, (first, last): (u32, u32), run: &mut u32, history: &mut u64) -> Result<(), Flaw> {
    let known = |history: u64, at: u32| history >> at & 1 == 1;
    let mut next = first;
    while *run == 0 && next <= last {
        let code = bits.value(ac)?;
        let (mut zeros, size) = (u32::from(code >> 4), u32::from(code & 15));
        if size == 0 && zeros < 15 {
            *run = (1 << zeros) + bits.take(zeros)?;
            break;
        }
        bits.skip(size)?; // the sign
        while next <= last && (known(*history, next) || zeros > 0) {
            if known(*history, next) {
                bits.take(1)?;
            } else {
                zeros -= 1;
            }
            next += 1;
        }
        if next > last {
            return if size > 0 || zeros > 0 { Err(Flaw::Full) } else { Ok(()) };
        }
        if size > 0 {
            *history |= 1 << next;
        }
        next += 1;
    }
    if *run > 0 {
        for _ in (next..=last).filter(|at| known(*history, *at)) {
            bits.take(1)?;
        }
        *run -= 1;
    }
    Ok(())
}
