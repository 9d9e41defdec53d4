//! Debug info: what the JIT and crossgen tell of native code, for debuggers.
//!
//! Behind a code header of the JIT there is one blob for each method, in a ReadyToRun image there is a sparse array of
//! them: a map from native code to IL ([`bounds`]) and the places of variables ([`vars`]), both compressed.
//!
//! Sources: `CompressDebugInfo::RestoreBoundariesAndVars` in `vm/debuginfostore.cpp`, `EEJitManager` and
//! `ReadyToRunJitManager::GetBoundariesAndVars` in `vm/codeman.cpp`, `ReadyToRunInfo::GetDebugInfo` in
//! `vm/readytoruninfo.cpp`, `NativeArray` in `vm/nativeformatreader.h`, `inc/patchpointinfo.h`.

mod bounds;
mod stream;
mod vars;

use dnd_memory::{Memory, Missing};

pub use bounds::{Bound, IlMap, IlOffset};
pub use vars::{NativeVariable, VariablePlace};

use self::stream::Nibbles;
use super::{Code, sections};
use crate::error::{Error, Reading};
use crate::runtime::Runtime;

const WHAT: &str = "the debug info of a method";
/// `EXTRA_DEBUG_INFO_PATCHPOINT`: where a method can be left for a better version of itself.
const PATCHPOINT: u8 = 1;
/// `EXTRA_DEBUG_INFO_RICH`: inlining, when the program was started with it.
const RICH: u8 = 2;
/// In front of the sizes of 10: there are two maps, of the IL as a profiler changed it and of that before.
const TWO_MAPS: u32 = u32::MAX;
/// Bytes of the sizes in front: four numbers.
const HEADER: usize = 24;
/// Bytes of a part of a method's debug info; more is damage.
const MAX_SIZE: u32 = 1 << 24;
/// Locals of a method; more is damage.
const MAX_LOCALS: u32 = 1 << 16;

/// A `PatchpointInfo`: its size without its locals, and where their number is.
#[derive(Debug, Clone, Copy)]
struct Patchpoint {
    size: u64,
    locals: u64,
}

const PATCHPOINT_8: Patchpoint = Patchpoint { size: 32, locals: 8 };
const PATCHPOINT_10: Patchpoint = Patchpoint { size: 40, locals: 16 };

/// Where a method's debug info is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DebugInfoAt {
    /// At this address, 0 for none.
    Jit(u64),
    /// In the array of the image.
    ReadyToRun {
        /// Base of the image.
        image: u64,
        /// Number of the method's first runtime function.
        function: u32,
    },
}

/// Where the parts of a method's debug info are.
#[derive(Debug, Clone, Copy)]
struct Parts {
    map: (u64, u32),
    variables: (u64, u32),
    /// The map is in the form of 10.
    packed: bool,
}

/// How debug info is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugInfoForm {
    /// 3.1, ReadyToRun images up to .NET 9.
    Plain,
    /// Jitted code of 8 and 9: a byte of flags, and what these tell of, in front.
    Flags,
    /// The same of 10, with a packed map.
    Packed,
    /// ReadyToRun images of .NET 10.
    PackedPlain,
}

impl Runtime<'_> {
    /// The map from native code to IL of the method that `code` belongs to; empty when it has none.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`].
    pub fn il_map(&self, code: &Code) -> Result<IlMap, Error> {
        self.debug_parts(code)?.map_or(Ok(IlMap::default()), |parts| parts.map(self.target()))
    }

    /// The places of the parameters and locals of the method that `code` belongs to; empty when nothing is told.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`].
    pub fn native_variables(&self, code: &Code) -> Result<Vec<NativeVariable>, Error> {
        self.debug_parts(code)?.map_or(Ok(Vec::new()), |parts| parts.variables(self.target()))
    }

    fn debug_parts(&self, code: &Code) -> Result<Option<Parts>, Error> {
        let memory = self.target();
        match code.debug_info {
            DebugInfoAt::Jit(0) => Ok(None),
            DebugInfoAt::Jit(at) => Parts::read(memory, at, self.layout().code.debug_info).map(Some),
            DebugInfoAt::ReadyToRun { image, function } => {
                let found = sections::find(memory, image, sections::DEBUG_INFO)?;
                let Some((header, array)) = found else { return Ok(None) };
                let Some(at) = in_array(memory, image, array.rva, function).reading(WHAT)? else {
                    return Ok(None);
                };
                let packed = header.major_version >= sections::PACKED_BOUNDS_VERSION;
                let form = if packed { DebugInfoForm::PackedPlain } else { DebugInfoForm::Plain };
                Parts::read(memory, image.wrapping_add(at.into()), form).map(Some)
            }
        }
    }
}

/// Numbers of pieces and variables.
#[cfg(feature = "fuzzing")]
pub(crate) fn counts(memory: &dyn Memory, at: u64, form: DebugInfoForm) -> Option<(usize, usize)> {
    let parts = Parts::read(memory, at, form).ok()?;
    Some((parts.map(memory).ok()?.bounds.len(), parts.variables(memory).ok()?.len()))
}

