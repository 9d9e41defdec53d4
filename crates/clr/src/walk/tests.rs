use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::count::count_in_parts;
use super::fake::{Fake, Numbers, Refs};
use super::ordered::each_in_parts;
use super::parts::Plan;
use super::*;

/// What a walk must find: (address, type, size).
type Objects = Vec<(u64, u64, u64)>;

/// A heap of `segments` segments with objects of all sizes, allocation contexts between them. `bytes`: contents of byte
/// arrays look like objects.
fn random(numbers: &mut Numbers, segments: u64, objects: u64) -> (Fake, Objects) {
    let mut fake = Fake::new();
    let types = [
        (fake.add_type(24, 0, &Refs::None), false),
        (fake.add_type(40, 0, &Refs::Words(&[(1, 2)])), false),
        (fake.add_type(22, 2, &Refs::None), true),
        (fake.add_type(24, 8, &Refs::Elements), true),
        (fake.free.address, true),
    ];
    let mut all = Vec::new();
    for segment in 0..segments {
        fake.add_segment(0x7f00_0000_0000 + segment * 0x100_0000);
        for _ in 0..objects {
            if numbers.below(100) == 0 {
                fake.add_gap(24 + 8 * numbers.below(200) as usize);
            }
            let (table, array) = types[numbers.below(types.len() as u64) as usize];
            let components = if array { numbers.below(40) as u32 } else { 0 };
            let address = fake.add(table, components);
            let size = MethodTable::read(&fake.target, &fake.layout, table).unwrap().object_size(components);
            all.push((address, table, size));
        }
        // The last object is as large as a part: cuts may fall into it.
        let address = fake.add(types[2].0, 2000);
        all.push((address, types[2].0, 22 + 4000));
    }
    (fake, all)
}

fn walked(fake: &Fake) -> (Objects, Damage) {
    let progress = Progress::new();
    let mut walker = fake.walker(&progress);
    let mut all = Vec::new();
    for segment in &fake.heap.segments {
        let flow = walker.segment(segment, |address, slot, size| {
            all.push((address, slot.table, size));
            ControlFlow::Continue(())
        });
        assert!(flow.unwrap().is_continue());
    }
    (all, walker.damage)
}

type Counts = BTreeMap<u64, (u64, u64, u64)>;

fn counted(fake: &Fake, threads: usize, part: u64) -> (Counts, Damage) {
    let progress = Progress::new();
    let found =
        count_in_parts(&|| fake.walker(&progress), &fake.heap.segments, Plan { threads, part }).unwrap();
    (
        found.types.iter().map(|slot| (slot.table, (slot.count, slot.bytes, slot.first))).collect(),
        found.damage,
    )
}

/// The objects of one type, and what was wrong.
fn of(fake: &Fake, table: u64, threads: usize, part: u64) -> (Objects, Damage) {
    let progress = Progress::new();
    let (walker, mut all) = (|| fake.walker(&progress), Objects::new());
    let damage =
        each_in_parts(&walker, &fake.heap.segments, Plan { threads, part }, table, |segment, object| {
            assert!(segment.contains(object.address));
            all.push((object.address, object.table, object.size));
            ControlFlow::Continue(())
        });
    (all, damage.unwrap())
}

fn by_type(objects: &Objects) -> Counts {
    let mut counts = Counts::new();
    for &(address, table, size) in objects {
        let entry = counts.entry(table).or_insert((0, 0, address));
        *entry = (entry.0 + 1, entry.1 + size, entry.2.min(address));
    }
    counts
}

/// All ways to walk `fake` agree; with `objects`, they find just these.
fn agree(fake: &Fake, objects: Option<&Objects>) {
    let (found, damage) = walked(fake);
    if let Some(objects) = objects {
        assert_eq!(&found, objects);
    }
    for threads in 1..=3 {
        for part in [300, 4000, u64::MAX / 2] {
            let what = format!("{threads} threads, parts of {part}");
            assert_eq!(counted(fake, threads, part), (by_type(&found), damage), "{what}");
            let table = found.get(found.len() / 2).map_or(0, |object| object.1);
            let of_type: Objects = found.iter().filter(|object| object.1 == table).copied().collect();
            assert_eq!(of(fake, table, threads, part), (of_type, damage), "{what}");
        }
    }
}

