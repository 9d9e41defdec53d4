//! Completion at the prompt.

use crate::commands::{GENERATIONS, HANDLE_TYPES};
use crate::table::{COMMANDS, Command};

/// Candidates shown at most; more help nobody.
const MOST: usize = 500;

/// Completes the last word of `line`. `types` is only asked where a type name can stand: it walks the heap.
pub(crate) fn complete<'t>(line: &str, types: impl FnOnce() -> &'t Vec<String>) -> (usize, Vec<String>) {
    let start = line.rfind(|c: char| c.is_whitespace()).map_or(0, |at| at + 1);
    let word = line.get(start..).unwrap_or_default();
    let before: Vec<&str> = line.get(..start).unwrap_or_default().split_whitespace().collect();
    let starting = |candidates: &mut dyn Iterator<Item = String>| {
        let lower = word.to_lowercase();
        candidates.filter(|c| c.to_lowercase().starts_with(&lower)).take(MOST).collect::<Vec<_>>()
    };
    let found = match before.as_slice() {
        [] => starting(&mut COMMANDS.iter().map(|c| c.name().to_owned())),
        ["help" | "soshelp"] => starting(&mut COMMANDS.iter().map(|c| c.name().to_owned())),
        [name, rest @ ..] => match (command(name), rest.last().copied()) {
            (None, _) => Vec::new(),
            (Some(command), _) if word.starts_with('-') => {
                starting(&mut command.options.iter().filter_map(|o| Some(format!("-{}", o.names.first()?))))
            }
            (Some(command), Some("-type" | "--type")) if command.name() == "gchandles" => {
                starting(&mut HANDLE_TYPES.iter().map(|t| (*t).to_owned()))
            }
            (Some(_), Some("-gen" | "--gen")) => starting(&mut GENERATIONS.iter().map(|g| (*g).to_owned())),
            (Some(_), Some("-type" | "--type")) => {
                // A type name is looked for anywhere in the name, so it completes by its last part as well.
                let names = types();
                let mut found: Vec<String> = names.iter().filter(|n| n.starts_with(word)).cloned().collect();
                if found.is_empty() && !word.is_empty() {
                    found = names.iter().filter(|n| n.contains(word)).cloned().collect();
                }
                found.truncate(MOST);
                found.into_iter().map(quoted).collect()
            }
            _ => Vec::new(),
        },
    };
    (start, found)
}

fn command(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|c| c.names.iter().any(|n| n.eq_ignore_ascii_case(name))).copied()
}

fn quoted(name: String) -> String {
    if name.contains([' ', '|', '\'']) { format!("\"{name}\"") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> (usize, Vec<String>) {
        let types = vec!["Demo.Node".to_owned(), "System.Collections.Generic.Dictionary<A, B>".to_owned()];
        complete(line, || &types)
    }

    #[test]
    fn commands_options_generations_and_types() {
        assert_eq!(found("dumphe"), (0, vec!["dumpheap".to_owned()]));
        assert_eq!(found("help gcr"), (5, vec!["gcroot".to_owned()]));
        assert_eq!(found("dumpheap -sta"), (9, vec!["-stat".to_owned()]));
        assert_eq!(found("dumpheap -gen lo"), (14, vec!["loh".to_owned()]));
        assert_eq!(found("gchandles -type pi"), (16, vec!["Pinned".to_owned()]));
        assert_eq!(found("dumpheap -type Demo"), (15, vec!["Demo.Node".to_owned()]));
        assert_eq!(
            found("dumpheap -type Dictionary"),
            (15, vec!["\"System.Collections.Generic.Dictionary<A, B>\"".to_owned()])
        );
        assert_eq!(found("nosuch -"), (7, vec![]));
    }
}
