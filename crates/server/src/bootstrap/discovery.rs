//! The members of a new cluster find one another under a token of a discovery service, which is a
//! directory of v2 keys: `_config/size`, and one key a member that is named by its id.
//!
//! 1. Read the size, and the list: whoever is in it already, or finds it full, stops.
//! 2. Register, by a PUT that must be the first of its key.
//! 3. Wait until the list has as many as the size; the oldest so many are the cluster.
//!
//! The service may be away for as long as it likes: each step is tried again, after 2 s and twice as
//! long each time, up to 256 s.
//!
//! Source: spec/v2-api.md §4.1.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use super::Plan;
use super::client::{Answer, Client};
use crate::config::{PeerUrls, parse_peer_urls, peer_urls_text};
use crate::tls::Tls;

/// How long a question may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long the service may be silent while we wait for others; then the list is read again.
const WAIT: Duration = Duration::from_secs(60);
/// The first pause before a step is tried again.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest pause is the first one doubled so many times.
const DOUBLINGS: u32 = 7;

/// Why there is no cluster by this token.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DiscoveryError {
    /// Nobody prepared the token.
    #[error("discovery: size key not found: {0}/_config/size does not exist; is the URL right?")]
    SizeNotFound(String),
    /// The token's size is no number from 1 on.
    #[error("discovery: size key is bad: {0:?}")]
    BadSize(String),
    /// This member registered before.
    #[error(
        "discovery: found duplicate id: this member has already registered under this token. If its \
         cluster began, the data directory given now is not the one of then; else get a new token"
    )]
    DuplicateId,
    /// Two members have one name.
    #[error(
        "discovery: found duplicate name: two members registered under one name ({0}); choose \
         different names and get a new token"
    )]
    DuplicateName(String),
    /// Others were faster.
    #[error(
        "discovery: cluster is full: {0} members have registered. There is no v2 proxy in Quorate to \
         fall back to; add this member to the cluster, and start it with \
         --initial-cluster-state=existing"
    )]
    Full(usize),
    /// A member's entry is none.
    #[error("discovery: invalid URL: {0}")]
    InvalidEntry(String),
    /// What answers is no discovery service.
    #[error("discovery: bad discovery endpoint: {0}")]
    BadEndpoint(String),
}

/// Why a step did not succeed.
enum Failure {
    /// The service is away; the step may have been done.
    Away(String),
    Final(DiscoveryError),
}

/// A registered member: its id in hexadecimal, and `name=URL` pairs.
#[derive(Debug)]
struct Entry {
    id: String,
    pairs: String,
    created: u64,
}

/// One member at one token.
struct Session<'a> {
    client: Client,
    /// Without a slash at its end.
    url: &'a str,
    own_id: String,
    own_pairs: String,
    pause: Duration,
}

/// Registers the one member of `own`, whose URLs are `urls`, unless it did so already and comes
/// `again`; and waits for the others.
pub(super) async fn join(
    url: &str,
    own: &Plan,
    urls: &PeerUrls,
    again: bool,
) -> Result<PeerUrls, DiscoveryError> {
    let session = Session {
        client: Client::new(&Tls::of_nobody()),
        url: url.trim_end_matches('/'),
        own_id: format!("{:x}", own.member_id),
        own_pairs: peer_urls_text(urls),
        pause: PAUSE,
    };
    session.join(again).await
}

