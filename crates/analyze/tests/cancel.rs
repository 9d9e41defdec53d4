//! A cancelled command ends with an error, and what it wrote until then is there.

use dnd_analyze::{Format, Session};
use dnd_clr::{Progress, Runtime};
use dnd_memory::Core;
use dnd_testkit::{CoreSpec, core, one_per_major};

#[test]
fn every_long_command_can_be_cancelled() {
    let Some(runtime) = one_per_major().pop() else { return };
    let core = core(&runtime, "Leak", &CoreSpec::with_args(&["1000", "100"]));
    let target = Core::open(&core.path()).expect("a core");
    let runtime = Runtime::open(&target).expect("a runtime");
    let progress = Progress::new();
    let session = Session::new(&runtime, &progress);
    let mut out = Vec::new();
    let answer = session.run("dumpheap -short", &mut out, Format::Text);
    assert!(answer.result.is_ok());
    let text = String::from_utf8(out).expect("text");
    let some = text.lines().nth(100).expect("an object").to_owned();
    progress.cancel();
    for command in
        ["dumpheap -stat", "dumpheap -live -stat", &format!("gcroot {some}"), &format!("objsize {some}")]
    {
        let answer = session.run(command, &mut Vec::new(), Format::Text);
        assert!(answer.result.as_ref().is_err_and(dnd_analyze::Error::is_cancelled), "{command}: {answer:?}");
    }
    // The next command is not.
    progress.reset();
    for command in ["dumpheap -stat", &format!("gcroot {some}")] {
        assert!(session.run(command, &mut Vec::new(), Format::Json).result.is_ok(), "{command}");
    }
}
