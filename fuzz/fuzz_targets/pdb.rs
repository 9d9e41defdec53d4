//! Portable PDBs, and PDBs packed inside assemblies.
#![no_main]

use dnd_metadata::{Pdb, embedded_pdb};
use libfuzzer_sys::fuzz_target;

fn ask(bytes: &[u8]) {
    let Ok(pdb) = Pdb::parse(bytes) else { return };
    for row in 0..100 {
        for point in pdb.sequence_points(row).take(1000) {
            let _ = pdb.document(point.document);
        }
        let _ = (pdb.line_at(row, 10), pdb.local_names(row, Some(3)));
    }
}

fuzz_target!(|data: &[u8]| {
    ask(data);
    if let Ok(bytes) = embedded_pdb(data) {
        ask(&bytes);
    }
});
