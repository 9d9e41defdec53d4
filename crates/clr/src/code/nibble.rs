//! Nibble maps: from an address in a code heap to the start of the method around it.
//!
//! Each 4 bits stand for 32 bytes of code, from the top of a 32-bit word down: 0 means that no method starts there, n
//! that one starts at its (n - 1)th word of 4 bytes. .NET 10 adds words whose lowest nibble is above 8: the method
//! that covers the whole 256 bytes starts at an encoded offset, so the search never goes back more than one word.
//! Source: `EEJitManager::FindMethodCode` in `vm/codeman.cpp`, `inc/nibblemapmacros.h`, `vm/nibblemapmacros.h` and
//! `docs/design/datacontracts/ExecutionManager.md` (nibble map versions 1 and 2).

use dnd_memory::{Memory, Missing};

/// Bytes of code that a word stands for.
const WORD_CODE: u64 = 256;
/// Words to go back at most: 256 MB of one method.
const MAX_WORDS: u64 = 1 << 20;

/// Start of the last method that begins at or before `ip`. `base` is what offsets count from, `map` the words.
pub(crate) fn find(
    memory: &dyn Memory,
    ip: u64,
    base: u64,
    map: u64,
    pointers: bool,
) -> Result<Option<u64>, Missing> {
    let Some(offset) = ip.checked_sub(base) else { return Ok(None) };
    let index = offset / WORD_CODE;
    let word_at = |index: u64| memory.u32(map.wrapping_add(4 * index));
    let word = word_at(index)?;
    if pointers && is_pointer(word) {
        return Ok(Some(base.wrapping_add(pointer(word))));
    }
    if let Some(start) = last_start(word, offset % WORD_CODE) {
        return Ok(Some(base.wrapping_add(index * WORD_CODE + start)));
    }
    // A method that began in an earlier word.
    let steps = if pointers { 1 } else { MAX_WORDS };
    for back in 1..=index.min(steps) {
        let index = index - back;
        let word = word_at(index)?;
        if pointers && is_pointer(word) {
            return Ok(Some(base.wrapping_add(pointer(word))));
        }
        if let Some(start) = last_start(word, WORD_CODE - 1) {
            return Ok(Some(base.wrapping_add(index * WORD_CODE + start)));
        }
    }
    Ok(None)
}

/// The last start in a word at or before `limit`, both in bytes from the word's first byte of code.
fn last_start(word: u32, limit: u64) -> Option<u64> {
    (0..8u64).rev().find_map(|position| {
        let nibble = u64::from(word >> (28 - 4 * position) & 0xf);
        let start = 32 * position + 4 * nibble.checked_sub(1)?;
        // Starts are multiples of 4, so the whole word of code around the limit counts.
        (start <= (limit | 3)).then_some(start)
    })
}

fn is_pointer(word: u32) -> bool {
    word & 0xf > 8
}

