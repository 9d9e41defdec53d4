use std::collections::BTreeSet;

use super::*;
use crate::reach::backwards::{Backwards, Progressed};

impl World {
    /// Compares the objects that lead to `target` with a plain search from every object. `found`: where the search
    /// against the references is interrupted.
    pub(super) fn check_members(&self, target: u64, found: &[u64], cards: &OnceLock<Cards>) {
        self.ask_with(cards, |setting| {
            let index = HeapIndex::new(setting.target, setting.heap);
            let mut graph = Graph::new(setting, &index);
            let goal = index.dense(target).unwrap();
            let mut known = Backwards::new(&mut graph, setting.cards(&index).unwrap(), goal, &[]).unwrap();
            let interrupting = Bits::new(index.dense_len()).unwrap();
            for &object in found.iter().filter(|&&object| object != target) {
                interrupting.set::<false>(index.dense(object).unwrap());
            }
            loop {
                match known.advance(&mut graph, &interrupting, FULL).unwrap() {
                    Progressed::Met(member) => {
                        assert!(interrupting.get(member) && known.contains(member));
                        interrupting.clear(member);
                    }
                    Progressed::Complete => break,
                    Progressed::GaveUp => panic!("there was no reason to give up"),
                }
            }
            for &object in self.edges.keys() {
                let leads = self.reached(&[object]).contains_key(&target);
                assert_eq!(known.contains(index.dense(object).unwrap()), leads, "{object:x} to {target:x}");
            }
        });
    }
}

/// Nodes in a row, each referring to the next of `order`.
fn chain(order: &[usize]) -> (World, Vec<u64>) {
    let mut world = World::new();
    let node = world.fake.add_type(32, 0, &Refs::Words(&[(1, 2)]));
    world.fake.add_segment(0x7f00_0000_0000);
    let nodes: Vec<u64> = order.iter().map(|_| world.add(node, 0)).collect();
    for pair in order.windows(2) {
        world.refer(nodes[pair[0]], 8, nodes[pair[1]]);
    }
    world.fake.finish();
    let in_order = order.iter().map(|&place| nodes[place]).collect();
    (world, in_order)
}

/// What comes of so many rounds towards `target`, when searches from the roots have found nothing.
fn rounds(world: &World, target: u64, rounds: usize) -> Progressed {
    world.ask_with(&world.cards(4, u64::MAX / 2, 5000), |setting| {
        let index = HeapIndex::new(setting.target, setting.heap);
        let mut graph = Graph::new(setting, &index);
        let goal = index.dense(target).unwrap();
        let mut known = Backwards::new(&mut graph, setting.cards(&index).unwrap(), goal, &[]).unwrap();
        let found = Bits::new(index.dense_len()).unwrap();
        known.advance(&mut graph, &found, Effort { rounds, ..FULL }).unwrap()
    })
}

#[test]
fn chains_in_either_direction_take_a_few_rounds_and_others_are_given_up() {
    let count = 2000;
    let upward: Vec<usize> = (0..count).collect();
    let downward: Vec<usize> = (0..count).rev().collect();
    for order in [upward, downward] {
        let (world, nodes) = chain(&order);
        assert!(matches!(rounds(&world, nodes[count - 1], 3), Progressed::Complete));
        world.check_paths(
            &[nodes[0], nodes[500]],
            nodes[count - 1],
            Patience { search: 0, ..PATIENT },
            &OnceLock::new(),
        );
    }
    // Inward from both ends: every step goes the other way.
    let inward: Vec<usize> = (0..count).map(|i| if i % 2 == 0 { i / 2 } else { count - 1 - i / 2 }).collect();
    let (world, nodes) = chain(&inward);
    assert!(matches!(rounds(&world, nodes[count - 1], 20), Progressed::GaveUp));
    assert!(matches!(rounds(&world, nodes[count - 1], usize::MAX), Progressed::Complete));
    for rounds in [20, usize::MAX] {
        let backwards = Effort { rounds, ..FULL };
        for all in [0, u64::MAX] {
            let patience = Patience { search: 0, all, backwards };
            let cards = world.cards(4, u64::MAX / 2, 5000);
            world.check_paths(&[nodes[0], nodes[500], nodes[count - 1]], nodes[count - 1], patience, &cards);
            world.check_paths(&[nodes[700], nodes[500], nodes[3]], nodes[600], patience, &cards);
        }
    }
}

#[test]
fn what_walks_may_not_see_is_never_taken_for_absent() {
    // Memory is missing.
    let (mut world, nodes) = chain(&(0..100).collect::<Vec<_>>());
    world.fake.remove(nodes[20] + 24, nodes[30] + 16);
    world.fake.finish();
    assert!(matches!(rounds(&world, nodes[10], usize::MAX), Progressed::GaveUp));

    // The dump was taken during a garbage collection.
    let (mut world, nodes) = chain(&(0..100).collect::<Vec<_>>());
    world.fake.heap.gc_in_progress = true;
    assert!(matches!(rounds(&world, nodes[10], usize::MAX), Progressed::GaveUp));

    // A root that looks like an object, inside of another.
    let mut world = World::new();
    let node = world.fake.add_type(40, 0, &Refs::Words(&[(1, 3)]));
    let array = world.fake.add_type(24, 8, &Refs::Elements);
    world.fake.add_segment(0x7f00_0000_0000);
    let outer = world.add(array, 9);
    let target = world.add(node, 0);
    let inner = outer + 24;
    world.edges.insert(inner, BTreeSet::new());
    world.fake.set(inner, node);
    world.refer(inner, 8, target);
    world.edges.get_mut(&outer).unwrap().insert(target);
    world.fake.finish();
    for patience in patiences() {
        world.check_paths(&[target, inner, outer], target, patience, &OnceLock::new());
        world.check_paths(&[inner], target, patience, &OnceLock::new());
    }
}
