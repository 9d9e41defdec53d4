//! A chart of a series' recent past, in braille dots: two columns and four rows to a character.

use super::number::abbreviated;
use super::screen::{Line, Style};
use unicode_width::UnicodeWidthStr;

/// The dots of a braille character, by column and row.
const DOTS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
const BLANK: u32 = 0x2800;

/// Draws `values`, the newest at the right edge, in `height` lines of at most `width` columns. The first line is the
/// title; the scale is at the left, in whole numbers if wanted.
pub(super) fn chart(title: &str, values: &[f64], whole: bool, width: usize, height: usize) -> Vec<Line> {
    let mut lines = vec![Line::new(Style::Bold, title)];
    let rows = height.saturating_sub(1);
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if rows == 0 || !low.is_finite() {
        return lines;
    }
    // A constant is drawn in the middle.
    let (low, high) = if high > low { (low, high) } else { (low - 1.0, high + 1.0) };
    let labels = [abbreviated(high, whole), abbreviated(low, whole)];
    let margin = labels.iter().map(|label| label.width()).max().unwrap_or(0) + 1;
    let columns = width.saturating_sub(margin);
    let mut cells = vec![vec![BLANK; columns]; rows];
    let shown = values.iter().rev().take(columns * 2);
    for (from_right, &value) in shown.enumerate() {
        if !value.is_finite() {
            continue;
        }
        let x = columns * 2 - 1 - from_right;
        let steps = rows * 4 - 1;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "0 to the number of dots"
        )]
        let up = (((value - low) / (high - low)) * steps as f64).round() as usize;
        let y = steps - up.min(steps);
        if let Some(cell) = cells.get_mut(y / 4).and_then(|row| row.get_mut(x / 2))
            && let Some(dot) = DOTS.get(x % 2).and_then(|column| column.get(y % 4))
        {
            *cell |= dot;
        }
    }
    for (row, cells) in cells.iter().enumerate() {
        let label = match row {
            0 => labels[0].as_str(),
            row if row + 1 == rows => labels[1].as_str(),
            _ => "",
        };
        let mut line = Line::new(Style::Dim, format!("{label:>margin$}", margin = margin - 1) + " ");
        line.push(
            Style::Plain,
            cells.iter().map(|&cell| char::from_u32(cell).unwrap_or(' ')).collect::<String>(),
        );
        lines.push(line);
    }
    lines
}

/// The last `width` values as bars in a single line, the newest at the right edge; a constant is a flat line.
pub(super) fn trend(values: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = values.get(values.len().saturating_sub(width)..).unwrap_or_default();
    let finite = shown.iter().copied().filter(|value| value.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let mut text = " ".repeat(width.saturating_sub(shown.len()));
    for &value in shown {
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "0 to 7")]
        let bar = BARS.get((share * 7.0).round() as usize).copied().unwrap_or(' ');
        text.push(if value.is_finite() { bar } else { ' ' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(values: &[f64], width: usize, height: usize) -> Vec<String> {
        chart("t", values, false, width, height).iter().map(Line::text).collect()
    }

    #[test]
    fn a_rise() {
        assert_eq!(text(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 6, 3), ["t", "7 ⠀⠀⡠⠊", "0 ⡠⠊⠀⠀"]);
    }

    #[test]
    fn trends() {
        assert_eq!(trend(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 10), "  ▁▂▃▄▅▆▇█");
        assert_eq!(trend(&[9.0, 1.0, f64::NAN, 2.0], 3), "▁ █");
        assert_eq!((trend(&[], 3), trend(&[5.0, 5.0], 3)), ("   ".to_owned(), " ▁▁".to_owned()));
        assert_eq!(trend(&[f64::MIN, f64::MAX], 2).chars().count(), 2);
    }

    #[test]
    fn what_has_no_scale() {
        assert_eq!(text(&[], 20, 5), ["t"]);
        assert_eq!(text(&[f64::NAN], 20, 5), ["t"]);
        assert_eq!(text(&[5.0, 5.0], 4, 2), ["t", "6 ⠀⠒"]);
        assert_eq!(text(&[1.0, 2.0], 1, 2).len(), 2);
    }
}
