// No debuggee but an oracle: prints what System.Reflection.Metadata, the runtime's own reader, finds in an assembly.
// usage: Metadata FILE.dll        one line per row, fields separated by tabs
//        Metadata pdb FILE.dll    lines and locals of its methods, from the PDB inside the assembly or beside it
using System;
using System.Collections.Immutable;
using System.IO;
using System.Linq;
using System.Reflection.Metadata;
using System.Reflection.Metadata.Ecma335;
using System.Reflection.PortableExecutable;
using System.Text;

class Names : ISignatureTypeProvider<string, object>
{
    readonly MetadataReader md;
    public Names(MetadataReader md) { this.md = md; }

    public string Of(EntityHandle h)
    {
        switch (h.Kind)
        {
            case HandleKind.TypeDefinition: return Def((TypeDefinitionHandle)h);
            case HandleKind.TypeReference: return Ref((TypeReferenceHandle)h);
            case HandleKind.TypeSpecification: return md.GetTypeSpecification((TypeSpecificationHandle)h).DecodeSignature(this, null);
            default: return "?";
        }
    }

    static string Join(string ns, string name) => ns.Length == 0 ? name : ns + "." + name;

    public string Def(TypeDefinitionHandle h)
    {
        var t = md.GetTypeDefinition(h);
        var outer = t.GetDeclaringType();
        var name = md.GetString(t.Name);
        return outer.IsNil ? Join(md.GetString(t.Namespace), name) : Def(outer) + "+" + name;
    }

    public string Ref(TypeReferenceHandle h)
    {
        var t = md.GetTypeReference(h);
        var name = md.GetString(t.Name);
        return t.ResolutionScope.Kind == HandleKind.TypeReference
            ? Ref((TypeReferenceHandle)t.ResolutionScope) + "+" + name
            : Join(md.GetString(t.Namespace), name);
    }

    public string Method(MethodSignature<string> s) => "(" + string.Join(", ", s.ParameterTypes) + ")";

    public string GetPrimitiveType(PrimitiveTypeCode c) =>
        c == PrimitiveTypeCode.String || c == PrimitiveTypeCode.Object ? "System." + c : c.ToString();
    public string GetTypeFromDefinition(MetadataReader r, TypeDefinitionHandle h, byte k) => Def(h);
    public string GetTypeFromReference(MetadataReader r, TypeReferenceHandle h, byte k) => Ref(h);
    public string GetTypeFromSpecification(MetadataReader r, object c, TypeSpecificationHandle h, byte k) => Of(h);
    public string GetSZArrayType(string e) => e + "[]";
    public string GetArrayType(string e, ArrayShape s) => e + "[" + (s.Rank == 1 ? "*" : new string(',', s.Rank - 1)) + "]";
    public string GetByReferenceType(string e) => e + " ByRef";
    public string GetPointerType(string e) => e + "*";
    public string GetPinnedType(string e) => e;
    public string GetModifiedType(string m, string u, bool r) => u;
    public string GetGenericInstantiation(string g, ImmutableArray<string> a) => g + "<" + string.Join(",", a) + ">";
    public string GetGenericMethodParameter(object c, int i) => "!!" + i;
    public string GetGenericTypeParameter(object c, int i) => "!" + i;
    public string GetFunctionPointerType(MethodSignature<string> s) => "FnPtr " + s.ReturnType + Method(s);
}

static class Program
{
    static string Hex(MetadataReader md, BlobHandle b) => string.Concat(md.GetBlobBytes(b).Select(x => x.ToString("x2")));

    static int Pdb(string path)
    {
        using var pe = new PEReader(File.OpenRead(path));
        using var o = new StreamWriter(Console.OpenStandardOutput(), new UTF8Encoding(false), 1 << 16);
        if (!pe.TryOpenAssociatedPortablePdb(path, File.OpenRead, out var provider, out _)) return 1;
        var md = provider.GetMetadataReader();
        o.Write("id\t" + string.Concat(md.DebugMetadataHeader.Id.Select(b => b.ToString("x2"))) + "\n");
        foreach (var h in md.MethodDebugInformation)
        {
            int row = MetadataTokens.GetRowNumber(h);
            foreach (var p in md.GetMethodDebugInformation(h).GetSequencePoints())
            {
                var at = p.IsHidden ? "hidden" : p.StartLine + "," + p.StartColumn;
                o.Write($"point\t{row}\t{p.Offset}\t{md.GetString(md.GetDocument(p.Document).Name)}\t{at}\n");
            }
            foreach (var scope in md.GetLocalScopes(h).Select(md.GetLocalScope))
                foreach (var v in scope.GetLocalVariables().Select(md.GetLocalVariable))
                    o.Write($"local\t{row}\t{scope.StartOffset}\t{scope.Length}\t{v.Index}\t{md.GetString(v.Name)}\n");
        }
        return 0;
    }

