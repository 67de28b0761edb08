//! CRC-32 (IEEE 802.3, the one of zlib and `zlib.crc32`), eight bytes a step.
//!
//! A ring that fills checksums lets a test prove that no frame was torn; the seqlock itself needs none.
//!
//! Invariant: `crc32(crc32(0, a), b) == crc32(0, a ++ b)`. Refuses: SIMD; a device build leaves checksums off.

const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    // tables[k][b] is the effect of byte b followed by k zero bytes.
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// Continues `crc` (0 at the start) over `bytes`.
pub fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    let mut state = !crc;
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let [a, b, c, d] = (state ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]])).to_le_bytes();
        state = TABLES[7][usize::from(a)]
            ^ TABLES[6][usize::from(b)]
            ^ TABLES[5][usize::from(c)]
            ^ TABLES[4][usize::from(d)]
            ^ TABLES[3][usize::from(word[4])]
            ^ TABLES[2][usize::from(word[5])]
            ^ TABLES[1][usize::from(word[6])]
            ^ TABLES[0][usize::from(word[7])];
    }
    for &byte in tail {
        state = (state >> 8) ^ TABLES[0][((state ^ u32::from(byte)) & 0xFF) as usize];
    }
    !state
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn known_values_and_every_split() {
        assert_eq!(crc32(0, b"123456789"), 0xCBF4_3926, "the check value of the CRC catalogue");
        assert_eq!(crc32(0, b""), 0);
        let bytes: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(37)).collect();
        for cut in 0..=bytes.len() {
            assert_eq!(crc32(crc32(0, &bytes[..cut]), &bytes[cut..]), crc32(0, &bytes), "cut at {cut}");
        }
    }
}