impl Session<'_> {
    async fn join(&self, again: bool) -> Result<PeerUrls, DiscoveryError> {
        let size = self.persist("size", || self.size()).await?;
        let (entries, _) = self.list().await?;
        if !entries.iter().any(|entry| entry.id == self.own_id) {
            if entries.len() >= size {
                return Err(DiscoveryError::Full(entries.len()));
            }
            self.register().await?;
            let id = &self.own_id;
            tracing::info!(id, "registered this member with the discovery service");
        } else if !again {
            return Err(DiscoveryError::DuplicateId);
        }
        loop {
            let (entries, index) = self.list().await?;
            if entries.len() >= size {
                return self.cluster(&entries[..size]);
            }
            tracing::info!(
                "found {} of {size} members by discovery; waiting for the others",
                entries.len()
            );
            self.persist("wait", || self.wait(index + 1)).await?;
        }
    }

    /// The cluster of the oldest entries, if this member is one of them.
    fn cluster(&self, entries: &[Entry]) -> Result<PeerUrls, DiscoveryError> {
        if !entries.iter().any(|entry| entry.id == self.own_id) {
            return Err(DiscoveryError::Full(entries.len()));
        }
        let mut members = PeerUrls::new();
        for entry in entries {
            let one = parse_peer_urls(&entry.pairs).map_err(DiscoveryError::InvalidEntry)?;
            if one.is_empty() {
                return Err(DiscoveryError::InvalidEntry(entry.id.clone()));
            }
            for (name, urls) in one {
                if members.insert(name.clone(), urls).is_some() {
                    return Err(DiscoveryError::DuplicateName(name));
                }
            }
        }
        Ok(members)
    }

    async fn size(&self) -> Result<usize, Failure> {
        let url = format!("{}/_config/size", self.url);
        let query = "?quorum=false&recursive=false&sorted=false";
        let answer = self.client.get(&format!("{url}{query}"), REQUEST).await;
        let (answer, event) = read(answer.map_err(Failure::Away)?)?;
        if answer.status == 404 && event["errorCode"] == 100 {
            return Err(Failure::Final(DiscoveryError::SizeNotFound(
                self.url.to_owned(),
            )));
        }
        let value = event["node"]["value"].as_str();
        let value = value.ok_or_else(|| bad_endpoint(&answer))?;
        match value.parse() {
            Ok(size) if size > 0 => Ok(size),
            _ => Err(Failure::Final(DiscoveryError::BadSize(value.to_owned()))),
        }
    }

    /// The registered members, oldest first, and the index that they were read at.
    async fn list(&self) -> Result<(Vec<Entry>, u64), DiscoveryError> {
        self.persist("list", || self.list_once()).await
    }

    async fn list_once(&self) -> Result<(Vec<Entry>, u64), Failure> {
        let url = format!("{}?quorum=false&recursive=false&sorted=false", self.url);
        let answer = self
            .client
            .get(&url, REQUEST)
            .await
            .map_err(Failure::Away)?;
        let (answer, event) = read(answer)?;
        let index = answer.headers.get("X-Etcd-Index");
        let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
        // An empty directory has no nodes; a rewritten service lists all but the hidden ones.
        let nodes = match &event["node"] {
            Value::Object(node) => node.get("nodes").and_then(Value::as_array),
            _ => return Err(bad_endpoint(&answer)),
        };
        let mut entries: Vec<Entry> = nodes.into_iter().flatten().filter_map(entry).collect();
        entries.sort_by_key(|entry| entry.created);
        match index {
            Some(index) => Ok((entries, index)),
            None => Err(bad_endpoint(&answer)),
        }
    }

    async fn register(&self) -> Result<(), DiscoveryError> {
        let may_be_done = AtomicBool::new(false);
        self.persist("register", || async {
            let registered = self.register_once(&may_be_done).await;
            if matches!(registered, Err(Failure::Away(_))) {
                may_be_done.store(true, Ordering::Relaxed);
            }
            registered
        })
        .await
    }

    /// `may_be_done`: an earlier try may have succeeded. It was not in the list before that.
    async fn register_once(&self, may_be_done: &AtomicBool) -> Result<(), Failure> {
        let url = format!("{}/{}?prevExist=false", self.url, self.own_id);
        let form = format!("value={}", form_encoded(&self.own_pairs));
        let answer = self.client.put(&url, form, REQUEST).await;
        let (answer, event) = read(answer.map_err(Failure::Away)?)?;
        match (answer.status, event["errorCode"].as_u64()) {
            (200 | 201, None) => Ok(()),
            (412, Some(105)) if may_be_done.load(Ordering::Relaxed) => Ok(()),
            (412, Some(105)) => Err(Failure::Final(DiscoveryError::DuplicateId)),
            _ => Err(bad_endpoint(&answer)),
        }
    }

    /// Returns once there may be more entries.
    async fn wait(&self, index: u64) -> Result<(), Failure> {
        let url = format!("{}?recursive=true&wait=true&waitIndex={index}", self.url);
        let began = Instant::now();
        match self.client.get(&url, WAIT).await {
            Ok(answer) if answer.status >= 500 => {
                Err(Failure::Away(format!("status {}", answer.status)))
            }
            Ok(answer) if answer.status == 200 && !answer.body.is_empty() => Ok(()),
            // A service that ends waits itself, or has forgotten what was after `index`.
            Ok(_) => {
                sleep(self.pause).await;
                Ok(())
            }
            Err(_) if began.elapsed() >= WAIT => Ok(()),
            Err(why) => Err(Failure::Away(why)),
        }
    }

    /// Does a step until the service was there for it.
    async fn persist<T, F>(&self, step: &str, attempt: impl Fn() -> F) -> Result<T, DiscoveryError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut failed: u32 = 0;
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Away(why)) => {
                    let pause = self.pause * 2_u32.pow(failed.min(DOUBLINGS));
                    tracing::warn!(
                        step,
                        "error connecting to discovery service {}: {why}; retrying in {} s",
                        self.url,
                        pause.as_secs_f32()
                    );
                    sleep(pause).await;
                    failed += 1;
                }
            }
        }
    }
}

