// Threads that allocate and collect without a pause, for dumps that are taken during a GC, and for events of the GC.
//   AllocLoop [threads]     (default 3)
// 5,000 `Kept` objects stay; everything else comes and goes.
using System;
using System.Diagnostics;
using System.Globalization;
using System.Threading;

namespace Bench
{
    public class Kept { public Kept Next; public byte[] Weight; }
    public class Passing { public Passing Next; public string Text; }

    static class Program
    {
        static Kept kept;
        static volatile bool stop;

        static void Loop(int seed)
        {
            var random = new Random(seed);
            Passing last = null;
            for (int i = 0; !stop; i++)
            {
                last = i % 1000 == 0 ? null : new Passing { Next = last, Text = new string('x', random.Next(100)) };
                if (seed == 0 && i % 20000 == 0) GC.Collect(i % 3);
            }
            GC.KeepAlive(last);
        }

        static int Main(string[] args)
        {
            int count = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 3;
            for (int i = 0; i < 5000; i++) kept = new Kept { Next = kept, Weight = new byte[100] };
            var threads = new Thread[count];
            for (int i = 0; i < count; i++)
            {
                int seed = i;
                threads[i] = new Thread(() => Loop(seed)) { IsBackground = true, Name = "allocator " + i };
                threads[i].Start();
            }
            Console.WriteLine("ready " + Process.GetCurrentProcess().Id + " {\"kept\":5000,\"threads\":" + count + ",\"version\":\"" + Environment.Version + "\"}");
            while (Console.ReadLine() != null) { }
            stop = true;
            foreach (var thread in threads) thread.Join();
            GC.KeepAlive(kept);
            return 0;
        }
    }
}
