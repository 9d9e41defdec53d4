// Threads stopped at every kind of place that a stack walk has to get over: P/Invokes (inlined, through stubs, with
// callbacks into managed code), locks, catch, filter and finally blocks (nested, too), class constructors, generic
// and dynamic code, reflection, deep recursion, large frames, loops without any call.
//
//   Stacks                    every thread waits, and objects were moved since; nothing moves after `ready`
//   Stacks filters            only the threads inside exception filters (where Microsoft's own library fails on 10.0)
//   Stacks busy               besides those that wait, threads that run: in loops, calling, allocating
//   Stacks throwing           threads that throw and catch without end
//   Stacks throw|failfast|overflow|segv    ends that way on the next line of input
//
// What it prints: {"threads": number of its own threads, "waiting": of these, how many wait}
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Linq;
using System.Reflection;
using System.Reflection.Emit;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace Stacks
{
    public class Node { public Node Next; public string Name; public long A, B; }
    public struct Big { public long A, B, C, D, E, F, G, H; public Node N; public Node M; }
    public struct Pair<T> { public T Left; public int Number; public T Right; }

    public interface IWaiter<T> { T Wait(T value); U WaitGeneric<U>(T value, U other); }

    public class Waiter<T> : IWaiter<T>
    {
        [MethodImpl(MethodImplOptions.NoInlining)]
        public T Wait(T value) { Program.Block(value); return value; }
        [MethodImpl(MethodImplOptions.NoInlining)]
        public virtual U WaitGeneric<U>(T value, U other) { Program.Block(new object[] { value, other }); return other; }
        public class Nested<U>
        {
            [MethodImpl(MethodImplOptions.NoInlining)]
            public static void Static(Dictionary<T, U>.Enumerator e, ref Pair<U> p, T[][] jagged, U[,] matrix)
            {
                Program.Block(p.Left); GC.KeepAlive(jagged); GC.KeepAlive(matrix); e.Dispose();
            }
        }
    }

    public static class Slow
    {
        public static readonly Node Made = Make();
        [MethodImpl(MethodImplOptions.NoInlining)]
        static Node Make() { var n = new Node { Name = "cctor" }; Program.Block(n); return n; }
        [MethodImpl(MethodImplOptions.NoInlining)]
        public static void Touch(Node keep) { GC.KeepAlive(Made); GC.KeepAlive(keep); }
    }

    public static class Program
    {
        delegate int Compare(IntPtr a, IntPtr b);
        [DllImport("libc")] static extern uint sleep(uint seconds);
        [DllImport("libc", EntryPoint = "poll", SetLastError = true)] static extern int PollError(IntPtr list, ulong count, int timeout);
        [DllImport("libc")] static extern void qsort(IntPtr array, UIntPtr count, UIntPtr size, Compare compare);
        delegate int CompareText(IntPtr a, IntPtr b);
        [DllImport("libc")] static extern IntPtr bsearch(string key, string[] list, UIntPtr count, UIntPtr size, CompareText compare);
        [DllImport("libc")] static extern IntPtr memset(IntPtr at, int value, UIntPtr count);

        static volatile bool stop;
        static readonly ManualResetEventSlim never = new ManualResetEventSlim(false);
        static readonly List<(string, ThreadStart)> waiting = new List<(string, ThreadStart)>();
        static CountdownEvent ready;
        static Node keep;

        // ---- where the threads end
        [MethodImpl(MethodImplOptions.NoInlining)]
        public static void Block(object kept) { ready.Signal(); never.Wait(); GC.KeepAlive(kept); }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Throw(string text) { throw new InvalidOperationException(text); }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static bool Filter(Node n) { Block(n); return true; }

        // ---- exceptions
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void InCatch(Node n)
        {
            var local = new Node { Name = "catch-local" };
            try { Throw("catch"); } catch (Exception e) { n.Name = e.Message; Block(local); }
            GC.KeepAlive(local);
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void InFinally(Node n)
        {
            var local = new Node { Name = "finally-local" };
            try { try { Throw("finally"); } finally { Block(local); } } catch (Exception e) { n.Name = e.Message; }
            GC.KeepAlive(local);
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void InPlainFinally(Node n)
        {
            var local = new Node { Name = "plain-finally" };
            try { n.A = local.A; } finally { Block(local); }
            GC.KeepAlive(local);
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void InFilter(Node n)
        {
            var local = new Node { Name = "filter-local" };
            try { Throw("filter"); } catch (Exception e) when (Filter(local)) { n.Name = e.Message; }
            GC.KeepAlive(local);
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Middle(Node n)
        {
            var middle = new Node { Name = "middle" };
            try { Throw("through"); } finally { n.A++; keep = middle; }
            GC.KeepAlive(middle);
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void CatchInCatch(Node n)
        {
            var outer = new Node { Name = "outer" };
            try { Middle(n); }
            catch (Exception first)
            {
                var inner = new Node { Name = "inner" };
                try { Throw(first.Message); } catch (Exception second) { Block(new object[] { second, inner }); }
                GC.KeepAlive(inner); GC.KeepAlive(first);
            }
            GC.KeepAlive(outer);
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void FinallyInCatch(Node n)
        {
            try { Throw("1"); }
            catch (Exception first)
            {
                var inner = new Node { Name = "finally-in-catch" };
                try { try { Throw("2"); } finally { Block(inner); } } catch (Exception second) { n.Name = second.Message; }
                GC.KeepAlive(first);
            }
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void CatchInFinally(Node n)
        {
            try
            {
                try { Throw("1"); }
                finally
                {
                    var inner = new Node { Name = "catch-in-finally" };
                    try { Throw("2"); } catch (Exception second) { n.Name = second.Message; Block(inner); }
                }
            }
            catch (Exception first) { n.Name = first.Message; }
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void CatchAgain(Node n)
        {
            // The first handler is left by an exception that another handler of the same method catches.
            var local = new Node { Name = "again" };
            try
            {
                try { Throw("1"); } catch (Exception first) { local.Name = first.Message; Throw("2"); }
            }
            catch (Exception second) { n.Name = second.Message; Block(local); }
            GC.KeepAlive(local);
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void FilterInCatch(Node n)
        {
            try { Throw("1"); }
            catch (Exception first)
            {
                var local = new Node { Name = "filter-in-catch" };
                try { Middle(n); } catch (Exception second) when (Filter(local)) { n.Name = second.Message; }
                GC.KeepAlive(first);
            }
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Rethrown(Node n)
        {
            try { try { Throw("rethrown"); } catch (InvalidOperationException) { throw; } }
            catch (Exception e) { n.Name = e.Message; Block(n); }
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void ThroughReflection(Node n)
        {
            // What the runtime's own frames protected was unwound with them.
            try { typeof(Program).GetMethod(nameof(Throw), BindingFlags.Static | BindingFlags.NonPublic).Invoke(null, new object[] { "reflected" }); }
            catch (TargetInvocationException e) { n.Name = e.InnerException.Message; Block(n); }
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Cast(object o) { try { keep = (Node)o; } catch (InvalidCastException e) { Block(e); } GC.KeepAlive(o); }
        static async Task LaterCaught(Node n)
        {
            await Task.Yield();
            try { await Task.FromException(new InvalidOperationException("later")); } catch (InvalidOperationException) { Block(n); }
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static int Hardware(Node n, int[] empty)
        {
            try { return n.Next.Name.Length; }
            catch (NullReferenceException e) { Block(e); return 1; }
        }

        // ---- shapes of frames
        [MethodImpl(MethodImplOptions.NoInlining)]
        static unsafe void LargeFrame(Node n, Big big, ref Big by, in Big input)
        {
            Big a = big, b = by, c = input; a.N = n; b.M = n; c.A = 7;
            int* space = stackalloc int[3000]; space[17] = n.Name.Length;
            Block(a.N); keep = null; GC.KeepAlive(b.M); GC.KeepAlive(c.N); n.A = space[17];
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static long Recurse(Node n, int depth) { if (depth == 0) { Block(n); return 1; } return Recurse(n, depth - 1) + n.A; }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static unsafe void ByRefs(int[] numbers, string text)
        {
            ref int third = ref numbers[3];
            ReadOnlySpan<char> part = text.AsSpan(2);
            fixed (int* pinned = &numbers[5]) { pinned[0] = part.Length; Block(numbers); third = pinned[0]; }
            third += part.Length;
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void ManyRegisters(Node a, Node b, Node c, Node d, Node e, Node f, long x, double y, string s)
        {
            for (int i = 0; i < 2; i++) { if (i == 1) Block(a); a.A += x; b.B += (long)y; c.Name = s; }
            GC.KeepAlive(a); GC.KeepAlive(b); GC.KeepAlive(c); GC.KeepAlive(d); GC.KeepAlive(e); GC.KeepAlive(f); GC.KeepAlive(s);
        }
        static IEnumerable<int> Iterate(Node n) { try { yield return 1; Block(n); yield return 2; } finally { n.A++; } }
        static async Task<Node> Later(Node n) { await Task.Yield(); Block(n); return n; }

        // ---- native code
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Native(Node n) { ready.Signal(); sleep(100000); GC.KeepAlive(n); }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void NativeError(Node n) { ready.Signal(); PollError(IntPtr.Zero, 0, -1); GC.KeepAlive(n); }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static unsafe void Callback(Node n)
        {
            int* numbers = stackalloc int[4];
            Compare compare = (a, b) => { Block(n); return 0; };
            qsort((IntPtr)numbers, (UIntPtr)4, (UIntPtr)4, compare);
            GC.KeepAlive(compare); GC.KeepAlive(n);
        }
        // The stubs make room on the stack for what they pass, besides their frames.
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Marshalled(Node n)
        {
            CompareText compare = (a, b) => { Block(n); return 0; };
            bsearch("a key", new[] { "a", "b" }, (UIntPtr)2, (UIntPtr)8, compare);
            GC.KeepAlive(compare); GC.KeepAlive(n);
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Lock(object gate, CountdownEvent before) { before.Signal(); lock (gate) { GC.KeepAlive(gate); } }

        // ---- code made at run time
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Dynamic(Node n)
        {
            var method = new DynamicMethod("Made", typeof(void), new[] { typeof(Node), typeof(List<Node>), typeof(int).MakeByRefType() }, typeof(Program).Module);
            var il = method.GetILGenerator();
            il.Emit(OpCodes.Ldarg_0);
            il.Emit(OpCodes.Call, typeof(Program).GetMethod(nameof(Block)));
            // Something behind the call, or it would become a jump.
            il.Emit(OpCodes.Ldarg_0);
            il.Emit(OpCodes.Pop);
            il.Emit(OpCodes.Ret);
            var call = (Made)method.CreateDelegate(typeof(Made));
            int number = 1;
            call(n, new List<Node> { n }, ref number);
        }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Collectible(Node n)
        {
            var assembly = AssemblyBuilder.DefineDynamicAssembly(new AssemblyName("Unloadable"), AssemblyBuilderAccess.RunAndCollect);
            var type = assembly.DefineDynamicModule("Unloadable").DefineType("Unloadable.Type", TypeAttributes.Public);
            var method = type.DefineMethod("Wait", MethodAttributes.Public | MethodAttributes.Static, typeof(void), new[] { typeof(object) });
            var il = method.GetILGenerator();
            il.Emit(OpCodes.Ldarg_0);
            il.Emit(OpCodes.Call, typeof(Program).GetMethod(nameof(Block)));
            il.Emit(OpCodes.Ldarg_0);
            il.Emit(OpCodes.Pop);
            il.Emit(OpCodes.Ret);
            var call = (Action<object>)type.CreateType().GetMethod("Wait").CreateDelegate(typeof(Action<object>));
            call(n);
        }
        delegate void Made(Node n, List<Node> list, ref int number);

        // ---- threads that run
        [MethodImpl(MethodImplOptions.NoInlining)]
        static long Leaf(long x) { return x * 31 + 7; }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Spin(Node n) { ready.Signal(); long a = 1; while (!stop) { for (int i = 0; i < 100000; i++) a = Leaf(a); n.A = a; } GC.KeepAlive(n); }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Tight(Node n) { ready.Signal(); long a = 1; while (true) { a += n.B; n.B = a; if (stop) break; } GC.KeepAlive(n); }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static Node Make(Node p, int i) { return new Node { Next = i % 1000 == 0 ? null : p, A = i }; }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Alloc() { ready.Signal(); Node p = null; for (int i = 1; !stop; i++) { p = Make(p, i); keep = p; } }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Store(Node[] all) { ready.Signal(); for (int i = 0; !stop; i++) { all[i & 3].Next = all[i + 1 & 3]; all[i & 3] = all[i + 2 & 3]; } }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Exceptions(Node n) { ready.Signal(); while (!stop) { try { Middle(n); } catch (Exception e) { n.Name = e.Message; } } }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Casts(object[] all) { ready.Signal(); long sum = 0; while (!stop) foreach (object o in all) { if (o is IComparable<string> c) sum += c.CompareTo("b"); if (o is Node n) n.A = sum; Array.Copy(all, 1, all, 0, 2); } }
        [MethodImpl(MethodImplOptions.NoInlining)]
        static long Overflow(Node n, long depth) { return depth < 0 ? 0 : Overflow(n, depth + 1) + n.A; }

        // Small stacks: a dump holds all of them.
        static void Start(string name, ThreadStart start) { new Thread(start, 1 << 20) { IsBackground = true, Name = name }.Start(); }

        public static unsafe int Main(string[] args)
        {
            object gate = new object();
            var big = new Big { N = new Node { Name = "big" } };
            ThreadStart[] waiters =
            {
                () => InCatch(new Node { Name = "c" }), () => InFinally(new Node { Name = "f" }),
                () => InPlainFinally(new Node()), () => CatchInCatch(new Node()), () => FinallyInCatch(new Node()),
                () => CatchInFinally(new Node()), () => CatchAgain(new Node()),
                () => Rethrown(new Node()), () => Hardware(new Node(), new int[0]),
                () => ThroughReflection(new Node { Name = "r" }), () => Cast("no node"), () => LaterCaught(new Node { Name = "caught" }).Wait(),
                () => Marshalled(new Node { Name = "marshalled" }),
                () => { IWaiter<Guid*[]> w = new Waiter<Guid*[]>(); w.Wait(null); },
                () => { var other = big; LargeFrame(new Node { Name = "large" }, big, ref other, in big); },
                () => Recurse(new Node { Name = "recurse" }, 60), () => ByRefs(new int[9], "some text"),
                () => ManyRegisters(new Node(), new Node(), new Node(), new Node(), new Node(), new Node(), 3, 4.5, "s"),
                () => { foreach (int i in Iterate(new Node { Name = "iterate" })) GC.KeepAlive(i); },
                () => Later(new Node { Name = "later" }).Wait(),
                () => Native(new Node { Name = "native" }), () => NativeError(new Node { Name = "error" }),
                () => Callback(new Node { Name = "callback" }), () => Dynamic(new Node { Name = "dynamic" }),
                () => Collectible(new Node { Name = "collectible" }),
                () => Slow.Touch(new Node { Name = "touch" }),
                () => { IWaiter<string> w = new Waiter<string>(); w.Wait("text"); },
                () => { IWaiter<Node> w = new Waiter<Node>(); w.WaitGeneric<string>(new Node(), "other"); },
                () => { IWaiter<int> w = new Waiter<int>(); w.WaitGeneric<Pair<Node>>(5, new Pair<Node> { Left = new Node() }); },
                () => { var p = new Pair<Node> { Left = new Node(), Right = new Node() }; Waiter<string>.Nested<Node>.Static(new Dictionary<string, Node>().GetEnumerator(), ref p, new string[2][], new Node[2, 3]); },
                () => typeof(Program).GetMethod(nameof(Block)).Invoke(null, new object[] { new Node { Name = "reflection" } }),
                () => { Action<object> many = o => GC.KeepAlive(o); many += Block; many(new Node { Name = "multicast" }); },
                () => new[] { new Node { Name = "linq" }, new Node() }.Where(n => { Block(n); return true; }).Select(n => n.A).ToArray(),
                () => { try { Array.Sort(new[] { 3, 1, 2 }, (a, b) => { Block(gate); return 0; }); } catch (InvalidOperationException) { } },
            };
            ThreadStart[] runners =
            {
                () => Spin(new Node { Name = "spin" }), () => Tight(new Node { Name = "tight" }), Alloc, Alloc,
                () => Store(new[] { new Node(), new Node(), new Node(), new Node() }), () => Store(new[] { new Node(), new Node(), new Node(), new Node() }),
                () => Casts(new object[] { "a", new Node(), 5, "c" }),
            };
            string mode = args.Length > 0 ? args[0] : "";
            bool busy = mode == "busy";
            if (mode == "filters") waiters = new ThreadStart[] { () => InFilter(new Node { Name = "w" }), () => FilterInCatch(new Node()) };
            else if (mode == "throwing") { waiters = waiters.Take(1).ToArray(); runners = Enumerable.Range(0, 4).Select(i => (ThreadStart)(() => Exceptions(new Node()))).ToArray(); busy = true; }
            else if (mode != "" && !busy) waiters = waiters.Take(3).ToArray();
            ready = new CountdownEvent(waiters.Length + (busy ? runners.Length : 0));
            var before = new CountdownEvent(1);
            Monitor.Enter(gate);
            Start("lock", () => Lock(gate, before));
            before.Wait();
            foreach (var start in waiters) Start("waiter", start);
            if (busy) foreach (var start in runners) Start("runner", start);
            ready.Wait();
            // The last ones have said so and are about to wait.
            Thread.Sleep(300);
            // Moves what threads inside handlers refer to by registers that were saved before.
            if (mode == "") { GC.Collect(); GC.Collect(); }
            Console.WriteLine("ready " + Process.GetCurrentProcess().Id + " {\"threads\":" + (waiters.Length + 1 + (busy ? runners.Length : 0))
                + ",\"waiting\":" + (waiters.Length + 1) + "}");
            Console.ReadLine();
            stop = true;
            switch (mode)
            {
                case "throw": Start("thrower", () => { try { Middle(new Node()); } finally { keep = null; } }); break;
                case "failfast": Environment.FailFast("on purpose"); break;
                case "overflow": Console.WriteLine(Overflow(new Node(), 0)); break;
                case "segv": memset((IntPtr)8, 1, (UIntPtr)8); break;
            }
            never.Wait();
            return 0;
        }
    }
}
