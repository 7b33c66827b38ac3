//! Whether a host serves a lane, and with what: the tables.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    id::{GpuUuid, VolumeName},
    job::{Arch, Format, parse},
    lane::{Access, choose},
};

fn needs(rest: &str) -> Needs {
    Needs::of(&parse(&format!("image = \"i\"\n{rest}"), Format::Toml).expect("valid"))
}

fn gpu(n: u32, model: &str, gib: u64, cc: &str, state: GpuState) -> OfferedGpu {
    OfferedGpu {
        uuid: GpuUuid::new(format!("GPU-{n}")).expect("valid"),
        model: model.into(),
        memory: Size(gib << 30),
        reserved: Size(0),
        compute_capability: cc.parse().expect("valid"),
        mig: None,
        state,
    }
}

fn host(gpus: Vec<OfferedGpu>) -> Offer {
    Offer {
        arch: Arch::Amd64,
        cuda: Some("12.4".parse().expect("valid")),
        gpus,
        volumes: BTreeMap::from([(
            VolumeName::new("data").expect("valid"),
            OfferedVolume { access: Access::Read, problem: None },
        )]),
        labels: BTreeMap::from([("tier".into(), "vm".into())]),
    }
}

fn two_p100() -> Offer {
    host(vec![
        gpu(0, "Tesla P100", 16, "6.0", GpuState::Free),
        gpu(1, "Tesla P100", 16, "6.0", GpuState::Free),
    ])
}

fn why(needs: &Needs, offer: &Offer) -> String {
    match fit(needs, offer) {
        Fit::Now => "now".into(),
        Fit::WhenEmpty(why) => {
            format!("when empty: {}", why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
        Fit::Never(why) => {
            format!("never: {}", why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
    }
}

#[rstest::rstest]
#[case("", "now")]
#[case("[resources]\ngpus = 2", "now")]
#[case("[resources]\ngpus = 3", "never: needs 3 GPUs, the host has 2")]
#[case(
    "[resources]\ngpus = 1\ngpu_model = [\"A100\", \"H100\"]",
    "never: needs GPU model a100 or h100, the host has Tesla P100"
)]
#[case(
    "[resources]\ngpus = 1\ngpu_memory = \"24GiB\"",
    "never: needs 24GiB of memory on each GPU, the host's largest has 16GiB"
)]
#[case(
    "[resources]\ngpus = 1\ncompute_capability = \"7.0\"",
    "never: needs compute capability 7.0, the host's best is 6.0"
)]
#[case("[resources]\ngpus = 1\ncuda = \"12.6\"", "never: needs CUDA 12.6, the host's driver supports 12.4")]
#[case("[resources]\narch = \"arm64\"", "never: needs arm64, the host is amd64")]
#[case("[placement]\nrequire = { tier = \"metal\" }", "never: needs label tier=metal, the host has tier=vm")]
#[case("[[mounts]]\nvolume = \"data\"\ntarget = \"/d\"", "never: the host offers volume data read-only")]
#[case("[[mounts]]\nvolume = \"data\"\ntarget = \"/d\"\nread_only = true", "now")]
#[case("[[mounts]]\nvolume = \"models\"\ntarget = \"/d\"", "never: the host does not offer volume models")]
fn the_reason_is_named(#[case] job: &str, #[case] expected: &str) {
    assert_eq!(why(&needs(job), &two_p100()), expected);
}

#[test]
fn what_is_in_use_passes_and_what_is_broken_does_not() {
    let two = needs("[resources]\ngpus = 2");
    let mut offer = two_p100();
    offer.gpus[0].state = GpuState::Held;
    assert_eq!(why(&two, &offer), "when empty: needs 2 GPUs, 1 free now");
    offer.gpus[0].state = GpuState::Foreign { by: "python (pid 7)".into() };
    assert_eq!(why(&two, &offer), "when empty: needs 2 GPUs, 1 free now, 1 used by programs outside haul");
    offer.gpus[0].state = GpuState::Out { why: "XID 79".into() };
    assert_eq!(why(&two, &offer), "never: a GPU is out of service: GPU-0: XID 79");
}