impl Parts {
    fn map(&self, memory: &dyn Memory) -> Result<IlMap, Error> {
        let (at, size) = self.map;
        if size == 0 {
            return Ok(IlMap::default());
        }
        let bytes = bytes(memory, at, size)?;
        let map = if self.packed { IlMap::from_bits(&bytes) } else { IlMap::from_nibbles(&bytes) };
        map.ok_or(Error::Damaged { what: WHAT, addr: at })
    }

    fn variables(&self, memory: &dyn Memory) -> Result<Vec<NativeVariable>, Error> {
        let (at, size) = self.variables;
        if size == 0 {
            return Ok(Vec::new());
        }
        vars::read(&bytes(memory, at, size)?).ok_or(Error::Damaged { what: WHAT, addr: at })
    }

    fn read(memory: &dyn Memory, at: u64, form: DebugInfoForm) -> Result<Self, Error> {
        match form {
            DebugInfoForm::Plain => parts(memory, at, false, false),
            DebugInfoForm::PackedPlain => parts(memory, at, true, false),
            DebugInfoForm::Flags => parts(memory, behind_extras(memory, at, PATCHPOINT_8)?, false, false),
            DebugInfoForm::Packed => parts(memory, behind_extras(memory, at, PATCHPOINT_10)?, true, true),
        }
    }
}

/// Steps over what the JIT may put in front of the sizes.
fn behind_extras(memory: &dyn Memory, at: u64, patchpoint: Patchpoint) -> Result<u64, Error> {
    let damaged = || Error::Damaged { what: WHAT, addr: at };
    let flags = memory.u8(at).reading(WHAT)?;
    if flags & !(PATCHPOINT | RICH) != 0 {
        return Err(damaged());
    }
    let mut at = at.wrapping_add(1);
    if flags & PATCHPOINT != 0 {
        let locals = memory.u32(at.wrapping_add(patchpoint.locals)).reading(WHAT)?;
        if locals > MAX_LOCALS {
            return Err(damaged());
        }
        at = at.wrapping_add(patchpoint.size + 4 * u64::from(locals));
    }
    if flags & RICH != 0 {
        let size = memory.u32(at).reading(WHAT)?;
        if size > MAX_SIZE {
            return Err(damaged());
        }
        at = at.wrapping_add(4 + u64::from(size));
    }
    Ok(at)
}

/// Reads the sizes at `at`.
fn parts(memory: &dyn Memory, at: u64, packed: bool, may_have_two: bool) -> Result<Parts, Error> {
    let damaged = || Error::Damaged { what: WHAT, addr: at };
    let header = up_to(memory, at, HEADER);
    let mut sizes = Nibbles::new(&header);
    let mut size = || sizes.unsigned();
    // The bytes end, or a number does not.
    let unread = || match header.len() {
        HEADER => damaged(),
        _ => Error::Missing { what: WHAT, source: Missing { addr: at, len: HEADER as u64 } },
    };
    let mut maps = [size().ok_or_else(unread)?, 0];
    if may_have_two && maps == [TWO_MAPS, 0] {
        maps = [size().ok_or_else(unread)?, size().ok_or_else(unread)?];
    }
    let [map, before_profiler] = maps;
    let variables = size().ok_or_else(unread)?;
    if [map, before_profiler, variables].into_iter().any(|size| size > MAX_SIZE) {
        return Err(damaged());
    }
    let first = at.wrapping_add(sizes.position() as u64);
    let second = first.wrapping_add(map.into());
    let third = second.wrapping_add(before_profiler.into());
    Ok(Parts {
        // Source lines are those of the IL as it was compiled.
        map: if before_profiler == 0 { (first, map) } else { (second, before_profiler) },
        variables: (third, variables),
        packed,
    })
}

