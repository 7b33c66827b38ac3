//! Whole hosts lose their power, their network, or are shut down, under load.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tests::{Container, Histories, Machine, Site, eventually, last, site::counted};

/// What jobs of a test count to: long enough for everything to happen meanwhile.
const STEPS: u32 = 100;

/// Whether every job has ended once, and done nothing twice at once.
fn all_is_well(site: &Site, ids: &[String]) -> Histories {
    for id in ids {
        tests::within(Duration::from_secs(150), &format!("job {id} ends"), || {
            (site.world().state(id) == "succeeded").then_some(())
        });
        let attempt = site.ticks(id).last().expect("a tick").attempt.to_string();
        assert_eq!(site.broken(id), Vec::<String>::new());
        assert_eq!(site.world().run(["logs", id, "--attempt", &attempt]).ok(), counted(STEPS));
    }
    let histories = Histories::read(&site.cloud().bucket());
    assert_eq!(histories.broken(), Vec::<String>::new());
    histories
}

#[test]
fn a_host_without_power_and_one_without_network_lose_no_job_and_run_none_twice() {
    const LEASE: u32 = 8;
    let site = Site::new(LEASE);
    let [dark, apart, well] = ["dark", "apart", "well"].map(|name| site.host(name, "HAUL_CPUS=6\n"));
    // Takes none before it must.
    well.ok("haul drain");
    let two = json!({ "resources": { "cpus": 2 } });
    let ids: Vec<String> = (0..6).map(|_| site.count(STEPS, &two)).collect();
    ids.iter().for_each(|id| site.until_counted(id, 1, 3));
    let (gone, cut) = (dark.node(), apart.node());
    let ran_on = |node: &str| -> BTreeSet<&String> {
        ids.iter().filter(|id| site.ticks(id)[0].node == node).collect()
    };
    let (of_dark, of_apart) = (ran_on(&gone), ran_on(&cut));
    assert!(!of_dark.is_empty() && !of_apart.is_empty());

    dark.power_off();
    apart.cut();
    well.ok("haul drain --resume");
    eventually("what is cut off is frozen", || {
        (apart.containers("paused").len() == of_apart.len()).then_some(())
    });
    for id in of_dark.iter().chain(&of_apart) {
        eventually("the job runs elsewhere", || {
            site.ticks(id).iter().any(|tick| tick.attempt == 2).then_some(())
        });
    }
    last(Duration::from_secs(u64::from(LEASE)));
    apart.join();
    dark.power_on();
    dark.until_ready();
    eventually("what was taken over is removed", || {
        let owned =
            |host: &Container| host.ok("docker ps -aq --no-trunc --filter label=haul.attempt=1").is_empty();
        (owned(&dark) && owned(&apart)).then_some(())
    });

    let histories = all_is_well(&site, &ids);
    let lost: BTreeSet<&String> =
        ids.iter().filter(|id| histories.events(id, "ended")[0]["outcome"] == "node_lost").collect();
    assert_eq!(lost, of_dark.union(&of_apart).copied().collect(), "those, and no others");
    assert_eq!(well.containers("paused"), Vec::<String>::new());
    for (host, words) in [
        (&apart, &["cut off from the store", "frozen", "taken over by another node"][..]),
        (&well, &["the node is lost: silent for its whole lease", "took over a lost node's job"]),
        (&dark, &["removed a container that nobody owns any more"]),
    ] {
        let journal = host.journal("haul-agent") + &host.journal("haul-guard");
        for word in words {
            assert!(journal.contains(word), "{} does not tell of '{word}':\n{journal}", host.name());
        }
    }
}

#[test]
fn what_ran_when_the_power_went_is_lost_at_the_next_start_at_once() {
    let site = Site::new(600);
    let host = site.host("a", "");
    let ids = [(); 2].map(|()| site.count(STEPS, &json!({})));
    ids.iter().for_each(|id| site.until_counted(id, 1, 5));
    host.power_off();
    host.power_on();
    let histories = all_is_well(&site, &ids);
    for id in &ids {
        let ended = histories.events(id, "ended");
        assert_eq!(ended[0]["outcome"], "node_lost");
        assert_eq!(ended[0]["message"], "the host went down while the job ran");
        assert_eq!((ended.len(), &ended[1]["attempt"]), (2, &json!(2)));
    }
    assert_eq!(
        host.journal("haul-agent").matches("-- Boot ").count(),
        1,
        "the second boot is one of its own"
    );
}

