// "Everything on the heap": a known number of every kind of thing that a .NET heap, its handles, its finalizer queue,
// its locks and its threads can hold. What it prints is exact by construction, and read back from the runtime where
// only the runtime knows (addresses, generations, thread ids). After `ready` nothing is allocated, so addresses hold.
//
//   Shapes [pointers]    with an array of pointers, too: Microsoft's own library (8 and later) fails at such an object
//
// The types are its own, so that nobody else makes instances of them. The JSON:
//   types        type name as dotnet-dump writes it -> instances on the heap
//   dead         the same, for instances that nothing reaches (they were made after the last GC)
//   generations  type name -> generation of all its instances, as GC.GetGeneration says
//   objects      name -> { address, type }, one of each for dumpobj, gcroot and the like
//   roots        name of an object -> the one kind of root that keeps it
//   fields       field of the object "every" -> value
//   statics      static field -> value
//   strings      texts of strings on the heap (each as a literal and as a copy); a terminal must not see some of them raw
//   handles      type of handle -> { target type, count }
//   finalizer    f_reachable, registered: type name -> count
//   locks        object, kind, owner, recursion, waiters
//   threads      name -> { managed_id, os_id }
//   exceptions   outermost first: type, message
using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Reflection.Emit;
using System.Runtime.CompilerServices;
using System.Runtime.ConstrainedExecution;
using System.Runtime.InteropServices;
using System.Runtime.Loader;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

namespace Shapes
{
    public class Node { public Node Next; public int Number; }
    public class Old { public Node Child; }
    public class Middle { public int Number; }
    public class Young { public int Number; }
    public class Garbage { public Garbage Next; }
    public class Größe { public int Maß; }

    public enum Color : byte { Red, Green = 7, Blue }
    [Flags] public enum Wide : ulong { None = 0, Low = 1, High = 1UL << 63 }
    public struct Point { public int X, Y; }
    public struct WithRefs { public int Before; public Node First; public Point Middle; public Node Second; }
    public struct Outer { public long Number; public WithRefs Inner; public string Name; }
    public struct Cell { public long Value; }
    public struct Fat { public long A, B, C, D; }
    public struct PohCell { public long A, B; }

    public class Pair<TFirst, TSecond> { public TFirst First; public TSecond Second; }
    public struct Slot<T> { public T Value; public int Used; }
    public class Enclosing<T> { public class Inner<U> { public T Left; public U Right; } public class Plain { public T Value; } }
    public class Base { public int InBase = 11; private int hidden = 12; public int Hidden() => hidden; }
    public class Derived : Base { public int InDerived = 13; private int hidden = 14; public int Hidden2() => hidden; }

    public delegate int Handler(int number);

    /// <summary>A field of every type, with values that show sign, width and byte order.</summary>
    public class Every
    {
        public bool Yes = true;
        public sbyte I1 = -2; public byte U1 = 0xfe;
        public short I2 = -300; public ushort U2 = 0xfedc;
        public int I4 = -70000; public uint U4 = 0xfedcba98;
        public long I8 = -5000000000; public ulong U8 = 0xfedcba9876543210;
        public IntPtr Native = new IntPtr(-9); public UIntPtr UNative = new UIntPtr(0xabcdef);
        public float R4 = 1.5f; public double R8 = -2.25;
        public char Character = 'ß';
        public decimal Money = 12345.67m;
        public DateTime Moment = new DateTime(2024, 2, 29, 12, 34, 56, DateTimeKind.Utc);
        public TimeSpan Span = TimeSpan.FromSeconds(90);
        public Guid Id = new Guid("01234567-89ab-cdef-0123-456789abcdef");
        public Color Enum = Color.Green; public Wide Flags = Wide.High | Wide.Low;
        public int? Some = 42; public int? None; public Point? Where = new Point { X = 3, Y = 4 };
        public string Text = Program.Unique("every text"); public string Null;
        public Node Reference = new Node { Number = -1 };
        public object Boxed = 77;
        public int[] Numbers = { 1, 2, 3 };
        public WithRefs Inline; public Slot<Node> Generic;
        public unsafe int* Pointer = (int*)0x1234;
    }

