//! Unwinding of native frames by DWARF call frame information, `.eh_frame_hdr` and `.eh_frame` as they are in memory.
//!
//! Only the words that a frame needs are read: the sorted table of `.eh_frame_hdr` by binary search, then one description of
//! a function (FDE) and what it shares with others (CIE), which gimli interprets. So a dump that holds nothing but the
//! pages its writer's own unwinder touched is enough. Formats: Linux Standard Base 5.0, "Exception Frames"; DWARF 5,
//! section 6.4.

use std::sync::{Mutex, OnceLock};

use dnd_memory::{Arch, ElfImage, Memory, Target};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameOffset, Encoding, EndianSlice, Evaluation, EvaluationResult,
    Expression, Format, LittleEndian, RegisterRule, UnwindContext, UnwindSection, Value,
};
use rustc_hash::FxHashMap;

use super::context::Context;

/// A description of a function is a few dozen bytes long; this is far beyond.
const MAX_ENTRY: u32 = 1 << 16;
/// Steps of one expression.
const MAX_STEPS: u32 = 256;
/// Pages to look back for the header of an image that no mapping tells of (the vDSO).
const MAX_PAGES_BACK: u64 = 8;
const PAGE: u64 = 4096;
const ELF: &[u8] = b"\x7fELF";

type Bytes<'b> = EndianSlice<'b, LittleEndian>;

/// Where an image's table of functions is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    header: u64,
    count: u32,
}

/// The images of a target that hold native code, and their tables, as far as they were needed.
#[derive(Debug, Default)]
pub(crate) struct UnwindTables {
    /// (start, end, base) of mapped files, by address.
    mappings: OnceLock<Vec<(u64, u64, u64)>>,
    tables: Mutex<FxHashMap<u64, Option<Table>>>,
}

/// The caller of a native frame.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Its registers.
    pub(crate) context: Context,
    /// It was interrupted by a signal, and did not make a call: its instruction pointer is exact.
    pub(crate) interrupted: bool,
}

impl UnwindTables {
    /// Base of the image around an address.
    fn base(&self, target: &dyn Target, ip: u64) -> Option<u64> {
        let mappings = self.mappings.get_or_init(|| mappings(target));
        let index = mappings.partition_point(|&(start, ..)| start <= ip).checked_sub(1);
        match index.and_then(|index| mappings.get(index)) {
            Some(&(_, end, base)) if ip < end => Some(base),
            _ => (0..MAX_PAGES_BACK)
                .map(|back| (ip & !(PAGE - 1)).wrapping_sub(back * PAGE))
                .find(|&page| target.slice(page, 4) == Some(ELF)),
        }
    }

    /// Whether an address lies in an image; else it is code that was made at run time, maybe in a file in memory.
    pub(crate) fn in_image(&self, target: &dyn Target, ip: u64) -> bool {
        let base = self.base(target, ip);
        base.is_some_and(|base| target.slice(base, 4) == Some(ELF))
    }

    fn table(&self, target: &dyn Target, base: u64) -> Option<Table> {
        if let Ok(tables) = self.tables.lock()
            && let Some(table) = tables.get(&base)
        {
            return *table;
        }
        let image = ElfImage::at(target, base).ok();
        let table = image.and_then(|image| table_at(target, image.eh_frame_hdr()?.start));
        if let Ok(mut tables) = self.tables.lock() {
            tables.insert(base, table);
        }
        table
    }

    /// The caller of the native frame in `context`; `None` when nothing tells how to unwind it. `exact` says that the
    /// instruction pointer is where it was interrupted, and not behind a call.
    pub(crate) fn caller(&self, target: &dyn Target, context: &Context, exact: bool) -> Option<Caller> {
        let pc = if exact { context.ip } else { context.ip.wrapping_sub(1) };
        let table = self.table(target, self.base(target, pc)?)?;
        let entry = function(target, table, pc)?;
        step(target, context, entry, pc)
    }
}

fn mappings(target: &dyn Target) -> Vec<(u64, u64, u64)> {
    let mut bases: FxHashMap<&std::path::Path, u64> = FxHashMap::default();
    let mut list = Vec::new();
    for mapping in target.mappings() {
        if mapping.offset == 0 {
            bases.insert(&mapping.path, mapping.start);
        }
        if let Some(&base) = bases.get(mapping.path.as_path()) {
            list.push((mapping.start, mapping.end, base));
        }
    }
    list
}

/// `.eh_frame_hdr`: version, three encodings, pointer to `.eh_frame`, number of entries, entries of two offsets from the
/// header. Linkers write only these encodings: 4-byte pointers, and 4-byte offsets from the header.
pub(crate) fn table_at(memory: &dyn Memory, header: u64) -> Option<Table> {
    const UDATA4: u8 = 0x03;
    const DATAREL_SDATA4: u8 = 0x3b;
    let mut encodings = [0; 4];
    memory.read(header, &mut encodings).ok()?;
    let [version, pointer, count, table] = encodings;
    if version != 1 || !matches!(pointer & 0xf, 0x3 | 0xb) || count != UDATA4 || table != DATAREL_SDATA4 {
        return None;
    }
    Some(Table { header, count: memory.u32(header.wrapping_add(8)).ok()? })
}

/// Address of the description of the function around `pc`.
pub(crate) fn function(memory: &dyn Memory, table: Table, pc: u64) -> Option<u64> {
    let place = |at: u64| -> Option<u64> {
        let offset = memory.u32(table.header.wrapping_add(at)).ok()?.cast_signed();
        Some(table.header.wrapping_add(i64::from(offset).cast_unsigned()))
    };
    let (mut low, mut high) = (0, u64::from(table.count));
    while low < high {
        let middle = low + (high - low) / 2;
        if place(12 + 8 * middle)? <= pc { low = middle + 1 } else { high = middle }
    }
    place(12 + 8 * low.checked_sub(1)? + 4)
}

