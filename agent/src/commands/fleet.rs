//! `haul nodes`, `lanes`, `gpus`, `init`

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Result;
use shared::{
    clock::Chance,
    fleet::{self, QueueSettings, Settings},
    id::NodeId,
    policy,
    store::{self, Store},
};

use super::Context;
use crate::{
    cli::{Gpus, Init, Listing, Nodes, NodesCommand},
    gpu::{self, NoGpus, Nvml, Reader, Simulated},
    render,
};

/// `haul nodes`
pub async fn nodes(context: &Context, args: &Nodes) -> Result<ExitCode> {
    if let Some(NodesCommand::Rm(args)) = &args.command {
        return super::queue::forget(context, args).await;
    }
    let nodes = context.client().await?.nodes().await?;
    if args.json {
        context.out.json(&nodes);
    } else {
        render::nodes(context.out, &nodes, context.now());
    }
    Ok(ExitCode::SUCCESS)
}

/// `haul lanes`
pub async fn lanes(context: &Context, args: &Listing) -> Result<ExitCode> {
    let lanes = context.client().await?.lanes().await?;
    if args.json {
        context.out.json(&lanes);
    } else {
        render::lanes(context.out, &lanes, context.now());
    }
    Ok(ExitCode::SUCCESS)
}

/// `haul demand`
pub async fn demand(context: &Context, args: &Listing) -> Result<ExitCode> {
    let demands = context.client().await?.demands().await?;
    if args.json {
        context.out.json(&demands);
    } else {
        render::demands(context.out, &demands, context.now());
    }
    Ok(ExitCode::SUCCESS)
}

/// `haul gpus`
pub async fn gpus(context: &Context, args: Gpus) -> Result<ExitCode> {
    let gpus: Arc<dyn gpu::Gpus> = match &args.simulate_gpus {
        Some(spec) => Arc::new(Simulated::new(spec, &NodeId::new("here")?)),
        None => match Nvml::open()? {
            Some(nvml) => Arc::new(nvml),
            None => Arc::new(NoGpus),
        },
    };
    let inventory = Reader::new(gpus).read(Duration::from_secs(10)).await?;
    if args.json {
        context.out.json(&inventory);
    } else {
        render::gpus(context.out, &inventory);
    }
    Ok(ExitCode::SUCCESS)
}

/// `haul init`
pub async fn init(context: &Context, args: &Init) -> Result<ExitCode> {
    let mut queue = args.queue.clone();
    if let QueueSettings::Sqlite { path: Some(path) } = &mut queue {
        *path = std::path::absolute(&*path)?;
    }
    if !args.policies {
        let store = Store::open(&args.url)?;
        store::probe(&store, &Chance::from_os()).await?;
        fleet::create(&store, Settings::suited(queue.clone(), &store)).await?;
        context.out.line(format!("made the fleet {}", args.url));
        context.out.line(format!("an agent joins it with: haul agent --fleet {}", args.url));
    }
    let policies = policy::policies(&args.url, &queue);
    if args.json {
        context.out.json(&policies);
    } else {
        render::policies(context.out, &policies);
    }
    Ok(ExitCode::SUCCESS)
}
