//! A function for each command with one reply. Versions are tried from the newest: asking for a command that a
//! runtime lacks costs 0.2 ms and nothing else.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::codec::{
    self, DecodeError, DumpRequest, EncodeError, EnvironmentHeader, HResult, ProcessInfo, Request,
};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::transport::{QUICK, call, decoded};

/// Largest environment that is read: far above what a kernel gives a process at its start.
const MAX_ENVIRONMENT: u32 = 64 << 20;

/// What a process says about itself; `None` from .NET Core 3, which lives but has no such command.
///
/// # Errors
/// When the process can't be reached or doesn't answer within `within` (each attempt).
pub async fn process_info(endpoint: &Endpoint, within: Duration) -> Result<Option<ProcessInfo>, Error> {
    for (version, request) in
        [(3, Request::ProcessInfo3), (2, Request::ProcessInfo2), (1, Request::ProcessInfo)]
    {
        match call(endpoint, &request, Some(within)).await {
            Ok(reply) => return decoded(&request, ProcessInfo::decode(version, &reply.payload)).map(Some),
            Err(e) if e.is_unknown_command() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// Has the target's runtime write a dump. Takes as long as that takes: there is no time-out, the connection ends with
/// the target.
///
/// # Errors
/// [`Error::Refused`] with the runtime's reason. A success is the runtime's word only: see whether the file is there.
pub async fn generate_core_dump(endpoint: &Endpoint, dump: &DumpRequest) -> Result<(), Error> {
    let versions = [Request::GenerateCoreDump3, Request::GenerateCoreDump2, Request::GenerateCoreDump];
    let mut refused = None;
    for version in versions {
        let request = version(dump.clone());
        match call(endpoint, &request, None).await {
            Ok(reply) => return succeeded(&request, &reply.payload),
            Err(e) if e.is_unknown_command() => refused = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(refused.unwrap_or(Error::Encode(EncodeError::CrashReport)))
}

/// A reply whose payload is an HRESULT.
fn succeeded(request: &Request, payload: &[u8]) -> Result<(), Error> {
    let code = match payload.first_chunk::<4>() {
        Some(&bytes) => HResult(u32::from_le_bytes(bytes)),
        None => return decoded(request, Err(DecodeError::Short("result"))),
    };
    if code == HResult::OK {
        return Ok(());
    }
    Err(Error::Refused { command: request.name(), code, message: None })
}

/// The target's environment as its runtime sees it now, `NAME=value` each (.NET 5 and later).
///
/// # Errors
/// When the target can't be reached, doesn't answer, or is too old.
pub async fn process_environment(endpoint: &Endpoint) -> Result<Vec<String>, Error> {
    let request = Request::ProcessEnvironment;
    let command = request.name();
    let reply = call(endpoint, &request, Some(QUICK)).await?;
    let len = decoded(&request, EnvironmentHeader::decode(&reply.payload))?.len;
    if len > MAX_ENVIRONMENT {
        return decoded(&request, Err(DecodeError::Short("environment")));
    }
    let mut bytes = Vec::new();
    let mut rest = reply.stream.take(u64::from(len));
    timeout(QUICK, rest.read_to_end(&mut bytes))
        .await
        .map_err(|_| Error::NoAnswer { command, after: QUICK })?
        .map_err(|source| Error::Io { command, source })?;
    decoded(&request, codec::environment(&bytes))
}

/// Lets a runtime go on that waits at its start (.NET 5 and later); nothing happens to one that doesn't wait.
///
/// # Errors
/// When the target can't be reached, doesn't answer, or is too old.
pub async fn resume_runtime(endpoint: &Endpoint) -> Result<(), Error> {
    call(endpoint, &Request::ResumeRuntime, Some(QUICK)).await.map(drop)
}

/// Sets an environment variable of the target, or removes it (.NET 6 and later).
///
/// # Errors
/// When the target can't be reached, doesn't answer, or refuses.
pub async fn set_environment_variable(
    endpoint: &Endpoint,
    name: &str,
    value: Option<&str>,
) -> Result<(), Error> {
    let request =
        Request::SetEnvironmentVariable { name: name.to_owned(), value: value.map(ToOwned::to_owned) };
    let reply = call(endpoint, &request, Some(QUICK)).await?;
    succeeded(&request, &reply.payload)
}
