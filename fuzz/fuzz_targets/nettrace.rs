//! A nettrace stream in pieces, in both orders, with the payload of each event.
#![no_main]

use dnd_nettrace::{Cursor, Item, Order, Parser};
use libfuzzer_sys::fuzz_target;

/// Reads what there is; whether to go on.
fn read(parser: &mut Parser) -> bool {
    loop {
        match parser.read() {
            Ok(Some(Item::Event(event))) => {
                let payload = event.decode();
                let _ = (payload.unwrapped().len(), event.stack.addresses().take(1000).count());
                let mut cursor = Cursor::new(event.payload);
                let _ = (cursor.utf16_zero(), cursor.varuint64(), cursor.utf8_counted());
            }
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, stream)) = data.split_first() else { return };
    let mut versions: Vec<Vec<u8>> = vec![stream.to_vec()];
    // With a sound beginning of versions 4 and 6.
    let mut v4 = b"Nettrace".to_vec();
    v4.extend(20u32.to_le_bytes());
    v4.extend(b"!FastSerialization.1");
    v4.extend(stream);
    let mut v6 = b"Nettrace".to_vec();
    v6.extend([0u32, 6, 0].map(u32::to_le_bytes).concat());
    v6.extend(stream);
    versions.extend([v4, v6]);
    for bytes in versions {
        for order in [Order::AsWritten, Order::ByTime] {
            let mut parser = Parser::new(order);
            if bytes.chunks(1 + usize::from(first)).all(|piece| {
                parser.push(piece);
                read(&mut parser)
            }) {
                parser.finish();
                read(&mut parser);
            }
            let _ = (parser.is_complete(), parser.trace().is_some(), parser.statistics(), parser.offset());
        }
    }
});
