//! What makes an initial cluster: the rules between names, URLs and ids, in etcd's words.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorate_store::Member;

use super::{BootError, Plan, address};
use crate::config::{Config, PeerUrls, Url, cluster_id, member_id, peer_urls_text};

/// How long names in URLs may take to be known, as in etcd: in some networks a member's own name
/// comes up only after it.
const LOOKUP: Duration = Duration::from_secs(30);

/// The new cluster of `members`, among them `name`.
pub(super) fn found(name: &str, members: &PeerUrls, token: &str) -> Result<Plan, BootError> {
    let Some(own) = members.get(name) else {
        return settings(format!(
            "couldn't find local name {name:?} in the initial cluster configuration"
        ));
    };
    let mut urls = BTreeSet::new();
    if !members.values().flatten().all(|url| urls.insert(url)) {
        return settings(format!(
            "initial cluster {} has duplicate url",
            peer_urls_text(members)
        ));
    }
    let mut planned: Vec<Member> = members
        .iter()
        .map(|(name, urls)| Member {
            id: member_id(urls, token),
            name: name.clone(),
            peer_urls: texts(urls),
            ..Member::default()
        })
        .collect();
    planned.sort_by_key(|member| member.id);
    // Two ids of 64 bits may be one by chance.
    if let Some(pair) = planned.windows(2).find(|pair| pair[0].id == pair[1].id) {
        let [one, other] = [&pair[0].name, &pair[1].name];
        return settings(format!(
            "member exists with identical ID {:x}: {one} and {other}; change a URL or the token",
            pair[0].id
        ));
    }
    let ids: Vec<u64> = planned.iter().map(|member| member.id).collect();
    Ok(Plan {
        cluster_id: cluster_id(&ids),
        member_id: member_id(own, token),
        members: planned,
        joining: false,
    })
}

/// This member's URLs in `members` must be those that it advertises, or lead to the same addresses.
pub(super) async fn check_advertised(config: &Config, members: &PeerUrls) -> Result<(), BootError> {
    let (listed, advertised) = both(config, members);
    match address::same(&advertised, &listed, Instant::now() + LOOKUP).await {
        Ok(()) => Ok(()),
        Err(why) => settings(differ(config, &listed, &advertised, &why)),
    }
}

/// As [`check_advertised`], without looking names up.
pub(super) fn check_advertised_text(config: &Config, members: &PeerUrls) -> Result<(), BootError> {
    let (listed, advertised) = both(config, members);
    match listed == advertised || listed.is_empty() {
        true => Ok(()),
        false => settings(differ(
            config,
            &listed,
            &advertised,
            "names are not looked up",
        )),
    }
}

fn both(config: &Config, members: &PeerUrls) -> (Vec<String>, Vec<String>) {
    let listed = members.get(&config.name).map(|urls| texts(urls));
    (
        listed.unwrap_or_default(),
        texts(&config.advertise_peer_urls),
    )
}

/// etcd's sentence for own URLs that are not those of the initial cluster.
fn differ(config: &Config, listed: &[String], advertised: &[String], why: &str) -> String {
    let name = &config.name;
    let named = |urls: &[&String]| {
        let pairs: Vec<_> = urls.iter().map(|url| format!("{name}={url}")).collect();
        pairs.join(",")
    };
    let only_in = |one: &'_ [String], other: &[String]| -> Vec<String> {
        one.iter()
            .filter(|url| !other.contains(url))
            .cloned()
            .collect()
    };
    let (extra, missing) = (only_in(listed, advertised), only_in(advertised, listed));
    let ours = advertised.join(",");
    if !extra.is_empty() {
        return format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={ours} ({why})",
            named(&extra.iter().collect::<Vec<_>>())
        );
    }
    format!(
        "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
        missing.join(","),
        named(&listed.iter().collect::<Vec<_>>())
    )
}

pub(super) fn texts(urls: &[Url]) -> Vec<String> {
    let mut texts: Vec<_> = urls.iter().map(Url::to_string).collect();
    texts.sort();
    texts
}

fn settings<T>(text: String) -> Result<T, BootError> {
    Err(BootError::Settings(text))
}
