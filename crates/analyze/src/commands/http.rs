//! `dumphttp`: HTTP requests that the program has made.

use dnd_clr::Object;
use dnd_contract::Addr;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::dumpheap::{damage_notes, finish};
use crate::args::Opt;
use crate::error::Error;
use crate::managed::{Managed, Place};
use crate::out::{Out, grouped};
use crate::pool;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["dumphttp", "DumpHttp"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::flag(&["stats"], "Counts by method, status and host instead of requests."),
        Opt::flag(&["pending"], "Only requests without a response."),
        Opt::flag(&["completed"], "Only requests with a response."),
        Opt::word(&["uri"], "text", "Only requests whose URI has this part."),
        Opt::word(&["statuscode"], "number", "Only requests that were answered with this status."),
    ],
    summary: "Lists the requests of HttpClient that are on the heap: method, status, URI.",
    about: "A request without a status waits for its answer, or was never sent, or its response is no longer on the heap. \
            Requests stay on the heap until they are collected: dumpheap -live tells which are still used.",
    run,
};

#[derive(Debug, Serialize)]
struct Requests {
    requests: Vec<Request>,
    #[serde(skip)]
    stats: bool,
}

#[derive(Debug, Serialize)]
struct Request {
    address: Addr,
    mt: Addr,
    method: Option<String>,
    /// Null without a response.
    status: Option<i64>,
    uri: Option<String>,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let status = call.args.number("statuscode")?;
    let part = call.args.word("uri").map(str::to_owned);
    let (pending, completed) = (call.args.flag("pending"), call.args.flag("completed"));
    if pending && completed {
        return Err(call.args.usage("takes -pending or -completed, not both"));
    }
    let mut managed = Managed::new(runtime);
    let wanted = |name: &str| {
        matches!(name, "System.Net.Http.HttpRequestMessage" | "System.Net.Http.HttpResponseMessage")
    };
    let (found, damage) = pool::instances(call, &mut managed, wanted)?;
    let (requests, responses): (Vec<Object>, Vec<Object>) =
        found.into_iter().partition(|one| managed.name(one.table).ends_with("HttpRequestMessage"));
    let mut answered: FxHashMap<u64, i64> = FxHashMap::default();
    for response in &responses {
        let place = Place::of(response);
        let request = managed.reference(place, &["_requestMessage"]);
        let code = managed.number(place, &["_statusCode"]);
        if let (Some(request), Some(code)) = (request.filter(|&request| request != 0), code) {
            answered.insert(request, code);
        }
    }
    let mut lines: Vec<Request> = requests.iter().map(|one| request(&mut managed, one, &answered)).collect();
    lines.retain(|line| {
        let of_uri = part.as_ref().is_none_or(|part| line.uri.as_ref().is_some_and(|uri| uri.contains(part)));
        let of_status =
            status.is_none_or(|status| line.status.is_some_and(|code| u64::try_from(code) == Ok(status)));
        of_uri && of_status && !(pending && line.status.is_some()) && !(completed && line.status.is_none())
    });
    damage_notes(call, &damage);
    let stats = call.args.flag("stats");
    call.emit("dumphttp", 1, &Requests { requests: lines, stats })?;
    finish(&damage)
}

fn request(managed: &mut Managed<'_>, one: &Object, answered: &FxHashMap<u64, i64>) -> Request {
    let place = Place::of(one);
    let mut text = |field: &str, names: &[&str]| {
        let inner = managed.follow(place, &[field])?;
        let string = managed.reference(Place::of(&inner), names)?;
        managed.text(string)
    };
    Request {
        address: Addr(one.address),
        mt: Addr(one.table),
        method: text("_method", &["_method"]),
        status: answered.get(&one.address).copied(),
        uri: text("_requestUri", &["_string", "m_String"]),
    }
}

/// Host of a URI.
fn host(uri: Option<&str>) -> &str {
    let uri = uri.unwrap_or_default();
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

impl Facts for Requests {
    fn text(&self, out: &mut Out<'_>) {
        let status = |request: &Request| request.status.map(|code| code.to_string()).unwrap_or_default();
        if self.stats {
            let mut counted: FxHashMap<(&str, String, &str), u64> = FxHashMap::default();
            for request in &self.requests {
                let key = (
                    request.method.as_deref().unwrap_or_default(),
                    status(request),
                    host(request.uri.as_deref()),
                );
                *counted.entry(key).or_default() += 1;
            }
            let mut counted: Vec<_> = counted.into_iter().collect();
            counted.sort();
            counted.sort_by_key(|(_, count)| *count);
            out.line("Statistics:\n         Count Method  StatusCode Host");
            for ((method, status, host), count) in counted {
                out.grouped(count, 14);
                out.blanks(1);
                out.name(&format!("{method:<7} {status:>10} {host}"));
                out.end();
            }
        } else {
            out.line("         Address      MethodTable Method  StatusCode Uri");
            for request in &self.requests {
                out.addr(request.address.0);
                out.blanks(1);
                out.addr(request.mt.0);
                let method = request.method.as_deref().unwrap_or("?");
                out.name(&format!(" {method:<7} {:>10} ", status(request)));
                out.name(request.uri.as_deref().unwrap_or_default());
                out.end();
            }
        }
        out.fmt(format_args!("Total {} requests\n", grouped(self.requests.len() as u64)));
    }
}