#[test]
fn every_object_once_and_in_order() {
    for seed in 1..40 {
        let mut numbers = Numbers(seed);
        let (segments, objects) = (1 + numbers.below(6), 1 + numbers.below(400));
        let (mut fake, objects) = random(&mut numbers, segments, objects);
        fake.finish();
        agree(&fake, Some(&objects));
        // The same memory in many pieces, objects and heads of objects across their edges.
        for _ in 0..20 {
            let segment = fake.heap.segments[numbers.below(segments) as usize];
            fake.split(segment.start + numbers.below(segment.len()));
        }
        fake.finish();
        agree(&fake, Some(&objects));
    }
}

#[test]
fn damage_and_holes_are_counted_the_same_way_however_the_heap_is_cut() {
    for seed in 1..60 {
        let mut numbers = Numbers(seed);
        let (mut fake, objects) = random(&mut numbers, 2, 300);
        for _ in 0..numbers.below(4) {
            let (address, _, _) = objects[numbers.below(objects.len() as u64) as usize];
            fake.set(address, [0, 0xdead_0000, 0x10_0000][numbers.below(3) as usize]);
        }
        if numbers.below(2) == 0 {
            let segment = fake.heap.segments[0];
            let from = segment.start + 8 * numbers.below(segment.len() / 8 - 200);
            fake.remove(from, from + 8 * (1 + numbers.below(100)));
        }
        fake.finish();
        agree(&fake, None);
    }
}

#[test]
fn a_cut_inside_an_object_is_noticed() {
    let mut fake = Fake::new();
    let (small, array) = (fake.add_type(24, 0, &Refs::None), fake.add_type(24, 1, &Refs::None));
    fake.add_segment(0x7f00_0000_0000);
    let large = fake.add(array, 100_000);
    // A copy of many objects, as a serializer's buffer or a file's bytes might be.
    for i in 0..4000 {
        fake.set(large + 16 + 24 * i, small);
    }
    for _ in 0..1000 {
        fake.add(small, 0);
    }
    fake.finish();
    let counts = counted(&fake, 2, 10_000).0;
    assert_eq!(counts[&array].0, 1);
    assert_eq!(counts[&small], (1000, 24_000, large + 100_024));
    agree(&fake, None);
}

#[test]
fn a_context_being_filled_is_no_damage() {
    let mut fake = Fake::new();
    let small = fake.add_type(24, 0, &Refs::None);
    fake.add_segment(0x7f00_0000_0000);
    fake.add(small, 0);
    fake.add_bytes(48);
    fake.add_gap(240);
    fake.add(small, 0);
    fake.finish();
    let (objects, damage) = walked(&fake);
    assert_eq!(objects.len(), 2);
    assert_eq!(damage, Damage { unfinished: 1, ..Damage::default() });
    agree(&fake, None);
}

#[test]
fn a_cancelled_walk_ends() {
    let (mut fake, _) = random(&mut Numbers(7), 1, 100);
    fake.finish();
    let progress = Progress::new();
    progress.cancel();
    let result =
        count_in_parts(&|| fake.walker(&progress), &fake.heap.segments, Plan { threads: 2, part: 300 });
    assert!(matches!(result, Err(Error::Cancelled)));
}

#[test]
fn a_visitor_that_has_enough_sees_no_more() {
    let (mut fake, objects) = random(&mut Numbers(11), 3, 3000);
    fake.finish();
    let table = objects[5].1;
    let all = of(&fake, table, 1, 300).0;
    for threads in 1..=3 {
        let progress = Progress::new();
        let (walker, mut seen) = (|| fake.walker(&progress), Objects::new());
        let plan = Plan { threads, part: 300 };
        let result = each_in_parts(&walker, &fake.heap.segments, plan, table, |_, object| {
            seen.push((object.address, object.table, object.size));
            if seen.len() == 200 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(result.is_ok());
        assert_eq!(seen, all[..200], "{threads} threads");
    }
}
