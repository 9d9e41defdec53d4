//! An encoder of GC info, written from the format's description and apart from the reader, and methods made up for it.

use dnd_memory::Arch;

use crate::stack::gc_info::{Base, Live, Place};

/// Numbers that are the same in every run: SplitMix64.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
}

/// A stream of bits being written, lowest first.
#[derive(Default)]
pub(super) struct Writer(Vec<bool>);

impl Writer {
    pub(super) fn put(&mut self, value: u64, count: u32) {
        self.0.extend((0..count).map(|bit| value >> bit & 1 == 1));
    }

    pub(super) fn unsigned(&mut self, mut value: u64, base: u32) {
        loop {
            let rest = value >> base;
            self.put(value & ((1 << base) - 1), base);
            self.put(u64::from(rest != 0), 1);
            if rest == 0 {
                return;
            }
            value = rest;
        }
    }

    pub(super) fn signed(&mut self, mut value: i64, base: u32) {
        loop {
            let (group, rest) = (value & ((1 << base) - 1), value >> base);
            self.put(group as u64, base);
            // Enough when the rest is nothing but the sign.
            let last = rest == if group >> (base - 1) == 1 { -1 } else { 0 };
            self.put(u64::from(!last), 1);
            if last {
                return;
            }
            value = rest;
        }
    }

    fn align(&mut self) {
        while !self.0.len().is_multiple_of(8) {
            self.0.push(false);
        }
    }

    fn append(&mut self, other: &Writer) {
        self.0.extend(&other.0);
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| bits.iter().enumerate().map(|(i, &bit)| u8::from(bit) << i).sum();
        self.0.chunks(8).map(byte).collect()
    }
}

/// A method that was made up. Offsets are in the units in which they are stored.
pub(super) struct Method {
    pub(super) version: u32,
    pub(super) arch: Arch,
    pub(super) length: u64,
    pub(super) slots: Vec<Live>,
    /// Offsets that calls return to, with the tracked slots that are live there.
    pub(super) calls: Vec<(u64, Vec<bool>)>,
    pub(super) indirect: bool,
    /// Where it may be stopped anywhere: first, end.
    pub(super) ranges: Vec<(u64, u64)>,
    /// The tracked slots that are live at each offset of the ranges.
    pub(super) states: Vec<Vec<bool>>,
}

impl Method {
    pub(super) fn new(n: &mut Numbers) -> Self {
        let version = 2 + n.below(3) as u32;
        let arch = [Arch::X64, Arch::Arm64][n.below(2) as usize];
        let mut length = 1 + n.below(700);
        if arch == Arch::Arm64 && version < 4 {
            // Offsets are in bytes, the length is stored in instructions.
            length = length.next_multiple_of(4);
        }
        let mut slots = Vec::new();
        let flags = |n: &mut Numbers| (n.below(3) == 0, n.below(4) == 0);
        let mut number = 0;
        for _ in 0..n.below(5) {
            let (interior, pinned) = flags(n);
            number += 1 + n.below(3) as usize;
            slots.push(Live { place: Place::Register(number), interior, pinned, untracked: false });
        }
        for untracked in [false, true] {
            let mut offset = -8 * n.below(40) as i64;
            for _ in 0..n.below(6) {
                let (interior, pinned) = flags(n);
                let base = [Base::CallerSp, Base::Sp, Base::FrameRegister][n.below(3) as usize];
                slots.push(Live { place: Place::Stack(base, offset), interior, pinned, untracked });
                offset += 8 * n.below(90) as i64;
            }
        }
        let tracked = slots.iter().filter(|slot| !slot.untracked).count();
        let state = |n: &mut Numbers| (0..tracked).map(|_| n.coin()).collect::<Vec<_>>();
        let has_ranges = n.coin();
        let mut calls: Vec<(u64, Vec<bool>)> = Vec::new();
        for _ in 0..n.below(6) {
            let at = n.below(length);
            if calls.iter().all(|call| call.0 != at) {
                calls.push((at, state(n)));
            }
        }
        calls.sort();
        let (mut ranges, mut states) = (Vec::new(), Vec::new());
        let mut at = 0;
        while has_ranges && at + 2 < length && ranges.len() < 4 {
            let first = at + n.below(length - at);
            let end = first + 1 + n.below(length - first);
            ranges.push((first, end));
            let mut now = state(n);
            for _ in first..end {
                for slot in &mut now {
                    *slot ^= n.below(20) == 0;
                }
                states.push(now.clone());
            }
            at = end + 1;
        }
        let indirect = ranges.is_empty() && n.coin();
        Self { version, arch, length, slots, calls, indirect, ranges, states }
    }

