//! Whole streams, made and real.

use std::path::PathBuf;
use std::process::Command;

use dnd_testkit::nettrace::{self as write, Event as WrittenEvent, Stream as Written};
use proptest::prelude::*;

use super::*;

/// What a test looks at, owned.
#[derive(Debug, PartialEq, Clone)]
enum Seen {
    Trace(TraceInfo),
    Event { name: String, timestamp: u64, thread: u64, stack: Vec<u64>, payload: String },
    Dropped(Dropped),
    Damaged(Error),
}

fn drain(parser: &mut Parser, seen: &mut Vec<Seen>) -> Result<(), Error> {
    while let Some(item) = parser.read()? {
        seen.push(match item {
            Item::Trace(trace) => Seen::Trace(trace.clone()),
            Item::Event(event) => Seen::Event {
                name: event.kind.name.clone(),
                timestamp: event.timestamp,
                thread: event.thread,
                stack: event.stack.addresses().collect(),
                payload: format!("{:?}", event.decode()),
            },
            Item::Dropped(dropped) => Seen::Dropped(dropped),
            Item::Damaged(error) => Seen::Damaged(error),
        });
    }
    Ok(())
}

/// Everything in a stream that comes in these pieces, and the error at its end.
fn parse<'a>(
    order: Order,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Seen>, Parser, Result<(), Error>) {
    let mut parser = Parser::new(order);
    let mut seen = Vec::new();
    for piece in pieces {
        parser.push(piece);
        if let Err(error) = drain(&mut parser, &mut seen) {
            return (seen, parser, Err(error));
        }
    }
    parser.finish();
    let end = drain(&mut parser, &mut seen);
    (seen, parser, end)
}

fn small_stream() -> Written {
    let mut stream = Written::new();
    let fields = [("Count", write::Value::I32(7)), ("Name", write::Value::Text("ü\n"))];
    stream.describe(1, "My-Source", 5, "Tick", &fields);
    stream.block("NewsBlock", b"what no reader knows");
    stream.stacks(1, &[&[], &[0x10, 0x20]]);
    let event = |sequence, thread, timestamp, sorted, stack| WrittenEvent {
        metadata: 1,
        sequence,
        thread,
        timestamp,
        stack,
        sorted,
        payload: write::payload(&fields),
    };
    stream.events(&[event(1, 70, 100, false, 1), event(2, 70, 130, false, 2)]);
    stream.events(&[event(1, 80, 90, true, 1), event(4, 80, 120, false, 2)]);
    stream.sequence_point(140, &[(70, 5), (80, 4)]);
    stream.events(&[event(6, 70, 150, false, 2)]);
    stream.end();
    stream
}

