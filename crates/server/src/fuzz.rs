//! Doors to decoders that are nobody else's business, for `fuzz/` alone: compiled with `cfg(fuzzing)`.

/// A number that picks a message, then the message.
pub fn v3_request(bytes: &[u8]) {
    if let Some((pick, bytes)) = bytes.split_first() {
        crate::v3::fuzz(*pick, bytes);
    }
}

/// A number that picks a message, one that cuts the text in pieces, then JSON.
pub fn gateway(bytes: &[u8]) {
    if let Some((&[pick, piece], bytes)) = bytes.split_first_chunk() {
        crate::gateway::fuzz(pick, piece, bytes);
    }
}

/// The parts of a request, divided by newlines: path, query, media type, body.
pub fn v2_request(bytes: &[u8]) {
    crate::v2::fuzz(bytes);
}

/// A number that cuts the input, then the input.
pub fn authority(bytes: &[u8]) {
    if let Some((piece, bytes)) = bytes.split_first() {
        crate::authority::fuzz(*piece, bytes);
    }
}

/// An etcd's file, without its hash.
pub fn snapshot(file: std::fs::File) {
    crate::snapshot::fuzz(file);
}
