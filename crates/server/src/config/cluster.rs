//! Who the members of the cluster are to be: said in full, or where to ask.

use std::collections::BTreeMap;

use axum::http::Uri;

use super::Url;
use super::flags::list;

/// Names of members with their peer URLs, which are sorted as text. A URL that was given twice stands
/// twice, so that it can be refused.
pub type PeerUrls = BTreeMap<String, Vec<Url>>;

/// Where a member without data learns who is in its cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InitialCluster {
    /// These, from `--initial-cluster`; by default this member alone.
    Static(PeerUrls),
    /// Those that register at this URL, which is also the cluster's token: `--discovery`.
    Discovery(String),
    /// Those that the DNS has SRV records of.
    Srv {
        /// `--discovery-srv`.
        domain: String,
        /// `--discovery-srv-name`: the end of the service's name, empty for none.
        service_suffix: String,
    },
}

/// Whether a member without data begins a cluster or joins one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClusterState {
    /// It begins one, with the others of the initial cluster.
    New,
    /// It joins one that knows it.
    Existing,
}

/// Reads `name=URL` pairs parted by commas; a name may come again with another URL.
///
/// # Errors
/// A sentence with the pair that is none.
pub fn parse_peer_urls(text: &str) -> Result<PeerUrls, String> {
    let mut members = PeerUrls::new();
    for pair in list(text) {
        let (name, url) = pair
            .split_once('=')
            .filter(|(name, url)| !name.is_empty() && !url.is_empty())
            .ok_or_else(|| format!("{pair:?} does not have the form name=URL"))?;
        let urls = members.entry(name.to_owned()).or_default();
        urls.push(Url::parse(url)?);
        urls.sort_by_cached_key(Url::to_string);
    }
    Ok(members)
}

/// The text that [`parse_peer_urls`] reads.
#[must_use]
pub fn peer_urls_text(members: &PeerUrls) -> String {
    let pairs = members
        .iter()
        .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
    pairs.collect::<Vec<_>>().join(",")
}

/// Judges the URL of a discovery token. It is kept as it was written, since ids are made from it.
pub(super) fn discovery_url(text: &str) -> Result<String, String> {
    let good = text.parse::<Uri>().is_ok_and(|uri| {
        let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        has_scheme && uri.query().is_none() && !uri.path().trim_matches('/').is_empty()
    });
    match good {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "discovery: invalid URL {text:?}: http://HOST:PORT/PATH/TOKEN is needed"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_several_urls_and_they_are_sorted() {
        let members =
            parse_peer_urls("b=http://b:1,a=http://a:2,b=http://a:3,b=http://b:1").unwrap();
        assert_eq!(
            peer_urls_text(&members),
            "a=http://a:2,b=http://a:3,b=http://b:1,b=http://b:1"
        );
        for text in ["a", "a=", "=http://a:1"] {
            let error = parse_peer_urls(text).unwrap_err();
            assert_eq!(error, format!("{text:?} does not have the form name=URL"));
        }
        assert!(parse_peer_urls("a=http://a").is_err());
        assert_eq!(parse_peer_urls(""), Ok(PeerUrls::new()));
    }

    #[test]
    fn a_discovery_url_has_a_token() {
        for good in ["http://d:2379/v2/keys/x", "https://discovery.etcd.io/abc/"] {
            assert_eq!(discovery_url(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "http://d",
            "http://d/",
            "d/x",
            "ftp://d/x",
            "http://d/x?y",
        ] {
            assert!(discovery_url(bad).is_err(), "{bad}");
        }
    }
}
