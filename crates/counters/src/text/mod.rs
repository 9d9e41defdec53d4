//! How counters look as text.

mod chart;
mod head;
mod layout;
mod lines;
mod number;
mod processes;
mod rows;
mod screen;
mod table;

pub use lines::{label, line, notice};
pub use number::{abbreviated, number};
pub use processes::{Process, processes};
pub use rows::{CSV_HEADER, PeerEvent, PeerRow, peer_rows};
pub use screen::{Drawn, Line, Sort, Span, Status, Style, View, render};
