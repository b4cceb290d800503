//! Unpacks bzip2, for `text`: block by block, each held to its checksum.

use std::io::{Error, ErrorKind, Result};

/// Packed bytes that a block may have: 18,002 groups of 50 symbols of 20 bits, and its tables before them.
const PACKED_BLOCK_MAX: usize = 18_002 * 50 * 20 / 8 + (64 << 10);
/// Bytes of a block before its runs are expanded, times the level, 1 to 9.
const LEVEL_BYTES: usize = 100_000;
const BLOCK_MAGIC: u64 = 0x3141_5926_5359;
const END_MAGIC: u64 = 0x1772_4538_5090;
/// Symbols that one Huffman table serves before the next one is chosen.
const GROUP: usize = 50;
const CODE_BITS_MAX: usize = 20;

/// Packed bytes on their way.
#[derive(Debug, Default)]
pub struct Bzip2 {
    input: Vec<u8>,
    /// The next bit of `input`.
    at: usize,
    /// Of the stream that is open: most bytes of a block, and the checksum of all blocks so far.
    open: Option<(usize, u32)>,
}

impl Bzip2 {
    /// Whether more must be fed, if there is more, before a block can be unpacked.
    pub fn wants_more(&self) -> bool {
        self.input.len() - self.at / 8 < PACKED_BLOCK_MAX
    }