    fn set(n: &mut Numbers, set: &[bool], out: &mut Writer) {
        let runs = n.coin();
        out.put(u64::from(runs), 1);
        if !runs {
            set.iter().for_each(|&live| out.put(u64::from(live), 1));
            return;
        }
        // Lengths of runs, from dead slots on; the first may be empty, the others are stored less one. Those of dead ones count
        // four bits at a time, those of live ones two; or the other way round.
        let swapped = n.coin();
        out.put(u64::from(swapped), 1);
        let (mut live, mut at) = (false, 0);
        loop {
            let run = set[at..].iter().take_while(|&&slot| slot == live).count();
            let less = u64::from(at > 0 || live);
            out.unsigned(run as u64 - less, if live == swapped { 4 } else { 2 });
            at += run;
            if at >= set.len() {
                return;
            }
            live = !live;
        }
    }

    pub(super) fn encode(&self, n: &mut Numbers) -> Vec<u8> {
        let arm = self.arch == Arch::Arm64;
        let old = self.version < 4;
        let length = if arm && old { self.length / 4 } else { self.length };
        let mut out = Writer::default();
        let slim = self.ranges.is_empty() && n.coin();
        if slim {
            out.put(0b10, 2);
            out.put(0, if old { 2 } else { 0 });
            out.unsigned(length, 8);
        } else {
            let flags = n.below(1 << 10) & !0x3;
            out.put(1, 1);
            out.put(flags, 10);
            out.put(0, if old { 4 } else { 0 });
            out.unsigned(length, 8);
            let (cookie, context) = (flags & 0x4 != 0, flags & 0x30 != 0);
            if cookie {
                out.unsigned(n.below(300), 5);
                out.unsigned(n.below(20), 3);
            } else if context {
                out.unsigned(n.below(300), 5);
            }
            let some = |n: &mut Numbers| n.below(2000) as i64 - 1000;
            if cookie {
                out.signed(some(n), 6);
            }
            if old && flags & 0x8 != 0 {
                out.signed(some(n), 6);
            }
            if context {
                out.signed(some(n), 6);
            }
            if flags & 0x40 != 0 {
                out.unsigned(0, if arm { 2 } else { 3 });
            }
            if flags & 0x100 != 0 {
                (0..if arm { 2 } else { 1 }).for_each(|_| out.unsigned(5, 4));
            }
            if flags & 0x200 != 0 {
                out.signed(some(n), 6);
            }
            out.unsigned(3, 3);
        }
        out.unsigned(self.calls.len() as u64, if arm { 3 } else { 2 });
        if !slim {
            out.unsigned(self.ranges.len() as u64, 1);
        }
        let width = (0..).find(|&bits| 1u64 << bits >= self.length).unwrap_or(0);
        for (at, _) in &self.calls {
            out.put(*at, width);
        }
        let mut last = 0;
        for (first, end) in &self.ranges {
            out.unsigned(first - last, 6);
            out.unsigned(end - first - 1, 6);
            last = *end;
        }
        self.encode_slots(&mut out);
        self.encode_states(n, &mut out);
        let mut bytes = out.bytes();
        bytes.extend([0xff; 8]);
        bytes
    }

