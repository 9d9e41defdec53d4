//! Paths from roots, with the names of types and of the fields that lead on.

use dnd_clr::{HandleKind, MethodTable, Object, References, Root, RootKind, Runtime};
use dnd_contract::Addr;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use crate::inspect::display_name;
use crate::session::Session;

/// One object of a path.
#[derive(Debug, Serialize)]
pub(crate) struct ObjectLine {
    pub(crate) address: Addr,
    pub(crate) mt: Option<Addr>,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// How the object before it leads here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<Via>,
}

/// How one object leads to the next.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Via {
    /// The static field whose slot in an array holds it.
    StaticField(String),
    /// The same of a thread's own static field.
    ThreadStaticField(String),
    /// The instance field that refers to it.
    Field(String),
    /// Element of an array.
    Element(u64),
    /// The first object of a dependent handle keeps the second.
    DependentHandle,
    /// The load context of a collectible type.
    LoadContext,
}

/// Describes paths. Paths from many roots share most of their steps, and long ones their types, so both are kept.
pub(crate) struct Describer<'s, 'r> {
    session: &'s Session<'r>,
    names: FxHashMap<u64, String>,
    fields: FxHashMap<(u64, u64), Option<String>>,
    steps: FxHashMap<(u64, u64), Option<Via>>,
    dependents: Option<FxHashSet<(u64, u64)>>,
}

/// It keeps the slots of an array, some of which are arrays of static fields.
const LOADER_ALLOCATOR: &str = "System.Reflection.LoaderAllocator";

/// Steps remembered; a path of millions of objects is walked once anyway.
const MAX_STEPS: usize = 1 << 16;

impl<'s, 'r> Describer<'s, 'r> {
    pub(crate) fn new(session: &'s Session<'r>) -> Self {
        let (names, fields, steps) = Default::default();
        Describer { session, names, fields, steps, dependents: None }
    }

    fn runtime(&self) -> &'r Runtime<'r> {
        self.session.runtime
    }

    /// The objects of a path, the root's first.
    pub(crate) fn path(&mut self, root: &Root, objects: &[u64]) -> Vec<ObjectLine> {
        // Only an array that a handle, a thread or the allocator of a load context holds can be one of static fields.
        let of_root = match root.kind {
            RootKind::Handle { .. } => 1..2,
            // In an array of such arrays, or the array itself.
            RootKind::ThreadStatic { .. } => 1..3,
            _ => 0..0,
        };
        let mut lines: Vec<ObjectLine> = Vec::with_capacity(objects.len());
        let mut before: Option<Object> = None;
        for (place, &address) in objects.iter().enumerate() {
            let object = self.runtime().object(address).ok();
            let allocator = place.checked_sub(3).and_then(|place| lines.get(place));
            let statics =
                of_root.contains(&place) || allocator.is_some_and(|line| line.type_name == LOADER_ALLOCATOR);
            let via = before.and_then(|from| self.step(&from, address, statics));
            let type_name = match object {
                Some(object) => self.name(object.table),
                None => "<not an object>".to_owned(),
            };
            lines.push(ObjectLine {
                address: Addr(address),
                mt: object.map(|object| Addr(object.table)),
                type_name,
                via,
            });
            before = object;
        }
        lines
    }

    fn name(&mut self, table: u64) -> String {
        let runtime = self.runtime();
        self.names.entry(table).or_insert_with(|| display_name(runtime, table)).clone()
    }

    fn step(&mut self, from: &Object, to: u64, statics: bool) -> Option<Via> {
        if !statics && let Some(via) = self.steps.get(&(from.address, to)) {
            return via.clone();
        }
        let via = self.find_step(from, to, statics);
        if !statics && self.steps.len() < MAX_STEPS {
            self.steps.insert((from.address, to), via.clone());
        }
        via
    }

    fn find_step(&mut self, from: &Object, to: u64, statics: bool) -> Option<Via> {
        let runtime = self.runtime();
        let table = runtime.method_table(from.table).ok()?;
        let references = References::read(runtime.target(), &table).ok()?;
        let size = usize::try_from((from.size + 7) & !7).ok()?;
        let bytes = runtime.target().slice(from.address, size)?;
        let mut offsets = Vec::new();
        references.each(bytes, |offset, value| {
            if value == to {
                offsets.push(offset);
            }
        });
        let Some(&first) = offsets.first() else {
            let dependent = self.dependents().contains(&(from.address, to));
            return Some(if dependent { Via::DependentHandle } else { Via::LoadContext });
        };
        if statics && table.is_vector() {
            let slots: Vec<u64> = offsets.iter().map(|offset| from.address + offset).collect();
            if let Some(name) = self.session.static_name(&slots) {
                return Some(Via::StaticField(name));
            }
            if let Some(name) = self.session.thread_static_name(&slots) {
                return Some(Via::ThreadStaticField(name));
            }
        }
        if table.is_vector() && table.component_size > 0 && first >= 16 {
            return Some(Via::Element((first - 16) / u64::from(table.component_size)));
        }
        let field =
            self.fields.entry((table.address, first)).or_insert_with(|| field_at(runtime, &table, first));
        field.clone().map(Via::Field)
    }

    fn dependents(&mut self) -> &FxHashSet<(u64, u64)> {
        let runtime = self.runtime();
        self.dependents.get_or_insert_with(|| {
            let handles = runtime.handles().unwrap_or_default();
            let dependent = handles.iter().filter(|handle| handle.kind == HandleKind::Dependent);
            dependent.map(|handle| (handle.object, handle.secondary)).collect()
        })
    }
}

/// Name of the instance field that lies at an offset; inside a struct, of the field that is the struct.
fn field_at(runtime: &Runtime<'_>, table: &MethodTable, offset: u64) -> Option<String> {
    let fields = runtime.fields(table).ok()?;
    let before = fields.iter().filter(|f| !f.is_static && u64::from(f.offset) + 8 <= offset);
    before.max_by_key(|f| f.offset).map(|f| f.name.clone())
}
