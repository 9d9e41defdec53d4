mod backwards;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::roots::RootKind;
use crate::walk::Plan;
use crate::walk::fake::{Fake, Numbers, Refs};

const COLLECTIBLE: u32 = 0x1000_0000;

/// A heap made by hand and, beside it, what refers to what.
struct World {
    fake: Fake,
    edges: BTreeMap<u64, BTreeSet<u64>>,
    dependents: Vec<(u64, u64)>,
    /// What objects of collectible types keep alive.
    allocator: u64,
    progress: Progress,
}

impl World {
    fn new() -> Self {
        let progress = Progress::new();
        Self { fake: Fake::new(), edges: BTreeMap::new(), dependents: Vec::new(), allocator: 0, progress }
    }

    fn add(&mut self, table: u64, components: u32) -> u64 {
        let address = self.fake.add(table, components);
        self.edges.insert(address, BTreeSet::new());
        address
    }

    /// Lets the word at `offset` of an object refer to another.
    fn refer(&mut self, from: u64, offset: u64, to: u64) {
        self.fake.set(from + offset, to);
        if self.edges.contains_key(&to) {
            self.edges.get_mut(&from).unwrap().insert(to);
        }
    }

    fn ask<T>(&self, ask: impl FnOnce(&Setting<'_>) -> T) -> T {
        self.ask_with(&OnceLock::new(), ask)
    }

    fn ask_with<T>(&self, cards: &OnceLock<Cards>, ask: impl FnOnce(&Setting<'_>) -> T) -> T {
        let allocator_of = |_: &MethodTable| self.allocator;
        ask(&Setting {
            target: &self.fake.target,
            layout: &self.fake.layout,
            heap: &self.fake.heap,
            free: &self.fake.free,
            allocator_of: &allocator_of,
            dependents: self.dependents.clone(),
            progress: &self.progress,
            cards,
        })
    }

    /// Cards of `1 << bits` words, room for `room` targets, made in parts of about `part` bytes.
    fn cards(&self, bits: u32, room: u64, part: u64) -> OnceLock<Cards> {
        let made = self.ask(|setting| {
            let index = HeapIndex::new(setting.target, setting.heap);
            Cards::with(setting, &index, Plan { threads: 2, part }, bits, room).unwrap()
        });
        OnceLock::from(made)
    }

    /// What `starts` reach, and how far each is, by a plain search.
    fn reached(&self, starts: &[u64]) -> BTreeMap<u64, usize> {
        let mut found: BTreeMap<u64, usize> = starts.iter().map(|&start| (start, 1)).collect();
        let mut queue: VecDeque<u64> = starts.iter().copied().collect();
        while let Some(object) = queue.pop_front() {
            let by_handle = self.dependents.iter().filter(|d| d.0 == object).map(|d| d.1);
            for next in self.edges[&object].iter().copied().chain(by_handle) {
                if !found.contains_key(&next) {
                    found.insert(next, found[&object] + 1);
                    queue.push_back(next);
                }
            }
        }
        found
    }

    /// Compares the paths to `target` with a plain search from every root.
    fn check_paths(&self, roots: &[u64], target: u64, patience: Patience, cards: &OnceLock<Cards>) {
        let listed = listed(roots);
        let paths = self.ask_with(cards, |setting| {
            let index = HeapIndex::new(setting.target, setting.heap);
            let small = paths::find::<u32>(setting, &index, &listed, target, patience).unwrap();
            assert_eq!(small, paths::find::<u64>(setting, &index, &listed, target, patience).unwrap());
            small
        });
        let from: Vec<Option<usize>> =
            roots.iter().map(|&root| self.reached(&[root]).get(&target).copied()).collect();
        let want: Vec<usize> = (0..roots.len()).filter(|&root| from[root].is_some()).collect();
        assert_eq!(
            paths.iter().map(|path| path.root).collect::<Vec<_>>(),
            want,
            "roots that reach {target:x}, {patience:?}"
        );
        for path in &paths {
            assert_eq!(path.objects.first(), Some(&roots[path.root]));
            assert_eq!(path.objects.last(), Some(&target));
            for step in path.objects.windows(2) {
                let real =
                    self.edges[&step[0]].contains(&step[1]) || self.dependents.contains(&(step[0], step[1]));
                assert!(real, "{:x} does not refer to {:x}", step[0], step[1]);
            }
        }
        // Whoever is in no hurry gets a shortest one first.
        let patient = patience.search == u64::MAX && self.dependents.is_empty();
        if let Some(first) = paths.first().filter(|_| patient) {
            assert_eq!(Some(first.objects.len()), from[first.root]);
        }
    }

    /// Compares what `starts` reach with a plain search, on one thread and on three.
    fn check_closure(&self, starts: &[u64]) {
        let want = self.reached(starts);
        self.ask(|setting| {
            for keep in [false, true] {
                let found = closure(setting, starts.iter().copied(), keep).unwrap();
                for &object in self.edges.keys() {
                    assert_eq!(found.contains(object), want.contains_key(&object), "{object:x}");
                }
                let counted: u64 = found.types.iter().map(|slot| slot.count).sum();
                assert_eq!(counted, want.len() as u64);
                let mut objects = found.objects.clone();
                objects.sort_unstable();
                assert!(!keep || objects.iter().eq(want.keys()));
            }
            let index = HeapIndex::new(setting.target, setting.heap);
            let bits = Bits::new(index.dense_len()).unwrap();
            let starts = starts.iter().filter_map(|&start| index.dense(start));
            let starts: Vec<u32> = starts.filter(|&dense| bits.set::<false>(dense)).map(Word::pack).collect();
            let mut graphs: Vec<_> = (0..3).map(|_| Graph::new(setting, &index)).collect();
            mark::mark(&mut graphs, &bits, starts).unwrap();
            for &object in self.edges.keys() {
                assert_eq!(bits.get(index.dense(object).unwrap()), want.contains_key(&object), "{object:x}");
            }
            let counted: u64 = graphs.iter().flat_map(Graph::types).map(|slot| slot.count).sum();
            assert_eq!(counted, want.len() as u64);
        });
    }
}

fn listed(roots: &[u64]) -> Vec<Root> {
    roots.iter().map(|&object| Root { address: 0, object, kind: RootKind::FinalizerQueue }).collect()
}

const FULL: Effort = Effort { rounds: usize::MAX, cards: u64::MAX };
const PATIENT: Patience = Patience { search: u64::MAX, all: u64::MAX, backwards: FULL };

/// All ways to answer: by searches from the roots alone; at once against the references, to the end and given up after
/// no, some or one round; with the exact set from the second root on, found in both ways.
fn patiences() -> Vec<Patience> {
    let mut all = vec![PATIENT];
    for rounds in [usize::MAX, 0, 1, 2, 3] {
        let backwards = Effort { rounds, ..FULL };
        all.push(Patience { search: 0, all: u64::MAX, backwards });
        all.push(Patience { search: u64::MAX, all: 0, backwards });
        all.push(Patience { search: 0, all: 0, backwards });
        all.push(Patience { search: 0, all: 50, backwards });
    }
    all.push(Patience { search: 0, backwards: Effort { cards: 0, ..FULL }, ..PATIENT });
    all
}

/// Objects of all shapes in several segments, referring to each other at random. `spacing`: bytes between segments; when
/// small, several share a granule of the index.
fn random(numbers: &mut Numbers, objects: u64, references: u64, spacing: u64) -> (World, Vec<u64>) {
    let mut world = World::new();
    // (table, components, offsets of references)
    let fake = &mut world.fake;
    let types: Vec<(u64, u32, Vec<u64>)> = vec![
        (fake.add_type(40, 0, &Refs::Words(&[(1, 3)])), 0, vec![8, 16, 24]),
        (fake.add_type(56, 0, &Refs::Words(&[(1, 1), (3, 2)])), 0, vec![8, 24, 32]),
        (fake.add_type(24, 8, &Refs::Elements), 9, (0..9).map(|i| 16 + 8 * i).collect()),
        (fake.add_type(24, 16, &Refs::Structs(&[(1, 8)])), 5, (0..5).map(|i| 16 + 16 * i).collect()),
        (fake.add_type(24, 0, &Refs::None), 0, vec![]),
        (fake.add_type_with(32, 0, &Refs::Words(&[(1, 1)]), COLLECTIBLE), 0, vec![8]),
    ];
    let segments = 1 + numbers.below(5);
    let mut places = Vec::new();
    for segment in 0..segments {
        world.fake.add_segment(0x7f00_0000_0040 + segment * spacing);
        for _ in 0..objects / segments {
            if numbers.below(20) == 0 {
                world.fake.add_gap(24 + 8 * numbers.below(40) as usize);
            }
            let (table, components, offsets) = &types[numbers.below(types.len() as u64) as usize];
            places.push((world.add(*table, *components), offsets.clone(), *table == types[5].0));
        }
    }
    let all: Vec<u64> = places.iter().map(|place| place.0).collect();
    let any = |numbers: &mut Numbers| all[numbers.below(all.len() as u64) as usize];
    world.allocator = any(numbers);
    for _ in 0..references {
        let (from, offsets, _) = &places[numbers.below(places.len() as u64) as usize];
        if !offsets.is_empty() {
            let offset = offsets[numbers.below(offsets.len() as u64) as usize];
            if world.fake.word(*from + offset) == 0 {
                let to = any(numbers);
                world.refer(*from, offset, to);
            }
        }
    }
    for (from, _, collectible) in &places {
        if *collectible {
            world.edges.get_mut(from).unwrap().insert(world.allocator);
        }
    }
    (world, all)
}

#[test]
fn roots_and_paths_are_those_of_a_plain_search() {
    for seed in 1..120 {
        let mut numbers = Numbers(seed * 7919);
        let (objects, density) = (2 + numbers.below(150), numbers.below(300));
        let spacing = [0x4000, 0x10_0000][numbers.below(2) as usize];
        let (mut world, all) = random(&mut numbers, objects.max(5), objects * density / 100, spacing);
        let any = |numbers: &mut Numbers| all[numbers.below(all.len() as u64) as usize];
        for _ in 0..numbers.below(6) {
            let pair = (any(&mut numbers), any(&mut numbers));
            world.dependents.push(pair);
        }
        for _ in 0..numbers.below(8) {
            let segments = world.fake.heap.segments.len() as u64;
            let segment = world.fake.heap.segments[numbers.below(segments) as usize];
            if !segment.is_empty() {
                world.fake.split(segment.start + 8 * numbers.below(segment.len() / 8));
            }
        }
        world.fake.finish();
        let roots: Vec<u64> = (0..1 + numbers.below(12)).map(|_| any(&mut numbers)).collect();
        world.check_closure(&roots);
        for patience in patiences() {
            let target = any(&mut numbers);
            let room = [0, numbers.below(100), u64::MAX / 2][numbers.below(3) as usize];
            let part = [200, 1000, u64::MAX / 2][numbers.below(3) as usize];
            let cards = world.cards(3 + numbers.below(7) as u32, room, part);
            world.check_paths(&roots, target, patience, &cards);
            if patience.search == 0 {
                let found: Vec<u64> = (0..numbers.below(10)).map(|_| any(&mut numbers)).collect();
                world.check_members(target, &found, &cards);
            }
        }
    }
}

#[test]
fn pointers_to_nowhere_end_a_path_and_are_counted() {
    let mut world = World::new();
    let node = world.fake.add_type(40, 0, &Refs::Words(&[(1, 3)]));
    world.fake.add_segment(0x7f00_0000_0000);
    let (root, lost, end) = (world.add(node, 0), world.add(node, 0), world.add(node, 0));
    let zeros = world.fake.add_bytes(64);
    world.refer(root, 8, lost);
    world.refer(root, 16, end);
    // Not aligned, not on the heap, no object, above and below all.
    world.refer(root, 24, end + 4);
    world.refer(lost, 8, 0x7e00_0000_0000);
    world.refer(lost, 16, zeros);
    world.refer(lost, 24, u64::MAX - 7);
    world.refer(end, 8, 8);
    world.refer(end, 16, root);
    // What the program left where no segment is.
    world.refer(end, 24, 0x7f00_0000_8000);
    world.fake.finish();
    // To the plain search, odd roots are objects without references.
    world.edges.insert(8, BTreeSet::new());
    world.edges.insert(0, BTreeSet::new());
    for patience in patiences() {
        world.check_paths(&[root, lost, end, 8, 0], end, patience, &OnceLock::new());
    }
    world.ask(|setting| {
        let found = closure(setting, [root, 0, 0x1000].into_iter(), false).unwrap();
        let counted: u64 = found.types.iter().map(|slot| slot.count).sum();
        assert_eq!(counted, 3);
        // A root off the heap, zeros, and the place in no segment that is near one.
        assert_eq!(found.dangling, 3);
    });
}

#[test]
fn memory_that_is_missing_hides_only_what_lies_in_it() {
    let mut world = World::new();
    let node = world.fake.add_type(40, 0, &Refs::Words(&[(1, 3)]));
    world.fake.add_segment(0x7f00_0000_0000);
    let objects: Vec<u64> = (0..100).map(|_| world.add(node, 0)).collect();
    for pair in objects.windows(2) {
        world.refer(pair[0], 8, pair[1]);
    }
    world.refer(objects[0], 16, objects[60]);
    // From the middle of object 20 to the middle of object 50.
    world.fake.remove(objects[20] + 24, objects[50] + 16);
    for &lost in &objects[20..=50] {
        world.edges.insert(lost, BTreeSet::new());
    }
    world.fake.finish();
    for patience in patiences() {
        let roots = [objects[0], objects[10], objects[55]];
        for target in [99, 19, 58] {
            world.check_paths(&roots, objects[target], patience, &OnceLock::new());
        }
    }
}

/// A list of a million nodes that refer to both neighbours: as deep as can be, and all of it leads everywhere.
#[test]
fn a_long_list_takes_neither_stack_nor_time() {
    const NODES: usize = 1_000_000;
    let mut world = World::new();
    let node = world.fake.add_type(32, 0, &Refs::Words(&[(1, 2)]));
    world.fake.add_segment(0x7f00_0000_0000);
    let nodes: Vec<u64> = (0..NODES).map(|_| world.fake.add(node, 0)).collect();
    for pair in nodes.windows(2) {
        world.fake.set(pair[0] + 8, pair[1]);
        world.fake.set(pair[1] + 16, pair[0]);
    }
    world.fake.finish();
    let root = |object| Root { address: 0, object, kind: RootKind::FinalizerQueue };
    let roots = [root(nodes[0]), root(nodes[NODES - 1]), root(nodes[NODES / 2])];
    let target = nodes[NODES / 2 + 1000];
    world.ask(|setting| {
        let index = HeapIndex::new(setting.target, setting.heap);
        for patience in [PATIENT, Patience { search: 10, all: 10, ..PATIENT }] {
            let paths = paths::find::<u32>(setting, &index, &roots, target, patience).unwrap();
            let lengths: Vec<(usize, usize)> = paths.iter().map(|p| (p.root, p.objects.len())).collect();
            assert_eq!(lengths, [(0, NODES / 2 + 1001), (1, NODES / 2 - 1000), (2, 1001)]);
        }
        let found = closure(setting, [nodes[7]].into_iter(), false).unwrap();
        assert_eq!(found.types.iter().map(|slot| slot.count).sum::<u64>(), NODES as u64);
        assert!(found.contains(nodes[0]) && found.contains(nodes[NODES - 1]));
    });
}

/// An array of many objects, each with two of its own: threads that have much give to those that have none.
#[test]
fn wide_heaps_are_marked_by_all_threads_and_nothing_is_lost() {
    const WIDTH: u64 = 50_000;
    let mut world = World::new();
    let array = world.fake.add_type(24, 8, &Refs::Elements);
    let node = world.fake.add_type(32, 0, &Refs::Words(&[(1, 2)]));
    let leaf = world.fake.add_type(24, 0, &Refs::None);
    world.fake.add_segment(0x7f00_0000_0000);
    let all = world.fake.add(array, WIDTH as u32);
    for i in 0..WIDTH {
        let objects = [world.fake.add(node, 0), world.fake.add(leaf, 0), world.fake.add(leaf, 0)];
        world.fake.set(all + 16 + 8 * i, objects[0]);
        world.fake.set(objects[0] + 8, objects[1]);
        world.fake.set(objects[0] + 16, objects[2]);
    }
    world.fake.finish();
    world.ask(|setting| {
        let index = HeapIndex::new(setting.target, setting.heap);
        for threads in 1..=4 {
            let bits = Bits::new(index.dense_len()).unwrap();
            let start = index.dense(all).unwrap();
            assert!(bits.set::<false>(start) && !bits.set::<false>(start));
            let mut graphs: Vec<_> = (0..threads).map(|_| Graph::new(setting, &index)).collect();
            mark::mark(&mut graphs, &bits, vec![start as u32]).unwrap();
            let counted: u64 = graphs.iter().flat_map(Graph::types).map(|slot| slot.count).sum();
            assert_eq!(counted, 1 + 3 * WIDTH, "{threads} threads");
        }
    });
}

#[test]
fn a_cancelled_search_ends() {
    let (mut world, all) = random(&mut Numbers(3), 100, 300, 0x10_0000);
    world.fake.finish();
    world.progress.cancel();
    let root = Root { address: 0, object: all[0], kind: RootKind::FinalizerQueue };
    world.ask(|setting| assert!(matches!(paths(setting, &[root], all[1]), Err(Error::Cancelled))));
}
