//! What the state machine can be told. Commands are what the Raft log replicates; everything they
//! need is inside, so that every member that applies them gets the same state.

use crate::{
    Condition, LeaseId, Operation, Revision, Txn, TxnResponse,
    encoding::{DecodeError, Decoder, put_bytes, put_lease, put_u64},
};
use bytes::Bytes;
use std::{num::NonZeroU64, time::Duration};

/// The version of the encoding below; a change of it is a change of the directory format too.
const COMMAND_VERSION: u8 = 1;

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Commit(Txn),
    Compact {
        at: Revision,
    },
    GrantLease {
        ttl: Duration,
    },
    /// Ends a lease, on request or because it expired: the leader's clock decides and this command
    /// tells everybody.
    RevokeLease {
        lease: LeaseId,
    },
}

/// What came of a command, for the one who proposed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Txn(TxnResponse),
    Compacted,
    Granted(LeaseId),
    Revoked,
}

impl Outcome {
    pub(crate) fn into_txn(self) -> TxnResponse {
        match self {
            Outcome::Txn(response) => response,
            other => unreachable!("a transaction ended in {other:?}"),
        }
    }

    pub(crate) fn into_lease(self) -> LeaseId {
        match self {
            Outcome::Granted(lease) => lease,
            other => unreachable!("the grant of a lease ended in {other:?}"),
        }
    }
}

mod tag {
    pub(super) const COMMIT: u8 = 1;
    pub(super) const COMPACT: u8 = 2;
    pub(super) const GRANT_LEASE: u8 = 3;
    pub(super) const REVOKE_LEASE: u8 = 4;

    pub(super) const ABSENT: u8 = 1;
    pub(super) const MOD_REVISION: u8 = 2;
    pub(super) const PUT: u8 = 1;
    pub(super) const DELETE: u8 = 2;
}

impl Command {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size_hint());
        out.push(COMMAND_VERSION);
        match self {
            Command::Commit(txn) => {
                out.push(tag::COMMIT);
                put_u64(&mut out, txn.conditions.len() as u64);
                txn.conditions.iter().for_each(|condition| encode_condition(&mut out, condition));
                put_u64(&mut out, txn.operations.len() as u64);
                txn.operations.iter().for_each(|operation| encode_operation(&mut out, operation));
            }
            Command::Compact { at } => {
                out.push(tag::COMPACT);
                put_u64(&mut out, *at);
            }
            Command::GrantLease { ttl } => {
                out.push(tag::GRANT_LEASE);
                put_u64(&mut out, u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            }
            Command::RevokeLease { lease } => {
                out.push(tag::REVOKE_LEASE);
                put_lease(&mut out, Some(*lease));
            }
        }
        out
    }

    fn size_hint(&self) -> usize {
        const OVERHEAD: usize = 32;
        match self {
            Command::Commit(txn) => {
                let conditions = txn.conditions.iter().map(|condition| condition.key().len() + OVERHEAD);
                let operations = txn.operations.iter().map(|operation| match operation {
                    Operation::Put { key, value, .. } => key.len() + value.len() + OVERHEAD,
                    Operation::Delete { key } => key.len() + OVERHEAD,
                });
                conditions.chain(operations).sum::<usize>() + OVERHEAD
            }
            _ => OVERHEAD,
        }
    }

    /// Values share the buffer of `input`.
    pub(crate) fn decode(input: Bytes) -> Result<Command, DecodeError> {
        let mut input = Decoder::new(input);
        match input.u8()? {
            COMMAND_VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let command = match input.u8()? {
            tag::COMMIT => Command::Commit(Txn {
                conditions: decode_list(&mut input, decode_condition)?,
                operations: decode_list(&mut input, decode_operation)?,
            }),
            tag::COMPACT => Command::Compact { at: input.u64()? },
            tag::GRANT_LEASE => Command::GrantLease { ttl: Duration::from_millis(input.u64()?) },
            tag::REVOKE_LEASE => {
                let lease = NonZeroU64::new(input.u64()?).ok_or(DecodeError::Number)?;
                Command::RevokeLease { lease: LeaseId(lease) }
            }
            other => return Err(DecodeError::Tag(other)),
        };
        input.finish()?;
        Ok(command)
    }
}