fn pointer(word: u32) -> u64 {
    u64::from(word & !0xf) + 4 * u64::from((word & 0xf).saturating_sub(9))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words(Vec<u32>);

    impl Memory for Words {
        fn run(&self, _: u64) -> &[u8] {
            &[]
        }
        fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
            let word = self.0.get(addr as usize / 4).ok_or(Missing { addr, len: 4 })?;
            buf.copy_from_slice(&word.to_le_bytes());
            Ok(())
        }
    }

    const BASE: u64 = 0x1_0000;

    fn start(words: &[u32], offset: u64, pointers: bool) -> Option<u64> {
        find(&Words(words.to_vec()), BASE + offset, BASE, 0, pointers).unwrap().map(|at| at - BASE)
    }

    #[test]
    fn a_method_is_found_from_each_of_its_bytes() {
        // Methods at 8 (nibble 3 of position 0) and 100 (position 3, word 1: nibble 2).
        let words = [0x3002_0000, 0, 0x0000_0001];
        assert_eq!(start(&words, 7, false), None);
        assert_eq!(start(&words, 8, false), Some(8));
        assert_eq!(start(&words, 99, false), Some(8));
        assert_eq!(start(&words, 100, false), Some(100));
        assert_eq!(start(&words, 103, false), Some(100));
        assert_eq!(start(&words, 600, false), Some(100), "over a word without starts");
        assert_eq!(start(&words, 512 + 224, false), Some(512 + 224));
    }

    #[test]
    fn an_encoded_pointer_leads_to_the_start() {
        // The method at 8 covers the second and third words.
        let words = [0x3000_0000, 9 + 2, 9 + 2, 0];
        assert_eq!(start(&words, 256, true), Some(8));
        assert_eq!(start(&words, 700, true), Some(8));
        assert_eq!(start(&words, 800, true), Some(8), "one word back, a pointer");
        assert_eq!(start(&[0x3000_0000, 0, 0], 600, true), None, "never two words back");
    }

    #[test]
    fn a_map_that_ends_is_missing_and_not_zero() {
        assert!(find(&Words(vec![0]), BASE + 1000, BASE, 0, false).is_err());
        assert_eq!(find(&Words(vec![0]), BASE - 1, BASE, 0, false), Ok(None));
    }

    /// (runtime and method, whether words may lead to the start, first word's number, words, start, address in it)
    type Real = (&'static str, bool, u64, &'static [u32], u64, u64);

    #[test]
    fn maps_of_real_code_heaps() {
        const REAL: &[Real] = &[
            ("3.1.23 InCatch", false, 0x153, &[0x0101_0000, 0x0001_0010, 0x0100_5000], 0x15360, 0x1542d),
            ("3.1.23 Block", false, 0x153, &[0x0101_0000, 0x0001_0010, 0x0100_5000], 0x154c0, 0x154f6),
            ("8.0.33 InCatch", false, 0x52, &[0x0010_0500, 0x0000_0500, 0x5005_0001], 0x52b0, 0x5378),
            ("9.0.22 Lock", false, 0x52, &[0x0000_5050, 0x0000_1005, 0x0000_0005], 0x52d0, 0x5317),
            ("9.0.22 Throw", false, 0x54, &[0x0000_0005, 0x0050_0500, 0x0100_0000], 0x54f0, 0x552e),
            ("10.0.14 Main lambda", true, 0x52, &[0x0000_0501, 0x0100_0010, 0x0500_0000], 0x53c0, 0x540d),
            ("10.0.14 Block", true, 0x55, &[0x5005_0050, 0x0010_0000], 0x5570, 0x55a8),
        ];
        for &(method, pointers, first, words, at, ip) in REAL {
            // The words of the map in front of these are not needed.
            let mut map = vec![0; first as usize];
            map.extend(words);
            assert_eq!(start(&map, ip, pointers), Some(at), "{method}");
            assert_eq!(start(&map, at, pointers), Some(at), "{method}: its first byte");
        }
    }

    /// The map of methods (start, end) as the runtime keeps it: a nibble for each start, and, with pointers, words that are
    /// covered by one method lead to its start.
    fn map_of(methods: &[(u64, u64)], pointers: bool) -> Vec<u32> {
        let last = methods.iter().map(|&(_, end)| end).max().unwrap_or(0);
        let mut map = vec![0u32; last as usize / 256 + 2];
        for &(at, end) in methods {
            map[at as usize / 256] |= (at as u32 % 32 / 4 + 1) << (28 - at as u32 % 256 / 32 * 4);
            for word in (at / 256 + 1..).take_while(|word| pointers && (word + 1) * 256 <= end) {
                map[word as usize] = (at as u32 & !0xf) | (at as u32 % 16 / 4 + 9);
            }
        }
        map
    }

    #[test]
    fn every_byte_of_every_method_leads_to_its_start() {
        let mut seed = 1u64;
        let mut below = |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % limit
        };
        for case in 0..200 {
            let mut methods = Vec::new();
            let mut at = 4 * below(100);
            for _ in 0..below(30) {
                // At least 32 bytes apart, as every method has a header in front of it.
                let longest = if below(8) == 0 { 1000 } else { 40 };
                let end = at + 28 + 4 * below(longest);
                methods.push((at, end));
                at = end.next_multiple_of(32) + 4 * below(12);
            }
            for pointers in [false, true] {
                let map = map_of(&methods, pointers);
                for &(at, end) in &methods {
                    for ip in (at..end).step_by(3).chain([end - 1]) {
                        assert_eq!(
                            start(&map, ip, pointers),
                            Some(at),
                            "{case}: {ip:#x} of {at:#x}-{end:#x}"
                        );
                    }
                }
            }
        }
    }
}