/// At most `max` bytes: as many as there are.
fn up_to(memory: &dyn Memory, at: u64, max: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < max {
        match memory.u8(at.wrapping_add(bytes.len() as u64)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    bytes
}

fn bytes(memory: &dyn Memory, at: u64, size: u32) -> Result<Vec<u8>, Error> {
    // No allocation for what is not there.
    memory.u8(at.wrapping_add(u64::from(size) - 1)).reading(WHAT)?;
    let mut bytes = vec![0; size as usize];
    memory.read(at, &mut bytes).reading(WHAT)?;
    Ok(bytes)
}

/// The offset in the image of an element of the array at `array`, which holds it or says how far back it is.
pub(crate) fn in_array(
    memory: &dyn Memory,
    image: u64,
    array: u32,
    index: u32,
) -> Result<Option<u32>, Missing> {
    let Some(element) = array_element(memory, image, array, index)? else { return Ok(None) };
    let (back, behind) = number(memory, image, element)?;
    Ok(Some(if back == 0 { behind } else { element.wrapping_sub(back) }))
}

/// Where element `index` of a `NativeArray` begins: blocks of sixteen, each a binary tree whose nodes tell which of
/// their halves there are.
fn array_element(memory: &dyn Memory, image: u64, array: u32, index: u32) -> Result<Option<u32>, Missing> {
    const BLOCK: u32 = 16;
    let (header, blocks) = number(memory, image, array)?;
    if index >= header >> 2 {
        return Ok(None);
    }
    let entry = |size: u32| image.wrapping_add(blocks.into()).wrapping_add(u64::from(size * (index / BLOCK)));
    let first = match header & 3 {
        0 => memory.u8(entry(1))?.into(),
        1 => memory.u16(entry(2))?.into(),
        _ => memory.u32(entry(4))?,
    };
    let mut at = blocks.wrapping_add(first);
    for bit in [8, 4, 2, 1] {
        let (node, behind) = number(memory, image, at)?;
        match (index & bit != 0, node) {
            (true, node) if node & 2 != 0 => at = at.wrapping_add(node >> 2),
            (false, node) if node & 1 != 0 => at = behind,
            // The only element of this part of the tree.
            (_, node) if node & 3 == 0 && node >> 2 == index & (BLOCK - 1) => return Ok(Some(behind)),
            _ => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// A number in the format of native images and the offset behind it: ones in the low bits of its first byte count the
/// bytes that follow.
fn number(memory: &dyn Memory, image: u64, offset: u32) -> Result<(u32, u32), Missing> {
    let at = image.wrapping_add(offset.into());
    let first = u32::from(memory.u8(at)?);
    let more = first.trailing_ones().min(4);
    if more == 4 {
        return Ok((memory.u32(at.wrapping_add(1))?, offset.wrapping_add(5)));
    }
    let mut value = first >> (more + 1);
    for i in 1..=more {
        value |= u32::from(memory.u8(at.wrapping_add(i.into()))?) << (8 * i - more - 1);
    }
    Ok((value, offset.wrapping_add(1 + more)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl Memory for Bytes {
        fn run(&self, addr: u64) -> &[u8] {
            self.0.get(addr as usize..).unwrap_or_default()
        }
        fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
            let len = buf.len();
            let bytes = self.run(addr).get(..len).ok_or(Missing { addr, len: len as u64 })?;
            buf.copy_from_slice(bytes);
            Ok(())
        }
    }

    #[test]
    fn numbers_of_native_images() {
        let cases: [(&[u8], u32); 6] = [
            (&[0x00], 0),
            (&[0xfe], 127),
            (&[0x01, 0x02], 128),
            (&[0x03, 0x00, 0x02], 0x4000),
            (&[0x07, 0x00, 0x00, 0x02], 0x20_0000),
            (&[0x0f, 0x78, 0x56, 0x34, 0x12], 0x1234_5678),
        ];
        for (bytes, value) in cases {
            let memory = Bytes(bytes.to_vec());
            assert_eq!(number(&memory, 0, 0), Ok((value, bytes.len() as u32)), "{bytes:02x?}");
            assert!(number(&Bytes(bytes[..bytes.len() - 1].to_vec()), 0, 0).is_err());
        }
    }

    #[test]
    fn an_array_with_few_elements() {
        // 20 elements (80 << 1, two bytes), blocks at 2 and 3: block 0 holds only element 5, block 1 elements 16 and 19.
        let mut bytes = vec![0x41, 0x01, 2, 4];
        bytes.extend([5 << 3, 0x66]);
        // Element 16: left at each level. At the level of 2 there is a right half, too: 19, six bytes on.
        bytes.extend([1 << 1, 1 << 1, (3 | 4 << 2) << 1, 0 << 3, 0x77, 0x55, 3 << 3, 0x88]);
        let memory = Bytes(bytes);
        assert_eq!(array_element(&memory, 0, 0, 5), Ok(Some(5)));
        assert_eq!(array_element(&memory, 0, 0, 4), Ok(None));
        assert_eq!(array_element(&memory, 0, 0, 16), Ok(Some(10)));
        assert_eq!(array_element(&memory, 0, 0, 19), Ok(Some(13)));
        assert_eq!(array_element(&memory, 0, 0, 17), Ok(None));
        assert_eq!(array_element(&memory, 0, 0, 20), Ok(None), "behind the last");
    }

    #[test]
    fn sizes_in_front() {
        let header = |bytes: &[u8], packed| parts(&Bytes(bytes.to_vec()), 0, packed, packed);
        let plain = header(&[0x35], false).unwrap();
        assert_eq!((plain.map, plain.variables), ((1, 5), (6, 3)));
        // 2^32 - 1 in eleven nibbles, then 1, 2 and 3.
        let two = header(&[0xfb, 0xff, 0xff, 0xff, 0xff, 0x17, 0x32], true).unwrap();
        assert_eq!((two.map, two.variables), ((8, 2), (10, 3)), "the map of before the profiler");
        assert!(matches!(header(&[0x8f], false), Err(Error::Missing { .. })));
        assert!(matches!(header(&[0xff, 0xff, 0xff, 0xff, 0x3f, 0x11], false), Err(Error::Damaged { .. })));
    }
}
