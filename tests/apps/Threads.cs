// Many threads that wait, each a few managed frames deep, as the workers of a service do; for the bench.
//   Threads [count]        default 14 managed threads in all: the main thread, the finalizer's and the rest
// They wait for a lock, for an event, for the next item of a queue in turns; in methods of generic types, through
// interfaces, delegates and iterators.
using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.Linq;
using System.Runtime.CompilerServices;
using System.Threading;

namespace Crowd
{
    public class Job { public string Name; public object[] Arguments; }
    public interface IWorker<T> { T Work(T item, int depth); }

    public class Worker<T> : IWorker<T> where T : class
    {
        readonly Func<Job, bool> wait;
        public Worker(Func<Job, bool> wait) { this.wait = wait; }

        [MethodImpl(MethodImplOptions.NoInlining)]
        public virtual T Work(T item, int depth)
        {
            var kept = new Job { Name = "depth " + depth, Arguments = new object[] { item } };
            T result = depth == 0 ? Finish(kept, item) : ((IWorker<T>)this).Work(item, depth - 1);
            GC.KeepAlive(kept);
            return result;
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        T Finish(Job job, T item) => Enumerable.Range(0, 1).Select(_ => wait(job) ? item : null).First();
    }

    static class Program
    {
        static readonly object gate = new object();
        static readonly ManualResetEventSlim done = new ManualResetEventSlim();
        static readonly BlockingCollection<Job> queue = new BlockingCollection<Job>();

        static bool Locked(Job job) { lock (gate) return job != null; }
        static bool Evented(Job job) { done.Wait(); return job != null; }
        static bool Queued(Job job) { return queue.TryTake(out _, Timeout.Infinite); }

        static int Main(string[] args)
        {
            int count = (args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 14) - 2;
            var waits = new Func<Job, bool>[] { Locked, Evented, Queued };
            var threads = new List<Thread>();
            Monitor.Enter(gate);
            for (int i = 0; i < count; i++)
            {
                int number = i;
                var thread = new Thread(() => new Worker<string>(waits[number % 3]).Work("item " + number, 2 + number % 4), 256 << 10) { IsBackground = true };
                thread.Start();
                threads.Add(thread);
            }
            while (threads.Any(thread => (thread.ThreadState & System.Threading.ThreadState.WaitSleepJoin) == 0)) Thread.Yield();
            Console.WriteLine("ready " + Process.GetCurrentProcess().Id + " {\"threads\":" + (count + 2) + "}");
            while (Console.ReadLine() != null) { }
            return 0;
        }
    }
}
