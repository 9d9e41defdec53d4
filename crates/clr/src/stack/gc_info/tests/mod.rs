//! GC info of real methods, with what the DAC says is live there, and of methods that an encoder of our own made up.

mod encoder;

use encoder::{Method, Numbers, Writer};

use super::*;

/// Memory that holds the bytes at address 0.
struct Bytes(Vec<u8>);

impl Memory for Bytes {
    fn run(&self, addr: u64) -> &[u8] {
        usize::try_from(addr).ok().and_then(|at| self.0.get(at..)).unwrap_or_default()
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        let missing = Missing { addr, len: buf.len() as u64 };
        buf.copy_from_slice(self.run(addr).get(..buf.len()).ok_or(missing)?);
        Ok(())
    }
}

/// Places in short: `rbx`, `frame-10` (from the frame register), `sp+8`, `caller-8`; `i` interior, `p` pinned, `*` live
/// everywhere.
fn text(arch: Arch, live: &[Live]) -> String {
    let one = |live: &Live| {
        let place = match live.place {
            Place::Register(number) => crate::stack::Context::name(arch, number).to_owned(),
            Place::Stack(base, offset) => {
                let base = match base {
                    Base::CallerSp => "caller",
                    Base::Sp => "sp",
                    Base::FrameRegister => "frame",
                };
                let sign = if offset < 0 { '-' } else { '+' };
                format!("{base}{sign}{:x}", offset.unsigned_abs())
            }
        };
        let flag = |set: bool, letter: &'static str| if set { letter } else { "" };
        place + flag(live.interior, "i") + flag(live.pinned, "p") + flag(live.untracked, "*")
    };
    live.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
        .collect()
}

