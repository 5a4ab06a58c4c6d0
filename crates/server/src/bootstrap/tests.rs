//! Plans against others that answer as they are told to.

use crate::tls::Tls;
use std::ffi::OsString;

use super::canned::{block_on, serve};
use super::{BootError, Plan, plan, plan_alone};
use crate::config::{self, Config, Invocation};

fn settings(line: &str) -> Config {
    let args = line.split_whitespace().map(OsString::from);
    match config::parse(args, [], |_| panic!("no file is named")) {
        Ok(Invocation::Serve(config, _)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

fn planned(line: &str) -> Result<Plan, BootError> {
    block_on(plan(&settings(line), false, &Tls::of_nobody()))
}

fn refusal(line: &str) -> String {
    planned(line).expect_err(line).to_string()
}

/// One of two members, whose other one is `other`.
fn with_other(other: &str) -> String {
    format!(
        "--initial-advertise-peer-urls http://127.0.0.1:1 \
         --initial-cluster default=http://127.0.0.1:1,other={other}"
    )
}

/// Another member, which knows of these: id, peer URL (`SELF` for its own), whether it has started.
async fn other(cluster_id: u64, members: &'static [(u64, &'static str, bool)]) -> String {
    serve(move |own, line| {
        assert_eq!(line, "GET /members HTTP/1.1");
        let list = members.iter().map(|(id, url, is_started)| {
            let url = url.replace("SELF", own);
            let rest = match is_started {
                true => r#","name":"x","clientURLs":["http://c:1"]"#,
                false => "",
            };
            format!(r#"{{"id":{id},"peerURLs":["{url}"]{rest}}}"#)
        });
        let list = list.collect::<Vec<_>>().join(",");
        Some((
            200,
            format!("X-Etcd-Cluster-Id: {cluster_id:x}"),
            format!("[{list}]\n"),
        ))
    })
    .await
}

/// What becomes of one of two members, whose other one answers so.
fn beside(
    cluster_id: u64,
    members: &'static [(u64, &'static str, bool)],
    flags: &str,
) -> Result<Plan, String> {
    block_on(async {
        let line = with_other(&other(cluster_id, members).await);
        let plan = plan(
            &settings(&format!("{line} {flags}")),
            false,
            &Tls::of_nobody(),
        )
        .await;
        plan.map_err(|error| error.to_string())
    })
}

const EXISTING: &str = "--initial-cluster-state existing";
/// The id of a new member at this URL, whoever the other one is.
fn own_id() -> u64 {
    let urls = config::Url::parse_list("http://127.0.0.1:1").expect("a URL");
    config::member_id(&urls, "etcd-cluster")
}

#[test]
fn ids_are_those_that_etcd_gives_to_three() {
    let plan = planned(
        "--name infra2 --initial-cluster-token etcd-cluster-1 \
         --initial-advertise-peer-urls http://127.0.0.1:22380 --initial-cluster \
         infra1=http://127.0.0.1:12380,infra2=http://127.0.0.1:22380,infra3=http://127.0.0.1:32380",
    )
    .expect("a plan");
    let members: Vec<_> = plan
        .members
        .iter()
        .map(|one| format!("{:x} {} {}", one.id, one.name, one.peer_urls.join(",")))
        .collect();
    assert_eq!(
        members,
        [
            "8211f1d0f64f3269 infra1 http://127.0.0.1:12380",
            "91bc3c398fb3c146 infra2 http://127.0.0.1:22380",
            "fd422379fda50e48 infra3 http://127.0.0.1:32380"
        ]
    );
    assert_eq!(plan.member_id, 0x91bc_3c39_8fb3_c146);
    assert_eq!(plan.cluster_id, 0xef37_ad9d_c622_a7c4);
    assert!(!plan.joining);
}

#[test]
fn settings_that_make_no_cluster_are_refused_in_etcds_words() {
    for (line, text) in [
        (
            "--name x --initial-cluster y=http://localhost:2380",
            "couldn't find local name \"x\" in the initial cluster configuration",
        ),
        (
            "--initial-cluster default=http://localhost:2380,b=http://localhost:2380",
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
        ),
        (
            "--initial-cluster default=http://127.0.0.1:2381",
            "--initial-cluster has default=http://127.0.0.1:2381 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \
             [\"http://localhost:2380\"] != [\"http://127.0.0.1:2381\"])",
        ),
        (
            "--initial-cluster default=http://localhost:2380 \
             --initial-advertise-peer-urls http://localhost:2380,http://127.0.0.1:1",
            "--initial-advertise-peer-urls has http://127.0.0.1:1 but missing from \
             --initial-cluster=default=http://localhost:2380",
        ),
        (
            "--initial-cluster-state existing --discovery http://127.0.0.1:1/x",
            "discovery URL should not be set when joining existing initial cluster",
        ),
    ] {
        assert_eq!(refusal(line), text);
    }
}

