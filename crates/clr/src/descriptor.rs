//! The runtime's description of itself: `DotNetRuntimeContractDescriptor`.
//!
//! Source: `docs/design/datacontracts/contract-descriptor.md` and `data_descriptor.md` of dotnet/runtime. The exported
//! structure holds a magic number, a compact JSON text with the offsets of the fields of its types, and an array of
//! addresses that the text's globals refer to. Exported by 9.0 and 10.0; its JSON page is in full dumps and in the
//! runtime's file only.

use std::collections::BTreeMap;

use dnd_memory::{ElfImage, Memory, Target};
use serde::Serialize;
use serde_json::Value;

/// The symbol.
const NAME: &str = "DotNetRuntimeContractDescriptor";
const MAGIC: &[u8; 8] = b"DNCCDAC\0";
/// Flag that is always set, and the flag of 32-bit pointers.
const FLAG_VALID: u32 = 1;
const FLAG_32_BIT: u32 = 2;
/// The largest known text has 12 kB.
const MAX_JSON: u32 = 1 << 20;
const MAX_POINTERS: u32 = 1 << 12;

/// Where a descriptor was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DescriptorSource {
    /// In the target's memory.
    Memory,
    /// In the runtime's file on this machine, which has the same build-id.
    File,
}

/// A runtime's descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Where it was read.
    pub source: DescriptorSource,
    /// Offsets of fields by type; the field `!` is the type's size.
    pub types: BTreeMap<String, BTreeMap<String, u64>>,
    /// Global values.
    pub values: BTreeMap<String, u64>,
    /// Addresses of global variables.
    pub addresses: BTreeMap<String, u64>,
    /// Versions of the algorithms that its types belong to.
    pub contracts: BTreeMap<String, u64>,
}

impl Descriptor {
    /// Offset of a field.
    #[must_use]
    pub fn field(&self, kind: &str, field: &str) -> Option<u64> {
        self.types.get(kind)?.get(field).copied()
    }
}

/// Looks for the descriptor of the runtime in `elf`: in memory, then in its file. `Ok(None)` when there is none, or
/// its pages aren't at hand.
///
/// # Errors
/// Why one that is there can't be used.
pub(crate) fn find(target: &dyn Target, elf: &ElfImage) -> Result<Option<Descriptor>, String> {
    if let Some(found) = find_in(target, target, elf, DescriptorSource::Memory)? {
        return Ok(Some(found));
    }
    match target.file_image(elf.base()) {
        Some(file) => find_in(file, file, elf, DescriptorSource::File),
        None => Ok(None),
    }
}

fn find_in(
    symbols: &dyn Memory,
    memory: &dyn Memory,
    elf: &ElfImage,
    source: DescriptorSource,
) -> Result<Option<Descriptor>, String> {
    let Some(symbol) = elf.symbol(symbols, NAME).ok().flatten() else { return Ok(None) };
    let mut header = [0; 40];
    if memory.read(symbol.address, &mut header).is_err() {
        return Ok(None);
    }
    let half =
        |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let word =
        |at: usize| header.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    if !header.starts_with(MAGIC) {
        return Err(format!("what {NAME} names does not begin as a descriptor does"));
    }
    let (flags, size, json, count, pointers) = (half(8), half(12), word(16), half(24), word(32));
    if flags & FLAG_VALID == 0 || flags & FLAG_32_BIT != 0 {
        return Err(format!("its flags {flags:#x} are not those of a 64-bit runtime"));
    }
    if size > MAX_JSON || count > MAX_POINTERS {
        return Err(format!("its sizes are impossible: {size} bytes of JSON, {count} pointers"));
    }
    let mut text = vec![0; size as usize];
    if memory.read(json, &mut text).is_err() {
        return Ok(None);
    }
    let mut addresses = Vec::new();
    for i in 0..u64::from(count) {
        match memory.u64(pointers.wrapping_add(8 * i)) {
            Ok(address) => addresses.push(address),
            Err(_) => return Ok(None),
        }
    }
    // A C string: its NUL may be counted.
    let text = text.strip_suffix(b"\0").unwrap_or(&text);
    parse(text, &addresses, source).map(Some)
}

