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
}
