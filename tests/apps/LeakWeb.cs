// An ASP.NET Core service that leaks, as the usual tutorial's does: an endpoint adds to a static list, and each request
// leaves a subscription to a static event behind. HTTP only, on a free port of 127.0.0.1.
//   GET /api/diagscenario/memleak/{kb}   keeps that many kilobytes (one Purchase each) and one PriceWatcher
//   GET /api/count                       {"purchases":N,"watchers":N}
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.Linq;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace LeakWeb
{
    public class Purchase
    {
        public string Id;
        public byte[] Invoice;
    }

    public static class PurchaseHistory
    {
        public static readonly List<Purchase> All = new List<Purchase>();
    }

    public static class PriceTicker
    {
        public static event Action<decimal> Changed;
        public static void Publish(decimal price) => Changed?.Invoke(price);
    }

    /// <summary>Subscribes and never leaves: the static event keeps it.</summary>
    public class PriceWatcher
    {
        public static int Count;
        decimal last;
        public PriceWatcher()
        {
            Count++;
            PriceTicker.Changed += OnChanged;
        }
        void OnChanged(decimal price) => last += price;
    }

    static class Program
    {
        static readonly object gate = new object();

        static string Leak(int kilobytes)
        {
            lock (gate)
            {
                for (int i = 0; i < kilobytes; i++)
                    PurchaseHistory.All.Add(new Purchase { Id = "purchase " + PurchaseHistory.All.Count, Invoice = new byte[1000] });
                new PriceWatcher();
            }
            return "success:memleak";
        }

        static string Count()
        {
            lock (gate) return "{\"purchases\":" + PurchaseHistory.All.Count + ",\"watchers\":" + PriceWatcher.Count + "}";
        }

        static int Main(string[] args)
        {
            // Disposed, or the process waits for it at its end (3.1).
            using var host = Host.CreateDefaultBuilder(args)
                .ConfigureLogging(logging => logging.ClearProviders())
                .ConfigureWebHostDefaults(web => web.UseUrls("http://127.0.0.1:0").Configure(app => app.UseRouting().UseEndpoints(routes =>
                {
                    routes.MapGet("/api/diagscenario/memleak/{kb:int}", http =>
                        http.Response.WriteAsync(Leak(int.Parse((string)http.Request.RouteValues["kb"], CultureInfo.InvariantCulture))));
                    routes.MapGet("/api/count", http => http.Response.WriteAsync(Count()));
                })))
                .Build();
            host.Start();
            var server = (Microsoft.AspNetCore.Hosting.Server.IServer)host.Services.GetService(typeof(Microsoft.AspNetCore.Hosting.Server.IServer));
            var url = new Uri(server.Features.Get<IServerAddressesFeature>().Addresses.Single());
            Console.WriteLine("ready " + Process.GetCurrentProcess().Id + " {\"port\":" + url.Port + ",\"version\":\"" + Environment.Version + "\"}");
            while (Console.ReadLine() != null) { }
            PriceTicker.Publish(1);
            host.StopAsync().Wait();
            return 0;
        }
    }
}
