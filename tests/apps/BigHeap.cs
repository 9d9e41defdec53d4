// A heap of many objects, for the bench: orders with lines, customers in dictionaries, a tree, strings.
//   BigHeap [orders]        default 2,143,000 orders: about 30 million objects in 1.9 GB
// Per order: itself, its list of lines and that list's array, three lines with two tags each, a boxed number; a note and
// a leaf of the tree for every second one; an entry in the dictionary of one of its customers (one customer for a
// hundred orders). The truth tells the exact numbers of its own types.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;

namespace Big
{
    public enum State : byte { New, Paid, Sent }
    public struct Money { public decimal Amount; public string Currency; }
    public class Line { public int Article; public int Count; public decimal Price; public DateTime Added, Changed; public Line Previous; public Order Order; public Tag Tag; }
    public class Tag { public long Since; public object Value; public Tag Next; }
    public class Order
    {
        public long Number;
        public Guid Id;
        public Customer Customer;
        public List<Line> Lines;
        public State State;
        public Money Total;
        public string Note;
    }
    public class Customer { public string Name; public Dictionary<long, Order> ByNumber; public Customer Friend; }
    public class Tree { public Tree Left, Right; public long Key; public Order Value; }

    static class Program
    {
        static readonly List<Order> orders = new List<Order>();
        static readonly Dictionary<string, Customer> customers = new Dictionary<string, Customer>();
        static Tree tree;
        static long lines, tags, leaves, notes;

        static Tree Balanced(int from, int to)
        {
            if (from >= to) return null;
            int middle = from + (to - from) / 2;
            leaves++;
            return new Tree { Key = middle, Value = orders[middle], Left = Balanced(from, middle), Right = Balanced(middle + 1, to) };
        }

        static int Main(string[] args)
        {
            int count = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 2143000;
            var all = new List<Customer>();
            for (int i = 0; i < Math.Max(1, count / 100); i++)
            {
                var customer = new Customer { Name = "customer " + i.ToString(CultureInfo.InvariantCulture), ByNumber = new Dictionary<long, Order>() };
                customer.Friend = all.Count == 0 ? null : all[all.Count / 2];
                all.Add(customer);
                customers.Add(customer.Name, customer);
            }
            var euro = new string("EUR".ToCharArray());
            for (int i = 0; i < count; i++)
            {
                var order = new Order
                {
                    Number = i, Customer = all[i % all.Count], Lines = new List<Line>(3), State = (State)(i % 3),
                    Total = new Money { Amount = i, Currency = euro },
                };
                if (i % 2 == 0) { order.Note = "please deliver between nine and twelve o'clock, order number " + i.ToString(CultureInfo.InvariantCulture); notes++; }
                Line previous = null;
                for (int line = 0; line < 3; line++, lines++)
                {
                    var tag = new Tag { Value = line == 0 ? (object)i : order, Next = new Tag { Value = order.Customer } };
                    tags += 2;
                    order.Lines.Add(previous = new Line { Article = i, Count = line, Previous = previous, Order = order, Tag = tag });
                }
                orders.Add(order);
                order.Customer.ByNumber.Add(i, order);
            }
            tree = Balanced(0, count / 2);
            GC.Collect();
            Console.WriteLine("ready " + Process.GetCurrentProcess().Id + " {\"Big.Order\":" + orders.Count + ",\"Big.Line\":" + lines
                + ",\"Big.Tag\":" + tags + ",\"Big.Tree\":" + leaves + ",\"Big.Customer\":" + customers.Count + ",\"notes\":" + notes
                + ",\"bytes\":" + GC.GetTotalMemory(false) + "}");
            while (Console.ReadLine() != null) { }
            GC.KeepAlive(tree);
            return 0;
        }
    }
}
