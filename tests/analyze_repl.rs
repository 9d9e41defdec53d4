//! `dump analyze` as a session: at a terminal, and fed from a pipe.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dnd_testkit::{Core, CoreSpec, Dnd, Key, Screen, core, must, one_per_major};

use super::DND;

fn leak() -> Core {
    let runtime = one_per_major().pop().expect("a runtime");
    core(&runtime, "Leak", &CoreSpec::with_args(&["1000", "100"]))
}

/// A session at a terminal, with a home of its own.
fn session(core: &Core, home: &Path, extra: &[&str]) -> Screen {
    let dnd = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path()).args(extra);
    let screen = dnd.env("HOME", home).env("XDG_STATE_HOME", home.join("state")).pty(30, 120);
    at_prompt(&screen);
    screen
}

/// Waits for an empty prompt.
fn at_prompt(screen: &Screen) {
    screen.wait_until(|text| text.trim_end().ends_with("\n>"));
}

#[test]
fn a_session_from_the_first_prompt_to_quit() {
    let (core, (_scratch, home)) = (leak(), Dnd::scratch());
    let mut screen = session(&core, &home, &["--no-pager"]);
    screen.keys("dumpheap -stat -type Shop.\r");
    screen.wait_for("Shop.PriceListener");
    screen.wait_for("objects, ");
    screen.keys("dumphaep\r");
    screen.wait_for("did you mean `dumpheap`?");
    // A line that was begun and dropped does nothing.
    screen.keys("dumpheap -nonsense");
    screen.wait_for("> dumpheap -nonsense");
    screen.press(Key::CtrlC);
    at_prompt(&screen);
    screen.keys("eeversion\r");
    screen.wait_for("Workstation mode");
    screen.keys("quit\r");
    assert!(screen.wait_end().success());
    assert_eq!(screen.modes(), (false, false));
    // What was typed is kept for the next session, for its owner only.
    let history = home.join("state/dnd/history");
    let text = must(fs::read_to_string(&history), "the history");
    assert_eq!(text, "dumpheap -stat -type Shop.\ndumphaep\neeversion\nquit\n");
    assert_eq!(must(fs::metadata(&history), "the history").permissions().mode() & 0o777, 0o600);
    let mut screen = session(&core, &home, &["--no-pager"]);
    screen.press(Key::Up);
    screen.press(Key::Up);
    screen.wait_for("> eeversion");
    screen.press(Key::Enter);
    screen.wait_for("Workstation mode");
    at_prompt(&screen);
    screen.press(Key::CtrlD);
    assert!(screen.wait_end().success());
}

#[test]
fn completion_of_commands_options_and_types() {
    let (core, (_scratch, home)) = (leak(), Dnd::scratch());
    let mut screen = session(&core, &home, &["--no-pager"]);
    screen.keys("dumphe\t");
    screen.wait_for("> dumpheap");
    screen.keys(" -sta\t -ty\t Shop.Ord\t");
    screen.wait_until(|text| text.contains("-type Shop.Order"));
    screen.press(Key::CtrlC);
    at_prompt(&screen);
    screen.press(Key::CtrlD);
    assert!(screen.wait_end().success());
}

#[test]
fn long_output_goes_to_the_pager_and_short_does_not() {
    let (core, (_scratch, home)) = (leak(), Dnd::scratch());
    // A pager that shows that it was one.
    let pager = home.join("pager");
    must(fs::write(&pager, "#!/bin/sh\nwc -l | sed 's/^/PAGED /'\n"), "can't write");
    must(fs::set_permissions(&pager, PermissionsExt::from_mode(0o755)), "can't make it a program");
    let dnd =
        Dnd::new(DND).args(["dump", "analyze"]).arg(core.path()).env("PAGER", &pager).env("HOME", &home);
    let mut screen = dnd.env("XDG_STATE_HOME", home.join("state")).pty(30, 120);
    at_prompt(&screen);
    screen.keys("dumpheap -short -type Shop.Order\r");
    screen.wait_for("PAGED 10");
    screen.keys("eeversion\r");
    let text = screen.wait_for("Workstation mode");
    assert_eq!(text.matches("PAGED").count(), 1, "{text}");
    // A pager that is left at once ends the command, not the session.
    screen.keys("dumpheap | true\r");
    screen.keys("eeheap -gc | grep -c 'Number of GC Heaps'\r");
    screen.wait_until(|text| text.lines().any(|line| line == "1"));
    screen.keys("q\r");
    assert!(screen.wait_end().success());
}

#[test]
fn ctrl_c_ends_a_command_and_not_the_session() {
    let (core, (_scratch, home)) = (leak(), Dnd::scratch());
    let mut screen = session(&core, &home, &["--no-pager"]);
    // The command reads nothing, so the listing stands still until it is interrupted. What it prints it prints itself: a
    // shell loses the signal for a child that it is about to start.
    screen
        .keys("dumpheap | python3 -c \"import time; print('wai' + 'ting', flush=True); time.sleep(1000)\"\r");
    screen.wait_for("waiting");
    screen.press(Key::CtrlC);
    at_prompt(&screen);
    screen.keys("eeversion\r");
    screen.wait_for("Workstation mode");
    screen.keys("exit\r");
    assert!(screen.wait_end().success());
}

#[test]
fn a_session_fed_from_a_pipe() {
    let core = leak();
    let feed = |text: &str| Dnd::new(DND).args(["dump", "analyze"]).arg(core.path()).stdin(text).run();
    let output =
        feed("eeversion\n\n   \n!dumpheap -stat -type Shop.Order\nsos gchandles -stat\nQ\nnosuchcommand\n");
    let text = output.success();
    assert!(
        text.contains("Workstation mode") && text.contains("Shop.Order") && text.contains("Strong Handles:"),
        "{text}"
    );
    assert!(!text.contains("> "), "no prompt: {text}");
    let output = feed("nosuchcommand\neeversion\ndumpobj 0");
    assert!(output.stdout.contains("Workstation mode"));
    assert!(output.fails(2).contains("nosuchcommand"));
    // The end of the input ends the session, also in the middle of a line.
    assert!(feed("eeversion").success().contains("Workstation mode"));
    assert_eq!(feed("").success(), "");
    // Bytes that are no text are no reason to stop.
    let output = Dnd::new(DND)
        .args(["dump", "analyze"])
        .arg(core.path())
        .stdin(b"\xff\xfe\neeversion\n".to_vec())
        .run();
    assert!(output.stdout.contains("Workstation mode"));
}
