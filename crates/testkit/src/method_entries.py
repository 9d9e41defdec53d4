"""Entries of the methods of types, as Microsoft's DAC gives them: FOLDER-OF-THE-ORACLE CORE METHOD-TABLE... -> JSON
{method table: [slot 0, ...]}, null for a slot that it can't tell.
"""
import ctypes as C
import json
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import dac_host
from elf_core import ElfCore

iid, methods = dac_host.INTERFACES["ISOSDacInterface"]
dac_host.INTERFACES["ISOSDacInterface"] = iid, methods + " 38:GetMethodTableSlot(aip)"
dac = dac_host.Dac(ElfCore(sys.argv[2]))        # it must outlive what it gives
sos = dac.sos


def slots(table):
    entry = C.c_uint64()
    for slot in range(sos.record("GetMethodTableData", table)["_2"]):
        known = sos.raw("GetMethodTableSlot", table, slot, C.byref(entry)) >= 0
        yield hex(entry.value) if known else None


print(json.dumps({table: list(slots(int(table, 16))) for table in sys.argv[3:]}))
