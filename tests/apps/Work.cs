// Work that waits: queued to the thread pool, in timers, in tasks; and collections and HTTP messages to look into.
//
// What it prints: {
//   "workers": threads of the pool, all of them inside Work.Program.Blocked,
//   "queued": {method: how many wait in the pool's queues},
//   "timers": {method: {"due": ms, "period": ms or -1, "count": n}},
//   "chains": frames of the async methods that wait for each other, one number for each chain,
//   "states": {name: state of the task with that name},
//   "objects": {name: {"address": hex, "type": name}},
//   "http": whether there are HTTP messages,
//   "dictionary": {key: value}, "queue": [items], "numbers": how many numbers the other queue has, from 25 on
// }
using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Threading;
using System.Threading.Tasks;

namespace Work
{
    public class Item { public int Number; public override string ToString() => "item " + Number; }
    public struct Pair { public int Left; public Item Right; }

    static class Program
    {
        static readonly List<object> kept = new List<object>();
        static readonly Dictionary<string, object> named = new Dictionary<string, object>();
        static readonly ManualResetEventSlim gate = new ManualResetEventSlim(), queued = new ManualResetEventSlim();
        static CountdownEvent blocked;

        static T Named<T>(string name, T thing) where T : class { kept.Add(thing); named.Add(name, thing); return thing; }

        // ---- the thread pool: every worker stands in Blocked, the rest of the work waits

        static void Blocked(object state)
        {
            blocked.Signal();
            if (state != null)
            {
                // When all workers are here, nobody takes them.
                blocked.Wait();
                for (int i = 0; i < 2; i++) ThreadPool.QueueUserWorkItem(LocalWork, new Item { Number = i }, true);
                queued.Set();
            }
            gate.Wait();
        }

        static void GlobalWork(object state) { }
        static void LocalWork(Item item) { }
        static void TaskWork() { }

        static int FillPool()
        {
            int workers = Math.Max(2, Environment.ProcessorCount);
            ThreadPool.SetMinThreads(workers, 1);
            if (!ThreadPool.SetMaxThreads(workers, 1)) throw new InvalidOperationException("the pool's limit");
            blocked = new CountdownEvent(workers);
            for (int i = 0; i < workers; i++) ThreadPool.UnsafeQueueUserWorkItem(Blocked, i == 0 ? new object() : null);
            blocked.Wait();
            queued.Wait();
            for (int i = 0; i < 5; i++) ThreadPool.QueueUserWorkItem(GlobalWork, new Item { Number = i });
            for (int i = 0; i < 3; i++) kept.Add(Task.Run((Action)TaskWork));
            return workers;
        }

        // ---- timers

        static void Tick(object state) { }
        static void Once(object state) { }

        static void Timers()
        {
            Named("state", new Item { Number = 99 });
            for (int i = 0; i < 3; i++) kept.Add(new Timer(Tick, named["state"], 3600000, 7200000));
            kept.Add(new Timer(Once, null, 1800000, Timeout.Infinite));
            kept.Add(Task.Delay(5400000));
        }

        // ---- tasks

        static async Task<int> Deep(TaskCompletionSource<int> never, int depth)
        {
            if (depth == 1) return await never.Task;
            return await Deep(never, depth - 1) + 1;
        }

        static async Task Both(Task first, Task second) { await Task.WhenAll(first, second); }

        static async Task Failing() { await Task.Yield(); throw new InvalidOperationException("on purpose"); }

        static void Tasks()
        {
            var never = Named("never", new TaskCompletionSource<int>());
            Named("chain of 4", Deep(never, 4));
            Named("chain of 2", Deep(never, 2));
            var other = new TaskCompletionSource<int>();
            Named("chain of both", Both(Deep(other, 1), other.Task));
            Named("succeeded", Task.FromResult(new Item { Number = 5 }));
            Named("canceled", Task.FromCanceled(new CancellationToken(true)));
            var failing = Named("faulted", Failing());
            try { failing.Wait(); } catch (AggregateException) { }
            Named("waiting", new TaskCompletionSource<int>().Task);
            Named("created", new Task(TaskWork));
        }

