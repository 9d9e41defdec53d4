//! Text that comes from a target and goes to a terminal.

use std::borrow::Cow;

fn harmless(c: char) -> bool {
    // Besides control characters: marks that reorder the text around them (Unicode TR 36), and separators that
    // some terminals take for a new line.
    !(c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'))
}

/// Returns `text` with everything that could steer a terminal written as `\n`, `\t`, `\x1b` or `\u{202e}`.
///
/// Printable text, also outside ASCII, stays as it is. The backslash itself is left alone: type names may hold it,
/// and the result is for eyes, not for parsing (that is what JSON is for).
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    escape_into(text, &mut out);
    Cow::Owned(out)
}

/// Appends [`escape`]d `text` to `out`.
pub fn escape_into(text: &str, out: &mut String) {
    use std::fmt::Write;
    for c in text.chars() {
        // Writing to a String can't fail.
        let _ = match c {
            c if harmless(c) => {
                out.push(c);
                Ok(())
            }
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            c if (c as u32) < 0x100 => write!(out, "\\x{:02x}", c as u32),
            c => write!(out, "\\u{{{:x}}}", c as u32),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_text_and_tames_controls() {
        assert!(matches!(escape("List<Müller, 日本>"), Cow::Borrowed(_)));
        assert_eq!(escape("a\x1b[2Jb\n\t\u{202e}\u{9b}"), "a\\x1b[2Jb\\n\\t\\u{202e}\\x9b");
    }
}
