//! Blobs taken for signatures.
#![no_main]

use dnd_metadata::signature;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = (signature::field(data), signature::method(data), signature::type_spec(data));
    let _ = (signature::locals(data), signature::method_spec(data));
});
