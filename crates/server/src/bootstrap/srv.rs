//! The initial cluster from SRV records of the DNS.
//!
//! `_etcd-server-ssl._tcp` names members that speak TLS, `_etcd-server._tcp` those that do not. This
//! member is the one whose address is one that it advertises.
//!
//! Source: spec/v2-api.md §4.4.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Name, ParsedName};
use domain::rdata::Srv;
use domain::resolv::StubResolver;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::BootError;
use crate::config::{Config, PeerUrls, Scheme, Url};

const SERVICES: [(Scheme, &str); 2] = [
    (Scheme::Https, "etcd-server-ssl"),
    (Scheme::Http, "etcd-server"),
];
/// How long the DNS may take for one record set.
const LOOKUP: Duration = Duration::from_secs(15);

/// The members that the system's DNS has records of.
pub(super) async fn members(
    config: &Config,
    domain: &str,
    suffix: &str,
) -> Result<PeerUrls, BootError> {
    search(&StubResolver::new(), config, domain, suffix).await
}

async fn search(
    resolver: &StubResolver,
    config: &Config,
    domain: &str,
    suffix: &str,
) -> Result<PeerUrls, BootError> {
    let search = Search {
        resolver,
        config,
        own: own_addresses(config).await?,
        members: PeerUrls::new(),
        unnamed: 0,
    };
    search.run(domain, suffix).await
}

/// A look through the records.
struct Search<'a> {
    resolver: &'a StubResolver,
    config: &'a Config,
    /// Where this member's advertised URLs lead.
    own: BTreeMap<SocketAddr, &'a Url>,
    members: PeerUrls,
    /// How many of them got a number for a name.
    unnamed: usize,
}

impl Search<'_> {
    async fn run(mut self, domain: &str, suffix: &str) -> Result<PeerUrls, BootError> {
        let mut failures = Vec::new();
        for (scheme, service) in SERVICES {
            let service = match suffix {
                "" => service.to_owned(),
                suffix => format!("{service}-{suffix}"),
            };
            let record = format!("_{service}._tcp.{}.", domain.trim_end_matches('.'));
            if let Err(why) = self.take(scheme, &record).await {
                failures.push(format!(
                    "error querying DNS SRV records for {record} ({why})"
                ));
            }
        }
        let name = &self.config.name;
        if self.members.is_empty() {
            return Err(BootError::Srv(failures.join("; ")));
        }
        for why in failures {
            tracing::info!("{why}");
        }
        if !self.members.contains_key(name) {
            return Err(BootError::Srv(format!(
                "cannot find local etcd member {name:?} in SRV records: none leads to an address of \
                 --initial-advertise-peer-urls"
            )));
        }
        for (name, urls) in &self.members {
            tracing::info!(
                name,
                "got bootstrap from DNS: {}",
                super::rules::texts(urls).join(",")
            );
        }
        Ok(self.members)
    }

    /// Adds the members of one record set; those that lead nowhere are left out.
    async fn take(&mut self, scheme: Scheme, record: &str) -> Result<(), String> {
        let targets = targets(self.resolver, record).await?;
        for (host, port) in targets {
            let address = match address(&host, port).await {
                Ok(address) => address,
                Err(why) => {
                    tracing::warn!("left out {host}:{port} of {record}: {why}");
                    continue;
                }
            };
            let name = match self.own.get(&address) {
                Some(own) if own.scheme != scheme => {
                    tracing::warn!(
                        "left out {host}:{port} of {record}: this member advertises {own}"
                    );
                    continue;
                }
                Some(_) => self.config.name.clone(),
                None => {
                    self.unnamed += 1;
                    (self.unnamed - 1).to_string()
                }
            };
            let urls = self.members.entry(name).or_default();
            urls.push(Url { scheme, host, port });
            urls.sort_by_cached_key(Url::to_string);
        }
        Ok(())
    }
}

/// Hosts and ports of a record set, sorted.
async fn targets(resolver: &StubResolver, record: &str) -> Result<Vec<(String, u16)>, String> {
    let name: Name<Vec<u8>> = record.parse().map_err(|_| "it is no name".to_owned())?;
    let late = |_| format!("no answer within {} s", LOOKUP.as_secs());
    let answer = timeout(LOOKUP, resolver.query((name, Rtype::SRV))).await;
    let answer = answer.map_err(late)?.map_err(|error| error.to_string())?;
    match answer.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Err("no such host".to_owned()),
        other => return Err(format!("the DNS answers {other}")),
    }
    let section = answer.answer().map_err(|error| error.to_string())?;
    let mut targets = Vec::new();
    for record in section.limit_to::<Srv<ParsedName<_>>>() {
        let record = record.map_err(|error| error.to_string())?;
        let srv = record.data();
        targets.push((srv.target().to_string(), srv.port()));
    }
    targets.sort();
    match targets.is_empty() {
        true => Err("no such records".to_owned()),
        false => Ok(targets),
    }
}