fn times(seen: &[Seen]) -> Vec<(u64, u64)> {
    seen.iter()
        .filter_map(|seen| match seen {
            Seen::Event { timestamp, thread, .. } => Some((*timestamp, *thread)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_whole_stream() {
    let stream = small_stream();
    let (seen, parser, end) = parse(Order::AsWritten, [stream.bytes()]);
    assert_eq!(end, Ok(()));
    assert!(parser.is_complete());
    assert_eq!(parser.offset(), stream.bytes().len() as u64);
    assert_eq!(times(&seen), [(100, 70), (130, 70), (90, 80), (120, 80), (150, 70)]);
    let Some(Seen::Trace(trace)) = seen.first() else { panic!("{seen:?}") };
    assert_eq!(
        (trace.format, trace.pointer_size, trace.process_id, trace.processors),
        (4, 8, Some(4711), Some(2))
    );
    assert_eq!(trace.unix_nanos(1_000), 1_795_363_200_000_001_000, "2026-11-22T16:00:00.000001Z");
    let Some(Seen::Event { name, payload, stack, .. }) = seen.get(2) else { panic!("{seen:?}") };
    assert_eq!(name, "Tick");
    assert!(payload.contains(r#"("Count", Int(7)), ("Name", Text("ü\n"))"#), "{payload}");
    assert_eq!(stack, &[0x10, 0x20]);
    // Thread 80 lost two before its last event; thread 70 lost three before the sequence point.
    let lost: Vec<_> = seen.iter().filter(|seen| matches!(seen, Seen::Dropped(_))).collect();
    assert_eq!(
        lost,
        [&Seen::Dropped(Dropped { thread: 80, count: 2 }), &Seen::Dropped(Dropped { thread: 70, count: 3 })]
    );
    // A stack must not be referred to after a sequence point: what it was is forgotten.
    assert!(matches!(seen.last(), Some(Seen::Event { stack, .. }) if stack.is_empty()));
    let expected = Statistics { events: 5, dropped: 5, unknown_blocks: 1, ..Statistics::default() };
    assert_eq!(parser.statistics(), expected);
}

#[test]
fn events_in_order_of_time() {
    let (seen, _, end) = parse(Order::ByTime, [small_stream().bytes()]);
    assert_eq!(end, Ok(()));
    assert_eq!(times(&seen), [(90, 80), (100, 70), (120, 80), (130, 70), (150, 70)]);
    let Some(Seen::Event { stack, .. }) =
        seen.iter().rev().find(|s| matches!(s, Seen::Event { timestamp: 130, .. }))
    else {
        panic!("{seen:?}")
    };
    assert_eq!(stack, &[0x10, 0x20], "stacks outlive the wait");
}

#[test]
fn sorted_events_do_not_wait() {
    let mut stream = Written::new();
    stream.describe(1, "S", 1, "E", &[]);
    let event = |timestamp, sorted| WrittenEvent {
        metadata: 1,
        sequence: 1,
        timestamp,
        sorted,
        ..Default::default()
    };
    stream.events(&[event(10, false), event(30, false), event(20, true)]);
    let mut parser = Parser::new(Order::ByTime);
    parser.push(stream.bytes());
    let mut seen = Vec::new();
    drain(&mut parser, &mut seen).unwrap();
    assert_eq!(times(&seen), [(10, 0), (20, 0)], "30 may still be preceded by 25");
    parser.finish();
    drain(&mut parser, &mut seen).unwrap();
    assert_eq!(times(&seen), [(10, 0), (20, 0), (30, 0)]);
    assert!(!parser.is_complete());
}

#[test]
fn cut_off_anywhere() {
    let whole = small_stream();
    let (all, ..) = parse(Order::AsWritten, [whole.bytes()]);
    for length in 0..whole.bytes().len() {
        let (seen, parser, end) = parse(Order::AsWritten, [&whole.bytes()[..length]]);
        assert_eq!(end, Ok(()), "a stream of {length} bytes");
        assert!(!parser.is_complete());
        assert_eq!(seen, all[..seen.len()], "what was whole in {length} bytes");
    }
}

#[test]
fn an_event_that_is_described_again_and_again() {
    let mut stream = Written::new();
    // More often than there may be different ones.
    for _ in 0..200_000 {
        stream.describe(1, "S", 1, "E", &[]);
    }
    stream.events(&[WrittenEvent { metadata: 1, sequence: 1, timestamp: 2, ..Default::default() }]);
    stream.end();
    let (seen, parser, end) = parse(Order::AsWritten, [stream.bytes()]);
    assert_eq!(end, Ok(()));
    assert_eq!((times(&seen), parser.statistics().damaged), (vec![(2, 0)], 0));
}

/// A stream of one block, and how many items of damage and of lost events are handed out of it.
fn notes(name: &str, contents: &[u8]) -> (usize, Vec<u64>, Statistics) {
    let mut stream = Written::new();
    stream.block(name, contents);
    stream.end();
    let (seen, parser, end) = parse(Order::AsWritten, [stream.bytes()]);
    assert_eq!(end, Ok(()));
    let damaged = seen.iter().filter(|seen| matches!(seen, Seen::Damaged(_))).count();
    let lost = |seen: &Seen| if let Seen::Dropped(lost) = seen { Some(lost.count.into()) } else { None };
    (damaged, seen.iter().filter_map(lost).collect(), parser.statistics())
}

#[test]
fn a_block_of_nothing_but_damage() {
    // Each item of such a block takes two bytes, and a note of it a hundred.
    let many = 100_000;
    let blobs = |first: &[u8]| [&[4, 0, 1, 0], first, &vec![0; 2 * many]].concat();
    let (damaged, _, statistics) = notes("MetadataBlock", &blobs(&[]));
    assert_eq!((damaged, statistics.damaged), (1024, many as u64));
    let (damaged, _, statistics) = notes("EventBlock", &blobs(&[0x81, 9, 0, 0]));
    assert_eq!((damaged, statistics.damaged), (1024, many as u64 + 1));

    let threads: u64 = many as u64;
    let mut point = [&[0; 8][..], &(many as u32).to_le_bytes()].concat();
    (0..threads).for_each(|n| point.extend([n.to_le_bytes().as_slice(), &3u32.to_le_bytes()].concat()));
    let (_, lost, statistics) = notes("SPBlock", &point);
    assert_eq!((lost.len(), lost.iter().sum(), statistics.dropped), (1024, 3 * threads, 3 * threads));
}

#[test]
fn descriptions_of_events_without_end() {
    let mut stream = Written::new();
    // A field takes six bytes here, and ten times as much when it is read.
    let fields = vec![("", write::Value::I32(0)); 5000];
    for id in 1..=200 {
        stream.describe(id, "S", id, "E", &fields);
    }
    stream.events(&[WrittenEvent { metadata: 1, sequence: 1, timestamp: 2, ..Default::default() }]);
    stream.end();
    let (seen, parser, end) = parse(Order::AsWritten, [stream.bytes()]);
    assert_eq!(end, Ok(()));
    assert_eq!(times(&seen), [(2, 0)], "what was described first is known");
    let too_large =
        |seen: &&Seen| matches!(seen, Seen::Damaged(Error::Block { what: Damage::TypesTooLarge(_), .. }));
    let refused = seen.iter().filter(too_large).count();
    assert!((50..150).contains(&refused), "{refused} of 200");
    assert_eq!(parser.statistics().damaged, refused as u64);
}

#[test]
fn damage_stays_in_its_block() {
    let mut stream = Written::new();
    stream.describe(1, "S", 1, "E", &[]);
    let event = |metadata, timestamp| WrittenEvent { metadata, sequence: 1, timestamp, ..Default::default() };
    stream.block("EventBlock", &[20, 0, 1, 0]);
    stream.block("EventBlock", &[2, 0, 1, 0]);
    stream.block("MetadataBlock", &[4, 0, 1, 0, 128, 0, 4, 1, 0, 0, 0]);
    stream.block("StackBlock", &[1, 0, 0, 0, 255, 255, 255, 255]);
    stream.events(&[event(9, 1), event(1, 2)]);
    stream.block("EventBlock", &[4, 0, 1, 0, 129, 1, 3, 255, 255, 255, 255, 15]);
    stream.sequence_point(3, &[]);
    stream.block("SPBlock", &[0; 13]);
    stream.end();
    let (seen, parser, end) = parse(Order::AsWritten, [stream.bytes()]);
    assert_eq!(end, Ok(()));
    assert!(parser.is_complete());
    assert_eq!(times(&seen), [(2, 0)]);
    assert_eq!(parser.statistics().damaged, 6, "{seen:#?}");
    let texts: Vec<_> = seen
        .iter()
        .filter_map(|seen| if let Seen::Damaged(error) = seen { Some(error.to_string()) } else { None })
        .collect();
    assert!(texts.iter().any(|text| text.ends_with("event metadata 9 is not in the stream")), "{texts:?}");
    assert!(texts.iter().any(|text| text.ends_with("its header has 2 bytes")), "{texts:?}");
}

#[test]
fn what_is_no_stream() {
    let error = |bytes: &[u8]| parse(Order::AsWritten, [bytes]).2.unwrap_err();
    assert_eq!(error(b"HTTP/1.1"), Error::NotNettrace { found: *b"HTTP/1.1" });
    assert_eq!(error(b"\x14\0\0\0!FastSerialization.1"), Error::NetPerf);
    assert_eq!(error(b"Nettrace\0\0\0\0\x07\0\0\0\0\0\0\0"), Error::UnsupportedVersion { found: 7 });
    assert!(matches!(error(b"Nettrace\x14\0\0\0!FastSerialization.2"), Error::Framing { .. }));
    let mut stream = Written::new().bytes().to_vec();
    let length = stream.len();
    stream.extend(b"\x05\x05\x01\x02\0\0\0\x02\0\0\0\x0a\0\0\0EventBlock\x06\xff\xff\xff\x7f");
    assert!(matches!(error(&stream), Error::TooLarge { size: 0x7fff_ffff, .. }));
    stream.truncate(length);
    stream.push(9);
    assert_eq!(
        error(&stream),
        Error::Framing { offset: length as u64, expected: "the start of an object", found: 9 }
    );
}

#[test]
fn an_error_stays_after_what_was_good() {
    let mut bytes = small_stream().bytes().to_vec();
    let last = bytes.len() - 1;
    bytes[last] = 7;
    let (seen, mut parser, end) = parse(Order::ByTime, [bytes.as_slice()]);
    assert!(end.is_err());
    assert_eq!(times(&seen).len(), 5, "events that waited are not lost");
    parser.push(b"more");
    assert_eq!(parser.read().map(drop).unwrap_err(), end.unwrap_err());
}

#[test]
fn version_6() {
    fn block(kind: u32, contents: &[u8], out: &mut Vec<u8>) {
        out.extend((kind << 24 | u32::try_from(contents.len()).unwrap()).to_le_bytes());
        out.extend(contents);
    }
    fn row(contents: &[u8]) -> Vec<u8> {
        let mut row = u16::try_from(contents.len()).unwrap().to_le_bytes().to_vec();
        row.extend(contents);
        row
    }
    let mut bytes = b"Nettrace\0\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    let mut trace = Vec::new();
    [2026i16, 11, 0, 22, 16, 0, 0, 0].iter().for_each(|part| trace.extend(part.to_le_bytes()));
    [0i64, 1_000].iter().for_each(|part| trace.extend(part.to_le_bytes()));
    [8i32, 1].iter().for_each(|part| trace.extend(part.to_le_bytes()));
    trace.extend(b"\x09ProcessId\x0242");
    block(1, &trace, &mut bytes);
    let mut metadata = row(b"");
    let fields = [b"\x02\0".as_slice(), &row(b"\x01n\x15"), &row(b"\x01t\x17")].concat();
    let optional = row(b"\x01\x02\x08\x05");
    metadata.extend(row(&[b"\x03\x01P\x07\x01E".as_slice(), &fields, &optional].concat()));
    block(3, &metadata, &mut bytes);
    let mut stacks = vec![1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0];
    stacks.extend(0x77u64.to_le_bytes());
    block(5, &stacks, &mut bytes);
    block(6, &row(b"\x01\x03\x85\x01\x01\x04main"), &mut bytes);
    let mut labels = vec![1, 0, 0, 0, 1, 0, 0, 0, 0x81];
    labels.extend([9; 16]);
    block(8, &labels, &mut bytes);
    let mut events = vec![4, 0, 1, 0];
    // 223 = all of: metadata, writer, thread, stack, labels, sorted, size
    events.extend([223, 3, 2, 1, 0, 1, 1, 5, 1, 5]);
    events.extend(b"\x07\x02\0hi");
    block(2, &events, &mut bytes);
    let mut point = 9u64.to_le_bytes().to_vec();
    point.extend([1, 0, 0, 0, 1, 0, 0, 0, 1, 4]);
    block(4, &point, &mut bytes);
    block(99, b"news", &mut bytes);
    block(0, b"", &mut bytes);

    for length in 0..bytes.len() {
        assert!(!parse(Order::AsWritten, [&bytes[..length]]).1.is_complete());
    }
    let (seen, parser, end) = parse(Order::AsWritten, bytes.chunks(1));
    assert_eq!(end, Ok(()));
    assert!(parser.is_complete());
    assert_eq!(parser.trace().map(|trace| (trace.format, trace.process_id)), Some((6, Some(42))));
    let Some(Seen::Event { name, timestamp, thread, stack, payload }) = seen.get(1) else {
        panic!("{seen:?}")
    };
    assert_eq!((name.as_str(), *timestamp, *thread, stack.as_slice()), ("E", 5, 133, [0x77].as_slice()));
    assert!(payload.contains(r#"("n", UInt(7)), ("t", Text("hi"))"#), "{payload}");
    assert_eq!(
        seen[2..],
        [2, 1].map(|count| Seen::Dropped(Dropped { thread: 133, count })),
        "a head and a tail"
    );
    assert_eq!(parser.statistics().damaged, 0);
}

proptest! {
    #[test]
    fn any_pieces_give_the_same(cuts in prop::collection::vec(0usize..2000, 0..40)) {
        let stream = small_stream();
        let bytes = stream.bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % bytes.len()).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces.push(&bytes[from..]);
        for order in [Order::AsWritten, Order::ByTime] {
            prop_assert_eq!(parse(order, pieces.iter().copied()).0, parse(order, [bytes]).0);
        }
    }

    #[test]
    fn changed_bytes_do_no_harm(changes in prop::collection::vec((0usize..2000, any::<u8>()), 1..8)) {
        let mut bytes = small_stream().bytes().to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let (seen, parser, _) = parse(Order::ByTime, [bytes.as_slice()]);
        prop_assert!(seen.len() <= bytes.len());
        prop_assert!(parser.offset() <= bytes.len() as u64);
    }
}

/// Files of dotnet-trace, beside the checkout where they are at hand.
fn real_file(name: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer-output").join(name);
    if !path.is_file() {
        dnd_testkit::skip(format_args!("{name}: ../shared/peer-output is not here"));
        return None;
    }
    let output = Command::new("zstd").args(["-dcq"]).arg(&path).output();
    match output {
        Ok(output) if output.status.success() => Some(output.stdout),
        _ => {
            dnd_testkit::skip(format_args!("{name}: no zstd to unpack it"));
            None
        }
    }
}

#[test]
fn real_files_are_understood_to_the_last_byte() {
    for name in ["cpu.nettrace.zst", "gc.nettrace.zst"] {
        let Some(bytes) = real_file(name) else { continue };
        for order in [Order::AsWritten, Order::ByTime] {
            let mut parser = Parser::new(order);
            let (mut last, mut stacks, mut left_over, mut with_fields) = (0, 0u64, 0u64, 0u64);
            for piece in bytes.chunks(4093) {
                parser.push(piece);
                while let Some(item) = parser.read().unwrap() {
                    if let Item::Event(event) = item {
                        assert!(
                            order == Order::AsWritten || event.timestamp >= last,
                            "{name}: order of time"
                        );
                        last = event.timestamp;
                        stacks += u64::from(!event.stack.is_empty());
                        if !event.kind.fields.is_empty() {
                            with_fields += 1;
                            left_over += event.decode().rest.len() as u64;
                        }
                    } else {
                        assert!(matches!(item, Item::Trace(_)), "{name}: {item:?}");
                    }
                }
            }
            let statistics = parser.statistics();
            assert!(parser.is_complete(), "{name}");
            assert_eq!(parser.offset(), bytes.len() as u64, "{name}");
            assert_eq!(
                (statistics.dropped, statistics.damaged, statistics.unknown_blocks),
                (0, 0, 0),
                "{name}"
            );
            assert_eq!(left_over, 0, "{name}: payload bytes that no field explains");
            assert!(statistics.events > 1000, "{name}: {statistics:?}");
            // All but the closing ProcessInfo are the runtime's own; the snapshot of the heap was taken without stacks.
            assert_eq!((stacks > 0, with_fields), (name.starts_with("cpu"), 1), "{name}");
        }
    }
}
