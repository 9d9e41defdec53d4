// references: 8.0.4
// System.Diagnostics.Metrics instruments of every kind with known values, in the meter "Bench.Meter" 1.2.3.
//   bench.done     Counter<long>              +2 with kind=a, +3 with kind=b, a step
//   bench.level    UpDownCounter<int>         +5 a step, and -1: the level is 4 * steps
//   bench.sizes    Histogram<double>          1.0 to 100.0 a step: percentiles 50, 95, 99
//   bench.gauge    ObservableGauge<int>       7 in room=red, 9 in room=blue
//   bench.total    ObservableCounter<long>    100 * steps
//   bench.balance  ObservableUpDownCounter<double>   -1.5 * steps
// and "Bench.Tagged" with meter and instrument tags (8 and later). A step is made by every line on stdin; it answers `stepped N`.
// "Bench.Odd" has what tools get wrong:
//   odd.tags       ObservableGauge            1, 2, 3 in rooms with a quote and a newline, a comma, a terminal escape
//   odd.failing    ObservableGauge            5, but its callback throws between the lines `fail` and `mend`
//   odd.many       Counter<int>               `many N` adds 1 to each of N time series
//   odd.spread     Histogram<int>             `spread N` records 1 in each of N time series
//   odd.steady     ObservableCounter<long>    grows by 5 at every collection
// "Bench.Names" has, in Meters of versions 1 and 2 and one of version 1 with the tag region=eu, `same`, the gauges 1, 2
// and 3; version 1 also has names and values that formats of monitoring systems have no room for:
//   names.lag        Histogram<int>           4 a step, tagged quantile=z
//   names.lag.count  Counter<int>             +1 a step, tagged pid=p, process=
//   names.below      Histogram<int>           -4 a step
//   bytes            Counter<int>             +1 a step, in By
//   names.flow       ObservableGauge          1.5 By/s
//   names.used       ObservableGauge          0.5, in the unit 1
//   names.fallen     ObservableCounter        -1
//   names.twice      ObservableGauge          1 in room=null, 2 in room= (nothing)
// The line `dispose` ends the meter Bench.Tagged. These lines are answered with `done`.
// The line `cost` is answered with what the process has cost so far, `CPU-NANOSECONDS ALLOCATED-BYTES`, and `time` with
// the nanoseconds that a value of bench.done takes to record: the best of five times 100,000.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Runtime.InteropServices;

namespace Bench
{
    static class Program
    {
        static KeyValuePair<string, object> Tag(string key, object value) => new KeyValuePair<string, object>(key, value);

        [DllImport("libc")]
        static extern int clock_gettime(int clock, long[] time);

        // Of all threads, also those that have ended.
        static long CpuNanoseconds()
        {
            var time = new long[2];
            const int CLOCK_PROCESS_CPUTIME_ID = 2;
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, time);
            return time[0] * 1_000_000_000 + time[1];
        }

        static double Time(Counter<long> counter)
        {
            double best = double.MaxValue;
            for (int run = 0; run < 5; run++)
            {
                var watch = Stopwatch.StartNew();
                for (int i = 0; i < 100_000; i++) counter.Add(2, Tag("kind", "a"));
                best = Math.Min(best, watch.Elapsed.TotalMilliseconds * 10);
            }
            return best;
        }

        static int Main()
        {
            int steps = 0;
            var meter = new Meter("Bench.Meter", "1.2.3");
            var done = meter.CreateCounter<long>("bench.done", "{item}", "Items done");
            var level = meter.CreateUpDownCounter<int>("bench.level", "{item}", "Items waiting");
            var sizes = meter.CreateHistogram<double>("bench.sizes", "By", "Sizes of items");
            meter.CreateObservableGauge("bench.gauge", () => new[]
            {
                new Measurement<int>(7, Tag("room", "red")), new Measurement<int>(9, Tag("room", "blue")),
            }, "Cel", "Temperature");
            meter.CreateObservableCounter("bench.total", () => 100L * steps, "s", "Total time");
            meter.CreateObservableUpDownCounter("bench.balance", () => -1.5 * steps);
            var tagged = new Meter("Bench.Tagged", "2", new[] { Tag("region", "eu"), Tag("esc", "\u001b[31m") }, null);
            var hits = tagged.CreateCounter<int>("bench.hits", null, null, new[] { Tag("shard", 3) });
            var odd = new Meter("Bench.Odd");
            bool fail = false;
            odd.CreateObservableGauge("odd.tags", () => new[]
            {
                new Measurement<int>(1, Tag("room", "\"q\"\n")), new Measurement<int>(2, Tag("room", "a,b=c")),
                new Measurement<int>(3, Tag("room", "\u001b[2J")),
            });
            odd.CreateObservableGauge("odd.failing", () => fail ? throw new InvalidOperationException("no value today") : 5);
            var many = odd.CreateCounter<int>("odd.many");
            var spread = odd.CreateHistogram<int>("odd.spread");
            long steady = 0;
            odd.CreateObservableCounter("odd.steady", () => steady += 5);
            var names = new Meter("Bench.Names", "1");
            var others = new[] { new Meter("Bench.Names", "2"), new Meter("Bench.Names", "1", new[] { Tag("region", "eu") }, null) };
            names.CreateObservableGauge("same", () => 1);
            others[0].CreateObservableGauge("same", () => 2);
            others[1].CreateObservableGauge("same", () => 3);
            var lag = names.CreateHistogram<int>("names.lag");
            var lags = names.CreateCounter<int>("names.lag.count");
            var below = names.CreateHistogram<int>("names.below");
            var bytes = names.CreateCounter<int>("bytes", "By", "All of\nthem");
            names.CreateObservableGauge("names.flow", () => 1.5, "By/s");
            names.CreateObservableGauge("names.used", () => 0.5, "1");
            names.CreateObservableCounter("names.fallen", () => -1);
            names.CreateObservableGauge("names.twice", () => new[]
            {
                new Measurement<int>(1, Tag("room", null)), new Measurement<int>(2, Tag("room", "")),
            });

            Console.WriteLine("ready " + Environment.ProcessId + " {\"meter\":\"Bench.Meter\",\"version\":\"" + Environment.Version + "\"}");
            while (Console.ReadLine() is string line)
            {
                if (line == "fail" || line == "mend" || line == "dispose" || line.StartsWith("many ") || line.StartsWith("spread "))
                {
                    if (line == "dispose") tagged.Dispose();
                    else if (line.StartsWith("spread ")) for (int i = int.Parse(line.Substring(7)); i > 0; i--) spread.Record(1, Tag("i", i));
                    else if (line.StartsWith("many ")) for (int i = int.Parse(line.Substring(5)); i > 0; i--) many.Add(1, Tag("i", i));
                    else fail = line == "fail";
                    Console.WriteLine("done");
                    continue;
                }
                if (line == "cost" || line == "time")
                {
                    Console.WriteLine(line == "time" ? Time(done).ToString("F1") : CpuNanoseconds() + " " + GC.GetTotalAllocatedBytes(true));
                    continue;
                }
                steps++;
                done.Add(2, Tag("kind", "a"));
                done.Add(3, Tag("kind", "b"));
                level.Add(5);
                level.Add(-1);
                for (int i = 1; i <= 100; i++) sizes.Record(i);
                hits.Add(1);
                lag.Record(4, Tag("quantile", "z"));
                lags.Add(1, Tag("pid", "p"), Tag("process", ""));
                below.Record(-4);
                bytes.Add(1);
                Console.WriteLine("stepped " + steps);
            }
            GC.KeepAlive(meter);
            return 0;
        }
    }
}