    // One instance of each, kept by one root each.
    public class ByStatic { } public class ByThreadStatic { } public class ByStrongHandle { } public class ByStack { }
    public class ByDependentHandle { } public class ByFinalizer { ~ByFinalizer() { } } public class ByCollectible { }
    public class ByInterior { } public class ByGenericStatic { } public class ByNothing { } public class ByWeakHandleOnly { }
    [StructLayout(LayoutKind.Sequential)] public class ByPinnedHandle { public int Number; }

    public class WeakTarget { } public class TrackTarget { } public class StrongTarget { }
    [StructLayout(LayoutKind.Sequential)] public class PinnedTarget { public int Number; }
    public class DependentKey { } public class DependentValue { }

    public class Registered { ~Registered() { } }
    public class Condemned { ~Condemned() { } }
    public class CondemnedCritical : CriticalFinalizerObject { ~CondemnedCritical() { } }
    /// <summary>Keeps the finalizer thread, so that what is condemned after it stays in the queue.</summary>
    public class Blocker
    {
        public static readonly ManualResetEventSlim Reached = new ManualResetEventSlim(), Release = new ManualResetEventSlim();
        ~Blocker() { Reached.Set(); Release.Wait(); }
    }

    public class Gate { } public class ThinGate { } public class HashedGate { } public class PulseGate { }
    public class Hashed { }
    public class ShapeException : Exception { public int Code; public ShapeException(string m, Exception inner) : base(m, inner) { } }

    /// <summary>Instances of this come from a second copy of this assembly, in a collectible load context.</summary>
    public class PluginThing
    {
        public static readonly List<object> Kept = new List<object>();
        public int Number;
        public static void Fill(int count, object extra)
        {
            for (int i = 0; i < count; i++) Kept.Add(new PluginThing { Number = i });
            Kept.Add(extra);
        }
    }

    /// <summary>A third copy, loaded from bytes in which the name below is replaced by one with escape sequences.</summary>
    public class ZZescape_31mZZred_ZZtitle { public int Number; }

    static class GenericStatic<T> { public static object Value; public static int Number; }

    static class Program
    {
        static readonly List<object> kept = new List<object>();
        static readonly ManualResetEventSlim park = new ManualResetEventSlim();
        static readonly StringBuilder threadsJson = new StringBuilder();
        static readonly Dictionary<string, object> named = new Dictionary<string, object>();
        static readonly SortedDictionary<string, int> types = new SortedDictionary<string, int>(StringComparer.Ordinal);
        static readonly List<Thread> threads = new List<Thread>();

        // Values of statics, for those who read them.
        public static int Answer = 42;
        public static long Big = -5000000000;
        public static double Ratio = 0.125;
        public static string Motto = Unique("static motto");
        public static Point Origin = new Point { X = -1, Y = 1 };
        public static WithRefs Struct = new WithRefs { Before = 5 };
        public static Color Paint = Color.Blue;
        public static decimal Price = 9.99m;
        public static ByStatic Only = new ByStatic();
        [ThreadStatic] static ByThreadStatic perThread;
        [ThreadStatic] static int perThreadNumber;
        [ThreadStatic] static Node perThreadNode;

        [DllImport("libc")] static extern long syscall(long number);

        /// <summary>A string made at run time: no literal, so it is an ordinary object.</summary>
        [MethodImpl(MethodImplOptions.NoInlining)]
        public static string Unique(string text) => new string(text.ToCharArray());

        static T Keep<T>(T thing) where T : class
        {
            kept.Add(thing);
            Count(thing.GetType(), 1);
            return thing;
        }

        static void Count(Type type, int n)
        {
            types.TryGetValue(Name(type), out int before);
            types[Name(type)] = before + n;
        }

        static T Named<T>(string name, T thing) where T : class { named.Add(name, thing); return thing; }

        // ---- names as dotnet-dump writes them