    /// Adds packed bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..self.at / 8);
        self.at %= 8;
        self.input.extend_from_slice(bytes);
    }

    /// The next block, `None` after the last one. Streams may follow one another.
    ///
    /// # Errors
    /// What was fed is no bzip2, ends too early, or fails its checksum.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let Some((block_max, sum)) = self.open else {
                if self.at / 8 >= self.input.len() {
                    return Ok(None);
                }
                self.open = Some((self.level()? * LEVEL_BYTES, 0));
                continue;
            };
            match u64::from(self.bits(24)?) << 24 | u64::from(self.bits(24)?) {
                BLOCK_MAGIC => {
                    let (block, own) = self.block(block_max)?;
                    self.open = Some((block_max, sum.rotate_left(1) ^ own));
                    return Ok(Some(block));
                }
                END_MAGIC => {
                    if self.bits(32)? != sum {
                        return Err(wrong("crc error"));
                    }
                    self.at = self.at.next_multiple_of(8);
                    self.open = None;
                }
                _ => return Err(wrong("bad block header")),
            }
        }
    }

    fn level(&mut self) -> Result<usize> {
        if self.bits(16)? != u32::from(u16::from_be_bytes(*b"BZ")) || self.bits(8)? != u32::from(b'h') {
            return Err(wrong("Stream is not BZip2 formatted"));
        }
        match self.bits(8)? {
            level @ 0x31..=0x39 => Ok(level as usize - 0x30),
            _ => Err(wrong("Stream is not BZip2 formatted: illegal blocksize")),
        }
    }

    /// The next `count` bits, 32 at most.
    fn bits(&mut self, count: usize) -> Result<u32> {
        let mut value = 0_u64;
        let mut have = 0;
        while have < count {
            let byte = *self.input.get(self.at / 8).ok_or_else(cut)?;
            let take = (8 - self.at % 8).min(count - have);
            let rest = u64::from(byte) << (self.at % 8) & 0xff;
            value = value << take | rest >> (8 - take);
            self.at += take;
            have += take;
        }
        Ok(value as u32)
    }

    fn bit(&mut self) -> Result<bool> {
        Ok(self.bits(1)? == 1)
    }

    /// A block's bytes and their checksum.
    fn block(&mut self, block_max: usize) -> Result<(Vec<u8>, u32)> {
        let sum = self.bits(32)?;
        if self.bit()? {
            return Err(wrong("randomised blocks, as bzip2 made them before 1.0, cannot be unpacked"));
        }
        let origin = self.bits(24)? as usize;
        let bytes = self.bytes_in_use()?;
        let (selectors, tables) = self.tables(bytes.len() + 2)?;
        let sorted = self.symbols(bytes, &selectors, &tables, block_max)?;
        let block = expand(&unsort(&sorted, origin)?);
        if checksum(&block) != sum {
            return Err(wrong("crc error"));
        }
        Ok((block, sum))
    }

    /// The bytes that the block has, in order.
    fn bytes_in_use(&mut self) -> Result<Vec<u8>> {
        let ranges = self.bits(16)?;
        let mut bytes = Vec::new();
        for range in (0..16_u8).filter(|range| ranges & 0x8000 >> range != 0) {
            let in_range = self.bits(16)?;
            bytes.extend((0..16).filter(|at| in_range & 0x8000 >> at != 0).map(|at| range * 16 + at));
        }
        if bytes.is_empty() { Err(wrong("a block without symbols")) } else { Ok(bytes) }
    }

    /// Which table serves each group of symbols, and the tables.
    fn tables(&mut self, symbols: usize) -> Result<(Vec<u8>, Vec<Table>)> {
        let count = self.bits(3)? as usize;
        let groups = self.bits(15)? as usize;
        if !(2..=6).contains(&count) || groups == 0 {
            return Err(wrong("a block without tables"));
        }
        let mut recent: Vec<u8> = (0..count as u8).collect();
        let mut selectors = Vec::with_capacity(groups);
        for _ in 0..groups {
            let mut place = 0;
            while self.bit()? {
                place += 1;
            }
            selectors.push(to_front(&mut recent, place)?);
        }
        let mut tables = Vec::with_capacity(count);
        for _ in 0..count {
            let mut length = self.bits(5)? as usize;
            let mut lengths = Vec::with_capacity(symbols);
            for _ in 0..symbols {
                while self.bit()? {
                    length = if self.bit()? { length.wrapping_sub(1) } else { length + 1 };
                }
                if !(1..=CODE_BITS_MAX).contains(&length) {
                    return Err(wrong("a code of no length"));
                }
                lengths.push(length);
            }
            tables.push(Table::new(&lengths));
        }
        Ok((selectors, tables))
    }

    /// The block's bytes, sorted: Huffman's code, runs and moves to the front undone.
    fn symbols(
        &mut self,
        mut recent: Vec<u8>,
        selectors: &[u8],
        tables: &[Table],
        block_max: usize,
    ) -> Result<Vec<u8>> {
        let end = recent.len() + 1;
        let mut sorted = Vec::new();
        let (mut run, mut run_step) = (0_usize, 1_usize);
        for selector in selectors {
            let table = &tables[usize::from(*selector)];
            for _ in 0..GROUP {
                let symbol = self.symbol(table)?;
                if symbol < 2 {
                    run += run_step << symbol;
                    run_step <<= 1;
                    if sorted.len() + run > block_max {
                        return Err(wrong("block overrun"));
                    }
                    continue;
                }
                sorted.resize(sorted.len() + run, recent[0]);
                (run, run_step) = (0, 1);
                if symbol == end {
                    return Ok(sorted);
                }
                if sorted.len() == block_max {
                    return Err(wrong("block overrun"));
                }
                sorted.push(to_front(&mut recent, symbol - 1)?);
            }
        }
        Err(wrong("a block without an end"))
    }

    fn symbol(&mut self, table: &Table) -> Result<usize> {
        let mut code = 0;
        for length in 1..=CODE_BITS_MAX {
            code = code << 1 | self.bits(1)? as usize;
            let (first, place, count) = table.by_length[length];
            if let Some(at) = code.checked_sub(first).filter(|at| *at < count) {
                return Ok(usize::from(table.symbols[place + at]));
            }
        }
        Err(wrong("a code that is none"))
    }
}

/// A Huffman code.
#[derive(Debug)]
struct Table {
    /// Of each length of codes: the first code, the place of its symbol, and how many there are.
    by_length: [(usize, usize, usize); CODE_BITS_MAX + 1],
    /// By code.
    symbols: Vec<u16>,
}

impl Table {
    fn new(lengths: &[usize]) -> Table {
        let mut table =
            Table { by_length: [(0, 0, 0); CODE_BITS_MAX + 1], symbols: Vec::with_capacity(lengths.len()) };
        let mut code = 0;
        for length in 1..=CODE_BITS_MAX {
            let place = table.symbols.len();
            let fits = lengths.iter().enumerate().filter(|(_, of)| **of == length);
            table.symbols.extend(fits.map(|(symbol, _)| symbol as u16));
            let count = table.symbols.len() - place;
            table.by_length[length] = (code, place, count);
            code = (code + count) << 1;
        }
        table
    }
}

