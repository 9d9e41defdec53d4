use dnd_clr::*;
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let core = dnd_memory::Core::open(std::path::Path::new(&path)).unwrap();
    let target =
        dnd_memory::WithFiles::new(core, dnd_memory::FileOptions { local: true, ..Default::default() });
    let runtime = Runtime::open(&target).unwrap();
    for t in &runtime.threads().unwrap().threads {
        let s = runtime.stack(t);
        println!(
            "{:x} base {:x} limit {:x} first {:x} exc {:x?} last {:x}",
            t.os_id,
            t.stack_base,
            t.stack_limit,
            s.managed().next().map_or(0, |f| f.0.sp),
            t.exceptions,
            t.last_thrown
        );
        if t.exceptions[0] != 0 {
            if let Ok(Some(e)) = runtime.exception(t.exceptions[0]) {
                println!("  {:x?}", e.frames.first());
            }
        }
    }
}
