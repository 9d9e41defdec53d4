// Event counters with known values, in an event source of its own: "Bench-Counters".
//   polled       PollingCounter             always 42.5
//   rate         IncrementingEventCounter   +10 a step; shown per 2 seconds (DisplayRateTimeScale)
//   polled-rate  IncrementingPollingCounter grows by 3 at every poll
//   sizes        EventCounter               the values 10, 20 and 60 a step: mean 30, min 10, max 60, deviation 21.6
// and an event, Step(number, text). A step is made by every line on stdin; it answers `stepped N`.
// But the line `cost` is answered with what the process has cost so far, `CPU-NANOSECONDS ALLOCATED-BYTES`, and `time`
// with the nanoseconds that a value of `sizes` takes to record: the best of five times 100,000.
using System;
using System.Diagnostics;
using System.Diagnostics.Tracing;
using System.Runtime.InteropServices;

namespace Bench
{
    [EventSource(Name = "Bench-Counters")]
    sealed class Source : EventSource
    {
        public static readonly Source Log = new Source();
        PollingCounter polled;
        IncrementingEventCounter rate;
        IncrementingPollingCounter polledRate;
        EventCounter sizes;
        long polls;

        protected override void OnEventCommand(EventCommandEventArgs command)
        {
            if (command.Command != EventCommand.Enable) return;
            polled ??= new PollingCounter("polled", this, () => 42.5) { DisplayName = "Polled value", DisplayUnits = "u" };
            rate ??= new IncrementingEventCounter("rate", this)
            {
                DisplayName = "Rate of steps", DisplayUnits = "step", DisplayRateTimeScale = TimeSpan.FromSeconds(2),
            };
            polledRate ??= new IncrementingPollingCounter("polled-rate", this, () => polls += 3) { DisplayName = "Polled rate" };
            if (sizes == null)
            {
                sizes = new EventCounter("sizes", this) { DisplayName = "Sizes", DisplayUnits = "B" };
                sizes.AddMetadata("color", "blue");
            }
        }

        [NonEvent]
        public void Count()
        {
            rate?.Increment(10);
            foreach (int size in new[] { 10, 20, 60 }) sizes?.WriteMetric(size);
        }

        [NonEvent]
        public double Time()
        {
            double best = double.MaxValue;
            for (int run = 0; run < 5; run++)
            {
                var watch = Stopwatch.StartNew();
                for (int i = 0; i < 100_000; i++) sizes?.WriteMetric(i & 63);
                best = Math.Min(best, watch.Elapsed.TotalMilliseconds * 10);
            }
            return best;
        }

        [Event(1)]
        public void Step(int number, string text) => WriteEvent(1, number, text);
    }

    static class Program
    {
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

        static int Main()
        {
            var source = Source.Log;
            Console.WriteLine("ready " + Process.GetCurrentProcess().Id + " {\"source\":\"" + source.Name + "\",\"polled\":42.5,\"version\":\"" + Environment.Version + "\"}");
            int steps = 0;
            while (Console.ReadLine() is string line)
            {
                if (line == "cost" || line == "time")
                {
                    Console.WriteLine(line == "time" ? source.Time().ToString("F1") : CpuNanoseconds() + " " + GC.GetTotalAllocatedBytes(true));
                    continue;
                }
                steps++;
                source.Count();
                source.Step(steps, "step " + steps);
                Console.WriteLine("stepped " + steps);
            }
            return 0;
        }
    }
}
