//! Error kinds and exit codes. `docs/exit-codes.md` is the same list for users.

/// What went wrong, seen from the person who typed the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A check had a negative result (nothing found, a comparison that differs).
    Negative,
    /// The command line, or a command of a session, can't be understood.
    Usage,
    /// The process, file or thing named does not exist, or is gone.
    NotFound,
    /// The operating system or the target refuses.
    Permission,
    /// A runtime or a format that this program does not know.
    Unsupported,
    /// The input is damaged or cut off; what could be read was printed.
    Corrupt,
    /// The target, a file or the network failed in an unexpected way.
    Failed,
    /// A mistake in this program.
    Internal,
}

impl Kind {
    /// The process's exit code for an error of this kind. 0 is success.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Negative => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Permission => 4,
            Kind::Unsupported => 5,
            Kind::Corrupt => 6,
            Kind::Failed => 7,
            Kind::Internal => 70,
        }
    }
}

/// An error that can be shown to a user.
///
/// `Display` is one lower-case sentence fragment with the path, address or number in it, fit to follow
/// `error: `. Causes are reached through [`std::error::Error::source`] and never repeated in the text.
pub trait Explain: std::error::Error {
    /// The kind, from which the exit code follows.
    fn kind(&self) -> Kind;

    /// What would help, one sentence each; often none.
    fn hints(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn the_users_list_is_true() {
        let list = include_str!("../../../docs/exit-codes.md");
        let kinds = [
            (Kind::Negative, "negative"),
            (Kind::Usage, "usage"),
            (Kind::NotFound, "not found"),
            (Kind::Permission, "permission"),
            (Kind::Unsupported, "unsupported"),
            (Kind::Corrupt, "corrupt"),
            (Kind::Failed, "failed"),
            (Kind::Internal, "internal"),
        ];
        for (kind, name) in kinds {
            let row = format!("| {} | {name} |", kind.exit_code());
            assert!(list.contains(&row), "docs/exit-codes.md lacks `{row}`");
        }
    }
}