#[test]
fn a_host_that_is_cut_off_goes_down_soon_and_what_is_frozen_there_never_runs_again() {
    let site = Site::new(8);
    let host = site.host("a", "");
    // Deaf, so that it would use whatever time it was let have.
    let script = "trap '' TERM; t=/shared/ticks/$HAUL_JOB_ID; i=0; until [ -e $t.enough ]; do i=$((i + 1)); \
                  echo $HAUL_ATTEMPT $HAUL_NODE $i >>$t; sleep 0.2; done";
    let id = site.submit(&json!({}), script);
    site.until_counted(&id, 1, 3);
    let other = site.host("b", "");
    host.cut();
    eventually("it is frozen", || (host.containers("paused").len() == 1).then_some(()));
    site.until_counted(&id, 2, 3);
    host.shut_down();
    site.enough(&id);
    site.world().until(&id, "succeeded");
    assert_eq!(site.broken(&id), Vec::<String>::new());
    assert_eq!(site.world().events(&id, "claimed")[1]["node"], other.node().as_str());
    host.power_on();
    host.until_ready();
    let journal = host.journal("haul-agent");
    assert!(journal.contains("this node is lost to them"), "{journal}");
    eventually("nothing is left", || host.ok("docker ps -aq").is_empty().then_some(()));
}

#[test]
fn a_host_that_is_shut_down_hands_its_jobs_back() {
    let site = Site::new(60);
    let host = site.host("a", "HAUL_LABELS=host=a\n");
    let script = "n=0; trap 'echo $n >$HAUL_CHECKPOINT_DIR/n; exit 7' TERM; from=$(cat $HAUL_CHECKPOINT_DIR/n); \
                  if [ -n \"$from\" ]; then echo from $from; exit 0; fi; \
                  while true; do n=$((n + 1)); echo $n; sleep 0.2 & wait $!; done";
    let id = site.submit(&json!({}), script);
    eventually("it counts", || site.world().run(["logs", &id]).stdout.contains("3\n").then_some(()));
    host.shut_down();
    let ended = site.world().events(&id, "ended");
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(ended[0]["outcome"], "preempted", "{ended:?}");
    assert_eq!(site.world().json(["nodes", "--json"])[0]["mode"], "stopped");
    let other = site.host("b", "");
    site.world().until(&id, "succeeded");
    let claims = site.world().events(&id, "claimed");
    assert_eq!(claims[1]["node"], other.node().as_str());
    assert!(site.world().run(["logs", &id]).ok().starts_with("from "), "it goes on from its checkpoint");

    host.power_on();
    host.until_ready();
    let journal = host.journal("haul-agent");
    assert!(journal.contains("the machine goes down"), "{journal}");
    // systemd leaves the containers to the agent, which alone knows a job's grace.
    let last = host.ok("journalctl --no-pager -o cat -b -1 -u haul-agent -u 'docker-*.scope'");
    let (asked, ended) = (last.rfind("reason=Preempted"), last.rfind(".scope: Deactivated successfully"));
    assert!(asked.is_some() && ended.is_some() && asked < ended, "systemd stopped the container:\n{last}");
    let again = site.submit(&json!({ "placement": { "require": { "host": "a" } } }), "true");
    site.world().until(&again, "succeeded");
}

#[test]
fn a_golden_image_boots_as_a_new_node() {
    let site = Site::new(60);
    let host = site.host("a", "");
    let first = host.node();
    // What is mounted below its state is not its own: neither another file system nor a directory of the same.
    let mounted = "mkdir -p /srv/results /var/lib/haul/outputs/far /var/lib/haul/outputs/near && \
        mount -t tmpfs none /var/lib/haul/outputs/far && mount --bind /srv/results /var/lib/haul/outputs/near && \
        touch /var/lib/haul/outputs/far/kept /var/lib/haul/outputs/near/kept";
    host.ok(mounted);
    // What cannot be removed is said, and keeps nothing else.
    host.ok("touch /var/lib/haul/held && mount --bind /etc/hostname /var/lib/haul/held");
    let done = host.run("/usr/share/haul/forget-host");
    assert!(done.code == 1 && done.stderr.contains("/var/lib/haul still has what it was"), "{done:?}");
    assert_eq!(host.ok("stat -c %s /etc/machine-id"), "0\n");
    host.ok("umount /var/lib/haul/held");
    host.ok("/usr/share/haul/forget-host");
    let left = "outputs\noutputs/far\noutputs/far/kept\noutputs/near\noutputs/near/kept\n";
    assert_eq!(host.ok("cd /var/lib/haul && find * | LC_ALL=C sort"), left);
    host.power_off();
    host.power_on();
    host.until_ready();
    assert_ne!(host.node(), first);
    let id = site.submit(&json!({ "resources": { "gpus": 2 } }), "true");
    site.world().until(&id, "succeeded");
    assert_eq!(site.world().events(&id, "claimed")[0]["node"], host.node());
}
