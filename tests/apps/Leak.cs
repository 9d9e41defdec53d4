// A console app that leaks in the two classic ways: a static list that only grows, and an event that nobody leaves.
//   Leak [orders [listeners]]        how many of each before it is ready (default 1000 and 100)
// Each further line on stdin leaks as many again and answers `leaked ORDERS LISTENERS`; the end of stdin ends it.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;

namespace Shop
{
    public class Order
    {
        public int Number;
        public string Customer;
        public byte[] Document;
    }

    public class PriceFeed
    {
        public event EventHandler Changed;
        public void Raise() => Changed?.Invoke(this, EventArgs.Empty);
    }

    /// <summary>Asks for news and forgets to stop asking: what it holds stays reachable from the feed.</summary>
    public class PriceListener
    {
        public readonly decimal[] History = new decimal[16];
        public PriceListener(PriceFeed feed) => feed.Changed += OnChanged;
        void OnChanged(object sender, EventArgs e) => History[0] += 1;
    }

    public static class OrderCache
    {
        public static readonly List<Order> Recent = new List<Order>();
    }

    static class Program
    {
        static readonly PriceFeed feed = new PriceFeed();
        static int listeners;

        static void Leak(int orders, int more)
        {
            for (int i = 0; i < orders; i++)
            {
                int number = OrderCache.Recent.Count;
                var text = "customer " + number.ToString(CultureInfo.InvariantCulture);
                OrderCache.Recent.Add(new Order { Number = number, Customer = text, Document = new byte[1000] });
            }
            for (int i = 0; i < more; i++, listeners++) new PriceListener(feed);
        }

        static int Main(string[] args)
        {
            int orders = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 1000;
            int more = args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 100;
            Leak(orders, more);
            Console.WriteLine("ready " + Process.GetCurrentProcess().Id + " {\"orders\":" + OrderCache.Recent.Count
                + ",\"listeners\":" + listeners + ",\"document_bytes\":1000,\"version\":\"" + Environment.Version + "\"}");
            while (Console.ReadLine() != null)
            {
                Leak(orders, more);
                Console.WriteLine("leaked " + OrderCache.Recent.Count + " " + listeners);
            }
            feed.Raise();
            return 0;
        }
    }
}