async fn own_addresses(config: &Config) -> Result<BTreeMap<SocketAddr, &Url>, BootError> {
    let mut own = BTreeMap::new();
    for url in &config.advertise_peer_urls {
        let address = address(&url.host, url.port)
            .await
            .map_err(|why| BootError::Srv(format!("--initial-advertise-peer-urls={url}: {why}")))?;
        own.insert(address, url);
    }
    Ok(own)
}

/// The first address of a host.
async fn address(host: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = lookup_host((bare, port)).await;
    let mut found = found.map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "it has no address".to_owned())
}

#[cfg(test)]
mod tests {
    use domain::resolv::stub::conf::{ResolvConf, ServerConf, Transport};
    use tokio::net::UdpSocket;

    use super::super::canned::block_on;
    use super::*;
    use crate::config::{parse_peer_urls, peer_urls_text};

    /// A name as the DNS writes it: labels after their lengths.
    fn labels(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).expect("short"));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes
    }

    /// Answers as a DNS that has `records` (name, target, port) and nothing else.
    async fn dns(records: &'static [(&'static str, &'static str, u16)]) -> StubResolver {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let mut conf = ResolvConf::new();
        let address = socket.local_addr().expect("it is bound");
        conf.servers = vec![ServerConf::new(address, Transport::UdpTcp)];
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let _ = socket
                    .send_to(&answer(&buffer[..length], records), from)
                    .await;
            }
        });
        StubResolver::from_conf(conf)
    }

    fn answer(query: &[u8], records: &[(&str, &str, u16)]) -> Vec<u8> {
        let end = 12
            + query[12..]
                .iter()
                .position(|byte| *byte == 0)
                .expect("a name's end")
            + 5;
        let question = &query[12..end];
        let known = records
            .iter()
            .filter(|(name, ..)| question.starts_with(&labels(name)));
        let known: Vec<_> = known.collect();
        let code = if known.is_empty() { 3 } else { 0 };
        let count = u8::try_from(known.len()).expect("few");
        let mut message = query[..2].to_vec();
        message.extend_from_slice(&[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        message.extend_from_slice(question);
        for (_, target, port) in known {
            let mut target = labels(target);
            target.push(0);
            // The question's name; SRV, IN; a TTL; priority and weight.
            message.extend_from_slice(&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0]);
            message.push(u8::try_from(target.len() + 6).expect("short"));
            message.extend_from_slice(&[0, 0, 0, 0]);
            message.extend_from_slice(&port.to_be_bytes());
            message.extend_from_slice(&target);
        }
        message
    }

    fn found(
        records: &'static [(&'static str, &'static str, u16)],
        advertised: &str,
        suffix: &str,
    ) -> Result<String, String> {
        block_on(async {
            let resolver = dns(records).await;
            let config = Config {
                name: "me".to_owned(),
                advertise_peer_urls: parse_peer_urls(&format!("me={advertised}"))
                    .expect("a URL")
                    .remove("me")
                    .expect("it is there"),
                ..Config::default()
            };
            let members = search(&resolver, &config, "d.example", suffix).await;
            members
                .map(|members| peer_urls_text(&members))
                .map_err(|error| error.to_string())
        })
    }

    const PLAIN: &str = "_etcd-server._tcp.d.example";
    const TLS: &str = "_etcd-server-ssl._tcp.d.example";

    #[test]
    fn the_members_are_those_of_the_records_and_this_one_is_known_by_its_address() {
        // Addresses need no DNS of ours: the system takes these names for them.
        let three = &[
            (PLAIN, "localhost", 2380),
            (PLAIN, "localhost", 2381),
            (PLAIN, "nowhere.invalid", 2381),
            (PLAIN, "localhost", 2382),
            ("_etcd-server-x._tcp.d.example", "localhost", 2383),
        ];
        assert_eq!(
            found(three, "http://localhost:2381", "").as_deref(),
            Ok("0=http://localhost:2380,1=http://localhost:2382,me=http://localhost:2381")
        );
        assert_eq!(
            found(three, "http://localhost:2383", "x").as_deref(),
            Ok("me=http://localhost:2383")
        );
        let both = &[
            (TLS, "localhost", 1),
            (PLAIN, "localhost", 2),
            (PLAIN, "localhost", 1),
        ];
        assert_eq!(
            found(both, "https://localhost:1", "").as_deref(),
            Ok("0=http://localhost:2,me=https://localhost:1"),
            "with the wrong scheme it is left out"
        );
    }

    #[test]
    fn records_without_this_member_make_no_cluster() {
        let error = found(&[(PLAIN, "localhost", 2380)], "http://localhost:1", "");
        let error = error.expect_err("it is not in them");
        let start = "error setting up initial cluster: cannot find local etcd member \"me\" in SRV \
                     records";
        assert!(error.starts_with(start), "{error}");
        assert_eq!(
            found(&[], "http://localhost:1", ""),
            Err(
                "error setting up initial cluster: error querying DNS SRV records for \
                 _etcd-server-ssl._tcp.d.example. (no such host); error querying DNS SRV records for \
                 _etcd-server._tcp.d.example. (no such host)"
                    .to_owned()
            )
        );
    }
}
