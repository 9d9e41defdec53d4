// Event counters with known values, in an event source of its own: "Bench-Counters".
//   polled       PollingCounter             always 42.5
//   rate         IncrementingEventCounter   +10 a step; shown per 2 seconds (DisplayRateTimeScale)
//   polled-rate  IncrementingPollingCounter grows by 3 at every poll
//   sizes        EventCounter               the values 10, 20 and 60 a step: mean 30, min 10, max 60, deviation 21.6
// and an event, Step(number, text). A step is made by every line on stdin; it answers `stepped N`.
using System;
using System.Diagnostics;
using System.Diagnostics.Tracing;

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

        [Event(1)]
        public void Step(int number, string text) => WriteEvent(1, number, text);
    }

    static class Program
    {
        static int Main()
        {
            var source = Source.Log;
            Console.WriteLine("ready " + Process.GetCurrentProcess().Id + " {\"source\":\"" + source.Name + "\",\"polled\":42.5,\"version\":\"" + Environment.Version + "\"}");
            for (int steps = 1; Console.ReadLine() != null; steps++)
            {
                source.Count();
                source.Step(steps, "step " + steps);
                Console.WriteLine("stepped " + steps);
            }
            return 0;
        }
    }
}