        static string Name(Type type)
        {
            if (type.IsArray)
            {
                int rank = type.GetArrayRank();
                bool vector = type == type.GetElementType().MakeArrayType();
                return Name(type.GetElementType()) + (vector ? "[]" : rank == 1 ? "[*]" : "[" + new string(',', rank - 1) + "]");
            }
            if (type.IsPointer) return Name(type.GetElementType()) + "*";
            var text = new StringBuilder();
            var arguments = new Queue<Type>(type.GetGenericArguments());
            var parts = new Stack<Type>();
            for (var t = type; t != null; t = t.DeclaringType) parts.Push(t);
            if (!string.IsNullOrEmpty(type.Namespace)) text.Append(type.Namespace).Append('.');
            bool first = true;
            foreach (var part in parts)
            {
                if (!first) text.Append('+');
                first = false;
                int tick = part.Name.IndexOf('`');
                // Reflection escapes what its own grammar of names needs; metadata and dumps don't.
                text.Append((tick < 0 ? part.Name : part.Name.Substring(0, tick)).Replace("\\", ""));
                if (tick < 0) continue;
                int arity = int.Parse(part.Name.Substring(tick + 1), CultureInfo.InvariantCulture);
                text.Append('<').Append(string.Join(", ", Enumerable.Range(0, arity).Select(_ => Name(arguments.Dequeue())))).Append('>');
            }
            return text.ToString();
        }

        // ---- the things

        static void PlainAndGeneric()
        {
            Node last = null;
            for (int i = 0; i < 777; i++) last = new Node { Number = i, Next = last };
            kept.Add(Named("chain", last));
            Count(typeof(Node), 777);
            for (int i = 0; i < 33; i++) Keep(new Pair<int, string> { First = i, Second = Unique("pair " + i) });
            for (int i = 0; i < 21; i++) Keep(new Pair<Node, Pair<int, Color>> { Second = null });
            for (int i = 0; i < 5; i++) Keep(new Pair<Slot<int>, Slot<Node>> { First = new Slot<int> { Value = i } });
            for (int i = 0; i < 4; i++) Keep(new Enclosing<int>.Inner<string> { Left = i });
            for (int i = 0; i < 3; i++) Keep(new Enclosing<Point>.Plain { Value = new Point { X = i } });
            Keep(Named("derived", new Derived()));
            for (int i = 0; i < 2; i++) Keep(new Größe { Maß = i });
            Keep(Named("every", new Every
            {
                Inline = new WithRefs { Before = 1, First = (Node)named["chain"], Middle = new Point { X = 8, Y = 9 } },
                Generic = new Slot<Node> { Value = (Node)named["chain"], Used = 6 },
            }));
            Count(typeof(Node), 1);                      // Every.Reference
        }

        static unsafe void Arrays()
        {
            Keep(Named("vector", new Cell[3] { new Cell { Value = 10 }, new Cell { Value = 20 }, new Cell { Value = 30 } }));
            Keep(new Cell[0]);
            Keep(Named("matrix", new Cell[2, 3]));
            Keep(Named("cube", new Cell[2, 3, 4]));
            Keep(Named("jagged", new Cell[2][]));
            Keep(Named("lower bound", Array.CreateInstance(typeof(Cell), new[] { 2 }, new[] { 5 })));
            Keep(Named("lower bounds", Array.CreateInstance(typeof(Cell), new[] { 2, 2 }, new[] { -1, 7 })));
            var chain = (Node)named["chain"];
            var structs = Named("structs", new WithRefs[4]);
            for (int i = 0; i < 4; i++) structs[i] = new WithRefs { Before = i, First = chain, Middle = new Point { X = i, Y = -i }, Second = new Node { Number = 9000 + i } };
            Keep(structs);
            Count(typeof(Node), 4);
            var outers = Named("nested structs", new Outer[2]);
            outers[1].Inner.Second = new Node { Number = 9100 };
            outers[1].Name = Unique("in a nested struct");
            Keep(outers);
            Count(typeof(Node), 1);
            Keep(new WithRefs[2, 2]);
            Keep(new Color[4]);
            Keep(new Point?[3]);
            Keep(new Node[6]);
            Keep(new Slot<string>[2]);
            Keep(new KeyValuePair<Cell, Node>[2]);
            if (pointers) Keep(Named("pointers", Array.CreateInstance(typeof(Point*), 2)));
            Keep(Named("handlers", new Handler[1]));
            Keep(new Pair<int, string>[2][,]);
        }