    fn encode_slots(&self, out: &mut Writer) {
        let of = |kind: fn(&&Live) -> bool| self.slots.iter().filter(kind).collect::<Vec<_>>();
        let registers = of(|slot| matches!(slot.place, Place::Register(_)));
        let stack = of(|slot| matches!(slot.place, Place::Stack(..)) && !slot.untracked);
        let untracked = of(|slot| slot.untracked);
        let flags = |slot: &Live| u64::from(slot.interior) | u64::from(slot.pinned) << 1;
        out.put(u64::from(!registers.is_empty()), 1);
        if !registers.is_empty() {
            out.unsigned(registers.len() as u64, if self.arch == Arch::Arm64 { 3 } else { 2 });
        }
        let any = !stack.is_empty() || !untracked.is_empty();
        out.put(u64::from(any), 1);
        if any {
            out.unsigned(stack.len() as u64, 2);
            out.unsigned(untracked.len() as u64, 1);
        }
        // A slot behind one without flags has none either, and is stored by its distance: `Self::new` must agree.
        let mut before: Option<&Live> = None;
        for slot in registers {
            let Place::Register(number) = slot.place else { continue };
            match before.filter(|before| flags(before) == 0) {
                Some(&Live { place: Place::Register(last), .. }) => {
                    out.unsigned((number - last - 1) as u64, 2);
                }
                _ => {
                    out.unsigned(number as u64, 3);
                    out.put(flags(slot), 2);
                }
            }
            before = Some(slot);
        }
        for list in [stack, untracked] {
            let mut before: Option<&Live> = None;
            for slot in list {
                let Place::Stack(base, offset) = slot.place else { continue };
                let number = [Base::CallerSp, Base::Sp, Base::FrameRegister].iter().position(|&b| b == base);
                out.put(number.unwrap() as u64, 2);
                match before.filter(|before| flags(before) == 0) {
                    Some(&Live { place: Place::Stack(_, last), .. }) => {
                        out.unsigned(((offset - last) / 8) as u64, 4);
                    }
                    _ => {
                        out.signed(offset / 8, 6);
                        out.put(flags(slot), 2);
                    }
                }
                before = Some(slot);
            }
        }
    }

    fn encode_states(&self, n: &mut Numbers, out: &mut Writer) {
        if self.slots.iter().all(|slot| slot.untracked) {
            return;
        }
        if !self.calls.is_empty() {
            out.put(u64::from(self.indirect), 1);
            if self.indirect {
                let mut table = Writer::default();
                let mut places = Vec::new();
                for (_, set) in &self.calls {
                    places.push(table.0.len() as u64);
                    Self::set(n, set, &mut table);
                }
                let width = 1 + u64::BITS - places.iter().max().unwrap().leading_zeros();
                out.unsigned(u64::from(width) - 1, 3);
                places.iter().for_each(|&place| out.put(place, width));
                out.align();
                out.append(&table);
                return;
            }
            for (_, set) in &self.calls {
                set.iter().for_each(|&live| out.put(u64::from(live), 1));
            }
        }
        if self.ranges.is_empty() {
            return;
        }
        let mut table = Writer::default();
        let mut places = Vec::new();
        let mut before: Option<&[bool]> = None;
        for chunk in self.states.chunks(64) {
            // One whose slots never change from what an earlier one ends with needs no data.
            if before.is_some_and(|last| chunk.iter().all(|state| state == last)) {
                places.push(0);
                continue;
            }
            places.push(1 + table.0.len() as u64);
            let last = chunk.last().unwrap();
            let possible: Vec<bool> =
                (0..last.len()).map(|slot| chunk.iter().any(|state| state[slot])).collect();
            Self::set(n, &possible, &mut table);
            let those: Vec<usize> = (0..last.len()).filter(|&slot| possible[slot]).collect();
            those.iter().for_each(|&slot| table.put(u64::from(last[slot]), 1));
            for slot in those {
                for at in (1..chunk.len()).filter(|&at| chunk[at][slot] != chunk[at - 1][slot]) {
                    table.put(1, 1);
                    table.put(at as u64, 6);
                }
                table.put(0, 1);
            }
            before = Some(last);
        }
        let width = 1 + u64::BITS - places.iter().max().unwrap().leading_zeros();
        out.unsigned(u64::from(width), 3);
        places.iter().for_each(|&place| out.put(place, width));
        out.align();
        out.append(&table);
    }

    /// Those of the tracked slots, and all that are live everywhere.
    pub(super) fn live(&self, set: &[bool]) -> Vec<Live> {
        let tracked = self.slots.iter().filter(|slot| !slot.untracked).zip(set);
        let mut live: Vec<Live> = tracked.filter(|(_, live)| **live).map(|(&slot, _)| slot).collect();
        live.extend(self.slots.iter().filter(|slot| slot.untracked));
        live
    }

    pub(super) fn state(&self, at: u64) -> Option<&[bool]> {
        let mut before = 0;
        for (first, end) in &self.ranges {
            if (*first..*end).contains(&at) {
                return self.states.get((before + at - first) as usize).map(Vec::as_slice);
            }
            before += end - first;
        }
        None
    }
}
