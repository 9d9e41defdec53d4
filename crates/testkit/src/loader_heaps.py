"""The loader's heaps as Microsoft's DAC gives them: FOLDER-OF-THE-ORACLE CORE -> JSON.

{"global": allocator, "code": [[kind, address, bytes], ...], "allocators": {allocator: {kind: [[address, bytes, current]]}}}
"""
import ctypes as C
import json
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import dac_host
from elf_core import ElfCore

U32, U64 = C.c_uint32, C.c_uint64
iid, methods = dac_host.INTERFACES["ISOSDacInterface"]
dac_host.INTERFACES["ISOSDacInterface"] = iid, methods + """ 27:GetJitManagerList(ipp) 67:TraverseLoaderHeap(ap)
    68:GetCodeHeapList(aipp) 69:TraverseVirtCallStubHeap(aip)"""
dac_host.INTERFACES["Loader"] = "3176a8ed-597b-4f54-a71f-83695c6a8c5e", """3:TraverseLoaderHeap(aip)
    4:GetDomainLoaderAllocator(ap) 5:GetLoaderAllocatorHeapNames(ipp) 6:GetLoaderAllocatorHeaps(aippp)"""
VISIT = C.CFUNCTYPE(None, U64, C.c_size_t, C.c_int)
# The order of the kinds in TraverseVirtCallStubHeap.
STUBS = "IndcellHeap", "LookupHeap", "ResolveHeap", "DispatchHeap", "CacheEntryHeap"
# Where the first heap is in every allocator: the 3.1 interface tells heaps only.
FIRST_HEAP = 16


def visited(traverse):
    """The blocks that `traverse` calls its argument with."""
    blocks = []
    visit = VISIT(lambda address, size, current: blocks.append([hex(address), size, bool(current)]))
    result = traverse(C.cast(visit, C.c_void_p))
    return blocks if result >= 0 else []


class Heaps:
    def __init__(self, core):
        self.dac = dac_host.Dac(core)
        self.sos, self.loader = self.dac.sos, self.dac.sos.query("Loader")

    def traverse(self, heap, explicit=False):
        if self.loader:
            return visited(lambda visit: self.loader.raw("TraverseLoaderHeap", heap, explicit, visit))
        # 3.1 takes all for heaps with a vtable in front.
        return visited(lambda visit: self.sos.raw("TraverseLoaderHeap", heap - 8 * explicit, visit))

    def allocator(self, address):
        count, pointers = U32(), (C.c_void_p * 64)()
        self.loader.call("GetLoaderAllocatorHeapNames", 64, pointers, C.byref(count))
        names = [C.string_at(pointers[i]).decode() for i in range(count.value)]
        heaps, kinds = (U64 * 64)(), (U32 * 64)()
        self.loader.call("GetLoaderAllocatorHeaps", address, 64, heaps, kinds, C.byref(count))
        return {name: self.traverse(heaps[i], kinds[i]) for i, name in enumerate(names) if heaps[i]}

    def global_allocator(self):
        domain = self.sos.record("GetAppDomainStoreData")["system"]
        data = self.sos.record("GetAppDomainData", domain)
        if self.loader:
            address = self.loader.number("GetDomainLoaderAllocator", domain)
            return address, self.allocator(address)
        heaps = {"LowFrequencyHeap": data["_2"], "HighFrequencyHeap": data["_3"], "StubHeap": data["_4"]}
        heaps = {name: self.traverse(heap) for name, heap in heaps.items()}
        for kind, name in enumerate(STUBS):
            heaps[name] = visited(lambda visit: self.sos.raw("TraverseVirtCallStubHeap", domain, kind, visit))
        return data["_2"] - FIRST_HEAP, heaps

    def modules(self):
        store = self.sos.record("GetAppDomainStoreData")
        for domain in self.sos.words("GetAppDomainList", capacity=store["domain_count"]):
            for assembly in self.sos.words("GetAssemblyList", domain):
                for module in self.sos.words("GetAssemblyModuleList", assembly):
                    yield self.sos.record("GetModuleData", module)

    def code(self):
        managers, count = (U64 * 6)(), U32()
        self.sos.call("GetJitManagerList", 1, managers, None)
        self.sos.call("GetCodeHeapList", managers[0], 0, None, C.byref(count))
        records, rows = (U64 * (3 * count.value))(), []
        self.sos.call("GetCodeHeapList", managers[0], count.value, records, C.byref(count))
        for i in range(count.value):
            kind, first, second = records[3 * i] & 0xFFFFFFFF, records[3 * i + 1], records[3 * i + 2]
            if kind == 0:
                rows += [["LoaderCodeHeap", *block[:2]] for block in self.traverse(first, True)]
            else:
                rows.append(["HostCodeHeap", hex(first), second - first])
        return managers[0], rows


heaps = Heaps(ElfCore(sys.argv[2]))
address, found = heaps.global_allocator()
allocators = {hex(address): found}
if heaps.loader:
    for module in heaps.modules():
        if module["loader_allocator"] and hex(module["loader_allocator"]) not in allocators:
            allocators[hex(module["loader_allocator"])] = heaps.allocator(module["loader_allocator"])
manager, code = heaps.code()
print(json.dumps({"global": hex(address), "jit_manager": hex(manager), "code": code, "allocators": allocators}))