/// The JSON of an answer that is no failure of the service.
fn read(answer: Answer) -> Result<(Answer, Value), Failure> {
    if answer.status >= 500 {
        return Err(Failure::Away(format!("status {}", answer.status)));
    }
    match serde_json::from_slice(&answer.body) {
        Ok(event) => Ok((answer, event)),
        Err(_) => Err(bad_endpoint(&answer)),
    }
}

fn bad_endpoint(answer: &Answer) -> Failure {
    let body = String::from_utf8_lossy(&answer.body);
    let start: String = body.trim().chars().take(120).collect();
    Failure::Final(DiscoveryError::BadEndpoint(format!(
        "status {}, {start:?}",
        answer.status
    )))
}

/// A member's node. `None` for `_config`.
fn entry(node: &Value) -> Option<Entry> {
    let key = node["key"].as_str()?;
    let id = key.rsplit('/').next()?;
    (id != "_config").then_some(())?;
    Some(Entry {
        id: id.to_owned(),
        pairs: node["value"].as_str()?.to_owned(),
        created: node["createdIndex"].as_u64()?,
    })
}

/// A text as a form's value.
fn form_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                encoded.push(byte.into());
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::canned::{block_on, serve};
    use super::*;

    const ENTRY: &str = r#""value":"a=http://a:1","createdIndex":4"#;

    /// A token of one member, whose service answers the first `failing` requests with nothing, a
    /// 503 or late; and the member `a`, with id 1, that joins by it.
    fn join(failing: usize, loses_put: bool) -> Result<PeerUrls, DiscoveryError> {
        block_on(async {
            let mut asked = 0;
            let mut puts = 0;
            let url = serve(move |_, line| {
                asked += 1;
                let registered = puts > 0;
                let index = "X-Etcd-Index: 9".to_owned();
                if asked <= failing {
                    return (asked % 2 == 0).then(|| (503, index, String::new()));
                }
                if line.starts_with("PUT /token/1?prevExist=false ") {
                    puts += 1;
                    return match (puts, loses_put) {
                        (1, true) => None,
                        (1, false) => Some((201, index, format!(r#"{{"node":{{{ENTRY}}}}}"#))),
                        _ => Some((412, index, r#"{"errorCode":105}"#.to_owned())),
                    };
                }
                let body = match (line.contains("/_config/size?"), registered) {
                    (true, _) => r#"{"node":{"value":"1"}}"#.to_owned(),
                    (false, false) => r#"{"node":{"dir":true}}"#.to_owned(),
                    (false, true) => {
                        format!(r#"{{"node":{{"nodes":[{{"key":"/token/1",{ENTRY}}}]}}}}"#)
                    }
                };
                Some((200, index, body))
            })
            .await;
            let session = Session {
                client: Client::new(&Tls::of_nobody()),
                url: &format!("{url}/token"),
                own_id: "1".to_owned(),
                own_pairs: "a=http://a:1".to_owned(),
                pause: Duration::from_millis(1),
            };
            session.join(false).await
        })
    }

    #[test]
    fn a_service_that_is_away_is_asked_again() {
        for failing in [0, 1, 5] {
            let members = join(failing, false).expect("a cluster");
            assert_eq!(peer_urls_text(&members), "a=http://a:1");
        }
    }

    #[test]
    fn a_registration_whose_answer_was_lost_is_no_other_members() {
        assert_eq!(
            peer_urls_text(&join(0, true).expect("a cluster")),
            "a=http://a:1"
        );
    }

    #[test]
    fn a_form_keeps_every_byte() {
        assert_eq!(
            form_encoded("a=http://b:1,\u{e9}"),
            "a%3Dhttp%3A%2F%2Fb%3A1%2C%C3%A9"
        );
    }
}
