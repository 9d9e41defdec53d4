// Threads that wait for each other: two over monitors, a third behind them, and (.NET 9 and later) two over
// System.Threading.Lock.
//
// What it prints: {"threads": {name: os id}, "lock": whether there is System.Threading.Lock}
using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;

namespace Deadlock
{
    public class Left { }
    public class Right { }

    static class Program
    {
        static readonly Dictionary<string, int> ids = new Dictionary<string, int>();
        static readonly List<Thread> threads = new List<Thread>();
        static readonly object left = new Left(), right = new Right();

        /// <summary>Runs a thread and waits until it has its first lock.</summary>
        static void Start(string name, Action<Action> body)
        {
            var has = new ManualResetEventSlim();
            var thread = new Thread(() =>
            {
                // A link such as 4711/task/4712.
                string[] self = ReadLink("/proc/thread-self").Split('/');
                lock (ids) ids[name] = int.Parse(self[2]);
                body(has.Set);
            }) { IsBackground = true };
            threads.Add(thread);
            thread.Start();
            has.Wait();
        }

        [System.Runtime.InteropServices.DllImport("libc")]
        static extern IntPtr readlink(string path, byte[] to, IntPtr size);

        static string ReadLink(string path)
        {
            var text = new byte[256];
            int length = (int)readlink(path, text, (IntPtr)text.Length);
            return System.Text.Encoding.ASCII.GetString(text, 0, length);
        }

        static void TakeRight() { lock (right) { } }
        static void TakeLeft() { lock (left) { } }

        static readonly ManualResetEventSlim go = new ManualResetEventSlim();
        static int past;

        /// <summary>What follows blocks, except where the last lock is free.</summary>
        static void Go() { go.Wait(); Interlocked.Increment(ref past); }

        static int Main()
        {
            Start("left", has => { lock (left) { has(); Go(); TakeRight(); } });
            Start("right", has => { lock (right) { has(); Go(); TakeLeft(); } });
            Start("behind", has => { has(); Go(); TakeLeft(); });
            Type type = Type.GetType("System.Threading.Lock");
            if (type != null)
            {
                Action Enter(object one) => (Action)Delegate.CreateDelegate(typeof(Action), one, "Enter");
                var first = Enter(Activator.CreateInstance(type));
                var second = Enter(Activator.CreateInstance(type));
                Start("first", has => { first(); has(); Go(); second(); });
                Start("second", has => { second(); has(); Go(); first(); });
            }
            go.Set();
            while (Volatile.Read(ref past) < threads.Count || threads.Any(thread => (thread.ThreadState & ThreadState.WaitSleepJoin) == 0)) Thread.Yield();
            string names = string.Join(",", ids.Select(one => "\"" + one.Key + "\":" + one.Value));
            Console.WriteLine("ready " + System.Diagnostics.Process.GetCurrentProcess().Id + " {\"threads\":{" + names + "},\"lock\":" + (type != null ? "true" : "false") + "}");
            while (Console.ReadLine() != null) { }
            return 0;
        }
    }
}
