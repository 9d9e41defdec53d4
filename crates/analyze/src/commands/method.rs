//! `ip2md` and `dumpmd`: a method, its code and its versions.

use dnd_clr::code::{CodeAt, CodeKind, CodeVersion, Method, MethodKind, Tier};
use dnd_clr::{MethodTable, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static IP2MD: Command = Command {
    names: &["ip2md", "IP2MD"],
    operands: "<address>",
    max_operands: 1,
    options: &[],
    summary: "Shows the method whose code is at an address.",
    about: "Any address inside the code will do: an instruction pointer from a stack, a profiler or a native debugger. \
            Versions of the code and how they were optimized: see dumpmd.",
    run: ip2md,
};

pub(crate) static DUMPMD: Command = Command {
    names: &["dumpmd", "DumpMD"],
    operands: "<method>",
    max_operands: 1,
    options: &[],
    summary: "Shows a method description: name, type, module, code and its versions.",
    about: "The address of a method description stands in dumpmt -md, ip2md and the JSON of clrstack. A method that is \
            called often is compiled again; the first version has no NativeCodeVersion. How it was optimized is told in \
            the runtime's words: QuickJitted is tier 0.",
    run: dumpmd,
};

/// A method.
#[derive(Debug, Serialize)]
struct MethodFacts {
    /// The address that was asked for (`ip2md`).
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<Addr>,
    /// Bytes from the first instruction to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    method: Addr,
    name: String,
    kind: MethodKind,
    mt: Addr,
    canonical_mt: Addr,
    token: u32,
    module: Option<Addr>,
    /// There is code for it.
    jitted: bool,
    /// The code at the address that was asked for (`ip2md`), else where calls of it go.
    code: Option<Addr>,
    /// Address of its IL.
    il: Option<Addr>,
    versions: Vec<Version>,
    /// Of the address that was asked for (`ip2md`), where the debug information is at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Version {
    code: Addr,
    node: Addr,
    made_by: Option<CodeKind>,
    tier: Option<Tier>,
    active: bool,
}

fn ip2md(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let ip = call.args.required_addr(0, "an address in code")?;
    let runtime = call.runtime();
    let nothing = |what: &str| Err(Error::NotFound(format!("{ip:x} is not in managed code: {what}")));
    let code = match runtime.code_at(ip)? {
        CodeAt::Method(code) if code.method != 0 => code,
        CodeAt::Method(_) => return nothing("its image does not say which method it is"),
        CodeAt::Stub => return nothing("it is in a stub of the runtime, or between methods"),
        CodeAt::Native => {
            let file = runtime.target().mappings().iter().find(|m| m.start <= ip && ip < m.end);
            return match file {
                Some(file) => nothing(&format!("it is in {}", file.path.display())),
                None => nothing("the runtime knows no code there"),
            };
        }
    };
    let mut facts = facts(call, code.method)?;
    facts.ip = Some(Addr(ip));
    facts.offset = Some(ip.wrapping_sub(code.start));
    facts.code = Some(Addr(code.start));
    facts.jitted = true;
    if let Some(line) = runtime.source_of_code(&code, ip).and_then(|source| source.line) {
        facts.file = Some(line.file);
        facts.line = Some(line.line);
    }
    if !facts.versions.iter().any(|version| version.code.0 == code.start) {
        // Methods made at run time have no versions; other places may be missing in a small dump.
        let only = facts.versions.is_empty();
        let version = CodeVersion { code: code.start, node: 0, tier: None, active: only };
        facts.versions.push(Version::new(runtime, &version));
    }
    call.emit("ip2md", 1, &facts)
}

fn dumpmd(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "a method description")?;
    let facts = facts(call, address)?;
    call.emit("dumpmd", 1, &facts)
}

