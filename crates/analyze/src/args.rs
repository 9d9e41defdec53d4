//! The words of a command line such as `dumpheap -stat -mt 7f0c14011bb0`, as dotnet-dump takes them.
//!
//! A long option starts with one dash or two; its value follows as the next word or after `=` or `:`. Names are
//! compared without regard to case. Addresses are hexadecimal, sizes and counts decimal (or `0x…`). Quotes keep a
//! type name with blanks together.

use dnd_contract::Addr;

use crate::error::Error;

/// What follows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// One word, shown under this name in the help.
    Word(&'static str),
}

/// One option of a command.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// The name without dashes; the first is the one the help shows.
    pub names: &'static [&'static str],
    /// What follows it.
    pub value: Value,
    /// One line of help.
    pub help: &'static str,
}

impl Opt {
    /// An option without a value.
    #[must_use]
    pub const fn flag(names: &'static [&'static str], help: &'static str) -> Self {
        Opt { names, value: Value::None, help }
    }

    /// An option with a value.
    #[must_use]
    pub const fn word(names: &'static [&'static str], what: &'static str, help: &'static str) -> Self {
        Opt { names, value: Value::Word(what), help }
    }
}

/// The words of one command after its name, sorted into options and operands.
#[derive(Debug, Default, Clone)]
pub struct Args {
    command: String,
    options: Vec<(&'static str, String)>,
    operands: Vec<String>,
}

/// Splits a line into words. Double or single quotes group, and are removed.
///
/// # Errors
/// [`Error::Usage`] for a quote that is never closed.
pub fn words(line: &str) -> Result<Vec<String>, Error> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => out.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    if let Some(q) = quote {
        return Err(Error::Usage(format!("the quote {q} is never closed")));
    }
    out.extend(word);
    Ok(out)
}

/// Splits `line` at the first `|` outside quotes: the command, and what its output is piped to.
#[must_use]
pub fn split_pipe(line: &str) -> (&str, Option<&str>) {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '|' => {
                let (head, tail) = line.split_at(at);
                return (head.trim(), Some(tail.trim_start_matches('|').trim()));
            }
            None => {}
        }
    }
    (line.trim(), None)
}

impl Args {
    /// Sorts `words` (without the command's name) by the command's `options`.
    ///
    /// # Errors
    /// [`Error::Arguments`] for an unknown option, a missing value, or more than `max_operands` other words.
    pub fn parse(
        command: &str,
        words: impl IntoIterator<Item = String>,
        options: &'static [Opt],
        max_operands: usize,
    ) -> Result<Self, Error> {
        let mut args = Args { command: command.to_owned(), ..Args::default() };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(name) = option_name(&word) else {
                if args.operands.len() == max_operands {
                    return Err(args.usage(match max_operands {
                        0 => format!("takes no argument, but got `{word}`"),
                        1 => format!("takes only one argument; `{word}` is one more"),
                        _ => format!("takes at most {max_operands} arguments; `{word}` is one more"),
                    }));
                }
                args.operands.push(word);
                continue;
            };
            let (name, inline) = match name.split_once(['=', ':']) {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let found = options.iter().find(|o| o.names.iter().any(|n| n.eq_ignore_ascii_case(name)));
            let Some(opt) = found else {
                let known = options.iter().flat_map(|o| o.names.iter().copied());
                let like = crate::similar::similar(name, known).map(|n| format!("; did you mean -{n}?"));
                return Err(args.usage(format!("has no option -{name}{}", like.unwrap_or_default())));
            };
            let key = opt.names.first().copied().unwrap_or_default();
            let value = match (opt.value, inline) {
                (Value::None, None) => String::new(),
                (Value::None, Some(_)) => return Err(args.usage(format!("-{name} takes no value"))),
                (Value::Word(_), Some(value)) => value,
                (Value::Word(what), None) => words
                    .next()
                    .ok_or_else(|| args.usage(format!("-{name} needs a value: -{name} <{what}>")))?,
            };
            args.options.push((key, value));
        }
        Ok(args)
    }

    /// A usage error that names the command.
    pub(crate) fn usage(&self, text: impl std::fmt::Display) -> Error {
        Error::Arguments { command: self.command.clone(), text: text.to_string() }
    }

