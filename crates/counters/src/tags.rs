//! The tags of a time series.
//!
//! A runtime sends them as one text, `key=value,key=value`, and escapes nothing: a value with a comma looks like two
//! tags. But it sorts them by key, so a comma can only begin a new tag if what follows is a key that sorts behind the
//! one before. That decides nearly all cases; [`Tags::text`] has what was sent.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// Keys and values, and the text they were read from. In JSON an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tags {
    text: String,
    pairs: Vec<(String, String)>,
}

impl Tags {
    /// Takes the text apart.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in text.split(',') {
            let split = part.split_once('=');
            match (pairs.last_mut(), split) {
                // .NET sorts by UTF-16 code units; that differs from the order here only beyond the basic plane.
                (Some((before, value)), Some((key, _))) if key <= before.as_str() => {
                    value.push(',');
                    value.push_str(part);
                }
                (_, Some((key, value))) => pairs.push((key.to_owned(), value.to_owned())),
                (Some((_, value)), None) => {
                    value.push(',');
                    value.push_str(part);
                }
                (None, None) if part.is_empty() => {}
                (None, None) => pairs.push((part.to_owned(), String::new())),
            }
        }
        Self { text: text.to_owned(), pairs }
    }

    /// The text as the runtime sent it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Keys and values, sorted by key.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Tags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.pairs.len()))?;
        for (key, value) in &self.pairs {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_anything() {
        let pairs = |text| -> Vec<(String, String)> { Tags::parse(text).pairs };
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("color=red,size=s"), own(&[("color", "red"), ("size", "s")]));
        assert_eq!(pairs("room=a,b=c"), own(&[("room", "a,b=c")]));
        assert_eq!(pairs("room=\"q\"\n"), own(&[("room", "\"q\"\n")]));
        assert_eq!(pairs("q=a,b;c=d\"e"), own(&[("q", "a,b;c=d\"e")]));
        assert_eq!(pairs("q=a, b,r="), own(&[("q", "a, b"), ("r", "")]));
        assert_eq!(pairs("a=1=2,b=3"), own(&[("a", "1=2"), ("b", "3")]));
        assert_eq!(pairs("nothing"), own(&[("nothing", "")]));
    }

    #[test]
    fn json_is_an_object() {
        let json = serde_json::to_string(&Tags::parse("a=1,b=\"\n")).unwrap();
        assert_eq!(json, r#"{"a":"1","b":"\"\n"}"#);
    }
}
