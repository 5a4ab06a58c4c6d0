//! The v2 tree over the store (placeholder of the seam: the real one is on its way).

use alloc::vec::Vec;

use crate::codec::{DecodeError, Read};
use crate::store::Writing;
use crate::{Store, ValueError, Values};

/// A v2 write.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {}
/// Its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {}
/// Its refusal.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {}

impl Request {
    pub(crate) fn encode(&self, _out: &mut Vec<u8>) {}
    pub(crate) fn decode(_read: &mut Read) -> Result<Self, DecodeError> {
        Ok(Self {})
    }
}

pub(crate) fn apply(
    _store: &mut Store,
    _request: Request,
    _writing: &mut Writing,
    _values: &dyn Values,
) -> Result<Result<Reply, Refusal>, ValueError> {
    Ok(Ok(Reply {}))
}

pub(crate) fn expire(_store: &mut Store, _writing: &mut Writing) {}
