// Objects that native code holds through COM wrappers: each has a ref-counted handle, which keeps it alive while its
// count is not 0. .NET Core 3.1 has none of these on Linux.
//
// What it prints: {"supported": whether there are any, "held": number of objects with a count of 1 or 2,
// "released": number with a count of 0}
using System;
using System.Linq;
using System.Reflection;
using System.Reflection.Emit;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace RefCounted
{
    public class Held { public Child Child = new Child(); }
    public class Child { }
    public class Released { }

    public static class Program
    {
        static MethodInfo wrap;
        static object wrappers, flags;

        /// <summary>A class derived from the ComWrappers of .NET 5 and later, which this is not compiled for.</summary>
        static bool Prepare()
        {
            Type type = typeof(object).Assembly.GetType("System.Runtime.InteropServices.ComWrappers");
            if (type == null) return false;
            var assembly = AssemblyBuilder.DefineDynamicAssembly(new AssemblyName("Wrappers"), AssemblyBuilderAccess.Run);
            var made = assembly.DefineDynamicModule("Wrappers").DefineType("Wrappers.Plain", TypeAttributes.Public, type);
            const BindingFlags all = BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic;
            foreach (MethodInfo method in type.GetMethods(all).Where(m => m.IsAbstract))
            {
                MethodAttributes access = method.Attributes & MethodAttributes.MemberAccessMask;
                var parameters = method.GetParameters().Select(p => p.ParameterType).ToArray();
                ILGenerator il = made.DefineMethod(method.Name, access | MethodAttributes.Virtual | MethodAttributes.HideBySig, method.ReturnType, parameters).GetILGenerator();
                if (method.Name == "ComputeVtables")
                {
                    // No interfaces but IUnknown.
                    il.Emit(OpCodes.Ldarg_3);
                    il.Emit(OpCodes.Ldc_I4_0);
                    il.Emit(OpCodes.Stind_I4);
                    il.Emit(OpCodes.Ldc_I4_0);
                    il.Emit(OpCodes.Conv_U);
                }
                else if (method.ReturnType != typeof(void)) il.Emit(OpCodes.Ldnull);
                il.Emit(OpCodes.Ret);
            }
            wrappers = Activator.CreateInstance(made.CreateType());
            wrap = type.GetMethods(all).First(m => m.Name == "GetOrCreateComInterfaceForObject");
            flags = Enum.ToObject(wrap.GetParameters()[1].ParameterType, 0);
            return true;
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static IntPtr Wrap(object one) { return (IntPtr)wrap.Invoke(wrappers, new object[] { one, flags }); }

        [MethodImpl(MethodImplOptions.NoInlining)]
        static void Make()
        {
            for (int i = 0; i < 3; i++) Wrap(new Held());
            Marshal.AddRef(Wrap(new Held()));
            for (int i = 0; i < 5; i++) Marshal.Release(Wrap(new Released()));
        }

        public static int Main()
        {
            bool supported = Prepare();
            if (supported)
            {
                // What must not stay on a stack by accident.
                var maker = new Thread(Make);
                maker.Start();
                maker.Join();
            }
            Console.WriteLine("ready " + System.Diagnostics.Process.GetCurrentProcess().Id + " {\"supported\":"
                + (supported ? "true,\"held\":4,\"released\":5}" : "false,\"held\":0,\"released\":0}"));
            Console.ReadLine();
            GC.KeepAlive(wrappers);
            return 0;
        }
    }
}
