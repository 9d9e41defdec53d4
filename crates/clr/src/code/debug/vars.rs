//! Where a method's parameters and locals are.
//!
//! Sources: `DoNativeVarInfo` in `vm/debuginfostore.cpp`, `ICorDebugInfo::VarLoc` in `inc/cordebuginfo.h`.

use super::stream::Nibbles;

/// The largest magnitude of the special variable numbers (`MAX_ILNUM`): numbers are stored above it.
const BIAS: u32 = 4;

/// Where a variable is, by register numbers as the processor has them ([`crate::stack::Context`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariablePlace {
    /// In a register.
    Register(u32),
    /// Its address is in a register.
    RegisterAddress(u32),
    /// In a floating-point register.
    FloatRegister(u32),
    /// In memory, at an offset from a register.
    Stack(u32, i32),
    /// Its address is in memory, at an offset from a register.
    StackAddress(u32, i32),
    /// Its lower half in one register, the upper one in another.
    TwoRegisters(u32, u32),
    /// Its lower half in a register, the upper one in memory.
    RegisterAndStack(u32, u32, i32),
    /// Its lower half in memory, the upper one in a register.
    StackAndRegister(u32, i32, u32),
    /// In two words of memory.
    TwoWords(u32, i32),
    /// A way in which no variable is kept on x64 and arm64.
    Other,
}

/// A variable in a part of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeVariable {
    /// First byte of native code for which it is told, from the method's first instruction.
    pub start: u32,
    /// First byte behind.
    pub end: u32,
    /// Its number: parameters, `this` among them, then locals; `None` for what the compiler adds (generic context,
    /// return buffer).
    pub number: Option<u32>,
    /// Where it is.
    pub place: VariablePlace,
}

/// Reads a method's variables; `None` when the bytes end too early or name an unknown place.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<NativeVariable>> {
    let mut stream = Nibbles::new(bytes);
    let count = stream.unsigned()?;
    let mut variables = Vec::new();
    for _ in 0..count {
        let start = stream.unsigned()?;
        let end = start.checked_add(stream.unsigned()?)?;
        let number = stream.unsigned()?.checked_sub(BIAS);
        let place = place(&mut stream)?;
        variables.push(NativeVariable { start, end, number, place });
    }
    Some(variables)
}

fn place(stream: &mut Nibbles<'_>) -> Option<VariablePlace> {
    let kind = stream.unsigned()?;
    Some(match kind {
        0 => VariablePlace::Register(stream.unsigned()?),
        1 => VariablePlace::RegisterAddress(stream.unsigned()?),
        2 => VariablePlace::FloatRegister(stream.unsigned()?),
        3 => VariablePlace::Stack(stream.unsigned()?, stream.signed()?),
        4 => VariablePlace::StackAddress(stream.unsigned()?, stream.signed()?),
        5 => VariablePlace::TwoRegisters(stream.unsigned()?, stream.unsigned()?),
        6 => VariablePlace::RegisterAndStack(stream.unsigned()?, stream.unsigned()?, stream.signed()?),
        7 => {
            let offset = stream.signed()?;
            VariablePlace::StackAndRegister(stream.unsigned()?, offset, stream.unsigned()?)
        }
        8 => VariablePlace::TwoWords(stream.unsigned()?, stream.signed()?),
        // Floating-point stack, fixed arguments of a method with variable ones.
        9 | 10 => {
            stream.unsigned()?;
            VariablePlace::Other
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_every_kind() {
        // Nibbles: count 3; (0, 12, number 0, register 7), (8, 1, generic context, stack rbp - 16), (0, 0, 5, two words).
        let nibbles = [3, 0, 9, 4, 4, 0, 7, 9, 0, 1, 1, 3, 5, 0xc, 1, 0, 0, 9, 1, 9, 0, 4, 9, 0];
        let bytes: Vec<u8> = nibbles.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect();
        let expected = [
            NativeVariable { start: 0, end: 12, number: Some(0), place: VariablePlace::Register(7) },
            NativeVariable { start: 8, end: 9, number: None, place: VariablePlace::Stack(5, -16) },
            NativeVariable { start: 0, end: 0, number: Some(5), place: VariablePlace::TwoWords(4, 4) },
        ];
        assert_eq!(read(&bytes).unwrap(), expected);
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(read(&[0x01, 0x00, 0xb9]), None, "an unknown kind of place");
    }
}
