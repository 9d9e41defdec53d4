// A thread in optimised code: what is told of its variables may be little, but must be true. A release build, its PDB
// beside it.
//
// Lines that are marked are those of Lines.cs: `// @NAME`.
// What it prints: {"thread": os id}
using System;
using System.Collections.Generic;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace Optimised
{
    static class Program
    {
        static readonly ManualResetEventSlim never = new ManualResetEventSlim(), ready = new ManualResetEventSlim();
        static object sink;
        static int id;

        [DllImport("libc")]
        static extern IntPtr readlink(string path, byte[] to, IntPtr size);

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Block()
        {
            // A link such as 4711/task/4712.
            var text = new byte[256];
            int length = (int)readlink("/proc/thread-self", text, (IntPtr)text.Length);
            id = int.Parse(System.Text.Encoding.ASCII.GetString(text, 0, length).Split('/')[2]);
            ready.Set();
            never.Wait();
        }

        [MethodImpl(MethodImplOptions.NoInlining | MethodImplOptions.AggressiveOptimization)]
        static long Outer(long first, string kept, string dead, int small, double twice, long last)
        {
            long sum = first * 3;
            sink = dead;
            long inner = Inner(kept, sum, small); // @outer
            sink = kept;
            return inner + sum + last + (long)twice;
        }

        [MethodImpl(MethodImplOptions.NoInlining | MethodImplOptions.AggressiveOptimization)]
        static long Inner(string kept, long sum, int small)
        {
            long result = 0;
            foreach (var item in new List<string> { kept })
            {
                if (small == 7) Block(); // @inner
                result += item.Length + sum;
            }
            sink = kept;
            return result + small;
        }

        static void Main()
        {
            new Thread(() => Outer(0x1234567, "kept", "dead", 7, 2.5, 0x89)) { IsBackground = true }.Start();
            ready.Wait();
            int self = System.Diagnostics.Process.GetCurrentProcess().Id;
            Console.WriteLine($"ready {self} {{\"thread\": {id}}}");
            Console.ReadLine();
        }
    }
}
