// An allocation that failed, and a load context that can't go away.
//
// DOTNET_GCHeapHardLimit is to be set; without it nothing fails.
//
// What it prints: {
//   "asked": bytes of the array that there was no room for, 0 when no allocation failed,
//   "gc": collections when it failed,
//   "holder": address of the object that keeps the unloading context, as its type is loaded into it
// }
using System;
using System.Collections.Generic;
using System.Runtime.CompilerServices;
using System.Runtime.Loader;

namespace Trouble
{
    public class Plugin { }

    static class Program
    {
        static readonly List<object> kept = new List<object>();
        static long asked, collections;

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Unload(bool keep)
        {
            var context = new AssemblyLoadContext(keep ? "kept" : "gone", isCollectible: true);
            var assembly = context.LoadFromAssemblyPath(typeof(Program).Assembly.Location);
            var plugin = Activator.CreateInstance(assembly.GetType("Trouble.Plugin"));
            if (keep) kept.Add(plugin);
            context.Unload();
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Fail()
        {
            const int size = 1_000_000_000;
            try { kept.Add(new byte[size]); }
            catch (OutOfMemoryException)
            {
                asked = size;
                collections = GC.CollectionCount(0);
            }
        }

        static unsafe string Address(object thing) => "0x" + (*(IntPtr*)Unsafe.AsPointer(ref thing)).ToString("x");

        static int Main()
        {
            // The array stays, so that its address can be told.
            kept.Capacity = 16;
            new AssemblyLoadContext("alive", isCollectible: false).LoadFromAssemblyPath(typeof(Program).Assembly.Location);
            Unload(true);
            Unload(false);
            for (int i = 0; i < 6; i++)
            {
                GC.Collect();
                GC.WaitForPendingFinalizers();
            }
            Fail();
            Console.WriteLine("ready " + System.Diagnostics.Process.GetCurrentProcess().Id + " {\"asked\":" + asked + ",\"gc\":" + collections
                + ",\"holder\":\"" + Address(kept[0]) + "\"}");
            while (Console.ReadLine() != null) { }
            GC.KeepAlive(kept);
            return 0;
        }
    }
}