/// (format, processor, runtime and method, bytes of code, offset behind a call, GC info, what is live)
type Real = (u32, Arch, &'static str, u64, u64, &'static str, &'static str);

#[rustfmt::skip]
const REAL: &[Real] = &[
    (2, Arch::X64, "3.1.23 System.ConsolePal.Read", 101, 69,
        "5266c4ea58a44f",
        "frame-10p*"),
    (2, Arch::X64, "3.1.23 Stacks.Program.ByRefs", 229, 168,
        "520ec233b7b6bce52e7b1800",
        "frame-38ip* frame-50i* frame-48i* frame-28i* frame-18* frame-10*"),
    (2, Arch::X64, "3.1.23 System.IO.SyncTextReader.ReadLine", 134, 67,
        "910943000098c418a84032830568f6b8001b3edbbc8cd3c669a35771dc97e8c3",
        "rbx rdi frame-18"),
    (2, Arch::X64, "3.1.23 System.Threading.Tasks.Task.Wait", 232, 71,
        "82ee317a2b9da5f636af68b0eca1",
        "rbx frame-18*"),
    (2, Arch::X64, "3.1.23 ILStubClass.IL_STUB_PInvoke", 225, 150,
        "128e09abacf535a8c3",
        "frame-30"),
    (2, Arch::X64, "3.1.23 System.Threading.ManualResetEventSlim.Wait", 24, 18,
        "802111",
        ""),
    (2, Arch::X64, "8.0.33 System.ConsolePal.Read", 82, 58,
        "2265a51c72c20679db4b",
        "frame-20ip* frame-18i*"),
    (2, Arch::X64, "8.0.33 System.IO.StreamReader.ReadLine", 646, 100,
        "8908c302e00066006518e30f7f2c1a29a6a3e4e24c3e15818cf24b33fb24f4c63a1a286d98cb1b04",
        "rbx frame-38i* frame-48*"),
    (2, Arch::X64, "8.0.33 System.IO.SyncTextReader.ReadLine", 128, 61,
        "9109400000d8e45781dc0068f6b840135e6a5b5b9f5ef5bdf7c6",
        "rax rdi frame-18"),
    (2, Arch::X64, "8.0.33 Stacks.Program.Rethrown", 169, 156,
        "91815400009c286249407c99d02ea0813c0c06c305c0bce1735de996abab8492f53e0f858a8a4545a19302",
        "rdi frame-20* frame-18* frame-10* frame-8*"),
    (3, Arch::X64, "9.0.22 Stacks.Slow..cctor", 31, 10,
        "f221690002",
        "rax"),
    (3, Arch::X64, "9.0.22 System.Runtime.EH.InvokeSecondPass", 663, 512,
        "725940d5c726aa7c645351ff75a8a231bbbf4cad6aff",
        "frame-118i frame-b8ip* frame-b0ip*"),
    (3, Arch::X64, "9.0.22 System.Threading.ExecutionContext.RunFromThreadPoolDispatchLoop", 169, 66,
        "9181540000dca619282826974e0104c2230f0346c02afc5b9b53d8d369b60b3ecbf7bdd36b977c663dedecd9",
        "rbx rsi rdi r15 frame-20 frame-18"),
    (3, Arch::X64, "9.0.22 Enumerable+ArrayWhereSelectIterator`2.ToList", 165, 158,
        "e18852530f40c075561c04b84b1f0609",
        "rax frame-28i* frame-10* frame-8*"),
    (3, Arch::X64, "9.0.22 ILStubClass.IL_STUB_ReversePInvoke", 130, 77,
        "91054100d001e20403c54004a698d51b03",
        "rdi"),
    (2, Arch::Arm64, "3.1.2 System.IO.StreamReader.ReadBuffer", 432, 220,
        "c2c69e2cdab672ece361053f",
        "x19"),
    (2, Arch::Arm64, "3.1.2 System.IO.SyncTextReader.ReadLine", 240, 112,
        "91081e3e0018e628e09cce100166147001dc17de4359a96c9e04fe5c562c07",
        "x0 x19 frame+10"),
    (2, Arch::Arm64, "8.0.15 System.IO.StreamReader.ReadLine", 928, 116,
        "8908746f0033400a738c32d3556b1df6da7c2b0e7aeec4332ffdf5e19ba7b0965618c4a50d02",
        "x19 frame-40i* frame-50*"),
    (2, Arch::Arm64, "8.0.15 System.IO.SyncTextReader.ReadLine", 192, 88,
        "9108183e0018661ce06cce00a08c022c0801f6b1ac28",
        "x0 x1 frame+10"),
    (3, Arch::Arm64, "9.0.9 Interop+Sys.Open", 888, 472,
        "99086fb700d8df0c001a36301d10d605c2851b38064e7c12004d894a121e87c3718000a002000000b926002497a4c4",
        "frame-d0i* frame-c0i* frame-e0* frame-a8* frame-90* frame-78* frame-60*"),
    (3, Arch::Arm64, "9.0.9 System.IO.FileInfo.OpenRead", 128, 116,
        "066256bff988031c603018",
        "frame+18* frame+20* frame+28*"),
    (4, Arch::X64, "10.0.14 System.Console.ReadLine", 28, 25,
        "7290ca0330",
        "rax"),
    (4, Arch::X64, "10.0.14 System.Runtime.CompilerServices.StaticsHelpers.GetGCStaticBaseSlow", 59, 24,
        "ec08262a30",
        "sp+8ip*"),
    (4, Arch::X64, "10.0.14 System.IO.SyncTextReader.ReadLine", 109, 57,
        "816903007b0c0304ca0d80668f0b34015e6a5b5b9f5ef5bdf7e6",
        "rax frame-18"),
    (4, Arch::X64, "10.0.14 Enumerable+ArrayWhereSelectIterator`2.ToList", 166, 159,
        "e13035fd0084dc67c54180bbf46190",
        "rax frame-28i* frame-10* frame-8*"),
    (4, Arch::X64, "10.0.14 System.Threading.Monitor.Enter", 71, 54,
        "1e6134299bb14c1fe000",
        "rbxi"),
    (4, Arch::Arm64, "10.0.12 Busy.Program.Alloc", 124, 80,
        "7e083a0002",
        "x0"),
    (4, Arch::Arm64, "10.0.12 System.Runtime.EH.FindFirstPassHandler", 696, 628,
        "bacaf82862924af3eb2c5d1d672b69c8432292b26300dcddcfdd",
        "frame+30i frame+38i frame+40i frame+a0ip* frame+118*"),
    (4, Arch::Arm64, "10.0.12 System.Runtime.EH.DispatchEx", 944, 580,
        "b2db68b9e9a1fb238c2475a55d1fa7b1a4221799c0cb6656b318b8bbbbaf",
        "x20i frame+50i frame+48 frame+b8ip* frame+c8ip* frame+d0ip* frame+c0*"),
];

#[test]
fn real_methods() {
    for &(version, arch, method, length, offset, info, live) in REAL {
        let memory = Bytes(bytes(info));
        let info = GcInfo::read(&memory, arch, version, 0).unwrap();
        assert_eq!(info.code_length, length, "{method}");
        let set = info.live_at(offset, Stands::BehindCall).unwrap();
        assert_eq!(text(arch, &set.live), live, "{method}");
        // One byte less, and something is missing: said, not made up.
        let short = Bytes(memory.0[..memory.0.len() - 1].to_vec());
        let read =
            GcInfo::read(&short, arch, version, 0).and_then(|info| info.live_at(offset, Stands::BehindCall));
        assert!(matches!(read, Err(GcInfoError::Missing(_))), "{method}: {read:?}");
    }
}

#[test]
fn damage_ends_in_an_error_or_an_answer() {
    for &(version, arch, _, length, offset, info, _) in REAL {
        let true_bytes = bytes(info);
        for at in 0..true_bytes.len() {
            for bit in 0..8 {
                let mut damaged = true_bytes.clone();
                damaged[at] ^= 1 << bit;
                // Behind it memory goes on.
                damaged.extend([0xa5; 64]);
                let memory = Bytes(damaged);
                let Ok(info) = GcInfo::read(&memory, arch, version, 0) else { continue };
                for stands in [Stands::BehindCall, Stands::Between, Stands::CallThrew, Stands::Faulted] {
                    for offset in [0, offset, length, u64::MAX] {
                        let _ = info.live_at(offset, stands);
                    }
                }
            }
        }
    }
}

#[test]
fn whatever_an_encoder_writes_is_read() {
    let mut n = Numbers(7);
    for case in 0..3000 {
        let mut method = Method::new(&mut n);
        // Distances are stored for slots behind one without flags, which therefore have none.
        for i in 1..method.slots.len() {
            let (before, slot) = (method.slots[i - 1], method.slots[i]);
            let same = matches!(
                (before.place, slot.place),
                (Place::Register(_), Place::Register(_)) | (Place::Stack(..), Place::Stack(..))
            ) && before.untracked == slot.untracked;
            if same && !before.interior && !before.pinned {
                (method.slots[i].interior, method.slots[i].pinned) = (false, false);
            }
        }
        let memory = Bytes(method.encode(&mut n));
        let info = GcInfo::read(&memory, method.arch, method.version, 0).unwrap();
        let old = method.version < 4;
        let unit = if method.arch == Arch::Arm64 && !old { 4 } else { 1 };
        assert_eq!(info.code_length, method.length * unit, "{case}");
        let tracked = method.slots.iter().filter(|slot| !slot.untracked).count();
        let none = vec![false; tracked];
        for at in 0..method.length {
            let offset = at * unit;
            // A call's liveness stands where it returns to, up to version 3 one byte before.
            let behind = if old { offset + 1 } else { offset };
            let call = method.calls.iter().find(|call| call.0 == at).map(|call| call.1.as_slice());
            let state = method.state(at);
            let found = info.live_at(behind, Stands::BehindCall).unwrap();
            let all_gone = !method.ranges.is_empty() && state.is_none();
            let wanted = match (call, state) {
                (Some(set), _) | (None, Some(set)) => method.live(set),
                (None, None) if all_gone => Vec::new(),
                (None, None) => method.live(&none),
            };
            assert_eq!(found.live, wanted, "case {case}, behind a call at {at}");
            let aborted = match state {
                Some(set) => method.live(set),
                None if all_gone => Vec::new(),
                None => method.live(&none),
            };
            let found = info.live_at(behind, Stands::CallThrew).unwrap();
            assert_eq!(found.live, aborted, "case {case}, a call at {at} threw");
            assert_eq!(
                info.live_at(offset, Stands::Faulted).unwrap().live,
                aborted,
                "case {case}, fault at {at}"
            );
            if let (true, Some(set), None) = (old, call, method.state(at + 1)) {
                let found = info.live_at(behind, Stands::Between).unwrap();
                let wanted = (method.live(set), method.version == 3);
                assert_eq!(
                    (found.live, found.interruptible),
                    wanted,
                    "case {case}, stopped behind a call at {at}"
                );
            }
            if state.is_some() {
                let found = info.live_at(offset, Stands::Between).unwrap();
                let wanted = if let Some(set) = call { method.live(set) } else { aborted };
                assert_eq!((found.live, found.interruptible), (wanted, true), "case {case}, stopped at {at}");
            }
        }
    }
}

#[test]
fn numbers_in_groups() {
    let mut n = Numbers(1);
    for _ in 0..2000 {
        let (base, bits) = (1 + n.below(8) as u32, n.below(40));
        let value = n.below(1 << bits);
        let signed = value as i64 * if n.coin() { -1 } else { 1 };
        let mut out = Writer::default();
        out.put(n.below(8), 3);
        out.unsigned(value, base);
        out.signed(signed, base);
        out.put(0xabcd, 16);
        let memory = Bytes(out.bytes());
        let mut bits = Bits::new(&memory, 0);
        bits.skip(3).unwrap();
        assert_eq!((bits.unsigned(base), bits.signed(base)), (Ok(value), Ok(signed)), "base {base}");
        assert_eq!(bits.take(16), Ok(0xabcd));
        assert!(bits.take(16).is_err(), "at the end");
    }
    // Groups without an end are damage.
    assert_eq!(Bits::new(&Bytes(vec![0xff; 64]), 0).unsigned(3), Err(GcInfoError::Damaged));
}