    static int Main(string[] args)
    {
        if (args[0] == "pdb") return Pdb(args[1]);
        using var pe = new PEReader(File.OpenRead(args[0]));
        using var o = new StreamWriter(Console.OpenStandardOutput(), new UTF8Encoding(false), 1 << 16);
        var md = pe.GetMetadataReader();
        var n = new Names(md);
        int Row(EntityHandle h) => MetadataTokens.GetRowNumber(h);
        string Token(EntityHandle h) => MetadataTokens.GetToken(h).ToString("x8");
        var module = md.GetModuleDefinition();
        o.Write("module\t" + md.GetString(module.Name) + "\t" + md.GetGuid(module.Mvid) + "\n");
        if (md.IsAssembly)
        {
            var a = md.GetAssemblyDefinition();
            o.Write("assembly\t" + md.GetString(a.Name) + "\t" + a.Version + "\n");
        }
        foreach (var h in md.AssemblyReferences)
        {
            var a = md.GetAssemblyReference(h);
            o.Write("reference\t" + md.GetString(a.Name) + "\t" + a.Version + "\n");
        }
        foreach (var e in pe.ReadDebugDirectory().Where(e => e.Type == DebugDirectoryEntryType.CodeView))
        {
            var c = pe.ReadCodeViewDebugDirectoryData(e);
            o.Write("pdb\t" + c.Guid + "\t" + c.Age + "\t" + c.Path + "\n");
            break;
        }
        foreach (var h in md.TypeDefinitions)
        {
            var t = md.GetTypeDefinition(h);
            var b = t.BaseType.IsNil ? "" : n.Of(t.BaseType);
            o.Write("type\t" + Row(h) + "\t" + n.Def(h) + "\t" + b + "\t" + ((int)t.Attributes).ToString("x")
                + "\t" + string.Join(",", t.GetFields().Select(x => Row(x)))
                + "\t" + string.Join(",", t.GetMethods().Select(x => Row(x)))
                + "\t" + string.Join(",", t.GetInterfaceImplementations().Select(x => Token(md.GetInterfaceImplementation(x).Interface)))
                + "\t" + string.Join(",", t.GetGenericParameters().Select(x => md.GetString(md.GetGenericParameter(x).Name))) + "\n");
        }
        for (var i = 1; i <= md.GetTableRowCount(TableIndex.TypeRef); i++)
            o.Write("typeref\t" + n.Ref(MetadataTokens.TypeReferenceHandle(i)) + "\n");
        for (var i = 1; i <= md.GetTableRowCount(TableIndex.TypeSpec); i++)
            o.Write("typespec\t" + n.Of(MetadataTokens.TypeSpecificationHandle(i)) + "\n");
        foreach (var h in md.FieldDefinitions)
        {
            var f = md.GetFieldDefinition(h);
            var constant = "";
            if (!f.GetDefaultValue().IsNil)
            {
                var c = md.GetConstant(f.GetDefaultValue());
                constant = ((int)c.TypeCode).ToString("x") + ":" + Hex(md, c.Value);
            }
            o.Write("field\t" + Row(f.GetDeclaringType()) + "\t" + md.GetString(f.Name) + "\t" + f.DecodeSignature(n, null)
                + "\t" + ((int)f.Attributes).ToString("x") + "\t" + constant + "\t" + f.GetRelativeVirtualAddress() + "\n");
        }
        foreach (var h in md.MethodDefinitions)
        {
            var m = md.GetMethodDefinition(h);
            var s = m.DecodeSignature(n, null);
            o.Write("method\t" + Row(m.GetDeclaringType()) + "\t" + md.GetString(m.Name) + "\t" + s.ReturnType + n.Method(s)
                + "\t" + ((int)m.Attributes).ToString("x") + "\t" + m.RelativeVirtualAddress
                + "\t" + s.GenericParameterCount + "," + s.Header.IsInstance
                + "\t" + string.Join(",", m.GetParameters().Select(p => md.GetParameter(p)).Select(p => p.SequenceNumber + md.GetString(p.Name)))
                + "\t" + string.Join(",", m.GetGenericParameters().Select(x => md.GetString(md.GetGenericParameter(x).Name))) + "\n");
        }
        foreach (var h in md.MemberReferences)
        {
            var m = md.GetMemberReference(h);
            string sig;
            if (m.GetKind() == MemberReferenceKind.Field) sig = m.DecodeFieldSignature(n, null);
            else { var s = m.DecodeMethodSignature(n, null); sig = s.ReturnType + n.Method(s); }
            o.Write("member\t" + Token(m.Parent) + "\t" + md.GetString(m.Name) + "\t" + sig + "\n");
        }
        for (var i = 1; i <= md.GetTableRowCount(TableIndex.MethodSpec); i++)
        {
            var m = md.GetMethodSpecification(MetadataTokens.MethodSpecificationHandle(i));
            o.Write("methodspec\t" + Token(m.Method) + "\t" + string.Join(",", m.DecodeSignature(n, null)) + "\n");
        }
        for (var i = 1; i <= md.GetTableRowCount(TableIndex.StandAloneSig); i++)
        {
            var s = md.GetStandaloneSignature(MetadataTokens.StandaloneSignatureHandle(i));
            if (s.GetKind() == StandaloneSignatureKind.LocalVariables)
                o.Write("locals\t" + i + "\t" + string.Join(", ", s.DecodeLocalSignature(n, null)) + "\n");
            else { var m = s.DecodeMethodSignature(n, null); o.Write("call\t" + i + "\t" + m.ReturnType + n.Method(m) + "\n"); }
        }
        var user = MetadataTokens.UserStringHandle(0);
        for (user = md.GetNextHandle(user); !user.IsNil; user = md.GetNextHandle(user))
        {
            var text = md.GetUserString(user);
            // Unpaired surrogates can't be written; both sides skip them.
            if (text.Any(c => char.IsSurrogate(c) || c < ' ')) continue;
            o.Write("string\t" + MetadataTokens.GetHeapOffset(user) + "\t" + text + "\n");
        }
        return 0;
    }
}
