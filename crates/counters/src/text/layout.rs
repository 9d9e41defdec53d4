//! Columns: fitting text into them, whatever is in it.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::screen::Line;

/// `text` in exactly `width` columns: cut at its end, or padded.
pub(super) fn pad(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(width);
    let mut used = 0;
    let whole = text.width() <= width;
    let room = if whole { width } else { width.saturating_sub(1) };
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if used + columns > room {
            break;
        }
        used += columns;
        out.push(c);
    }
    if !whole && width > 0 {
        out.push('…');
        used += 1;
    }
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
    out
}

/// `text` in at most `width` columns, cut at its front: the end of a key says more.
pub(super) fn cut_front(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let tail = text.char_indices().rev().take_while(|(_, c)| {
        used += c.width().unwrap_or(0);
        used <= width
    });
    let start = tail.last().map_or(text.len(), |(index, _)| index);
    format!("…{}", text.get(start..).unwrap_or_default())
}

/// Takes from the widest column until all fit, but leaves each at least `least`.
pub(super) fn shrink(widths: &mut [usize], room: usize, least: usize) {
    loop {
        let total: usize = widths.iter().sum::<usize>() + widths.len().saturating_sub(1);
        let Some(widest) = widths.iter_mut().max() else { return };
        if total <= room || *widest <= least {
            return;
        }
        *widest -= 1;
    }
}

/// Cuts what goes beyond the screen.
pub(super) fn clip(line: &mut Line, width: usize) {
    let mut left = width;
    for span in &mut line.spans {
        let columns = span.text.width();
        if columns > left {
            span.text = pad(&span.text, left);
        }
        left -= span.text.width().min(left);
    }
}