fn to_front(recent: &mut [u8], place: usize) -> Result<u8> {
    let byte = *recent.get(place).ok_or_else(|| wrong("a move from where nothing is"))?;
    recent[..=place].rotate_right(1);
    Ok(byte)
}

/// Undoes the Burrows-Wheeler transform.
fn unsort(sorted: &[u8], origin: usize) -> Result<Vec<u8>> {
    let mut begins = [0_usize; 256];
    sorted.iter().for_each(|byte| begins[usize::from(*byte)] += 1);
    let mut sum = 0;
    for begin in &mut begins {
        sum += std::mem::replace(begin, sum);
    }
    let mut next = vec![0_u32; sorted.len()];
    for (at, byte) in sorted.iter().enumerate() {
        let place = &mut begins[usize::from(*byte)];
        next[*place] = at as u32;
        *place += 1;
    }
    let mut at = *next.get(origin).ok_or_else(|| wrong("a block that begins nowhere"))? as usize;
    let bytes = (0..sorted.len()).map(|_| {
        let byte = sorted[at];
        at = next[at] as usize;
        byte
    });
    Ok(bytes.collect())
}

/// Undoes the first step of packing: after four equal bytes stands how many more there are.
fn expand(runs: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::with_capacity(runs.len());
    let mut equal = 0;
    for byte in runs {
        if equal == 4 {
            let last = bytes[bytes.len() - 1];
            bytes.resize(bytes.len() + usize::from(*byte), last);
            equal = 0;
            continue;
        }
        equal = if bytes.last() == Some(byte) && equal > 0 { equal + 1 } else { 1 };
        bytes.push(*byte);
    }
    bytes
}

/// CRC-32 with the highest bit first.
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut sum = (at as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 << 31 != 0 { sum << 1 ^ 0x04c1_1db7 } else { sum << 1 };
                bit += 1;
            }
            table[at] = sum;
            at += 1;
        }
        table
    };
    let step = |sum: u32, byte: &u8| sum << 8 ^ TABLE[usize::from((sum >> 24) as u8 ^ byte)];
    !bytes.iter().fold(!0, step)
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

fn cut() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "unexpected end of stream")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // What bzip2 1.0.8 makes of "hello\n", and of runs.
    const HELLO: &str =
        "425a6839314159265359c1c080e2000001410000100244a00030cd00c3462997177245385090c1c080e2";
    const RUNS: &str = "425a6831314159265359f575d3b8000002c101e0003800008000082000212431086039d4e026ac55878bb9229c28487abae9dc00";

    fn packed(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// What comes out, of pieces of `step` bytes, and the error at its end.
    fn unpacked(packed: &[u8], step: usize) -> (Vec<u8>, Option<ErrorKind>) {
        let (mut bzip2, mut bytes) = (Bzip2::default(), Vec::new());
        packed.chunks(step).for_each(|piece| bzip2.feed(piece));
        loop {
            match bzip2.next() {
                Ok(Some(block)) => bytes.extend(block),
                Ok(None) => return (bytes, None),
                Err(error) => return (bytes, Some(error.kind())),
            }
        }
    }

    #[test]
    fn blocks_runs_and_streams_after_one_another() {
        let runs = [vec![b'a'; 1000], vec![b'b'; 4], vec![b'c'; 5]].concat();
        for step in [1, 7, 1000] {
            assert_eq!(unpacked(&packed(HELLO), step), (b"hello\n".to_vec(), None));
            assert_eq!(unpacked(&packed(RUNS), step), (runs.clone(), None));
            let both = [packed(HELLO), packed(RUNS)].concat();
            assert_eq!(unpacked(&both, step), ([b"hello\n".to_vec(), runs.clone()].concat(), None));
        }
        assert_eq!(unpacked(&[], 1), (Vec::new(), None));
        assert_eq!(unpacked(b"plain text", 1).1, Some(ErrorKind::InvalidData));
    }

    #[test]
    fn what_is_cut_or_flipped_is_told() {
        for whole in [packed(HELLO), packed(RUNS)] {
            for length in 1..whole.len() {
                assert_eq!(unpacked(&whole[..length], 100).1, Some(ErrorKind::UnexpectedEof), "{length}");
            }
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let (bytes, error) = unpacked(&flipped, 100);
                // The last bits only fill a byte, and a higher level is only a larger bound.
                assert!(error.is_some() || bytes == unpacked(&whole, 100).0, "bit {bit}");
            }
        }
    }
}