        static int Static(int n) => n;
        static void BoxesAndDelegates()
        {
            object Box<T>(T value) { object boxed = value; kept.Add(boxed); Count(boxed.GetType(), 1); return boxed; }
            for (int i = 0; i < 7; i++) Box(new Point { X = i, Y = -i });
            for (int i = 0; i < 5; i++) Box((Color)i);
            for (int i = 0; i < 3; i++) Box<Cell?>(new Cell { Value = i });   // a boxed nullable is a boxed value
            Named("boxed point", Box(new Point { X = 1000, Y = 2000 }));
            Named("boxed struct", Box(new WithRefs { Before = 3, First = (Node)named["chain"] }));
            Box(new Slot<int> { Value = 1 });
            int captured = 5;
            Handler closed = n => n + captured, open = Static, many = open + closed + open;
            foreach (var handler in new[] { closed, open, many }) kept.Add(handler);
            Named("closed delegate", closed);
            Named("static delegate", open);
            Named("multicast delegate", many);
            Count(typeof(Handler), 3);
            Count(typeof(Point), 1);                     // static fields of structs are boxes too: Origin
            Count(typeof(WithRefs), 1);                  // and Struct
        }

        static void LargeAndPinned()
        {
            for (int i = 0; i < 3; i++) Named("large " + i, Keep(new Fat[4000 + i]));       // 32 bytes each: over 85,000
            var allocate = typeof(GC).GetMethods().FirstOrDefault(m => m.Name == "AllocateArray" && m.IsGenericMethodDefinition);
            if (allocate == null) return;                                                   // 3.1 has no pinned heap
            for (int i = 0; i < 2; i++) Named("pinned " + i, Keep((PohCell[])allocate.MakeGenericMethod(typeof(PohCell)).Invoke(null, new object[] { 50 + i, true })));
        }

        static readonly List<GCHandle> gcHandles = new List<GCHandle>();
        static readonly ConditionalWeakTable<object, object> table = new ConditionalWeakTable<object, object>();

        static void Handles()
        {
            void Make<T>(GCHandleType type, int n, bool keep) where T : class, new()
            {
                for (int i = 0; i < n; i++)
                {
                    var target = new T();
                    if (keep) kept.Add(target);
                    gcHandles.Add(GCHandle.Alloc(target, type));
                }
                Count(typeof(T), n);
            }
            Make<WeakTarget>(GCHandleType.Weak, 3, true);
            Make<TrackTarget>(GCHandleType.WeakTrackResurrection, 4, true);
            Make<StrongTarget>(GCHandleType.Normal, 5, false);
            Make<PinnedTarget>(GCHandleType.Pinned, 6, false);
            for (int i = 0; i < 4; i++)
            {
                var key = new DependentKey();
                kept.Add(key);
                table.Add(key, new DependentValue());
            }
            Count(typeof(DependentKey), 4);
            Count(typeof(DependentValue), 4);
        }

        static readonly Dictionary<string, string> roots = new Dictionary<string, string>();
        // `named` must not keep them: only their addresses are noted, at the very end, through weak handles.
        static readonly Dictionary<string, GCHandle> watched = new Dictionary<string, GCHandle>();

