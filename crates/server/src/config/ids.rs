//! Member and cluster ids, made as etcd makes them, so that tools that know a member by its id go on
//! knowing it.
//!
//! Source: spec/v2-api.md §3.1; the vectors in the tests were read off etcd 3.4.23.

use sha1::{Digest, Sha1};

use super::Url;

/// The id of a member of the initial cluster: the first 8 bytes of a SHA-1 over its peer URLs,
/// sorted as text, and the cluster token.
#[must_use]
pub fn member_id(peer_urls: &[Url], cluster_token: &str) -> u64 {
    let mut texts: Vec<_> = peer_urls.iter().map(Url::to_string).collect();
    texts.sort();
    first_eight(Sha1::new_with_prefix(texts.concat()).chain_update(cluster_token))
}

/// The id of a cluster: the first 8 bytes of a SHA-1 over its initial members' ids, sorted.
#[must_use]
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    first_eight(
        ids.iter()
            .fold(Sha1::new(), |hash, id| hash.chain_update(id.to_be_bytes())),
    )
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let (head, _) = digest.split_first_chunk().expect("a SHA-1 has 20 bytes");
    u64::from_be_bytes(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_gives() {
        for (url, token, member, cluster) in [
            (
                "http://127.0.0.1:21380",
                "tok",
                0x95dc_b2c5_cb14_27d6,
                0x8104_a127_102d_37fc,
            ),
            (
                "http://localhost:2380",
                "etcd-cluster",
                0x8e9e_05c5_2164_694d,
                0xcdf8_1819_4e3a_8c32,
            ),
        ] {
            let urls = Url::parse_list(url).unwrap();
            assert_eq!(member_id(&urls, token), member);
            assert_eq!(cluster_id(&[member]), cluster);
        }
    }
}