    /// Whether an option was given.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.options.iter().any(|(n, _)| *n == name)
    }

    /// The value of an option; the last one wins.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// An option's value as an address.
    ///
    /// # Errors
    /// [`Error::Arguments`] when it is not hexadecimal.
    pub fn addr(&self, name: &str) -> Result<Option<u64>, Error> {
        self.word(name).map(|text| self.hex(&format!("-{name}"), text)).transpose()
    }

    /// An option's value as a decimal (or `0x…`) number.
    ///
    /// # Errors
    /// [`Error::Arguments`] when it is none.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(text) = self.word(name) else { return Ok(None) };
        let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let value = match hex {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.replace([',', '_'], "").parse().ok(),
        };
        value
            .map(Some)
            .ok_or_else(|| self.usage(format!("-{name} wants a number (decimal, or 0x…), not `{text}`")))
    }

    /// All operands.
    #[must_use]
    pub fn operands(&self) -> &[String] {
        &self.operands
    }

    /// Operand `index` as an address, if it was given.
    ///
    /// # Errors
    /// [`Error::Arguments`] when it is not hexadecimal.
    pub fn operand_addr(&self, index: usize, what: &str) -> Result<Option<u64>, Error> {
        self.operands.get(index).map(|text| self.hex(what, text)).transpose()
    }

    /// Operand `index` as an address.
    ///
    /// # Errors
    /// [`Error::Arguments`] when it is missing or not hexadecimal.
    pub fn required_addr(&self, index: usize, what: &str) -> Result<u64, Error> {
        self.operand_addr(index, what)?.ok_or_else(|| self.usage(format!("needs {what}")))
    }

    /// `[START [END | L<length>]]` as a half-open range.
    ///
    /// # Errors
    /// [`Error::Arguments`] for what is not hexadecimal, or an end before the start.
    pub fn range(&self) -> Result<Option<(u64, u64)>, Error> {
        let Some(start) = self.operand_addr(0, "the start of the range")? else { return Ok(None) };
        let end = match self.operands.get(1) {
            None => u64::MAX,
            Some(text) => match text.strip_prefix(['L', 'l']) {
                Some(len) => start.saturating_add(self.hex("the length of the range", len)?),
                None => self.hex("the end of the range", text)?,
            },
        };
        if end < start {
            return Err(self.usage(format!("got a range that ends ({end:x}) before it starts ({start:x})")));
        }
        Ok(Some((start, end)))
    }

    fn hex(&self, what: &str, text: &str) -> Result<u64, Error> {
        let addr: Result<Addr, _> = text.parse();
        addr.map(|a| a.0).map_err(|_| self.usage(format!("wants {what} in hexadecimal, not `{text}`")))
    }
}

/// The option's name when `word` is one: dashes, then a letter or `?`.
fn option_name(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '?').then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTS: &[Opt] = &[
        Opt::flag(&["stat", "summary"], ""),
        Opt::word(&["mt"], "mt", ""),
        Opt::word(&["min"], "bytes", ""),
        Opt::word(&["type"], "text", ""),
    ];

    fn parse(line: &str) -> Result<Args, Error> {
        Args::parse("dumpheap", words(line)?, OPTS, 2)
    }

    #[test]
    fn one_dash_two_dashes_any_case() {
        for line in ["-stat -mt 7f0c14011bb0", "--stat --MT 0x7f0c14011bb0", "-Summary -mt=00007f0c`14011bb0"]
        {
            let args = parse(line).expect(line);
            assert!(args.flag("stat"), "{line}");
            assert_eq!(args.addr("mt").expect(line), Some(0x7f0c_1401_1bb0), "{line}");
        }
    }

    #[test]
    fn numbers_are_decimal() {
        let args = parse("-min 1000").expect("parses");
        assert_eq!(args.number("min").expect("number"), Some(1000));
        assert_eq!(parse("-min 0x10").expect("parses").number("min").expect("number"), Some(16));
        assert_eq!(parse("-min 1,000").expect("parses").number("min").expect("number"), Some(1000));
        assert!(parse("-min ten").expect("parses").number("min").is_err());
        assert!(parse("-min -5").expect("parses").number("min").is_err());
    }

    #[test]
    fn ranges() {
        assert_eq!(parse("1000 2000").expect("parses").range().expect("range"), Some((0x1000, 0x2000)));
        assert_eq!(parse("1000 L20").expect("parses").range().expect("range"), Some((0x1000, 0x1020)));
        assert_eq!(parse("1000").expect("parses").range().expect("range"), Some((0x1000, u64::MAX)));
        assert!(parse("2000 1000").expect("parses").range().is_err());
        assert!(parse("1 2 3").is_err());
    }

    #[test]
    fn quotes_group_and_must_close() {
        let args = parse("-type \"Dictionary<System.String, System.Int32>\"").expect("parses");
        assert_eq!(args.word("type"), Some("Dictionary<System.String, System.Int32>"));
        assert!(words("-type \"a").is_err());
        assert_eq!(words(" a  '' b ").expect("words"), ["a", "", "b"]);
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let text = |line: &str| parse(line).expect_err(line).to_string();
        assert_eq!(text("-sta"), "dumpheap has no option -sta; did you mean -stat?");
        assert_eq!(text("-xyzzy"), "dumpheap has no option -xyzzy");
        assert_eq!(text("-mt"), "dumpheap -mt needs a value: -mt <mt>");
        assert_eq!(text("-stat=1"), "dumpheap -stat takes no value");
        assert!(parse("-mt xyz").expect("parses").addr("mt").is_err());
    }

    #[test]
    fn pipes_split_outside_quotes() {
        assert_eq!(split_pipe("dumpheap -stat | head -3 | cat"), ("dumpheap -stat", Some("head -3 | cat")));
        assert_eq!(split_pipe("dumpheap -type 'a|b'"), ("dumpheap -type 'a|b'", None));
        assert_eq!(split_pipe("dumpheap |"), ("dumpheap", Some("")));
    }
}
