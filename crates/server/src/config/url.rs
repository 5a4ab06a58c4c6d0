//! The URLs that members listen on and advertise: scheme, host, port and nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How the other side is spoken to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS.
    Https,
}

/// An address that a member advertises, as clients and members read it.
///
/// Shown as it was written, since member ids are hashes over that text.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Url {
    /// How to speak.
    pub scheme: Scheme,
    /// A name, an IPv4 address, or an IPv6 address in its brackets.
    pub host: String,
    /// 0 lets the system choose, when listening.
    pub port: u16,
}

/// A URL that can be bound: an IP address, or `localhost`, which is 127.0.0.1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenUrl {
    /// The URL as given.
    pub url: Url,
    /// What to bind.
    pub address: SocketAddr,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// etcd's sentence for a wrong scheme, a missing port or a path; ours for unix sockets.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" | "unixs" => {
                return Err(format!(
                    "unix sockets are not served by Quorate yet: {text}"
                ));
            }
            _ => {
                return Err(format!(
                    "URL scheme must be http, https, unix, or unixs: {text}"
                ));
            }
        };
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_end);
        let (host, port) = split_host_port(authority)
            .ok_or_else(|| format!("URL address does not have the form \"host:port\": {text}"))?;
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
        })
    }

    /// Reads the URLs of one member: sorted as text, each once.
    ///
    /// # Errors
    /// As [`Url::parse`], for the first that fails; etcd's sentence if there is none.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>, String> {
        let urls = texts.iter().map(|url| Self::parse(url.trim()));
        let mut urls: Vec<_> = urls.collect::<Result<_, _>>()?;
        if urls.is_empty() {
            return Err("no valid URLs given".to_owned());
        }
        sort(&mut urls);
        Ok(urls)
    }

    /// Reads a comma-separated list: sorted as text, each URL once.
    ///
    /// # Errors
    /// As [`Url::parse`], for the first that fails.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut urls = super::flags::list(text)
            .iter()
            .map(|url| Self::parse(url))
            .collect::<Result<_, _>>()?;
        sort(&mut urls);
        Ok(urls)
    }
}

/// Sorts as etcd does, by text, and drops what stands twice.
pub(super) fn sort(urls: &mut Vec<Url>) {
    urls.sort_by_cached_key(Url::to_string);
    urls.dedup();
}

/// Host and port; an IPv6 host only in brackets, and no user name.
fn split_host_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    let port_is_digits = port.bytes().all(|byte| byte.is_ascii_digit());
    (bare.chars().all(is_plain) && port_is_digits).then_some(())?;
    Some((host, port.parse().ok()?))
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(out, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl ListenUrl {
    /// A URL that this server can bind.
    ///
    /// # Errors
    /// A sentence, when the host is neither an IP address nor `localhost`.
    pub fn from_url(url: Url) -> Result<Self, String> {
        let ip = if url.host == "localhost" {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            let bare = url.host.trim_start_matches('[').trim_end_matches(']');
            bare.parse()
                .map_err(|_| format!("expected IP in URL for binding ({url})"))?
        };
        let address = SocketAddr::new(ip, url.port);
        Ok(Self { url, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_scheme_host_and_port() {
        for text in [
            "http://127.0.0.1:2379",
            "https://a.example:1",
            "http://[::1]:0",
        ] {
            assert_eq!(
                Url::parse(text).map(|url| url.to_string()),
                Ok(text.to_owned())
            );
        }
        for (text, why) in [
            (
                "127.0.0.1:2379",
                "URL scheme must be http, https, unix, or unixs",
            ),
            (
                "ftp://127.0.0.1:1",
                "URL scheme must be http, https, unix, or unixs",
            ),
            (
                "http://127.0.0.1",
                "URL address does not have the form \"host:port\"",
            ),
            (
                "http://::1:2379",
                "URL address does not have the form \"host:port\"",
            ),
            (
                "http://[::1:2379",
                "URL address does not have the form \"host:port\"",
            ),
            (
                "http://a:70000",
                "URL address does not have the form \"host:port\"",
            ),
            (
                "http://a:+1",
                "URL address does not have the form \"host:port\"",
            ),
            (
                "http://u@a:1",
                "URL address does not have the form \"host:port\"",
            ),
            ("http://a:1/x", "URL must not contain a path"),
            ("http://a:1?q", "URL must not contain a path"),
            ("unix://a:1", "unix sockets are not served by Quorate yet"),
        ] {
            assert_eq!(Url::parse(text), Err(format!("{why}: {text}")));
        }
    }

    #[test]
    fn a_list_is_sorted_as_text_and_holds_each_once() {
        let urls = Url::parse_list("http://b:1,http://a:20,http://a:3,http://b:1").unwrap();
        let texts: Vec<_> = urls.iter().map(Url::to_string).collect();
        assert_eq!(texts, ["http://a:20", "http://a:3", "http://b:1"]);
    }

    #[test]
    fn only_addresses_in_cleartext_can_be_bound() {
        let bind = |text| ListenUrl::from_url(Url::parse(text).unwrap());
        assert_eq!(
            bind("http://localhost:7").unwrap().address.to_string(),
            "127.0.0.1:7"
        );
        assert_eq!(
            bind("http://[::1]:7").unwrap().address.to_string(),
            "[::1]:7"
        );
        assert_eq!(
            bind("http://foo.bar:23"),
            Err("expected IP in URL for binding (http://foo.bar:23)".to_owned())
        );
    }
}
