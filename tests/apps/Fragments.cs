// Free space between objects that may not move: what a pinned buffer costs.
//
// What it prints: {"pinned": [addresses of the pinned arrays, in the order of allocation], "between": bytes of garbage
// before each, at least}
using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.InteropServices;
using System.Threading;

namespace Fragments
{
    static class Program
    {
        const int Between = 800 * 1000;
        static readonly List<GCHandle> pins = new List<GCHandle>();

        static int Main()
        {
            // On a thread of its own, so that nothing of it stays on a stack.
            var maker = new Thread(() =>
            {
                for (int i = 0; i < 12; i++)
                {
                    for (int bytes = 0; bytes < Between; bytes += 1000) new byte[1000].AsSpan().Clear();
                    pins.Add(GCHandle.Alloc(new byte[96], GCHandleType.Pinned));
                }
            });
            maker.Start();
            maker.Join();
            // Not compacting: the garbage becomes free blocks where it lies.
            GC.Collect(2, GCCollectionMode.Forced, true, false);
            // An array's elements begin behind its method table and its length.
            var addresses = pins.Select(pin => "\"0x" + (pin.AddrOfPinnedObject().ToInt64() - 16).ToString("x") + "\"");
            int pid = System.Diagnostics.Process.GetCurrentProcess().Id;
            Console.WriteLine($"ready {pid} {{\"pinned\":[{string.Join(",", addresses)}],\"between\":{Between}}}");
            Console.In.ReadToEnd();
            return 0;
        }
    }
}
