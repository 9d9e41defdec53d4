//! Methods as merged stacks and lists of work show them: `Type.Method(Int32, Span<Int32>)`.

use dnd_clr::Runtime;
use rustc_hash::FxHashMap;

use crate::inspect::{display_name, runtime_name};

/// Short names of methods, each made once.
#[derive(Debug, Default)]
pub(super) struct MethodTexts {
    known: FxHashMap<u64, String>,
}

impl MethodTexts {
    /// Name of the method with the description at `method`.
    pub(super) fn get(&mut self, runtime: &Runtime<'_>, method: u64) -> &str {
        self.known.entry(method).or_insert_with(|| short_name(runtime, method))
    }
}

/// `Modern.Program.Spin(Int32 ByRef, Span<Int32>)`: the type as `dumpheap` writes it, parameters without namespaces, no
/// arguments of a generic method.
pub(super) fn short_name(runtime: &Runtime<'_>, method: u64) -> String {
    let full = runtime.method_name(method);
    let Ok(description) = runtime.method(method) else { return full };
    let declared = runtime_name(runtime, description.table);
    match full.strip_prefix(&declared).and_then(|rest| rest.strip_prefix('.')) {
        Some(rest) => shorten(&display_name(runtime, description.table), rest),
        // A dynamic method, which is named after no type.
        None => full,
    }
}

fn shorten(type_name: &str, rest: &str) -> String {
    let name = rest.split('(').next().unwrap_or(rest);
    let name = name.split("[[").next().unwrap_or(name);
    // Arguments of the method may hold parentheses only in the names of odd types.
    let parameters = match rest.find("]](") {
        Some(at) if name.len() < rest.find('(').unwrap_or(0) => rest.get(at + 2..),
        _ => rest.get(name.len()..),
    };
    let mut out = format!("{type_name}.{name}");
    short_types(&mut out, parameters.unwrap_or_default());
    out
}

/// Writes type names without namespaces and without the number of their parameters.
fn short_types(out: &mut String, text: &str) {
    let is_name = |c: char| !matches!(c, '<' | '>' | ',' | '(' | ')' | '[' | ']' | '*' | '&' | ' ');
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_name(c) != is_name(first)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if is_name(first) {
            let word = word.rsplit('.').next().unwrap_or(word);
            out.push_str(word.split('`').next().unwrap_or(word));
        } else {
            out.push_str(word);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_cut_to_their_names() {
        let cases = [
            ("Spin(Int32 ByRef, System.Span`1<Int32>)", "T.Spin(Int32 ByRef, Span<Int32>)"),
            (
                "G[[System.__Canon, System.Private.CoreLib]](System.__Canon, M.Holder`1<System.__Canon>)",
                "T.G(__Canon, Holder<__Canon>)",
            ),
            ("G[[L`1[[A.B, C]], D]](A.B[])", "T.G(B[])"),
            ("<Main>b__18_5()", "T.<Main>b__18_5()"),
            (".ctor(A.B*)", "T..ctor(B*)"),
            ("<method 6000001>", "T.<method 6000001>"),
        ];
        for (rest, expected) in cases {
            assert_eq!(shorten("T", rest), expected);
        }
    }
}
