// Static fields of every shape, with known values: of a plain type, of generic types over references and values, of
// types that can be unloaded, of a type made by Reflection.Emit. What they keep is kept by nothing else.
//
// The JSON:
//   owner     operating system id of the thread whose thread statics are set
//   holders   name -> { type, address of an object of it, number, mark, own_mark }: `Number` and the Number of `Pair` are
//             number, the thread statics `OwnNumber` and the Number of `OwnPair` number + 1; `Mark` and `OwnMark` refer to
//             the objects at mark and own_mark (null for the emitted type, which has only Number and Mark)
using System;
using System.Collections.Generic;
using System.Globalization;
using System.Reflection;
using System.Reflection.Emit;
using System.Runtime.InteropServices;
using System.Runtime.Loader;
using System.Text;
using System.Threading;

namespace Statics
{
    public class Mark { }
    public struct Pair { public object Thing; public int Number; }

    public class Plain
    {
        public static long Before = 1;
        public static int Number;
        public static Pair Pair;
        public static Mark Mark;
        [ThreadStatic] public static long OwnBefore;
        [ThreadStatic] public static int OwnNumber;
        [ThreadStatic] public static Pair OwnPair;
        [ThreadStatic] public static Mark OwnMark;

        public static void Set(int number)
        {
            Number = Pair.Number = number;
            Mark = new Mark();
            OwnNumber = OwnPair.Number = number + 1;
            OwnMark = new Mark();
        }
    }

    public class Generic<T>
    {
        public static long Before = 1;
        public static T Value;
        public static int Number;
        public static Pair Pair;
        public static Mark Mark;
        [ThreadStatic] public static T OwnValue;
        [ThreadStatic] public static int OwnNumber;
        [ThreadStatic] public static Pair OwnPair;
        [ThreadStatic] public static Mark OwnMark;

        public static void Set(int number)
        {
            Number = Pair.Number = number;
            Mark = new Mark();
            OwnNumber = OwnPair.Number = number + 1;
            OwnMark = new Mark();
        }
    }

    static class Program
    {
        sealed class Holder
        {
            public string Name, Type;
            public object Instance;
            public Type Of;
            public WeakReference Mark, OwnMark;
            public int Number;
        }

        static readonly List<Holder> holders = new List<Holder>();
        static readonly ManualResetEventSlim set = new ManualResetEventSlim(), park = new ManualResetEventSlim();
        static long owner;

        [DllImport("libc")] static extern long syscall(long number);

        static void Add(string name, string type, Type of) =>
            holders.Add(new Holder { Name = name, Type = type, Of = of, Number = 100 + 10 * holders.Count, Instance = Activator.CreateInstance(of) });

        static void Make()
        {
            Add("plain", "Statics.Plain", typeof(Plain));
            Add("of references", "Statics.Generic<System.String>", typeof(Generic<string>));
            Add("of values", "Statics.Generic<System.Int32>", typeof(Generic<int>));
            Add("of structs", "Statics.Generic<Statics.Pair>", typeof(Generic<Pair>));
            var context = new AssemblyLoadContext("unloadable", true);
            var copy = context.LoadFromAssemblyPath(typeof(Program).Assembly.Location);
            Add("unloadable", "Statics.Plain", copy.GetType("Statics.Plain"));
            Add("unloadable of references", "Statics.Generic<System.String>", copy.GetType("Statics.Generic`1").MakeGenericType(typeof(string)));
            Add("unloadable of values", "Statics.Generic<System.Int32>", copy.GetType("Statics.Generic`1").MakeGenericType(typeof(int)));
            foreach (var access in new[] { AssemblyBuilderAccess.Run, AssemblyBuilderAccess.RunAndCollect })
            {
                var builder = AssemblyBuilder.DefineDynamicAssembly(new AssemblyName("Made" + access), access)
                    .DefineDynamicModule("Module").DefineType("Statics.Made" + access, TypeAttributes.Public);
                builder.DefineField("Number", typeof(int), FieldAttributes.Public | FieldAttributes.Static);
                builder.DefineField("Mark", typeof(object), FieldAttributes.Public | FieldAttributes.Static);
                Add("made to " + access, "Statics.Made" + access, builder.CreateTypeInfo().AsType());
            }
        }

        static void Fill()
        {
            foreach (var holder in holders)
            {
                var fill = holder.Of.GetMethod("Set");
                if (fill != null) fill.Invoke(null, new object[] { holder.Number });
                else
                {
                    holder.Of.GetField("Number").SetValue(null, holder.Number);
                    holder.Of.GetField("Mark").SetValue(null, new Mark());
                }
                holder.Mark = new WeakReference(holder.Of.GetField("Mark").GetValue(null));
                if (fill != null) holder.OwnMark = new WeakReference(holder.Of.GetField("OwnMark").GetValue(null));
            }
        }

        static void Elsewhere(Action action)
        {
            var thread = new Thread(() => action());
            thread.Start();
            thread.Join();
        }

        static void Main()
        {
            Elsewhere(Make);
            new Thread(() => { owner = syscall(186); Fill(); set.Set(); park.Wait(); }) { IsBackground = true }.Start();
            set.Wait();
            for (int i = 0; i < 3; i++) { GC.Collect(); GC.WaitForPendingFinalizers(); }
            string text = null;
            Elsewhere(() =>
            {
                var json = new StringBuilder("{\"owner\":").Append(owner).Append(",\"holders\":{");
                foreach (var holder in holders)
                    json.Append(holder == holders[0] ? "" : ",").AppendFormat(CultureInfo.InvariantCulture,
                        "\"{0}\":{{\"type\":\"{1}\",\"address\":\"{2:x}\",\"number\":{3},\"mark\":\"{4:x}\",\"own_mark\":{5}}}",
                        holder.Name, holder.Type, Pointer(holder.Instance), holder.Number, Pointer(holder.Mark.Target),
                        holder.OwnMark == null ? "null" : "\"" + Pointer(holder.OwnMark.Target).ToString("x") + "\"");
                text = json.Append("}}").ToString();
            });
            Console.WriteLine("ready " + System.Diagnostics.Process.GetCurrentProcess().Id + " " + text);
            while (Console.ReadLine() != null) { }
        }

        static unsafe long Pointer(object thing)
        {
            if (thing == null) return 0;
            var reference = __makeref(thing);
            return **(long**)&reference;
        }
    }
}
