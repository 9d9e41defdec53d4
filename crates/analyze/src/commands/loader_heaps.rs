//! The loader's and the JIT's heaps, as `eeheap` shows them.

use dnd_clr::{LoaderAllocator, LoaderHeap, LoaderHeapKind, LoaderHeaps, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use crate::out::Out;

const LABEL: usize = 22;
const RULE: &str = "----------------------------------------";

/// Memory of the loader and the JIT.
#[derive(Debug, Serialize)]
pub(super) struct LoaderMemory {
    system_domain: Addr,
    app_domain: Addr,
    /// What nothing can unload.
    global: AllocatorLines,
    jit_manager: Addr,
    /// Jitted code.
    code: Vec<HeapLine>,
    /// What can be unloaded.
    collectible: Vec<AllocatorLines>,
    size_bytes: u64,
    wasted_bytes: u64,
    /// Something could not be read; the notes tell what.
    partial: bool,
}

#[derive(Debug, Serialize)]
struct AllocatorLines {
    allocator: Addr,
    /// Names of the modules in it; none for the global one.
    modules: Vec<String>,
    heaps: Vec<HeapLine>,
    size_bytes: u64,
    wasted_bytes: u64,
}

#[derive(Debug, Serialize)]
struct HeapLine {
    kind: LoaderHeapKind,
    blocks: Vec<BlockLine>,
    size_bytes: u64,
    wasted_bytes: u64,
}

#[derive(Debug, Serialize)]
struct BlockLine {
    address: Addr,
    reserved_bytes: u64,
    size_bytes: u64,
    current: bool,
}

impl LoaderMemory {
    pub(super) fn new(runtime: &Runtime<'_>, heaps: &LoaderHeaps) -> Self {
        let global = AllocatorLines::new(runtime, &heaps.global);
        let code: Vec<HeapLine> = heaps.code.iter().map(HeapLine::new).collect();
        let collectible: Vec<AllocatorLines> =
            heaps.collectible.iter().map(|allocator| AllocatorLines::new(runtime, allocator)).collect();
        let (size, wasted) = sums(&code);
        let allocators = || std::iter::once(&global).chain(&collectible);
        Self {
            system_domain: Addr(heaps.system_domain),
            app_domain: Addr(heaps.app_domain),
            jit_manager: Addr(heaps.jit_manager),
            size_bytes: allocators().fold(size, |sum, a| a.size_bytes.saturating_add(sum)),
            wasted_bytes: allocators().fold(wasted, |sum, a| a.wasted_bytes.saturating_add(sum)),
            global,
            code,
            collectible,
            partial: !heaps.problems.is_empty(),
        }
    }

    /// All of it.
    pub(super) fn bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn text(&self, out: &mut Out<'_>) {
        out.line("Loader Heap:");
        out.line(RULE);
        address(out, "System Domain:", self.system_domain);
        self.global.text(out);
        address(out, "Domain 1:", self.app_domain);
        address(out, "LoaderAllocator:", self.global.allocator);
        out.line("No unique loader heaps found.");
        out.line(RULE);
        address(out, "JIT Manager:", self.jit_manager);
        for heap in &self.code {
            heap.text(out);
        }
        let (size, wasted) = sums(&self.code);
        total(out, size, wasted);
        out.line(RULE);
        if !self.collectible.is_empty() {
            out.line("Module LoaderAllocators:");
        }
        for allocator in &self.collectible {
            allocator.text(out);
        }
    }
}

impl AllocatorLines {
    fn new(runtime: &Runtime<'_>, allocator: &LoaderAllocator) -> Self {
        let heaps: Vec<HeapLine> = allocator.heaps.iter().map(HeapLine::new).collect();
        let (size_bytes, wasted_bytes) = sums(&heaps);
        let modules = allocator.modules.iter().map(|&module| runtime.module(module).name.clone()).collect();
        Self { allocator: Addr(allocator.address), modules, heaps, size_bytes, wasted_bytes }
    }

    fn text(&self, out: &mut Out<'_>) {
        address(out, "LoaderAllocator:", self.allocator);
        for module in &self.modules {
            out.left("Module:", LABEL);
            out.name(module);
            out.end();
        }
        for heap in &self.heaps {
            heap.text(out);
        }
        if self.size_bytes > 0 {
            total(out, self.size_bytes, self.wasted_bytes);
        } else {
            out.line("No unique loader heaps found.");
        }
        out.line(RULE);
    }
}

impl HeapLine {
    fn new(heap: &LoaderHeap) -> Self {
        let blocks = heap.blocks.iter().map(|block| BlockLine {
            address: Addr(block.address),
            reserved_bytes: block.reserved,
            size_bytes: block.present,
            current: block.current,
        });
        Self {
            kind: heap.kind,
            blocks: blocks.collect(),
            size_bytes: heap.present(),
            wasted_bytes: heap.wasted(),
        }
    }

    fn text(&self, out: &mut Out<'_>) {
        out.left(&format!("{:?}:", self.kind), LABEL);
        for block in &self.blocks {
            out.fmt(format_args!("{:012x}", block.address.0));
            if block.reserved_bytes > 0 {
                out.fmt(format_args!("({:x}:{:x})", block.reserved_bytes, block.size_bytes));
            }
            out.blanks(1);
        }
        sizes(out, self.size_bytes, self.wasted_bytes);
    }
}

fn sums(heaps: &[HeapLine]) -> (u64, u64) {
    heaps.iter().fold((0, 0), |(size, wasted), heap| {
        (heap.size_bytes.saturating_add(size), heap.wasted_bytes.saturating_add(wasted))
    })
}

fn address(out: &mut Out<'_>, label: &str, value: Addr) {
    out.left(label, LABEL);
    out.fmt(format_args!("{:012x}\n", value.0));
}

fn total(out: &mut Out<'_>, size: u64, wasted: u64) {
    out.left("Total size:", LABEL);
    sizes(out, size, wasted);
}

fn sizes(out: &mut Out<'_>, size: u64, wasted: u64) {
    out.fmt(format_args!("Size: 0x{size:x} ({size}) bytes total"));
    if wasted > 0 {
        out.fmt(format_args!(", 0x{wasted:x} ({wasted}) bytes wasted"));
    }
    out.line(".");
}