fn encode_condition(out: &mut Vec<u8>, condition: &Condition) {
    match condition {
        Condition::Absent { key } => {
            out.push(tag::ABSENT);
            put_bytes(out, key.as_bytes());
        }
        Condition::ModRevision { key, revision } => {
            out.push(tag::MOD_REVISION);
            put_bytes(out, key.as_bytes());
            put_u64(out, *revision);
        }
    }
}

fn decode_condition(input: &mut Decoder) -> Result<Condition, DecodeError> {
    Ok(match input.u8()? {
        tag::ABSENT => Condition::Absent { key: input.key()? },
        tag::MOD_REVISION => Condition::ModRevision { key: input.key()?, revision: input.u64()? },
        other => return Err(DecodeError::Tag(other)),
    })
}

fn encode_operation(out: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Put { key, value, lease } => {
            out.push(tag::PUT);
            put_bytes(out, key.as_bytes());
            put_lease(out, *lease);
            put_bytes(out, value);
        }
        Operation::Delete { key } => {
            out.push(tag::DELETE);
            put_bytes(out, key.as_bytes());
        }
    }
}

fn decode_operation(input: &mut Decoder) -> Result<Operation, DecodeError> {
    Ok(match input.u8()? {
        tag::PUT => Operation::Put { key: input.key()?, lease: input.lease()?, value: input.bytes()? },
        tag::DELETE => Operation::Delete { key: input.key()? },
        other => return Err(DecodeError::Tag(other)),
    })
}

fn decode_list<T>(
    input: &mut Decoder,
    element: fn(&mut Decoder) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    // No capacity is reserved from a number that the input claims.
    (0..input.u64()?).map(|_| element(input)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Command> {
        let lease = LeaseId(NonZeroU64::new(300).unwrap());
        vec![
            Command::Commit(Txn::default()),
            Command::Commit(Txn {
                conditions: vec![
                    Condition::Absent { key: "/registry/core/pods/default/web".into() },
                    Condition::ModRevision { key: "/ü".into(), revision: u64::MAX },
                ],
                operations: vec![
                    Operation::Put { key: "a".into(), value: Bytes::from(vec![7; 200]), lease: Some(lease) },
                    Operation::Put { key: "b".into(), value: Bytes::new(), lease: None },
                    Operation::Delete { key: "c".into() },
                ],
            }),
            Command::Compact { at: 12345678 },
            Command::GrantLease { ttl: Duration::from_millis(3_600_001) },
            Command::RevokeLease { lease },
        ]
    }

    #[test]
    fn commands_survive_encoding() {
        for command in samples() {
            assert_eq!(Command::decode(command.encode().into()), Ok(command));
        }
    }

    #[test]
    fn no_prefix_of_a_command_is_a_command() {
        for encoded in samples().iter().map(Command::encode) {
            for length in 0..encoded.len() {
                assert!(Command::decode(Bytes::copy_from_slice(&encoded[..length])).is_err());
            }
            let longer = [&encoded[..], &[0]].concat();
            assert_eq!(Command::decode(longer.into()), Err(DecodeError::LeftOver(1)));
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(Command::decode(Bytes::from_static(&[2, 1])), Err(DecodeError::Version(2)));
        assert_eq!(Command::decode(Bytes::from_static(&[1, 99])), Err(DecodeError::Tag(99)));
        assert_eq!(Command::decode(Bytes::from_static(&[1, 4, 0])), Err(DecodeError::Number));
        let endless = [&[1, 2][..], &[0xff; 10]].concat();
        assert_eq!(Command::decode(endless.into()), Err(DecodeError::Number));
        let huge_list = [&[1, 1][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        assert_eq!(Command::decode(huge_list.into()), Err(DecodeError::TooShort));
    }
}