/// Reads the text; `pointers` is what its globals refer to.
fn parse(text: &[u8], pointers: &[u64], source: DescriptorSource) -> Result<Descriptor, String> {
    let document: Value = serde_json::from_slice(text).map_err(|e| format!("its JSON can't be read: {e}"))?;
    let map = |name: &str| document.get(name).and_then(Value::as_object);
    if document.get("version").and_then(Value::as_u64) != Some(0) {
        return Err(format!(
            "its version is {}, only 0 is known",
            document.get("version").unwrap_or(&Value::Null)
        ));
    }
    // Another baseline would leave out what a document that we don't have says.
    match document.get("baseline").and_then(Value::as_str) {
        None | Some("empty") => {}
        Some(other) => return Err(format!("it builds on the baseline `{other}`, which is unknown")),
    }
    let mut out = Descriptor {
        source,
        types: BTreeMap::new(),
        values: BTreeMap::new(),
        addresses: BTreeMap::new(),
        contracts: BTreeMap::new(),
    };
    for (name, fields) in map("types").ok_or("it has no types")? {
        let fields = fields.as_object().ok_or_else(|| format!("its type {name} has no fields"))?;
        let mut offsets = BTreeMap::new();
        for (field, value) in fields {
            // A field is its offset, or its offset and the name of its type.
            let offset = match value {
                Value::Array(parts) => parts.first().and_then(number),
                value => number(value),
            };
            let offset = offset.ok_or_else(|| format!("{name}.{field} has no offset"))?;
            offsets.insert(field.clone(), offset);
        }
        out.types.insert(name.clone(), offsets);
    }
    for (name, value) in map("globals").ok_or("it has no globals")? {
        // A global is its value, or its value and the name of its type; a value in brackets is an index of a pointer.
        let value = match value {
            Value::Array(parts) if parts.len() == 2 => parts.first().unwrap_or(value),
            value => value,
        };
        match value {
            Value::Array(parts) => {
                let index = parts.first().and_then(number).and_then(|i| usize::try_from(i).ok());
                let address = index.and_then(|i| pointers.get(i)).filter(|_| parts.len() == 1);
                let address = address.ok_or_else(|| format!("its global {name} has no address"))?;
                out.addresses.insert(name.clone(), *address);
            }
            // Texts are of no interest.
            value => out.values.extend(number(value).map(|value| (name.clone(), value))),
        }
    }
    for (name, version) in map("contracts").into_iter().flatten() {
        out.contracts.extend(number(version).map(|version| (name.clone(), version)));
    }
    Ok(out)
}

/// A number, plain or as the text of a decimal or hexadecimal one.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Descriptor, String> {
        parse(text.as_bytes(), &[0, 0x1000, 0x2000], DescriptorSource::Memory)
    }

    #[test]
    fn the_compact_form_is_read() {
        let found = read(
            r#"{"version":0,"baseline":"empty","contracts":{"Thread":1},
                "types":{"Thread":{"Id":16,"LinkNext":[112,"pointer"]},"GCHandle":{"!":8}},
                "globals":{"AppDomain":[[1],"pointer"],"ThreadStore":[2],"GCInfoVersion":["0x4","uint32"],
                           "Mask":"0x7","Plain":5,"RID":["linux-x64","string"]}}"#,
        )
        .unwrap();
        assert_eq!(found.field("Thread", "LinkNext"), Some(112));
        assert_eq!((found.field("GCHandle", "!"), found.field("Thread", "Name")), (Some(8), None));
        assert_eq!(
            found.addresses,
            BTreeMap::from([("AppDomain".to_owned(), 0x1000), ("ThreadStore".to_owned(), 0x2000)])
        );
        assert_eq!(found.values["GCInfoVersion"], 4);
        assert_eq!((found.values["Mask"], found.values["Plain"], found.values.len()), (7, 5, 3));
        assert_eq!(found.contracts["Thread"], 1);
    }

    #[test]
    fn what_is_no_descriptor_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "JSON"),
            ("[]", "version is null"),
            (r#"{"version":1}"#, "version is 1"),
            (r#"{"version":0,"baseline":"net12"}"#, "`net12`"),
            (r#"{"version":0}"#, "no types"),
            (r#"{"version":0,"types":{"T":1}}"#, "T has no fields"),
            (r#"{"version":0,"types":{"T":{"F":null}}}"#, "T.F has no offset"),
            (r#"{"version":0,"types":{"T":{"F":-1}}}"#, "T.F has no offset"),
            (r#"{"version":0,"types":{}}"#, "no globals"),
            (r#"{"version":0,"types":{},"globals":{"G":[[3],"pointer"]}}"#, "G has no address"),
        ] {
            let reason = read(text).unwrap_err();
            assert!(reason.contains(why), "{text}: {reason}");
        }
        let deep = format!(r#"{{"version":0,"types":{}"#, "[".repeat(100_000));
        assert!(read(&deep).is_err());
    }
}
