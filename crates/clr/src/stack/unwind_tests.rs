//! Unwind codes: those of real methods, with what the walks that equal the DAC's make of them, and hand-made ones for
//! what real ones don't show.

use dnd_memory::{Arch, Memory, Missing};

use super::context::Context;
use super::unwind_x64::Failure;
use super::{cfi, unwind_arm64, unwind_x64};

const STACK: u64 = 0x10_0000;
const STACK_BYTES: u64 = 0x8000;
const CODE: u64 = 0x40_0000;
const INFO: u64 = 0x50_0000;

/// Code and unwind information at fixed places, and a stack whose every word holds its own address, so that the value of
/// a register tells where it was found.
struct Process {
    code: Vec<u8>,
    info: Vec<u8>,
}

impl Memory for Process {
    fn run(&self, addr: u64) -> &[u8] {
        let piece = if addr >= INFO { (INFO, &self.info) } else { (CODE, &self.code) };
        addr.checked_sub(piece.0).and_then(|at| piece.1.get(at as usize..)).unwrap_or_default()
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        let missing = Missing { addr, len: buf.len() as u64 };
        if !(STACK..STACK + STACK_BYTES).contains(&addr) {
            buf.copy_from_slice(self.run(addr).get(..buf.len()).ok_or(missing)?);
            return Ok(());
        }
        for (byte, at) in buf.iter_mut().zip(addr..) {
            *byte = (at & !7).to_le_bytes()[(at % 8) as usize];
        }
        Ok(())
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
        .collect()
}

/// A frame at an offset of the function at [`CODE`]: the stack pointer at the stack's beginning, rbp 0x400 above; x29 as the
/// stack pointer.
fn frame(arch: Arch, offset: u64) -> Context {
    let mut context = Context::new(arch, CODE + offset, STACK);
    for number in 0..31 {
        context.set(number, 0xdead_0000 + number as u64);
    }
    context.set_sp(STACK);
    match arch {
        Arch::X64 => context.set(5, STACK + 0x400),
        Arch::Arm64 => context.set(29, STACK),
    }
    context
}

/// The caller in words: where its instruction pointer was, its stack pointer, where its registers were, all as offsets
/// into the stack.
fn text(caller: &Context) -> String {
    let offset = |value: u64| value.wrapping_sub(STACK);
    let numbers = (0..31).filter(|&n| caller.arch() == Arch::Arm64 || n != 4);
    let restored = |n| caller.get(n).map(offset).filter(|&at| at < STACK_BYTES).map(|at| (n, at));
    let registers: String = numbers
        .filter_map(restored)
        .map(|(n, at)| format!(" {}@{at:x}", Context::name(caller.arch(), n)))
        .collect();
    format!("ip@{:x} sp+{:x}{registers}", offset(caller.ip), offset(caller.sp()))
}

fn x64(info: &str, code: &str, offset: u64, interrupted: bool) -> Result<String, Failure> {
    let process = Process { code: bytes(code), info: bytes(info) };
    let frame = frame(Arch::X64, offset);
    unwind_x64::unwind(&process, &frame, CODE, INFO, INFO, interrupted).map(|caller| text(&caller))
}

fn arm64(info: &str, offset: u64, interrupted: bool) -> Result<String, Failure> {
    let process = Process { code: Vec::new(), info: bytes(info) };
    let frame = frame(Arch::Arm64, offset);
    unwind_arm64::unwind(&process, &frame, CODE, INFO, interrupted).map(|caller| text(&caller))
}

#[test]
fn unwind_codes_of_real_methods_on_x64() {
    for (method, offset, info, caller) in [
        ("3.1.23 ConsolePal.Read", 0x45, "19030300030202300150", "ip@18 sp+20 rbx@8 rbp@10"),
        (
            "3.1.23 UnixConsoleStream.Read",
            0x45,
            "19080500083007c005e003f00150",
            "ip@28 sp+30 rbx@0 rbp@20 r12@8 r14@10 r15@18",
        ),
        (
            "3.1.23 Program.Main, more than 128 bytes of locals",
            0x1752,
            "19110800110127000a3009c007d005e003f00150",
            "ip@168 sp+170 rbx@138 rbp@160 r12@140 r13@148 r14@150 r15@158",
        ),
        (
            "3.1.23 Program.LargeFrame, UWOP_SET_FPREG_LARGE",
            0xfd,
            "191207f5120b120000000a01230003d00150",
            "ip@408 sp+410 rbp@400 r13@3f8",
        ),
        (
            "3.1.23 Program.Callback, UWOP_SET_FPREG",
            0xfb,
            "190c04650c0307a203d00150",
            "ip@408 sp+410 rbp@400 r13@3f8",
        ),
        (
            "8.0.33 StreamReader.ReadLine",
            0x64,
            "1913086513030e620a3009c007d005e003f00150",
            "ip@408 sp+410 rbx@3d8 rbp@400 r12@3e0 r13@3e8 r14@3f0 r15@3f8",
        ),
        ("9.0.22 Program.LargeFrame", 0x12e, "191006f5100b13000000080126000150", "ip@408 sp+410 rbp@400"),
        (
            "10.0.14 PortableThreadPool.GateThread",
            0x1c0,
            "1911080011011d000a3009c007d005e003f00150",
            "ip@118 sp+120 rbx@e8 rbp@110 r12@f0 r13@f8 r14@100 r15@108",
        ),
    ] {
        assert_eq!(x64(info, "", offset, false).as_deref(), Ok(caller), "{method}");
    }
}

#[test]
fn prologues_and_epilogues_on_x64() {
    // push rbp; push rbx; sub rsp, 0x20: behind 1, 2 and 6 bytes.
    let info = "0106030006320230015000000000";
    let code = "55534883ec2090904883c4205b5dc3";
    let at = |offset| x64(info, code, offset, true).unwrap();
    assert_eq!(at(0), "ip@0 sp+8 rbp@400", "nothing was executed");
    assert_eq!(at(1), "ip@8 sp+10 rbp@0");
    assert_eq!(at(2), "ip@10 sp+18 rbx@0 rbp@8");
    assert_eq!(at(6), "ip@30 sp+38 rbx@20 rbp@28");
    assert_eq!(at(7), "ip@30 sp+38 rbx@20 rbp@28");
    // add rsp, 0x20; pop rbx; pop rbp; ret: the codes no longer hold.
    assert_eq!(at(8), "ip@30 sp+38 rbx@20 rbp@28");
    assert_eq!(at(12), "ip@10 sp+18 rbx@0 rbp@8");
    assert_eq!(at(13), "ip@8 sp+10 rbp@0");
    assert_eq!(at(14), "ip@0 sp+8 rbp@400");
    // A call that returns to the same place has left everything on the stack.
    assert_eq!(x64(info, code, 12, false).as_deref(), Ok("ip@30 sp+38 rbx@20 rbp@28"));
    // lea rsp, [rbp-8]; pop rbx; pop rbp; ret, with rbp as the frame's register.
    assert_eq!(
        x64("01000005", "488d65f85b5dc3", 0, true).as_deref(),
        Ok("ip@408 sp+410 rbx@3f8 rbp@400"),
        "the frame register leads to what is left to pop"
    );
    // A jump through a register behind pops is a tail call, without them a switch.
    assert_eq!(x64("01000000", "5dffe0", 0, true).as_deref(), Ok("ip@8 sp+10 rbp@0"));
    assert_eq!(x64("0100010000300000", "ffe0", 0, true).as_deref(), Ok("ip@8 sp+10 rbx@0 rbp@400"));
}

#[test]
fn codes_that_no_real_method_shows_on_x64() {
    let at = |info: &str| x64(info, "", 0x100, false);
    // UWOP_SAVE_NONVOL rbx at 8 * 4, in a frame of 8 * 8 bytes.
    assert_eq!(at("01000300003404000072").as_deref(), Ok("ip@40 sp+48 rbx@20 rbp@400"));
    // UWOP_SAVE_NONVOL_FAR rbx at 0x1230; UWOP_ALLOC_LARGE of 0x4000 by a 32-bit number.
    assert_eq!(at("010006000035301200000011004000000000").as_deref(), Ok("ip@4000 sp+4008 rbx@1230 rbp@400"));
    // UWOP_PUSH_MACHFRAME with an error code: rsp stands behind rip, cs and flags.
    assert_eq!(at("01000100001a0000").as_deref(), Ok("ip@20 sp+28 rbp@400"));
    // Chained: push rbp, and the function whose information follows pushed rbx before.
    let chained = "210001000050000000000000000000001400000001000100003000";
    assert_eq!(at(chained).as_deref(), Ok("ip@10 sp+18 rbx@8 rbp@0"));
    // A chain that leads to itself, an unknown code, an operand that is missing, a version that does not exist.
    assert_eq!(at("21000000000000000000000000000000"), Err(Failure::Damaged));
    for bad in ["010001000007", "010001000001", "030000000000", "000000000000"] {
        assert_eq!(at(bad), Err(Failure::Damaged), "{bad}");
    }
    assert!(matches!(at("0100ff00"), Err(Failure::Missing(_))), "codes behind the end of memory");
    assert!(matches!(at(""), Err(Failure::Missing(_))));
}

#[test]
fn unwind_codes_of_real_methods_on_arm64() {
    // The return address is in the link register, which the codes restore from beside x29.
    for (method, offset, info, caller) in [
        (
            "Program.Alloc",
            0x50,
            "1f0050101a004000e1d085c8038503e400000000",
            "ip@8 sp+60 x19@18 x20@20 x21@28 fp@0",
        ),
        (
            "Thread.StartCallback",
            0xd8,
            "390090101d00400036004000e1c80283e4e4e4e4",
            "ip@8 sp+20 x19@10 x20@18 fp@0",
        ),
        ("Program.Main", 0xb1c, "cd025010c8024000e140c020e4e4e4e4", "ip@8 sp+200 fp@0"),
        (
            "EH.DispatchEx",
            0x244,
            "ec005018d2004000e1e6e6e6e6c820a9e4e4e4e4",
            "ip@8 sp+150 x19@100 x20@108 x21@110 x22@118 x23@120 x24@128 x25@130 x26@138 x27@140 x28@148 fp@0",
        ),
        (
            "TimerQueue.TimerThread",
            0xe0,
            "e7001018e1d191e6e6c80b91e4e4e4e4",
            "ip@8 sp+90 x19@58 x20@60 x21@68 x22@70 x23@78 x24@80 x25@88 fp@0",
        ),
    ] {
        let found = arm64(info, offset, false).unwrap();
        assert_eq!(found.replace(" lr@8", ""), caller, "{method}");
    }
}

#[test]
fn prologues_and_epilogues_on_arm64() {
    // stp fp, lr, [sp, #-0x20]!; stp x19, x20, [sp, #0x10]; mov fp, sp. One epilogue, of a function of 0x40 bytes, at the end:
    // ldp x19, x20; ldp fp, lr; ret. Its codes begin behind the end code of the prologue's.
    let info = "10006019e1c80283e4c80283e4e4e4e4";
    let at = |offset, interrupted| arm64(info, offset, interrupted).unwrap().replace(" lr@8", "");
    let all = "ip@8 sp+20 x19@10 x20@18 fp@0";
    assert_eq!(at(0x20, false), all);
    assert_eq!(at(0x20, true), all);
    let unknown = |offset| arm64(info, offset, true).unwrap();
    // Nothing saved yet: the link register holds the return address.
    assert_eq!(unknown(0), format!("ip@{:x} sp+0 fp@0", 0xdead_001eu64.wrapping_sub(STACK)));
    assert_eq!(at(4, true), "ip@8 sp+20 fp@0");
    assert_eq!(at(8, true), all);
    assert_eq!(at(0x34, true), all, "the first instruction of the epilogue was not executed");
    assert_eq!(at(0x38, true), "ip@8 sp+20 fp@0");
    assert_eq!(unknown(0x3c), unknown(0));
    for bad in ["10000008e7000000", "10000008ff000000", "10000008c8"] {
        assert!(arm64(bad, 0x20, false).is_err(), "{bad}");
    }
}

/// Call frame information of one function of 0x40 bytes at [`CODE`]: a shared entry, then the function's. The numbers of
/// registers are DWARF's.
fn frame_information(program: &[u8], augmentation: &[u8]) -> (Vec<u8>, u64) {
    let mut section = Vec::new();
    let mut shared = vec![0, 0, 0, 0, 1];
    shared.extend(augmentation);
    // Code alignment 1, data alignment -8, return address 16; one byte of augmentation: pointers relative to their place.
    shared.extend([0, 1, 0x78, 16, 1, 0x1b]);
    // CFA = rsp + 8, return address at CFA - 8.
    shared.extend([0x0c, 7, 8, 0x90, 1]);
    while shared.len() % 8 != 4 {
        shared.push(0);
    }
    section.extend((shared.len() as u32).to_le_bytes());
    section.extend(shared);
    let at = section.len() as u64;
    let mut function = ((at + 4) as u32).to_le_bytes().to_vec();
    let place = INFO + at + 8;
    function.extend((CODE.wrapping_sub(place) as u32).to_le_bytes());
    function.extend([0x40, 0, 0, 0, 0]);
    function.extend(program);
    while function.len() % 8 != 4 {
        function.push(0);
    }
    section.extend((function.len() as u32).to_le_bytes());
    section.extend(function);
    section.extend([0; 16]);
    (section, INFO + at)
}

fn native(program: &[u8], augmentation: &[u8], offset: u64) -> Option<(String, bool)> {
    let (info, function) = frame_information(program, augmentation);
    let process = Process { code: Vec::new(), info };
    let caller = cfi::step(&process, &frame(Arch::X64, offset), function, CODE + offset)?;
    Some((text(&caller.context), caller.interrupted))
}

#[test]
fn call_frame_information() {
    // push rbp (1 byte); mov rbp, rsp (3 bytes); push rbx.
    let program = [0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x41, 0x83, 3];
    let at = |offset| native(&program, b"zR", offset).map(|(text, _)| text);
    assert_eq!(at(0).as_deref(), Some("ip@0 sp+8 rbp@400"));
    assert_eq!(at(1).as_deref(), Some("ip@8 sp+10 rbp@0"));
    assert_eq!(at(4).as_deref(), Some("ip@408 sp+410 rbp@400"));
    assert_eq!(at(5).as_deref(), Some("ip@408 sp+410 rbx@3f8 rbp@400"));
    assert_eq!(at(0x40), None, "behind the function");
    // A frame that a signal interrupted: scratch registers are restored, too, and the instruction pointer is exact. rax at
    // CFA + 0x20, by an expression on whose stack the CFA is.
    let (found, interrupted) = native(&[0x10, 0, 3, 0x08, 0x20, 0x22], b"zRS", 4).unwrap();
    assert!(interrupted && found == "ip@0 sp+8 rax@28 rbp@400", "{found}");
    // The outermost frame has no return address.
    let (info, function) = frame_information(&[0x07, 16], b"zR");
    let process = Process { code: Vec::new(), info };
    let outermost = cfi::step(&process, &frame(Arch::X64, 4), function, CODE + 4).unwrap();
    assert_eq!(outermost.context.ip, 0);
    // An expression without an end, one that divides by zero, and registers that don't exist.
    for damaged in [&[0x0f, 3, 0x2f, 0xfd, 0xff][..], &[0x0f, 3, 0x31, 0x30, 0x1b], &[0x0c, 99, 8]] {
        assert_eq!(native(damaged, b"zR", 4), None, "{damaged:x?}");
    }
    // A value in pieces of 2^64 - 1 bytes, more than can be said in bits.
    let mut pieces = vec![0x0f, 12, 0x30, 0x93];
    pieces.extend([0xff; 9]);
    pieces.push(1);
    assert_eq!(native(&pieces, b"zR", 4), None);
}

#[test]
fn damage_to_call_frame_information_ends() {
    let program = [0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x41, 0x83, 3];
    let (info, function) = frame_information(&program, b"zR");
    for at in 0..info.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = info.clone();
            damaged[at] = value;
            let process = Process { code: Vec::new(), info: damaged };
            let _ = cfi::step(&process, &frame(Arch::X64, 4), function, CODE + 4);
        }
        let process = Process { code: Vec::new(), info: info[..at].to_vec() };
        if at + 16 < info.len() {
            assert!(cfi::step(&process, &frame(Arch::X64, 4), function, CODE + 4).is_none(), "{at} bytes");
        }
    }
}
