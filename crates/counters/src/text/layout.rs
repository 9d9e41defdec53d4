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

/// `text` in exactly `width` columns: cut in its middle, as names differ at their ends, or padded. Its indentation stays.
pub(super) fn pad_middle(text: &str, width: usize) -> String {
    let name = text.trim_start_matches([' ', '>']);
    let indent = text.len() - name.len();
    if text.width() <= width || width <= indent + 3 {
        return pad(text, width);
    }
    let room = width - indent - 1;
    let end = cut_front(name, room.div_ceil(2) + 1);
    let mut out = text.get(..indent).unwrap_or_default().to_owned();
    let mut used = 0;
    for c in name.chars() {
        used += c.width().unwrap_or(0);
        if used > room / 2 {
            break;
        }
        out.push(c);
    }
    out.push_str(&end);
    pad(&out, width)
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

/// `text` in lines of at most `width` columns, broken at blanks where there are any; all but the first are indented.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "    ";
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let used = lines.last().map_or(0, |line| line.width());
        let fresh = used == 0 || lines.last().is_some_and(|line| line == INDENT);
        if !fresh && used + 1 + word.width() > width {
            lines.push(INDENT.to_owned());
        } else if used > 0 && !fresh {
            lines.iter_mut().last().into_iter().for_each(|line| line.push(' '));
        }
        for c in word.chars() {
            let used = lines.last().map_or(0, |line| line.width());
            if used + c.width().unwrap_or(0) > width && used > INDENT.len() {
                lines.push(INDENT.to_owned());
            }
            lines.iter_mut().last().into_iter().for_each(|line| line.push(c));
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_broken_at_blanks() {
        assert_eq!(wrap("Warning: it is late.", 80), ["Warning: it is late."]);
        assert_eq!(wrap("Warning: it is late.", 12), ["Warning: it", "    is late."]);
        assert_eq!(wrap("a /very/long/path b", 10), ["a", "    /very/", "    long/p", "    ath b"]);
        assert_eq!(wrap("", 10), [""]);
        for width in 0..9 {
            assert!(wrap("日本 語の名前 が長い", width).len() < 20);
        }
    }

    #[test]
    fn names_are_cut_in_their_middle() {
        assert_eq!(pad_middle("    dotnet.gc.heap.total_allocated (By)", 24), "    dotnet.gc…cated (By)");
        assert_eq!(pad_middle(">   dotnet.gc.heap", 24), ">   dotnet.gc.heap      ");
        assert_eq!(pad_middle("    日本語の名前が長い", 14), "    日本…長い ");
        for width in 0..40 {
            assert_eq!(pad_middle("    dotnet.gc.heap.total_allocated (By)", width).width(), width);
        }
    }
}
