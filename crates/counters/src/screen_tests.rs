//! Screens of boards that have everything on them.

use std::time::{Duration, Instant};

use dnd_testkit::nettrace::Value as Written;

use crate::tests::Bench;
use crate::text::{self, Sort, Status, View};
use crate::*;

/// A board with everything that makes a screen difficult.
fn difficult_board(now: Instant) -> Board {
    let mut bench = Bench::new("Shop.Meter,Shop-Events", 1.0);
    let mut board = Board::new(Duration::from_secs(1), now - Duration::from_secs(1)).with_history();
    let text = Written::Text;
    let mut updates = Vec::new();
    for (tags, value) in
        [("room=\"q\"\n", "19"), ("room=a,b=c", "21.5"), ("room=\x1b[2J", "1"), ("room=日本", "2")]
    {
        updates.extend(bench.metric(
            "GaugeValuePublished",
            ("Shop.Meter", "temp"),
            &[("tags", text(tags)), ("lastValue", text(value))],
        ));
    }
    for (tags, rate, value) in [("color=blue,size=ü", "10", "20"), ("color=red,size=s", "20", "1234567")] {
        let fields = [("tags", text(tags)), ("rate", text(rate)), ("value", text(value))];
        updates.extend(bench.metric("CounterRateValuePublished", ("Shop.Meter", "orders"), &fields));
    }
    let key = "a.rather.long.key.of.a.tag.that.says.more.at.its.end=some value that is as long as its key is";
    let fields = [("tags", text(key)), ("quantiles", text("0.5=6.2421875;0.95=6.508;0.99=9421875000"))];
    updates.extend(bench.metric("HistogramValuePublished", ("Shop.Meter", "latency"), &fields));
    updates.extend(bench.counter("Shop-Events", "stock", 42.0, false, 1.0, "Interval=1000"));
    updates.extend(bench.counter("Shop-Events", "rate", 0.1, true, 1.0, "Interval=1000"));
    updates.iter().for_each(|update| board.apply(update, now));
    board
}

/// A view without anything special.
fn plain<'a>(target: &'a str, board: &'a Board, now: Instant) -> View<'a> {
    let (status, sort) = (Status::Running, Sort::Name);
    View {
        target,
        status,
        board,
        alerts: &[],
        deltas: false,
        abbreviate: None,
        sort,
        search: "",
        typing: false,
        cursor: None,
        chart: false,
        scroll: 0,
        now,
    }
}

fn shown(view: &View<'_>, width: usize, height: usize) -> String {
    let drawn = text::render(view, width, height);
    drawn.lines.iter().map(|line| format!("{}\n", line.text().trim_end())).collect()
}

