//! `haul schema`, `completions`, `man`

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory;

use super::Context;
use crate::cli::{Cli, Completions, Man, Schema, SchemaFormat};

/// `haul schema`
pub fn schema(context: &Context, args: &Schema) -> Result<ExitCode> {
    match args.format {
        SchemaFormat::Job => context.out.json(&shared::job::schema()),
    }
    Ok(ExitCode::SUCCESS)
}

/// `haul completions`
pub fn completions(context: &Context, args: &Completions) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "haul", &mut script);
    context.out.raw(&script);
    Ok(ExitCode::SUCCESS)
}

/// `haul man`
pub fn man(context: &Context, args: &Man) -> Result<ExitCode> {
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            clap_mangen::generate_to(Cli::command(), dir)
                .with_context(|| format!("cannot write the pages to {}", dir.display()))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            context.out.raw(&page);
        }
    }
    Ok(ExitCode::SUCCESS)
}
