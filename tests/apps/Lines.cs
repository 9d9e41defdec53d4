// debug: embedded
// optimize: no
// Threads that stand at known lines, in methods whose parameters and locals have known values. Its PDB is inside the
// assembly.
//
//   Lines            every thread waits; nothing moves after `ready`
//   Lines throw      ends with an unhandled exception on the next line of input
//
// A line on which a frame stands ends with `// @NAME`: tests look the numbers up in this file.
// What it prints: {"waiting": how many threads wait, "threads": {name: os id}}
using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace Lines
{
    public enum Colour : short { Red = 1, Green = 0x1234 }
    public struct Small { public int X; public short Y; }
    public struct One { public long Value; }
    public struct Large { public long A, B, C; public string Text; }
    public class Box<T> { public T Value; }
    /// <summary>No object of it is ever made.</summary>
    public struct Three<T> { public T A, B; public long C; }

    static class Program
    {
        static readonly Dictionary<string, int> ids = new Dictionary<string, int>();
        static readonly ManualResetEventSlim never = new ManualResetEventSlim(false, 0); // Without spinning: who waits sleeps in Monitor.Wait.
        static int count;
        static object sink;

        [DllImport("libc")]
        static extern IntPtr readlink(string path, byte[] to, IntPtr size);

        static void Register()
        {
            // A link such as 4711/task/4712.
            var text = new byte[256];
            int length = (int)readlink("/proc/thread-self", text, (IntPtr)text.Length);
            string[] self = System.Text.Encoding.ASCII.GetString(text, 0, length).Split('/');
            string name = Thread.CurrentThread.IsThreadPoolThread ? "pool" : Thread.CurrentThread.Name;
            lock (ids) ids[name] = int.Parse(self[2]);
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Block()
        {
            Register();
            Interlocked.Increment(ref count);
            never.Wait(); // @block
            sink = null;
        }

        // ---- lines
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Statements(int times)
        {
            for (int i = 0; i < times; i++)
            {
                sink = i;
                if (i == 3)
                    Block(); // @loop
                sink = null;
            }
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void ManyLines(string text)
        {
            sink = string.Concat( // @expression
                text,
                Deeper(
                    text,
                    2),
                text);
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static string Deeper(string text, int depth)
        {
            if (depth > 0) return Deeper(text, depth - 1) + text; // @recursion
            Block(); // @depth
            return text;
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Throw() { throw new InvalidOperationException("thrown"); } // @throw

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Catches()
        {
            try
            {
                Throw(); // @try
            }
            catch (InvalidOperationException e) when (e.Message.Length > 0)
            {
                sink = e;
                Block(); // @catch
            }
            finally
            {
                sink = null;
            }
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Fault(Box<string> none)
        {
            try
            {
                sink = "before";
                sink = none.Value; // @fault
                sink = "behind";
            }
            catch (NullReferenceException)
            {
                Block(); // @handler
            }
        }

        static IEnumerable<int> Items()
        {
            yield return 1;
            Block(); // @iterator
            yield return 2;
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static int Sum()
        {
            int sum = 0;
            foreach (int item in Items()) // @foreach
                sum += item;
            return sum;
        }

        static async Task Later()
        {
            await Task.Yield();
            sink = "async";
            Block(); // @async
            await Task.Yield();
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static T Generic<T>(T value, List<T> list)
        {
            list.Add(value);
            var shared = new Three<T> { A = value, C = 0x66 };
            var nested = new Three<KeyValuePair<int, T>> { B = new KeyValuePair<int, T>(0x77, value) };
            Block(); // @generic
            sink = shared.C + nested.B.Key;
            return list[0];
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Elsewhere()
        {
            sink = null;
#line 4711 "/other/Elsewhere.txt"
            Block();
#line default
            sink = "elsewhere";
        }

        // ---- values
        [MethodImpl(MethodImplOptions.NoInlining)]
        static unsafe long Values(
            bool yes, char letter, sbyte tiny, byte octet, short little, ushort half, int number, uint positive,
            long big, ulong huge, float single, double twice, IntPtr pointer, Colour colour, string text,
            object nothing, int[] numbers, Small small, One one, Large large, ref int by, in Large input, int* raw)
        {
            int localNumber = number + 1;
            string localText = text + "!";
            double localTwice = twice * 2;
            Large localLarge = large;
            var three = new Three<int[]> { A = numbers, C = big };
            {
                long inner = big - 1;
                sink = inner;
                Block(); // @values
                localNumber += (int)inner;
            }
            {
                string other = localText + "?";
                sink = other;
                Block();
                localText = other;
            }
            sink = localText; sink = localTwice; sink = nothing; sink = numbers;
            return localNumber + localLarge.A + three.C + by + input.A + *raw + letter + tiny + octet + little + half
                + positive + (long)huge + (long)single + (long)pointer + (long)colour + small.X + one.Value + (yes ? 1 : 0);
        }

        sealed class Instance
        {
            readonly string name;
            public Instance(string name) { this.name = name; }

            [MethodImpl(MethodImplOptions.NoInlining)]
            public T Method<T>(T value, string text)
            {
                T local = value;
                string joined = name + text;
                Block(); // @instance
                sink = joined;
                return local;
            }
        }

        static void CallValues()
        {
            int by = 77, raw = 88;
            var large = new Large { A = 0x1111, B = 0x2222, C = 0x3333, Text = "large" };
            unsafe
            {
                Values(true, 'x', -5, 200, -3000, 60000, -70000, 4000000000, -5000000000, 0xfedcba9876543210, 1.5f, 2.25,
                    (IntPtr)0x1234, Colour.Green, "text", null, new[] { 1, 2, 3 }, new Small { X = 5, Y = 6 },
                    new One { Value = 0x77 }, large, ref by, in large, &raw);
            }
        }

        static void Start(string name, ThreadStart body)
        {
            new Thread(body) { IsBackground = true, Name = name }.Start();
        }

        static int Main(string[] args)
        {
            var bodies = new Dictionary<string, ThreadStart>
            {
                ["loop"] = () => Statements(5), // @lambda
                ["expression"] = () => ManyLines("text"),
                ["catch"] = Catches,
                ["fault"] = () => Fault(null),
                ["iterator"] = () => Sum(),
                ["generic"] = () => Generic("generic", new List<string>()),
                ["elsewhere"] = Elsewhere,
                ["values"] = CallValues,
                ["instance"] = () => new Instance("name").Method(0x55L, "text"),
            };
            foreach (var body in bodies) Start(body.Key, body.Value);
            Task later = Later();
            while (Volatile.Read(ref count) < bodies.Count + 1) Thread.Yield();
            string threads = string.Join(", ", ids.Select(id => $"\"{id.Key}\": {id.Value}"));
            int self = System.Diagnostics.Process.GetCurrentProcess().Id;
            Console.WriteLine($"ready {self} {{\"waiting\": {count}, \"threads\": {{{threads}}}}}");
            Console.ReadLine(); // @main
            if (args.Contains("throw")) Throw(); // @unhandled
            GC.KeepAlive(later);
            return 0;
        }
    }
}
