//! Damaged debug info is told, and hides nothing else.

mod support;

use dnd_clr::Runtime;
use dnd_clr::code::CodeKind;
use dnd_memory::{Core, FileOptions, Memory, WithFiles};
use dnd_testkit::{CoreSpec, core, one_per_major};
use support::Patched;

#[test]
fn a_frame_whose_debug_info_is_damaged_says_so() {
    for version in one_per_major() {
        let file = core(&version, "Lines", &CoreSpec::default());
        let target = WithFiles::new(Core::open(&file.path()).unwrap(), FileOptions::default());
        let mut damaged = Patched::new(&target);
        let id = u32::try_from(file.truth["threads"]["values"].as_u64().unwrap()).unwrap();
        let runtime = Runtime::open(&target).unwrap();
        let stack = runtime.stack_with_registers(runtime.thread_by_os_id(id).unwrap());
        let position = stack.frames.iter().position(|frame| match &frame.kind {
            dnd_clr::stack::FrameKind::Managed(code) => {
                runtime.method_name(code.method).starts_with("Lines.Program.Values(")
            }
            _ => false,
        });
        let position = position.unwrap();
        let (frame, code) = stack.managed().find(|(frame, _)| **frame == stack.frames[position]).unwrap();
        assert_eq!(code.kind, CodeKind::Jit);
        let source = runtime.source_of_code(code, frame.at()).unwrap();
        assert!(source.line.is_some() && source.problem.is_none());
        let variables = runtime.variables(frame, &stack.contexts[position]).unwrap();
        assert!(
            variables.parameters.iter().all(|parameter| parameter.at.is_some())
                && variables.problem.is_none()
        );

        // The first word of the code's header leads to it.
        let header = target.u64(code.start - 8).unwrap();
        damaged.write(target.u64(header).unwrap(), &[0xff; 16]);
        let runtime = Runtime::open(&damaged).unwrap();
        let again = runtime.stack_with_registers(runtime.thread_by_os_id(id).unwrap());
        assert_eq!((&again.frames, again.end), (&stack.frames, stack.end), "{}", version.version);
        let source = runtime.source_of_code(code, frame.at()).unwrap();
        assert!(source.line.is_none() && source.il.is_none());
        let told = source.problem.unwrap().to_string();
        assert!(
            told.starts_with("the debug info of a method at 0x") && told.ends_with(" is damaged"),
            "{told}"
        );
        let variables = runtime.variables(frame, &stack.contexts[position]).unwrap();
        assert_eq!(variables.parameters.len(), 23);
        assert!(
            variables.parameters.iter().all(|parameter| parameter.at.is_none() && parameter.value.is_none())
        );
        assert!(variables.problem.is_some());
    }
}