#[test]
fn own_urls_may_be_written_in_two_ways() {
    // The system's look-up takes it for 127.0.0.1.
    let line = "--initial-cluster default=http://127.1:2380 \
                --initial-advertise-peer-urls http://127.0.0.1:2380";
    let plan = planned(line).expect("one address");
    assert_eq!(plan.members[0].peer_urls, ["http://127.1:2380"]);
    let error = plan_alone(&settings(line)).expect_err("not looked up");
    assert!(error.to_string().contains("but missing from"), "{error}");
    assert!(plan_alone(&settings("")).is_ok());
}

#[test]
fn a_new_cluster_begins_beside_nobody_and_beside_those_who_wait() {
    for members in [
        &[][..],
        leak([(own_id(), "http://127.0.0.1:1", false), (7, "SELF", true)]),
    ] {
        let plan = beside(5, members, "").expect("a plan");
        assert_eq!((plan.members.len(), plan.member_id), (2, own_id()));
    }
    beside(5, &[(7, "SELF", false)], "").expect("it is of another cluster, which never ran");
    planned(&with_other("http://127.0.0.1:9")).expect("nobody listens there");
    planned(&with_other("https://127.0.0.1:9")).expect("nor there");
}

#[test]
fn a_member_that_its_cluster_knows_as_started_does_not_start_without_data() {
    let known = leak([(own_id(), "http://127.0.0.1:1", true), (7, "SELF", true)]);
    for flags in ["", EXISTING] {
        let error = beside(5, known, flags).expect_err("the directory was wiped");
        let start = format!("member {:x} has already been bootstrapped: ", own_id());
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn a_member_that_the_running_cluster_does_not_have_begins_no_other_one() {
    let error = beside(5, &[(7, "SELF", true)], "").expect_err("another cluster runs there");
    assert!(error.contains("is of cluster 5, which runs"), "{error}");
    block_on(async {
        // Its id follows from the other's URL, which is known once that listens.
        let url = serve(|own, _| {
            let begun = plan_alone(&settings(&with_other(own))).expect("a plan");
            let body = format!(r#"[{{"id":7,"peerURLs":["{own}"],"clientURLs":["http://c:1"]}}]"#);
            Some((
                200,
                format!("X-Etcd-Cluster-Id: {:x}", begun.cluster_id),
                body,
            ))
        })
        .await;
        let error = plan(&settings(&with_other(&url)), false, &Tls::of_nobody())
            .await
            .expect_err("it was removed");
        assert!(matches!(error, BootError::Removed { .. }), "{error}");
    });
}

#[test]
fn a_member_joins_the_cluster_that_knows_its_urls() {
    let known = &[(3, "http://127.0.0.1:1", false), (7, "SELF", true)];
    let plan = beside(5, known, EXISTING).expect("a plan");
    assert_eq!(
        (plan.cluster_id, plan.member_id, plan.joining),
        (5, 3, true)
    );
    let named: Vec<_> = plan
        .members
        .iter()
        .map(|one| (one.id, one.name.as_str()))
        .collect();
    assert_eq!(named, [(3, "default"), (7, "other")]);
}

#[test]
fn a_cluster_that_does_not_fit_is_not_joined() {
    for (known, part) in [
        (
            leak([(7, "SELF", true)]),
            "member count is unequal: --initial-cluster has 2, the cluster at http://127.0.0.1:",
        ),
        (
            leak([(7, "SELF", true)]),
            "does not know this member's peer URLs http://127.0.0.1:1: add it first with member add",
        ),
        (
            leak([(7, "SELF", true), (8, "http://127.0.0.1:3", true)]),
            "PeerURLs: no match found for existing member (8, [\"http://127.0.0.1:3\"])",
        ),
        (
            leak([
                (3, "http://127.0.0.1:1", false),
                (8, "http://127.0.0.1:3", true),
            ]),
            "PeerURLs: no match found for existing member (8, [\"http://127.0.0.1:3\"])",
        ),
    ] {
        let error = beside(5, known, EXISTING).expect_err("it does not fit");
        assert!(error.starts_with("error validating peerURLs: "), "{error}");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn nobody_who_answers_is_named_with_the_reason() {
    let error = refusal(&format!("{} {EXISTING}", with_other("http://127.0.0.1:9")));
    let start = "cannot fetch cluster info from peer urls: could not retrieve cluster information \
                 from the given URLs (http://127.0.0.1:9: ";
    assert!(
        error.starts_with(start) && error.contains("refused"),
        "{error}"
    );
    let error = beside(5, &[], EXISTING).expect_err("no members");
    assert!(error.contains(": it has no members yet)"), "{error}");
    let error = refusal(EXISTING);
    assert!(
        error.contains("--initial-cluster names no other member"),
        "{error}"
    );
}

fn leak<const N: usize>(
    members: [(u64, &'static str, bool); N],
) -> &'static [(u64, &'static str, bool)] {
    Box::leak(Box::new(members))
}
