//! `dnd counters export`: what it offers is read by Prometheus's and OpenTelemetry's own libraries.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use dnd_testkit::{Dnd, Running, Target, must, python_packages, runtimes};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::DND;

fn export(targets: &[&Target], more: &[&str]) -> Running {
    let pids: Vec<_> = targets.iter().map(|target| target.pid().to_string()).collect();
    Dnd::new(DND)
        .args(["counters", "export", "--refresh-interval", "0.2", "-p", &pids.join(",")])
        .args(more)
        .spawn()
}

/// Head and body of the answer to a request.
fn http(address: &str, request: &str) -> (String, String) {
    let mut stream = must(TcpStream::connect(address), address);
    must(
        stream.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()),
        "request",
    );
    let mut answer = String::new();
    must(stream.read_to_string(&mut answer), "answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer}"));
    (head.to_owned(), body.to_owned())
}

/// Where it serves.
fn address(running: &Running) -> String {
    running.wait_stderr(|text| {
        let (_, rest) = text.split_once("serving http://")?;
        Some(rest.split_once("/metrics")?.0.to_owned())
    })
}

/// Asks for the metrics until they satisfy `want`: each answer takes as long as it takes.
fn scrape(running: &Running, request: &str, want: impl Fn(&str) -> bool) -> (String, String) {
    let address = address(running);
    let deadline = std::time::Instant::now() + dnd_testkit::DEADLINE;
    loop {
        let (head, body) = http(&address, request);
        if want(&body) {
            return (head, body);
        }
        assert!(std::time::Instant::now() < deadline, "the metrics never were as expected:\n{body}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// What a Python script with these packages prints as JSON.
fn python(packages: &Path, script: &str, input: &[u8]) -> Value {
    let mut python = Command::new("python3");
    python.args(["-c", script]).env("PYTHONPATH", packages).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = must(python.spawn(), "python3");
    if let Some(mut stdin) = child.stdin.take() {
        must(stdin.write_all(input), "python's stdin");
    }
    let output = must(child.wait_with_output(), "python3");
    assert!(output.status.success());
    must(serde_json::from_slice(&output.stdout), "python's answer")
}

/// The samples in a document, by Prometheus's own parser: `[family, type, unit, name, labels, value]`.
fn parsed(packages: &Path, openmetrics: bool, text: &str) -> Vec<Value> {
    let parser =
        if openmetrics { "prometheus_client.openmetrics.parser" } else { "prometheus_client.parser" };
    let script = format!(
        "import sys, json\nfrom {parser} import text_string_to_metric_families as parse\n\
         print(json.dumps([[f.name, f.type, f.unit, s.name, s.labels, s.value] for f in parse(sys.stdin.read()) for s in f.samples]))"
    );
    python(packages, &script, text.as_bytes()).as_array().cloned().unwrap_or_default()
}

/// Value of the sample of that name whose labels include these.
fn value(samples: &[Value], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let matches =
        |sample: &&Value| sample[3] == name && labels.iter().all(|(key, value)| sample[4][*key] == *value);
    samples.iter().find(matches)?[5].as_f64()
}

fn newest(app: &str) -> Option<Target> {
    Some(Target::spawn(&runtimes().pop().filter(|runtime| runtime.major() >= 8)?, app, &[]))
}

#[test]
fn prometheus_reads_it() {
    let Some(packages) = python_packages(&["prometheus_client==0.26.0", "opentelemetry-proto==1.45.2"])
    else {
        return;
    };
    let (Some(mut meters), Some(mut counters)) = (newest("Meters"), newest("Counters")) else { return };
    let list = "Bench.Meter,Bench.Tagged,Bench.Odd[odd.tags],Bench-Counters,System.Runtime,OS";
    let running = export(&[&meters, &counters], &["--counters", list, "--prometheus", "127.0.0.1:0"]);
    scrape(&running, "GET /metrics HTTP/1.1", |text| text.contains("bench_gauge") && text.contains("polled"));
    for _ in 0..3 {
        meters.ask("step", "stepped ");
        counters.ask("step", "stepped ");
    }
    let pids = [meters.pid().to_string(), counters.pid().to_string()];
    let [meters_pid, counters_pid] = pids.each_ref().map(String::as_str);
    let complete = |text: &str| {
        let line =
            |start: &str, end: &str| text.lines().any(|line| line.starts_with(start) && line.ends_with(end));
        line("bench_hits_total", " 3")
            && line("Bench_Counters_rate_step_total", " 30")
            && line("bench_sizes_bytes_count", " 300")
    };
    for openmetrics in [true, false] {
        let accept = if openmetrics {
            "\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        } else {
            ""
        };
        let (head, body) = scrape(&running, &format!("GET /metrics HTTP/1.1{accept}"), complete);
        let kind = if openmetrics { "application/openmetrics-text" } else { "text/plain; version=0.0.4" };
        assert!(head.contains(kind), "{head}");
        let samples = parsed(&packages, openmetrics, &body);
        let meters = ("pid", meters_pid);
        let scope = ("otel_scope_name", "Bench.Meter");
        let expect = |name: &str, labels: &[(&str, &str)], expected: f64| {
            assert_eq!(value(&samples, name, labels), Some(expected), "{name} {labels:?} in\n{body}");
        };
        expect("bench_done_total", &[meters, scope, ("kind", "a"), ("otel_scope_version", "1.2.3")], 6.0);
        expect("bench_done_total", &[meters, ("kind", "b")], 9.0);
        expect("bench_level", &[meters], 12.0);
        expect("bench_gauge_celsius", &[meters, ("room", "red")], 7.0);
        expect("bench_seconds_total", &[meters], 300.0);
        expect("bench_balance", &[meters], -4.5);
        expect("bench_sizes_bytes_sum", &[meters], 15150.0);
        expect("odd_tags", &[meters, ("room", "\"q\"\n")], 1.0);
        expect("odd_tags", &[meters, ("room", "a,b=c")], 2.0);
        expect("odd_tags", &[meters, ("room", "\u{1b}[2J")], 3.0);
        let counters = ("pid", counters_pid);
        expect("Bench_Counters_polled_u", &[counters, ("process", "dotnet")], 42.5);
        expect("Bench_Counters_rate_step_total", &[counters], 30.0);
        expect("dnd_up", &[counters], 1.0);
        assert!(value(&samples, "OS_rss_bytes", &[counters]).is_some_and(|rss| rss > 1e6), "{body}");
        assert!(value(&samples, "System_Runtime_gc_heap_size_megabytes", &[counters]).is_some(), "{body}");
        let family = |name: &str| samples.iter().find(|s| s[0] == name).map(|s| json!([s[1], s[2]]));
        let unit = |unit: &str| if openmetrics { unit.to_owned() } else { String::new() };
        assert_eq!(family("bench_sizes_bytes"), Some(json!(["summary", unit("bytes")])));
        assert_eq!(family("bench_level"), Some(json!(["gauge", ""])));
        assert_eq!(family("bench_seconds"), Some(json!(["counter", unit("seconds")])));
    }
    // A process that has ended is not told about as if it lived.
    meters.stop();
    let pid = pids[0].as_str();
    let gone = |text: &str| text.lines().filter(|line| line.contains(&format!("pid=\"{pid}\""))).count() == 1;
    let (_, body) = scrape(&running, "GET /metrics HTTP/1.1", gone);
    assert!(body.contains(&format!("dnd_up{{pid=\"{pid}\",process=\"dotnet\"}} 0")), "{body}");

    let address = address(&running);
    assert!(http(&address, "GET / HTTP/1.1").1.contains("/metrics"));
    assert!(http(&address, "GET /other HTTP/1.1").0.starts_with("HTTP/1.1 404"));
    assert!(http(&address, "POST /metrics HTTP/1.1").0.starts_with("HTTP/1.1 405"));
    assert!(http(&address, "HEAD /metrics HTTP/1.1").0.starts_with("HTTP/1.1 200"));
    running.signal(Signal::SIGINT);
    running.wait().success();
    assert!(TcpStream::connect(&address).is_err());
}

/// Names, tags and values that the formats have no room for: the parsers take the whole document or nothing.
#[test]
fn prometheus_reads_odd_names() {
    let Some(packages) = python_packages(&["prometheus_client==0.26.0", "opentelemetry-proto==1.45.2"])
    else {
        return;
    };
    for runtime in runtimes().into_iter().filter(|runtime| runtime.major() >= 8) {
        let mut target = Target::spawn(&runtime, "Meters", &[]);
        let list = ["--counters", "Bench.Names", "--prometheus", "127.0.0.1:0"];
        let running = export(&[&target], &list);
        scrape(&running, "GET /metrics HTTP/1.1", |text| text.contains("names_flow"));
        target.ask("step", "stepped ");
        let complete = |text: &str| {
            let line = |start: &str, end: &str| {
                text.lines().any(|line| line.starts_with(start) && line.ends_with(end))
            };
            line("names_lag_sum", " 4") && line("bytes_total", " 1") && line("names_below_count", " 1")
        };
        let ids = runtime.major() >= 9;
        for openmetrics in [true, false] {
            let accept = if openmetrics { "\r\nAccept: application/openmetrics-text" } else { "" };
            let request = format!("GET /metrics HTTP/1.1{accept}");
            let (_, body) = scrape(&running, &request, complete);
            let samples = parsed(&packages, openmetrics, &body);
            let expect = |name: &str, labels: &[(&str, &str)], expected: Option<f64>| {
                assert_eq!(value(&samples, name, labels), expected, "{name} {labels:?} in\n{body}");
            };
            expect("names_lag_sum", &[("exported_quantile", "z")], Some(4.0));
            // `names_lag_count` belongs to the histogram.
            let pid = target.pid().to_string();
            let labels = [("pid", pid.as_str()), ("exported_pid", "p"), ("exported_process", "")];
            expect("names_lag_count_counter_total", &labels, Some(1.0));
            expect("names_below_count", &[], Some(1.0));
            expect("names_below_sum", &[], if openmetrics { None } else { Some(-4.0) });
            expect("bytes_total", &[], Some(1.0));
            expect("names_flow_bytes_per_second", &[], Some(1.5));
            expect("names_used_ratio", &[], Some(0.5));
            expect("names_fallen", &[], Some(-1.0));
            expect("same", &[("otel_scope_version", "2")], Some(2.0));
            // .NET 8 doesn't tell the Meters of version 1 apart.
            expect("same", &[("otel_scope_region", "eu")], ids.then_some(3.0));
            assert!(body.contains("# HELP bytes") && body.contains(" All of\\nthem\n"), "{body}");
        }
        // Quantiles are those of one interval.
        target.ask("step", "stepped ");
        let (_, body) = scrape(&running, "GET /metrics HTTP/1.1", |text| {
            text.contains("exported_quantile=\"z\",quantile=")
        });
        let labels = [("exported_quantile", "z"), ("quantile", "0.5")];
        assert_eq!(value(&parsed(&packages, false, &body), "names_lag", &labels), Some(4.0), "{body}");
        let ambiguous = |name: &str| format!("several values of `{name}` of Bench.Names have the same tags");
        running.wait_stderr(|text| text.contains(&ambiguous("names.twice")).then_some(()));
        if !ids {
            running.wait_stderr(|text| text.contains(&ambiguous("same")).then_some(()));
        }
        running.signal(Signal::SIGINT);
        let output = running.wait();
        assert_eq!(output.stderr.contains(&ambiguous("same")), !ids, "{}", output.stderr);
        output.success();
    }
}

/// One request of a collector's client: head and body; answered with `status`.
fn collect(listener: &TcpListener, status: &str) -> (String, Vec<u8>) {
    let (mut stream, _) = must(listener.accept(), "a push");
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let got = must(stream.read(&mut buffer), "a push");
        assert!(got > 0, "the push breaks off");
        all.extend_from_slice(&buffer[..got]);
        let Some(end) = all.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next()?.parse().ok())
            .unwrap_or(0);
        if all.len() >= end + 4 + length {
            must(
                stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nbusy").as_bytes()),
                "answer",
            );
            return (head, all[end + 4..].to_vec());
        }
    }
}

#[test]
fn opentelemetry_reads_it() {
    let Some(packages) = python_packages(&["prometheus_client==0.26.0", "opentelemetry-proto==1.45.2"])
    else {
        return;
    };
    let Some(mut target) = newest("Meters") else { return };
    let listener = must(TcpListener::bind("127.0.0.1:0"), "listen");
    let url = format!("http://{}", must(listener.local_addr(), "address"));
    let list = "Bench.Meter,Bench.Tagged,Bench.Odd[odd.tags],System.Runtime[gc-heap-size]";
    let running = export(&[&target], &["--counters", list, "--otlp", &url, "--otlp-interval", "1"]);
    let (head, _) = collect(&listener, "503 Service Unavailable");
    assert!(
        head.starts_with("post /v1/metrics") && head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    running
        .wait_stderr(|text| text.contains("fails: it answers 503 Service Unavailable: busy").then_some(()));
    for _ in 0..3 {
        target.ask("step", "stepped ");
    }
    let script = "import sys, json\n\
        from google.protobuf.json_format import MessageToDict\n\
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest as R\n\
        r = R(); r.ParseFromString(sys.stdin.buffer.read()); print(json.dumps(MessageToDict(r)))";
    let document = loop {
        let document = python(&packages, script, &collect(&listener, "200 OK").1);
        // The last of what a step changes.
        if document.to_string().contains("15150.0") && document.to_string().contains("300.0") {
            break document;
        }
    };
    running.wait_stderr(|text| text.contains("works again").then_some(()));
    let resource = &document["resourceMetrics"][0];
    let attributes = resource["resource"]["attributes"].as_array().cloned().unwrap_or_default();
    let attribute = |key: &str| attributes.iter().find(|a| a["key"] == key).map(|a| a["value"].clone());
    assert_eq!(attribute("service.name"), Some(json!({"stringValue": "Meters"})));
    assert_eq!(attribute("process.pid"), Some(json!({"intValue": target.pid().to_string()})));
    let scopes = resource["scopeMetrics"].as_array().cloned().unwrap_or_default();
    let metric = |scope: &str, name: &str| {
        let scope = scopes.iter().find(|s| s["scope"]["name"] == scope)?;
        scope["metrics"].as_array()?.iter().find(|m| m["name"] == name).cloned()
    };
    let expect = |name: &str, path: &str, expected: Value| {
        let metric = metric("Bench.Meter", name).unwrap_or_else(|| panic!("{name} is missing: {document:#}"));
        assert_eq!(metric.pointer(path), Some(&expected), "{path} of {metric:#}");
    };
    expect("bench.done", "/sum/isMonotonic", json!(true));
    expect("bench.done", "/sum/aggregationTemporality", json!("AGGREGATION_TEMPORALITY_CUMULATIVE"));
    expect("bench.done", "/sum/dataPoints/0/asDouble", json!(6.0));
    expect(
        "bench.done",
        "/sum/dataPoints/0/attributes",
        json!([{"key": "kind", "value": {"stringValue": "a"}}]),
    );
    expect("bench.done", "/sum/dataPoints/1/asDouble", json!(9.0));
    expect("bench.done", "/unit", json!("{item}"));
    expect("bench.level", "/sum/dataPoints/0/asDouble", json!(12.0));
    expect("bench.gauge", "/gauge/dataPoints/0/asDouble", json!(9.0));
    expect("bench.sizes", "/summary/dataPoints/0/count", json!("300"));
    expect("bench.sizes", "/summary/dataPoints/0/sum", json!(15150.0));
    let odd = metric("Bench.Odd", "odd.tags").unwrap_or_default();
    let rooms: Vec<_> = (0..3)
        .map(|n| odd["gauge"]["dataPoints"][n]["attributes"][0]["value"]["stringValue"].clone())
        .collect();
    assert_eq!(rooms, ["\u{1b}[2J", "\"q\"\n", "a,b=c"]);
    let heap = metric("System.Runtime", "gc-heap-size").unwrap_or_default();
    assert_eq!((&heap["unit"], &heap["description"]), (&json!("MBy"), &json!("GC Heap Size")));
    let times = &odd["gauge"]["dataPoints"][0];
    let nanos = |key: &str| times[key].as_str().and_then(|t| t.parse::<u64>().ok()).unwrap_or_default();
    assert!(
        nanos("startTimeUnixNano") > 1 << 60 && nanos("timeUnixNano") >= nanos("startTimeUnixNano"),
        "{times}"
    );
    running.signal(Signal::SIGINT);
    running.wait().success();
    assert!(target.alive());
}

#[test]
fn bad_addresses() {
    let fails =
        |args: &[&str]| Dnd::new(DND).args(["counters", "export", "-p", "1"]).args(args).run().fails(2);
    assert!(fails(&["--otlp", "https://127.0.0.1"]).contains("https is not supported"));
    assert!(fails(&["--prometheus", "9464"]).contains("IP:PORT"));
    let Some(target) = newest("Counters") else { return };
    let taken = must(TcpListener::bind("127.0.0.1:0"), "listen");
    let address = must(taken.local_addr(), "address").to_string();
    let running = export(&[&target], &["--prometheus", &address]);
    assert!(running.wait().fails(2).contains("cannot listen on"));
}