        // ---- collections

        static void Collections()
        {
            var dictionary = Named("dictionary", new ConcurrentDictionary<string, Item>());
            for (int i = 0; i < 4; i++) dictionary["key " + i] = new Item { Number = i };
            var numbers = Named("numbers by number", new ConcurrentDictionary<int, long>());
            for (int i = 0; i < 100; i++) numbers[i] = i * 1000L;
            var pairs = Named("pairs", new ConcurrentDictionary<int, Pair>());
            pairs[1] = new Pair { Left = 7, Right = new Item { Number = 8 } };
            Named("empty dictionary", new ConcurrentDictionary<int, int>());
            var queue = Named("queue", new ConcurrentQueue<string>());
            foreach (string text in new[] { "first", "second", "third" }) queue.Enqueue(text);
            // More than one segment, and some of the first one gone.
            var many = Named("many", new ConcurrentQueue<int>());
            for (int i = 0; i < 125; i++) many.Enqueue(i);
            for (int i = 0; i < 25; i++) many.TryDequeue(out int _);
            Named("items", new ConcurrentQueue<Item>(new[] { new Item { Number = 1 }, null }));
            Named("empty queue", new ConcurrentQueue<int>());
        }

        // ---- HTTP

        static void Http()
        {
            Named("pending", new HttpRequestMessage(HttpMethod.Get, "http://example.com/pending?page=1"));
            var request = Named("answered", new HttpRequestMessage(HttpMethod.Post, "https://example.org/answered"));
            kept.Add(new HttpResponseMessage(HttpStatusCode.NotFound) { RequestMessage = request });
        }

        // ---- what is told

        static string Json(string text) => "\"" + text + "\"";

        static unsafe string Address(object thing)
        {
            // The address of the local that holds the reference, read as a pointer.
            var reference = __makeref(thing);
            return (**(ulong**)&reference).ToString("x", CultureInfo.InvariantCulture);
        }

        static void Elsewhere(Action body)
        {
            var thread = new Thread(() => body());
            thread.Start();
            thread.Join();
        }

        static int Main()
        {
            Elsewhere(Tasks);
            Elsewhere(Collections);
            bool http = true;
            // A runtime that was cut down may lack it.
            Elsewhere(() => { try { Http(); } catch (System.IO.FileNotFoundException) { http = false; } });
            Elsewhere(Timers);
            int workers = 0;
            Elsewhere(() => workers = FillPool());
            GC.Collect();
            string objects = string.Join(",", named.Select(one => Json(one.Key) + ":{\"address\":" + Json(Address(one.Value)) + ",\"type\":" + Json(one.Value.GetType().Name) + "}"));
            Console.WriteLine("ready " + System.Diagnostics.Process.GetCurrentProcess().Id + " {\"workers\":" + workers
                + @",""queued"":{""Work.Program.GlobalWork(Object)"":5,""Work.Program.LocalWork(Item)"":2,""Work.Program.TaskWork()"":3}"
                + @",""timers"":{""Work.Program.Tick(Object)"":{""due"":3600000,""period"":7200000,""count"":3},""Work.Program.Once(Object)"":{""due"":1800000,""period"":-1,""count"":1}}"
                + ",\"http\":" + (http ? "true" : "false") + @",""chains"":[4,2,2],""states"":{""succeeded"":""RanToCompletion"",""canceled"":""Canceled"",""faulted"":""Faulted"",""waiting"":""WaitingForActivation"",""created"":""Created"",""chain of 4"":""WaitingForActivation""}"
                + @",""dictionary"":{""key 0"":0,""key 1"":1,""key 2"":2,""key 3"":3},""queue"":[""first"",""second"",""third""],""numbers"":100"
                + ",\"objects\":{" + objects + "}}");
            while (Console.ReadLine() != null) { }
            gate.Set();
            GC.KeepAlive(kept);
            return 0;
        }
    }
}