/// Bytes of an entry, its length included. Entries of 4 GB have another form, which nobody writes.
fn entry(memory: &dyn Memory, at: u64) -> Option<Vec<u8>> {
    let length = memory.u32(at).ok().filter(|length| (4..MAX_ENTRY).contains(length))?;
    let mut bytes = vec![0; length as usize + 4];
    memory.read(at, &mut bytes).ok()?;
    Some(bytes)
}

pub(crate) fn step(memory: &dyn Memory, context: &Context, fde: u64, pc: u64) -> Option<Caller> {
    // A section of two entries: the one that is shared, then the function's, as if it lay where it does.
    let function = entry(memory, fde)?;
    let back = memory.u32(fde.wrapping_add(4)).ok()?;
    let mut section = entry(memory, fde.wrapping_add(4).wrapping_sub(back.into()))?;
    let shared = section.len();
    section.extend(function);
    let distance = u32::try_from(shared + 4).ok()?;
    section.get_mut(shared + 4..shared + 8)?.copy_from_slice(&distance.to_le_bytes());
    let mut frame = EhFrame::new(&section, LittleEndian);
    frame.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(fde.wrapping_sub(shared as u64));
    let description = frame.fde_from_offset(&bases, EhFrameOffset(shared), EhFrame::cie_from_offset).ok()?;
    if !description.contains(pc) {
        return None;
    }
    let mut scratch = UnwindContext::new();
    let row = description.unwind_info_for_address(&frame, &bases, &mut scratch, pc).ok()?;
    let unwinding = Unwinding { memory, context, encoding: description.cie().encoding() };

    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            unwinding.register(*register)?.wrapping_add(offset.cast_unsigned())
        }
        CfaRule::Expression(expression) => unwinding.evaluate(expression.get(&frame).ok()?, None)?,
    };
    let signal = description.is_signal_trampoline();
    let mut caller = *context;
    if !signal {
        caller.forget_scratch();
    }
    caller.set_sp(cfa);
    let return_register = description.cie().return_address_register();
    let mut ip = None;
    for (register, rule) in row.registers() {
        let value = match rule {
            // The outermost frame.
            RegisterRule::Undefined if *register == return_register => {
                caller.ip = 0;
                return Some(Caller { context: caller, interrupted: false });
            }
            RegisterRule::Undefined => continue,
            RegisterRule::SameValue => unwinding.register(*register),
            RegisterRule::Offset(offset) => memory.u64(cfa.wrapping_add(offset.cast_unsigned())).ok(),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add(offset.cast_unsigned())),
            RegisterRule::Register(other) => unwinding.register(*other),
            RegisterRule::Expression(e) => {
                memory.u64(unwinding.evaluate(e.get(&frame).ok()?, Some(cfa))?).ok()
            }
            RegisterRule::ValExpression(e) => unwinding.evaluate(e.get(&frame).ok()?, Some(cfa)),
            RegisterRule::Constant(value) => Some(*value),
            RegisterRule::Architectural => None,
        };
        if *register == return_register {
            ip = value;
        }
        match (number(context.arch(), register.0), value) {
            (Some(number), Some(value)) => caller.set(number, value),
            // A register whose place is not in the dump.
            (Some(number), None) => caller.forget(number),
            (None, _) => {}
        }
    }
    // arm64 functions that save nothing return to the link register.
    caller.ip = ip.or_else(|| context.lr())?;
    Some(Caller { context: caller, interrupted: signal })
}

/// DWARF's number of a register → that of [`Context`].
fn number(arch: Arch, dwarf: u16) -> Option<usize> {
    // rax rdx rcx rbx rsi rdi rbp rsp, then r8 to r15.
    const X64: [usize; 8] = [0, 2, 1, 3, 6, 7, 5, 4];
    let dwarf = usize::from(dwarf);
    match arch {
        Arch::X64 => X64.get(dwarf).copied().or((8..16).contains(&dwarf).then_some(dwarf)),
        Arch::Arm64 => (dwarf < 32).then_some(dwarf),
    }
}

struct Unwinding<'a> {
    memory: &'a dyn Memory,
    context: &'a Context,
    encoding: Encoding,
}

impl Unwinding<'_> {
    fn register(&self, register: gimli::Register) -> Option<u64> {
        self.context.get(number(self.context.arch(), register.0)?)
    }

    fn evaluate<'b>(&self, expression: Expression<Bytes<'b>>, initial: Option<u64>) -> Option<u64> {
        let encoding = Encoding { format: Format::Dwarf32, ..self.encoding };
        let mut evaluation: Evaluation<Bytes<'b>> = expression.evaluation(encoding);
        evaluation.set_max_iterations(MAX_STEPS);
        if let Some(value) = initial {
            evaluation.set_initial_value(value);
        }
        let mut result = evaluation.evaluate().ok()?;
        for _ in 0..MAX_STEPS {
            result = match result {
                EvaluationResult::Complete => return evaluation.value_result()?.to_u64(u64::MAX).ok(),
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(self.register(register)?)).ok()?
                }
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    let mut bytes = [0; 8];
                    self.memory.read(address, bytes.get_mut(..size.into())?).ok()?;
                    evaluation.resume_with_memory(Value::Generic(u64::from_le_bytes(bytes))).ok()?
                }
                _ => return None,
            };
        }
        None
    }
}