fn facts(call: &mut Call<'_, '_>, address: u64) -> Result<MethodFacts, Error> {
    let runtime = call.runtime();
    let none = || Error::NotA { addr: address, wanted: "a method description" };
    if !address.is_multiple_of(8) || address == 0 {
        return Err(none());
    }
    let method = runtime.method(address).map_err(|_| none())?;
    let table = table_of(runtime, &method).ok_or_else(none)?;
    let versions = runtime.code_versions(&method).unwrap_or_else(|why| {
        call.note(format!("not all versions of its code are known: {why}"));
        runtime
            .first_code(&method)
            .ok()
            .flatten()
            .map(|code| CodeVersion { code, node: 0, tier: None, active: true })
            .into_iter()
            .collect()
    });
    let active = versions.iter().find(|version| version.active && version.code != 0);
    let code = active.map(|version| Addr(version.code));
    Ok(MethodFacts {
        ip: None,
        offset: None,
        method: Addr(address),
        name: runtime.method_name(address),
        kind: method.kind,
        mt: Addr(method.table),
        canonical_mt: Addr(table.canonical),
        token: method.token,
        module: table.module(runtime.target(), runtime.layout()).ok().map(Addr),
        jitted: versions.iter().any(|version| version.code != 0),
        code,
        il: runtime.il_address(&method).map(Addr),
        versions: versions.iter().map(|version| Version::new(runtime, version)).collect(),
        file: None,
        line: None,
    })
}

/// The type of a method. That of methods made at run time has no objects, and before 5 no size either: its class must
/// point back to it.
fn table_of(runtime: &Runtime<'_>, method: &Method) -> Option<MethodTable> {
    let (target, layout) = (runtime.target(), runtime.layout());
    runtime.method_table(method.table).ok().or_else(|| {
        let table = MethodTable::read(target, layout, method.table).ok()?;
        let back = target.u64(table.ee_class.wrapping_add(16)).ok();
        (method.kind == MethodKind::Dynamic && back == Some(method.table)).then_some(table)
    })
}

impl Version {
    fn new(runtime: &Runtime<'_>, version: &CodeVersion) -> Self {
        Version {
            code: Addr(version.code),
            node: Addr(version.node),
            made_by: runtime.code_kind(version.code),
            tier: version.tier,
            active: version.active,
        }
    }
}

/// As the runtime's tools call it.
fn tier_name(tier: Option<Tier>) -> &'static str {
    match tier {
        Some(Tier::ReadyToRun) => "ReadyToRun",
        Some(Tier::Quick) => "QuickJitted",
        Some(Tier::Tier1) => "OptimizedTier1",
        Some(Tier::Tier1Osr) => "OptimizedTier1OSR",
        Some(Tier::Optimized) => "Optimized",
        Some(Tier::MinimallyOptimized) => "MinOptJitted",
        Some(Tier::QuickInstrumented) => "QuickJitted + Instrumented",
        Some(Tier::Tier1Instrumented) => "OptimizedTier1 + Instrumented",
        None => "Unknown Tier",
    }
}

impl Facts for MethodFacts {
    fn text(&self, out: &mut Out<'_>) {
        if self.ip.is_some() {
            out.field("MethodDesc:", 14, &format!("{:016x}", self.method.0));
        }
        let mut line = |label: &str, value: String| out.field(label, 22, &value);
        line("Method Name:", self.name.clone());
        line("Class:", format!("{:016x}", self.canonical_mt.0));
        line("MethodTable:", format!("{:016x}", self.mt.0));
        line("mdToken:", format!("{:016X}", self.token));
        line("Module:", format!("{:016x}", self.module.unwrap_or_default().0));
        line("IsJitted:", if self.jitted { "yes" } else { "no" }.to_owned());
        line("Current CodeAddr:", format!("{:016x}", self.code.unwrap_or(Addr(u64::MAX)).0));
        out.line("Version History:");
        out.line("  ILCodeVersion:      0000000000000000");
        out.line("  ReJIT ID:           0");
        out.fmt(format_args!("  IL Addr:            {:016x}\n", self.il.unwrap_or_default().0));
        for version in self.versions.iter().rev() {
            out.fmt(format_args!("     CodeAddr:           {:016x}", version.code.0));
            out.fmt(format_args!("  ({})\n", tier_name(version.tier)));
            out.fmt(format_args!("     NativeCodeVersion:  {:016X}\n", version.node.0));
        }
        if let (Some(file), Some(line)) = (&self.file, self.line) {
            out.str("Source file:  ");
            out.name(file);
            out.fmt(format_args!(" @ {line}\n"));
        }
    }
}
