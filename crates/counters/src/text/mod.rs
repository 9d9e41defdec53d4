//! How counters look as text.

mod lines;
mod number;
mod screen;

pub use lines::{label, line, notice};
pub use number::{abbreviated, number};
pub use screen::{Line, Span, Status, Style, View, render};
