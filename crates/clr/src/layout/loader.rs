//! Where the loader's heaps are, one table per runtime major.
//!
//! Sources: `vm/loaderallocator.hpp`, `vm/appdomain.hpp`, `vm/virtualcallstub.h`, `inc/loaderheap.h` of dotnet/runtime
//! (3.1: dotnet/coreclr, tag v3.1.9); every offset was found on real cores by the address that Microsoft's own library
//! gives for each heap.

use crate::descriptor::Descriptor;
use crate::loader::LoaderHeapKind::{self, *};

/// The loader's heaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderLayout {
    /// `GlobalLoaderAllocator`, in the `SystemDomain`.
    pub global: u64,
    /// Pointers to heaps, in a `LoaderAllocator`.
    pub heaps: &'static [(LoaderHeapKind, u64)],
    /// `m_pVirtualCallStubManager`, in a `LoaderAllocator`.
    pub stubs: u64,
    /// `LoaderAllocator*`, in a `VirtualCallStubManager`.
    pub stubs_owner: u64,
    /// Pointers to heaps, in a `VirtualCallStubManager`.
    pub stub_heaps: &'static [(LoaderHeapKind, u64)],
    /// Pointer to the block that a heap allocates from, behind the pointer to its first; later runtimes put it first.
    pub current: Option<u64>,
}

impl LoaderLayout {
    /// Whether the heaps that a runtime's descriptor names are where this table has them.
    pub(super) fn agrees(&self, descriptor: &Descriptor) -> bool {
        let heap = |wanted| self.heaps.iter().find(|&&(kind, _)| kind == wanted).map(|&(_, at)| at);
        let named = [
            ("SystemDomain", "GlobalLoaderAllocator", Some(self.global)),
            ("LoaderAllocator", "LowFrequencyHeap", heap(LowFrequencyHeap)),
            ("LoaderAllocator", "HighFrequencyHeap", heap(HighFrequencyHeap)),
            ("LoaderAllocator", "StubHeap", heap(StubHeap)),
        ];
        named
            .into_iter()
            .all(|(kind, field, ours)| descriptor.field(kind, field).is_none_or(|at| Some(at) == ours))
    }
}

pub(super) const V3_1: LoaderLayout = LoaderLayout {
    global: 2792,
    heaps: &[(LowFrequencyHeap, 632), (HighFrequencyHeap, 640), (StubHeap, 648), (ExecutableHeap, 664)],
    stubs: 1160,
    stubs_owner: 1464,
    stub_heaps: &[
        (IndirectionCellHeap, 1648),
        (LookupHeap, 1664),
        (ResolveHeap, 1680),
        (DispatchHeap, 1672),
        (CacheEntryHeap, 1656),
        (VtableHeap, 1688),
    ],
    current: Some(32),
};

/// See `arm64.rs` for what differs.
pub(super) const V3_1_ARM64: LoaderLayout = LoaderLayout {
    global: 3128,
    heaps: &[(LowFrequencyHeap, 656), (HighFrequencyHeap, 664), (StubHeap, 672), (ExecutableHeap, 688)],
    stubs: 1232,
    stub_heaps: &[
        (IndirectionCellHeap, 1672),
        (LookupHeap, 1688),
        (ResolveHeap, 1704),
        (DispatchHeap, 1696),
        (CacheEntryHeap, 1680),
        (VtableHeap, 1712),
    ],
    ..V3_1
};

/// Since .NET 7 stubs that are code are in the heaps of jitted code.
const STUB_HEAPS: &[(LoaderHeapKind, u64)] = &[(IndirectionCellHeap, 488), (CacheEntryHeap, 496)];

pub(super) const V8: LoaderLayout = LoaderLayout {
    global: 2560,
    heaps: &[
        (LowFrequencyHeap, 912),
        (HighFrequencyHeap, 920),
        (StubHeap, 928),
        (ExecutableHeap, 944),
        (FixupPrecodeHeap, 960),
        (NewStubPrecodeHeap, 968),
    ],
    stubs: 2088,
    stubs_owner: 312,
    stub_heaps: STUB_HEAPS,
    current: None,
};

/// As [`STUB_HEAPS`], behind a larger lock.
const STUB_HEAPS_ARM64: &[(LoaderHeapKind, u64)] = &[(IndirectionCellHeap, 496), (CacheEntryHeap, 504)];

pub(super) const V8_ARM64: LoaderLayout = LoaderLayout {
    global: 2672,
    heaps: &[
        (LowFrequencyHeap, 920),
        (HighFrequencyHeap, 928),
        (StubHeap, 936),
        (ExecutableHeap, 952),
        (FixupPrecodeHeap, 968),
        (NewStubPrecodeHeap, 976),
    ],
    stubs: 2112,
    stub_heaps: STUB_HEAPS_ARM64,
    ..V8
};

pub(super) const V9_ARM64: LoaderLayout = LoaderLayout {
    global: 1928,
    heaps: &[
        (LowFrequencyHeap, 1064),
        (HighFrequencyHeap, 1072),
        (StubHeap, 1088),
        (ExecutableHeap, 1104),
        (FixupPrecodeHeap, 1120),
        (NewStubPrecodeHeap, 1128),
        (StaticsHeap, 1080),
    ],
    stubs: 2440,
    stub_heaps: STUB_HEAPS_ARM64,
    ..V9
};

pub(super) const V9: LoaderLayout = LoaderLayout {
    global: 1840,
    heaps: &[
        (LowFrequencyHeap, 1056),
        (HighFrequencyHeap, 1064),
        (StubHeap, 1080),
        (ExecutableHeap, 1096),
        (FixupPrecodeHeap, 1112),
        (NewStubPrecodeHeap, 1120),
        (StaticsHeap, 1072),
    ],
    stubs: 2408,
    ..V8
};

pub(super) const V10: LoaderLayout = LoaderLayout {
    global: 16,
    heaps: &[
        (LowFrequencyHeap, 688),
        (HighFrequencyHeap, 696),
        (StubHeap, 712),
        (ExecutableHeap, 720),
        (FixupPrecodeHeap, 736),
        (NewStubPrecodeHeap, 744),
        (StaticsHeap, 704),
    ],
    stubs: 1808,
    stubs_owner: 304,
    stub_heaps: &[(IndirectionCellHeap, 408), (CacheEntryHeap, 416)],
    current: None,
};
