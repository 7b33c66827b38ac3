//! `haul submit`

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Result;
use serde_json::json;
use shared::{
    client::{Client, ClientError, Submission},
    id::{JobId, JobName},
    index::Summary,
    job::{JobSpec, Resources},
    lane::{Fit, Lane, Needs, exactly, fit},
};

use super::{Context, job, logs, wait};
use crate::{
    cli::{EachModel, Submit},
    exit::Usage,
    inspect, render,
};

/// How many jobs of an array are submitted between two looks at their team's window.
const AT_ONCE: usize = 8;

/// Submits, and waits or follows where that is wanted.
pub async fn run(context: &Context, args: Submit) -> Result<ExitCode> {
    let mut spec = job::load(&args.job)?;
    let client = context.client().await?;
    let asked = spec.resources.clone();
    let image = if args.no_inspect { None } else { Some(inspect::add_needs(&mut spec, context.now()).await) };
    if args.dry_run {
        return dry_run(context, &client, &spec, image, args.json).await;
    }
    if let Some(Ok(added)) = &image
        && !added.is_empty()
    {
        eprintln!("note: the image needs {added}; only hosts that have it will take the job");
    }
    warn(&client, &spec).await;
    let mut jobs = Vec::new();
    let wanted = match args.on {
        Some(EachModel) => each_model(&client, &args, &spec).await?,
        None => expand(&client, &args, spec)?,
    };
    for chunk in wanted.chunks(AT_ONCE) {
        for (id, spec) in chunk.iter().cloned() {
            let submission = submit(&client, id, spec, &asked, chunk.len() > 1).await?;
            if !args.json {
                context.out.line(submission.job.id.as_str());
            }
            jobs.push(submission.job);
        }
        if let (Some(last), 2..) = (jobs.last(), chunk.len()) {
            client.submitted(last).await?;
        }
    }
    if args.json {
        let summaries: Vec<Summary> = jobs.iter().map(Summary::of).collect();
        match summaries.as_slice() {
            [one] if args.array.is_none() && args.on.is_none() => context.out.json(one),
            all => context.out.json(&all),
        }
    }
    let ids: Vec<JobId> = jobs.into_iter().map(|job| job.id).collect();
    match ids.as_slice() {
        [id] if args.follow => logs::follow(context, &client, id, None, false).await,
        ids if args.wait => wait::all(&client, ids, None).await,
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn submit(
    client: &Client,
    id: Option<JobId>,
    spec: JobSpec,
    asked: &Resources,
    is_one_of_many: bool,
) -> Result<Submission> {
    let submit = async |spec: JobSpec| match is_one_of_many {
        true => client.submit_one_of_many(spec, id.clone()).await,
        false => client.submit(spec, id.clone()).await,
    };
    match submit(spec.clone()).await {
        Err(ClientError::IdInUse(id)) => {
            let before = client.status(&id).await?.job;
            Ok(submit(inspect::as_before(&spec, asked, &before.spec)).await?)
        }
        other => Ok(other?),
    }
}

/// The jobs of an array, or the one job.
fn expand(client: &Client, args: &Submit, spec: JobSpec) -> Result<Vec<(Option<JobId>, JobSpec)>> {
    let Some(range) = &args.array else { return Ok(vec![(args.id.clone(), spec)]) };
    let base = args.id.clone().unwrap_or_else(|| client.new_id());
    let mut jobs = Vec::new();
    for index in indices(range).map_err(Usage)? {
        let id = JobId::new(format!("{base}-{index}")).map_err(|e| Usage(e.to_string()))?;
        jobs.push((Some(id), JobSpec { array_index: Some(index), ..spec.clone() }));
    }
    Ok(jobs)
}

/// The job once for each GPU model of the live nodes that could run it there.
async fn each_model(client: &Client, args: &Submit, spec: &JobSpec) -> Result<Vec<(Option<JobId>, JobSpec)>> {
    let nodes = client.nodes().await?;
    let live = nodes.iter().filter(|node| !node.silent);
    let resources = &spec.resources;
    if resources.gpus == 0 && resources.gpu_share.is_none() && resources.mig.is_none() {
        return Err(Usage("--on each=gpu_model: the job asks for no GPU; add --gpus 1".into()).into());
    }
    let models: BTreeSet<String> = if resources.gpu_model.is_empty() {
        live.clone().flat_map(|node| &node.record.offer.gpus).map(|gpu| exactly(&gpu.model)).collect()
    } else {
        resources.gpu_model.iter().cloned().collect()
    };
    let base = args.id.clone().unwrap_or_else(|| client.new_id());
    let mut jobs = Vec::new();
    // A model keeps its number when another one's nodes are away.
    for (number, model) in models.into_iter().enumerate() {
        let mut spec = spec.clone();
        spec.name.get_or_insert(JobName::new(base.as_str()).map_err(|e| Usage(e.to_string()))?);
        spec.resources.gpu_model = vec![model];
        let needs = Needs::of(&spec);
        if live.clone().any(|node| !matches!(fit(&needs, &node.record.offer), Fit::Never(_))) {
            let id = JobId::new(format!("{base}-{number}")).map_err(|e| Usage(e.to_string()))?;
            jobs.push((Some(id), spec));
        }
    }
    if jobs.is_empty() {
        anyhow::bail!("no live node has GPUs that this job could run on; haul nodes lists them");
    }
    Ok(jobs)
}

/// `0-9`, `0-9:3`, `1,5,7-8`: each index once, in order.
fn indices(range: &str) -> Result<Vec<u32>, String> {
    let bad = || format!("--array {range}: write it as 0-9, 0-9:3 or 1,5,7, with at most 10000 jobs");
    let mut indices = BTreeSet::new();
    for part in range.split(',') {
        let (span, step) = part.split_once(':').unwrap_or((part, "1"));
        let (from, to) = span.split_once('-').unwrap_or((span, span));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| bad());
        let (from, to, step) = (number(from)?, number(to)?, number(step)?);
        if step == 0 || from > to || (to - from) / step >= 10_000 {
            return Err(bad());
        }
        indices.extend((from..=to).step_by(step as usize));
    }
    if indices.len() > 10_000 { Err(bad()) } else { Ok(indices.into_iter().collect()) }
}

/// Says so when no node could run it: it waits then, which may be what is wanted.
async fn warn(client: &Client, spec: &JobSpec) {
    let Ok(nodes) = client.fits(spec).await else { return };
    if nodes.is_empty() {
        eprintln!("note: no agent is alive in this fleet yet; the job waits until one is");
    } else if nodes.iter().all(|node| !node.now && !node.when_empty) {
        eprintln!("note: no node of the fleet can run this job as they are; haul status says why");
    }
}

async fn dry_run(
    context: &Context,
    client: &Client,
    spec: &JobSpec,
    image: Option<Result<inspect::Needs, String>>,
    json: bool,
) -> Result<ExitCode> {
    let lane = Lane::new(Needs::of(spec));
    let nodes = client.fits(spec).await?;
    if json {
        let image = image.map(|said| match said {
            Ok(added) => json!({ "adds": added }),
            Err(why) => json!({ "unknown": why }),
        });
        context.out.json(&json!({ "spec": spec, "image": image, "lane": lane, "nodes": nodes }));
    } else {
        context.out.line(format!("{} is a valid job", spec.display_name()));
        match image {
            Some(Ok(added)) if !added.is_empty() => context.out.line(format!("image  needs {added}")),
            Some(Err(why)) => context.out.line(format!("image  nothing is known of it: {why}")),
            Some(Ok(_)) | None => {}
        }
        context.out.line(format!("needs  {}", lane.needs));
        context.out.line(format!("lane   {}", lane.id));
        if nodes.is_empty() {
            context.out.line("no agent is alive in this fleet");
        }
        render::fits(context.out, &nodes);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::cli::JobSource;

    fn source(words: &[&str]) -> JobSource {
        use clap::Parser;
        let words = ["haul", "submit"].iter().chain(words).copied();
        match crate::cli::Cli::try_parse_from(words).expect("parses").command {
            crate::cli::Command::Submit(submit) => submit.job,
            _ => unreachable!("submit was given"),
        }
    }

    #[rstest]
    #[case("0-3", &[0, 1, 2, 3])]
    #[case("0-9:3", &[0, 3, 6, 9])]
    #[case("7,1,5-6,5", &[1, 5, 6, 7])]
    fn an_array_names_its_indices(#[case] range: &str, #[case] expected: &[u32]) {
        assert_eq!(indices(range).as_deref(), Ok(expected));
    }

    #[rstest]
    #[case("")]
    #[case("3-1")]
    #[case("a")]
    #[case("0-9:0")]
    #[case("0-4000000000")]
    fn what_is_no_array_is_refused(#[case] range: &str) {
        assert!(indices(range).is_err());
    }

    #[test]
    fn words_and_flags_make_a_job() {
        let words = ["-e", "A=1", "--gpus", "2", "--timeout", "90s", "--", "busybox", "echo", "hi"];
        let spec = job::load(&source(&words)).expect("valid");
        assert_eq!(spec.image, "busybox");
        assert_eq!(spec.command.as_deref(), Some(&["echo".to_owned(), "hi".to_owned()][..]));
        assert_eq!((spec.resources.gpus, spec.env.len()), (2, 1));
    }

    #[test]
    fn nothing_to_run_is_a_usage_error() {
        let error = job::load(&source(&[])).expect_err("nothing");
        assert!(error.is::<Usage>());
    }
}