#[test]
fn a_screen_of_80_columns() {
    let now = Instant::now();
    let board = difficult_board(now);
    let view = View { deltas: false, scroll: 0, ..plain("4711 shop", &board, now) };
    let expected = "\
Press p to pause, r to resume, q to quit.  / search  s sort  c chart  d deltas
    Status: Running - 4711 shop

Name                                                               Current Value
[Shop-Events]
    rate (u / 1 sec)                                                       0.1
    stock (u)                                                             42
[Shop.Meter]
    latency
        …ong.key.of.a.tag.that.says.more.at.its.end Percentile
        ------------------------------------------- ----------
        some value that is as long as its key is    50                     6.242
        some value that is as long as its key is    95                     6.508
        some value that is as long as its key is    99         9,421,875,000
    orders (Count)
        color size
        ----- -----
        blue  ü                                                           20
        red   s                                                    1,234,567
    temp
        room
        -------
        \\x1b[2J                                                            1
        \"q\"\\n                                                             19
        a,b=c                                                             21.5
        日本                                                               2
";
    let screen = shown(&view, 80, 100);
    assert_eq!(screen, expected, "{screen}");
    // Where there is little room, or when asked to, large numbers are abbreviated as dotnet-counters does.
    let narrow =
        |width, abbreviate| shown(&View { abbreviate, ..view }, width, 100).contains(" 9.4219e+09\n");
    assert!(narrow(71, None) && !narrow(72, None));
    assert!(narrow(200, Some(true)) && !narrow(60, Some(false)));
}

#[test]
fn screens_fit_whatever_their_size() {
    use unicode_width::UnicodeWidthStr;
    let now = Instant::now();
    let board = difficult_board(now);
    for (deltas, cursor, chart) in [(false, None, false), (true, Some(0), false), (true, Some(7), true)] {
        let view = View { deltas, cursor, chart, scroll: 0, ..plain("4711 shop", &board, now) };
        for width in [0, 1, 10, 40, 79, 120, 250] {
            for height in [0, 1, 3, 10, 25] {
                let drawn = text::render(&view, width, height);
                assert!(drawn.lines.len() <= height);
                assert_eq!(drawn.rows, 11);
                for line in drawn.lines {
                    assert!(line.text().width() <= width, "{width}: {:?}", line.text());
                    assert!(!line.text().contains(char::is_control));
                }
            }
        }
    }
}

#[test]
fn what_is_told_takes_a_third_of_the_screen() {
    let now = Instant::now();
    let board = Board::new(Duration::from_secs(1), now);
    let alerts: Vec<_> = (1..=4)
        .map(|n| format!("alert {n}: rss is 42 MB, and this is not all\n    what it ran printed"))
        .collect();
    let told = |height| {
        let screen = shown(&View { alerts: &alerts, ..plain("x", &board, now) }, 40, height);
        screen.lines().skip(2).take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(24)[..2], ["alert 1: rss is 42 MB, and this is not", "    all"]);
    assert_eq!(told(24).len(), 8);
    let short = "alert 1: rss is 42 MB, and this is not …";
    assert_eq!((told(12).len(), told(12)[0].as_str()), (4, short));
    assert_eq!(told(6), [short, "    … 3 more like these"]);
}

#[test]
fn scrolling_stops_at_the_end() {
    let now = Instant::now();
    let board = difficult_board(now);
    let mut view = View { deltas: false, scroll: 3, ..plain("x", &board, now) };
    let screen = shown(&view, 80, 10);
    assert!(screen.contains("[Shop.Meter]") && !screen.contains("[Shop-Events]"), "{screen}");
    view.scroll = 1000;
    let screen = shown(&view, 80, 10);
    assert_eq!(screen.lines().count(), 10);
    assert!(screen.trim_end().ends_with('2'), "{screen}");
}

#[test]
fn late_values_are_marked() {
    let now = Instant::now();
    let mut board = difficult_board(now);
    let later = now + Duration::from_secs(5);
    let view = View { deltas: true, scroll: 0, ..plain("x", &board, later) };
    let screen = shown(&view, 80, 30);
    assert!(screen.contains("No sample for 5 s"), "{screen}");
    assert!(!screen.contains("old)"), "the status line says it for all: {screen}");
    // One series goes on, the others are late.
    let mut bench = Bench::new("Shop-Events", 1.0);
    for update in bench.counter("Shop-Events", "stock", 50.0, false, 1.0, "Interval=1000") {
        board.apply(&update, later);
    }
    let view = View { deltas: true, scroll: 0, ..plain("x", &board, later) };
    let screen = shown(&view, 80, 30);
    assert!(screen.contains("Status: Running"), "{screen}");
    let line = |name: &str| screen.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(line("rate").contains("(5 s old)"), "{screen}");
    assert_eq!(line("stock").split_whitespace().collect::<Vec<_>>(), ["stock", "(u)", "50", "8"]);
}

#[test]
fn search_sort_cursor_and_chart() {
    let now = Instant::now();
    let board = difficult_board(now);
    let screen = shown(&View { search: "OCK", ..plain("x", &board, now) }, 80, 30);
    assert!(
        screen.contains("stock") && screen.contains("Search: OCK") && !screen.contains("orders"),
        "{screen}"
    );
    let screen = shown(&View { search: "ü", ..plain("x", &board, now) }, 80, 30);
    assert!(screen.contains("blue  ü") && !screen.contains("1,234,567"), "by a tag: {screen}");

    let screen = shown(&View { sort: Sort::Value, ..plain("x", &board, now) }, 80, 30);
    let names: Vec<_> = screen.lines().skip(5).take(3).map(str::trim_start).collect();
    assert!(
        names[0].starts_with("latency [") && names[1].starts_with("orders (Count) [color=red,size=s]"),
        "{screen}"
    );
    assert!(names[2].starts_with("stock"), "{screen}");

    // The second row with a value.
    let view = View { cursor: Some(1), chart: true, ..plain("x", &board, now) };
    let screen = shown(&view, 80, 40);
    assert!(screen.contains("\n>   stock (u) "), "{screen}");
    assert!(screen.contains("\nstock (u)\n"), "the chart's title: {screen}");
    // The cursor stays in sight.
    let drawn = text::render(&View { cursor: Some(10), ..plain("x", &board, now) }, 80, 10);
    assert!(drawn.lines.last().is_some_and(|line| line.text().starts_with('>')), "{drawn:?}");
    assert_eq!(drawn.rows, 11);
}

#[test]
fn a_name_that_never_fits_leaves_room_for_trends() {
    let now = Instant::now();
    let mut bench = Bench::new("M", 1.0);
    let mut board = Board::new(Duration::from_secs(1), now).with_history();
    let long = "o".repeat(3000);
    for name in ["short", &long] {
        let fields = [("tags", Written::Text("")), ("lastValue", Written::Text("1"))];
        let updates = bench.metric("GaugeValuePublished", ("M", name), &fields);
        updates.iter().for_each(|update| board.apply(update, now));
    }
    let view = plain("4711 shop", &board, now);
    // What is left by a value and a trend of 60 columns.
    for (width, name) in [(120, 72), (250, 172)] {
        let text = shown(&view, width, 12);
        let header = text.lines().find(|line| line.starts_with("Name")).unwrap_or_default();
        assert!(header.ends_with("Current Value  Trend"), "{width}\n{text}");
        assert_eq!(header.find("Current"), Some(name + 3), "{width}\n{text}");
    }
}

#[test]
fn tags_of_meters_tell_rows_apart() {
    let now = Instant::now();
    let mut bench = Bench::new("M", 1.0);
    let mut board = Board::new(Duration::from_secs(1), now);
    for (id, region) in [(1, "region=eu"), (2, "region=us")] {
        let text = Written::Text;
        let id = ("instrumentId", Written::I32(id));
        let begin = [("instrumentTags", text("")), ("meterTags", text(region)), id.clone()];
        bench.metric("BeginInstrumentReporting", ("M", "g"), &begin);
        let value = [("tags", text("a=b")), ("lastValue", text("1")), id];
        let updates = bench.metric("GaugeValuePublished", ("M", "g"), &value);
        let mut lines = Vec::new();
        for update in &updates {
            board.apply(update, now);
            if let Update::Sample(sample) = update {
                text::line(1, "", sample, &mut lines);
            }
        }
        assert_eq!(lines, [format!("\t1\tM\tg[{region},a=b]\t1\t")]);
    }
    let text = shown(&View { search: "region=us", ..plain("4711 shop", &board, now) }, 80, 20);
    assert!(text.contains("region a\n") && text.contains(" us     b ") && !text.contains(" eu "), "{text}");
}
