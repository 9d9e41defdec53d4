//! The end-to-end tests.

mod analyze;
mod analyze_crashes;
mod analyze_files;
mod analyze_heap;
mod analyze_methods;
mod analyze_modules;
mod analyze_repl;
mod analyze_stacks;
mod analyze_statics;
mod analyze_threads;
mod analyze_transcript;
mod analyze_transcript_all;
mod analyze_trouble;
mod analyze_work;
mod asking;
mod collect;
mod collect_fake;
mod container;
mod cores;
mod cores_files;
mod cores_unreadable;
mod counters;
mod counters_alert;
mod counters_collect;
mod counters_ends;
mod counters_export;
mod counters_fake;
mod counters_harm;
mod counters_list;
mod counters_many;
mod counters_port;
mod counters_screen;
mod counters_soak;
mod dotnet_dump;
mod fake_runtime;
mod frame_values;
mod leak_hunt;
mod ps;
mod source_lines;
mod stacks;

/// The binary under test.
const DND: &str = env!("CARGO_BIN_EXE_dnd");