#[test]
fn small_gpus_are_taken_first_and_alike_ones_together() {
    let offer = host(vec![
        gpu(0, "A100", 80, "8.0", GpuState::Free),
        gpu(1, "T4", 16, "7.5", GpuState::Free),
        gpu(2, "A100", 80, "8.0", GpuState::Free),
    ]);
    let names = |job: &str| {
        choose(&needs(job), &offer).map(|chosen| chosen.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(names("[resources]\ngpus = 1"), Some(vec!["GPU-1".into()]));
    assert_eq!(names("[resources]\ngpus = 2"), Some(vec!["GPU-0".into(), "GPU-2".into()]));
    assert_eq!(names("[resources]\ngpus = 4"), None);
}

fn shared(gib: u64) -> GpuState {
    GpuState::Shared { free: Size(gib << 30) }
}

#[test]
fn shares_fill_what_is_shared_before_they_open_a_fresh_gpu() {
    let four = needs("[resources]\ngpu_share = \"4GiB\"");
    let mut offer =
        host(vec![gpu(0, "RTX 4090", 24, "8.9", GpuState::Free), gpu(1, "T4", 16, "7.5", GpuState::Free)]);
    // Six of them on 24 GiB and 16 GiB: four fill the small one and two are on the large, which keeps
    // 16 GiB in one piece; three and three would leave 12 and 4.
    let mut given = Vec::new();
    for _ in 0..6 {
        let chosen = choose(&four, &offer).expect("room");
        let on = offer.gpus.iter_mut().find(|gpu| gpu.uuid == chosen[0]).expect("offered");
        let free = match on.state {
            GpuState::Shared { free } => free,
            _ => on.memory,
        };
        on.state = GpuState::Shared { free: Size(free.bytes() - (4 << 30)) };
        given.push(on.model.clone());
    }
    assert_eq!(given, ["T4", "T4", "T4", "T4", "RTX 4090", "RTX 4090"]);
    assert_eq!(offer.gpus.iter().map(|gpu| gpu.state.clone()).collect::<Vec<_>>(), [shared(16), shared(0)]);
}

#[test]
fn a_share_goes_where_it_leaves_the_least_over() {
    let offer = host(vec![
        gpu(0, "A100", 80, "8.0", shared(40)),
        gpu(1, "A100", 80, "8.0", shared(9)),
        gpu(2, "A100", 80, "8.0", shared(7)),
        gpu(3, "T4", 16, "7.5", GpuState::Free),
    ]);
    let on = |job: &str| choose(&needs(job), &offer).map(|chosen| chosen[0].to_string());
    assert_eq!(on("[resources]\ngpu_share = \"8GiB\""), Some("GPU-1".into()));
    assert_eq!(on("[resources]\ngpu_share = \"10GiB\""), Some("GPU-0".into()));
    assert_eq!(on("[resources]\ngpu_share = \"4GiB\"\ngpu_model = \"T4\""), Some("GPU-3".into()));
    assert_eq!(on("[resources]\ngpus = 1"), Some("GPU-3".into()), "whole ones are not for sharers");
    assert_eq!(
        why(&needs("[resources]\ngpu_share = \"41GiB\""), &offer),
        "when empty: needs 41GiB of a GPU, 40.0 GiB free now on the emptiest"
    );
    assert_eq!(
        why(&needs("[resources]\ngpu_share = \"81GiB\""), &offer),
        "never: needs 81GiB of memory on each GPU, the host's largest has 80GiB"
    );
    assert_eq!(why(&needs("[resources]\ngpus = 2"), &offer), "when empty: needs 2 GPUs, 1 free now");
}

#[test]
fn cards_are_as_large_as_they_are_sold_and_shares_have_what_the_driver_leaves() {
    let mut offer = host(vec![gpu(0, "Tesla T4", 15, "7.5", GpuState::Free)]);
    offer.gpus[0].reserved = Size(500 << 20);
    assert_eq!(why(&needs("[resources]\ngpus = 1\ngpu_memory = \"16GiB\""), &offer), "now");
    assert_eq!(
        why(&needs("[resources]\ngpus = 1\ngpu_memory = \"17GiB\""), &offer),
        "never: needs 17GiB of memory on each GPU, the host's largest has 15GiB"
    );
    let five = needs("[resources]\ngpu_share = \"5GiB\"");
    assert_eq!(
        five.gpu.as_ref().expect("asked for").room(&offer),
        2,
        "three would not fit beside the driver"
    );
    assert_eq!(
        why(&needs("[resources]\ngpu_share = \"15GiB\""), &offer),
        "never: needs 15GiB of memory on each GPU, the host's largest has 14860MiB"
    );
}

#[test]
fn instances_are_for_those_who_ask_for_their_kind() {
    let instance = |n: u32, kind: &str, state: GpuState| OfferedGpu {
        mig: Some(kind.parse().expect("valid")),
        ..gpu(n, "NVIDIA A100-SXM4-80GB", 10, "8.0", state)
    };
    let offer = host(vec![
        instance(0, "1g.10gb", GpuState::Held),
        instance(1, "1g.10gb", GpuState::Free),
        instance(2, "3g.40gb", GpuState::Free),
    ]);
    let one = needs("[resources]\nmig = \"1g.10gb\"\ngpu_model = \"A100\"");
    assert_eq!(choose(&one, &offer).map(|chosen| chosen[0].to_string()), Some("GPU-1".into()));
    assert_eq!(
        why(&needs("[resources]\nmig = \"2g.20gb\""), &offer),
        "never: needs a 2g.20gb instance, the host has 1g.10gb, 3g.40gb"
    );
    assert_eq!(
        why(&needs("[resources]\nmig = \"2g.20gb\""), &two_p100()),
        "never: needs a 2g.20gb instance, the host has no GPU in MIG mode"
    );
    for job in ["[resources]\ngpus = 1", "[resources]\ngpu_share = \"1GiB\""] {
        assert_eq!(
            why(&needs(job), &offer),
            "never: needs 1 GPU, the host has none that is not in MIG mode, and 3 MIG instances"
        );
    }
}

fn any_state() -> impl Strategy<Value = GpuState> {
    prop_oneof![
        3 => Just(GpuState::Free),
        1 => Just(GpuState::Held),
        2 => (0..16u64).prop_map(shared),
        1 => Just(GpuState::Foreign { by: "x".into() }),
        1 => Just(GpuState::Out { why: "y".into() }),
    ]
}

proptest! {
    /// The two answers, whether it fits and with what, never contradict each other.
    #[test]
    fn what_fits_now_can_be_chosen_and_only_that(
        gpus in prop::collection::vec((0..3usize, any_state()), 0..6),
        wanted in 0..5u32,
        share in prop::option::of(1..100u64),
        model in 0..4usize,
        gib in 0..100u64,
    ) {
        let kinds = [("A100", 80, "8.0"), ("T4", 16, "7.5"), ("P100", 16, "6.0")];
        let offer = host(gpus.iter().enumerate().map(|(i, (kind, state))| {
            let (model, gib, cc) = kinds[*kind];
            gpu(u32::try_from(i).expect("small"), model, gib, cc, state.clone())
        }).collect());
        let wanted = if share.is_some() { 1 } else { wanted };
        let mut text = match share {
            Some(share) => format!("[resources]\ngpu_share = \"{share}GiB\"\n"),
            None => format!("[resources]\ngpus = {wanted}\n"),
        };
        if wanted > 0 {
            text += &format!("gpu_memory = \"{gib}GiB\"\n");
            if let Some((model, ..)) = kinds.get(model) {
                text += &format!("gpu_model = \"{model}\"\n");
            }
        }
        let needs = needs(&text);
        let chosen = choose(&needs, &offer);
        prop_assert_eq!(chosen.is_some(), fit(&needs, &offer) == Fit::Now);
        let chosen = chosen.unwrap_or_default();
        let distinct: BTreeSet<_> = chosen.iter().collect();
        prop_assert_eq!(distinct.len(), chosen.len());
        for uuid in &chosen {
            let gpu = offer.gpus.iter().find(|gpu| gpu.uuid == *uuid).expect("offered");
            match (&gpu.state, share) {
                (GpuState::Free, share) => prop_assert!(gpu.memory >= Size(share.unwrap_or_default() << 30)),
                (GpuState::Shared { free }, Some(share)) => prop_assert!(*free >= Size(share << 30)),
                other => prop_assert!(false, "given out: {:?}", other),
            }
            prop_assert!(gpu.memory.bytes() >= (gib << 30) / 16 * 15);
        }
    }
}