        static T Watch<T>(T thing, string root) where T : class
        {
            string name = typeof(T).Name;
            watched.Add(name, GCHandle.Alloc(thing, GCHandleType.Weak));
            roots.Add(name, root);
            Count(typeof(T), 1);
            return thing;
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Rooted()
        {
            Watch(Only, "static");
            GenericStatic<string>.Value = Watch(new ByGenericStatic(), "static");
            GenericStatic<string>.Number = 1;
            GenericStatic<int>.Number = 2;
            gcHandles.Add(GCHandle.Alloc(Watch(new ByStrongHandle(), "strong handle")));
            gcHandles.Add(GCHandle.Alloc(Watch(new ByPinnedHandle(), "pinned handle"), GCHandleType.Pinned));
            var key = new DependentKey();
            kept.Add(key);
            Count(typeof(DependentKey), 1);
            table.Add(key, Watch(new ByDependentHandle(), "dependent handle"));
            gcHandles.Add(GCHandle.Alloc(Watch(new ByWeakHandleOnly(), "none: it was collected"), GCHandleType.Weak));
        }

        static void Finalizers()
        {
            for (int i = 0; i < 20; i++) Keep(new Registered());
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void MakeBlocker() => new Blocker();

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void MakeCondemned()
        {
            for (int i = 0; i < 5; i++) new Condemned();
            for (int i = 0; i < 2; i++) new CondemnedCritical();
            Watch(new ByFinalizer(), "finalizer queue");
        }

        /// <summary>On a thread of its own, whose stack is gone afterwards: nothing of it stays by accident.</summary>
        static void Elsewhere(Action action)
        {
            var thread = new Thread(() => action());
            thread.Start();
            thread.Join();
        }

        // ---- threads

        static readonly Gate gate = new Gate();
        static readonly ThinGate thin = new ThinGate();
        static readonly HashedGate hashedGate = new HashedGate();
        static readonly PulseGate pulse = new PulseGate();
        static readonly CountdownEvent started = new CountdownEvent(1);
        static readonly object threadsLock = new object();

        static Thread Start(string name, Action body)
        {
            started.AddCount();
            var thread = new Thread(() =>
            {
                lock (threadsLock)
                    threadsJson.Append(threadsJson.Length == 0 ? "" : ",").Append(Json(name)).Append(":{\"managed_id\":")
                        .Append(Thread.CurrentThread.ManagedThreadId).Append(",\"os_id\":").Append(syscall(186)).Append('}');
                body();
            }) { IsBackground = true, Name = name };
            threads.Add(thread);
            thread.Start();
            return thread;
        }

        static void Parked() { started.Signal(); park.Wait(); }

        static void UntilBlocked(Thread thread)
        {
            while ((thread.ThreadState & ThreadState.WaitSleepJoin) == 0) Thread.Yield();
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void HoldOnStack()
        {
            var local = Watch(new ByStack(), "stack");
            Parked();
            GC.KeepAlive(local);
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static Pair<ByInterior, int> MakeInterior() => new Pair<ByInterior, int> { First = Watch(new ByInterior(), "stack, by an interior pointer") };

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void HoldInside()
        {
            Count(typeof(Pair<ByInterior, int>), 1);
            ref int inside = ref MakeInterior().Second;
            Parked();
            inside++;
        }

        static void Threads()
        {
            Start("holder", () => { lock (gate) Parked(); });
            Start("thin", () => { lock (thin) lock (thin) lock (thin) Parked(); });
            Start("hashed", () => { RuntimeHelpers.GetHashCode(hashedGate); lock (hashedGate) Parked(); });
            Start("stack", HoldOnStack);
            Start("interior", HoldInside);
            Start("catcher", () =>
            {
                try { try { try { throw new ArgumentException("innermost"); } catch (Exception e) { throw new ShapeException("in the middle", e) { Code = 321 }; } } catch (Exception e) { throw new InvalidOperationException("outermost", e); } }
                catch (Exception e) { kept.Add(Named("exception", e)); Parked(); }
            });
            Count(typeof(ShapeException), 1);
            Start("statics", () =>
            {
                perThread = Watch(new ByThreadStatic(), "thread static");
                perThreadNumber = 4711;
                perThreadNode = new Node { Number = perThreadNumber };
                Parked();
            });
            Count(typeof(Node), 1);
            foreach (object one in new object[] { gate, thin, hashedGate, pulse }) Count(one.GetType(), 1);
            started.Signal();
            started.Wait();
            started.Reset(0);
            // What follows blocks on what those hold.
            started.Reset(1);
            var blocked = Enumerable.Range(0, 3).Select(i => Start("waiter " + i, () => { started.Signal(); lock (gate) { } })).ToList();
            blocked.Add(Start("pulse", () => { lock (pulse) { started.Signal(); Monitor.Wait(pulse); } }));
            started.Signal();
            started.Wait();
            blocked.ForEach(UntilBlocked);
            foreach (var hash in Enumerable.Range(0, 2).Select(_ => Keep(new Hashed()))) RuntimeHelpers.GetHashCode(hash);
        }

        // ---- assemblies

        static void Assemblies()
        {
            string path = typeof(Program).Assembly.Location;
            var plugin = new AssemblyLoadContext("plugin", isCollectible: true);
            var thing = plugin.LoadFromAssemblyPath(path).GetType("Shapes.PluginThing");
            thing.GetMethod("Fill").Invoke(null, new object[] { 6, Watch(new ByCollectible(), "collectible statics") });
            Count(typeof(PluginThing), 6);
            kept.Add(Activator.CreateInstance(thing));   // keeps the load context: it is not unloaded
            Count(typeof(PluginThing), 1);

            var bytes = File.ReadAllBytes(path);
            string from = "ZZescape_31mZZred_ZZtitle", to = "\u001b[31mevil\u001b]0;owned\u0007\u202e!";
            int at = Find(bytes, Encoding.UTF8.GetBytes(from));
            var name = Encoding.UTF8.GetBytes(to);
            for (int i = 0; i < from.Length; i++) bytes[at + i] = i < name.Length ? name[i] : (byte)'_';
            var evil = Assembly.Load(bytes).GetTypes().Single(t => t.Name.Contains("evil"));
            for (int i = 0; i < 8; i++) Keep(Activator.CreateInstance(evil));

            var dynamic = AssemblyBuilder.DefineDynamicAssembly(new AssemblyName("Emitted"), AssemblyBuilderAccess.RunAndCollect);
            var builder = dynamic.DefineDynamicModule("Emitted").DefineType("Emitted.Thing", TypeAttributes.Public);
            builder.DefineField("Number", typeof(int), FieldAttributes.Public);
            var emitted = builder.CreateTypeInfo().AsType();
            for (int i = 0; i < 9; i++) kept.Add(Activator.CreateInstance(emitted));   // no name in a dump: not in `types`
        }

        static int Find(byte[] bytes, byte[] what)
        {
            for (int i = 0; ; i++) if (bytes.AsSpan(i, what.Length).SequenceEqual(what)) return i;
        }

        // ---- strings

        static readonly string[] strings =
        {
            Unique("an ordinary string"), Unique("\u001b[31mred\u001b[0m"), Unique("title \u001b]0;owned\u0007"), Unique("two\nlines\r\n\tand a tab"),
            Unique("nul \0 inside"), Unique("right-to-left \u202e override"), Unique("emoji \U0001F600, ß, 変数"),
            Unique("\"quoted\" \\ back"),
        };
        static readonly string loneSurrogate = Unique("lone \ud800 surrogate"), longString = new string('x', 50000);

        static async Task<int> Pending(TaskCompletionSource<int> never, int depth)
            => depth == 0 ? await never.Task : await Pending(never, depth - 1) + 1;

        // ---- what is told

        static string Json(string text)
        {
            var json = new StringBuilder("\"");
            foreach (char c in text)
                if (c == '"' || c == '\\') json.Append('\\').Append(c);
                else if (c < ' ' || c > '~') json.Append("\\u").Append(((int)c).ToString("x4", CultureInfo.InvariantCulture));
                else json.Append(c);
            return json.Append('"').ToString();
        }

        static string Json(IEnumerable<KeyValuePair<string, int>> counts) => "{" + string.Join(",", counts.Select(c => Json(c.Key) + ":" + c.Value)) + "}";

        static unsafe string Address(object thing)
        {
            // The address of the local that holds the reference, read as a pointer.
            var reference = __makeref(thing);
            return "\"" + (**(ulong**)&reference).ToString("x", CultureInfo.InvariantCulture) + "\"";
        }

        static string Object(string name, object thing)
            => Json(name) + ":{\"address\":" + Address(thing) + ",\"type\":" + Json(Name(thing.GetType())) + "}";

        static object[] young, middle, old;
        static bool pointers;

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void MakeGarbage()
        {
            Garbage last = null;
            for (int i = 0; i < 10; i++) last = new Garbage { Next = last };
            Watch(new ByNothing(), "none: it is garbage");
        }

        static int Main(string[] args)
        {
            pointers = args.Contains("pointers");
            Elsewhere(PlainAndGeneric);
            Elsewhere(Arrays);
            Elsewhere(BoxesAndDelegates);
            Elsewhere(LargeAndPinned);
            Elsewhere(Handles);
            Elsewhere(Rooted);
            Elsewhere(Finalizers);
            Elsewhere(Assemblies);
            Elsewhere(Threads);
            var never = new TaskCompletionSource<int>();
            var pending = new[] { Pending(never, 2), Pending(never, 0) };
            kept.AddRange(pending);
            Named("lone surrogate", loneSurrogate);
            Named("long string", longString);

            Elsewhere(MakeBlocker);
            GC.Collect();
            Blocker.Reached.Wait();
            Elsewhere(MakeCondemned);
            GC.Collect();
            Elsewhere(() => { old = Enumerable.Range(0, 12).Select(_ => (object)new Old()).ToArray(); });
            GC.Collect();
            GC.Collect();
            Elsewhere(() => { middle = Enumerable.Range(0, 11).Select(i => (object)new Middle { Number = i }).ToArray(); });
            GC.Collect(0);
            Elsewhere(() => { young = Enumerable.Range(0, 9).Select(i => (object)new Young { Number = i }).ToArray(); });
            Count(typeof(Old), 12);
            Count(typeof(Middle), 11);
            Count(typeof(Young), 9);
            Elsewhere(MakeGarbage);

            // Counted, but no longer there, or not reachable.
            types.Remove(Name(typeof(ByWeakHandleOnly)));
            types[Name(typeof(Garbage))] = 10;
            types[Name(typeof(Condemned))] = 5;
            types[Name(typeof(CondemnedCritical))] = 2;

            var json = new StringBuilder("{\"version\":").Append(Json(Environment.Version.ToString()));
            json.Append(",\"types\":").Append(Json(types));
            json.Append(",\"dead\":{\"Shapes.Garbage\":10,\"Shapes.ByNothing\":1}");
            json.Append(",\"generations\":").Append(Json(new[] { old, middle, young }.Select(
                a => new KeyValuePair<string, int>(Name(a[0].GetType()), a.Select(GC.GetGeneration).Distinct().Single()))));
            json.Append(",\"objects\":{").Append(string.Join(",", named.Select(n => Object(n.Key, n.Value)).Concat(
                watched.Where(w => w.Value.Target != null).Select(w => Object(w.Key, w.Value.Target))))).Append('}');
            json.Append(",\"roots\":{").Append(string.Join(",", roots.Select(r => Json(r.Key) + ":" + Json(r.Value)))).Append('}');
            json.Append(@",""fields"":{""Yes"":true,""I1"":-2,""U1"":254,""I2"":-300,""U2"":65244,""I4"":-70000,""U4"":4275878552,""I8"":-5000000000,""U8"":18364758544493064720,""Native"":-9,""UNative"":11259375,""R4"":1.5,""R8"":-2.25,""Character"":223,""Enum"":7,""Flags"":9223372036854775809,""Text"":""every text"",""Null"":null}");
            json.Append(@",""statics"":{""Answer"":42,""Big"":-5000000000,""Ratio"":0.125,""Motto"":""static motto"",""Paint"":8,""GenericStatic<System.String>.Number"":1,""GenericStatic<System.Int32>.Number"":2,""perThreadNumber"":4711}");
            json.Append(",\"strings\":[").Append(string.Join(",", strings.Select(Json))).Append(']');
            json.Append(@",""handles"":{""WeakShort"":{""type"":""Shapes.WeakTarget"",""count"":3},""WeakLong"":{""type"":""Shapes.TrackTarget"",""count"":4},""Strong"":{""type"":""Shapes.StrongTarget"",""count"":5},""Pinned"":{""type"":""Shapes.PinnedTarget"",""count"":6},""Dependent"":{""type"":""Shapes.DependentKey"",""count"":5}}");
            json.Append(@",""finalizer"":{""f_reachable"":{""Shapes.Condemned"":5,""Shapes.CondemnedCritical"":2,""Shapes.ByFinalizer"":1},""registered"":{""Shapes.Registered"":20}}");
            json.Append(@",""locks"":[{""object"":""Shapes.Gate"",""kind"":""sync block"",""owner"":""holder"",""recursion"":1,""waiters"":3},{""object"":""Shapes.ThinGate"",""kind"":""thin"",""owner"":""thin"",""recursion"":3,""waiters"":0},{""object"":""Shapes.HashedGate"",""kind"":""sync block"",""owner"":""hashed"",""recursion"":1,""waiters"":0}]");
            json.Append(",\"threads\":{").Append(threadsJson).Append('}');
            json.Append(@",""exceptions"":[{""type"":""System.InvalidOperationException"",""message"":""outermost""},{""type"":""Shapes.ShapeException"",""message"":""in the middle""},{""type"":""System.ArgumentException"",""message"":""innermost""}]}");
            Console.WriteLine("ready " + System.Diagnostics.Process.GetCurrentProcess().Id + " " + json);

            while (Console.ReadLine() != null) { }
            Blocker.Release.Set();
            park.Set();
            GC.KeepAlive(kept);
            return 0;
        }
    }
}
