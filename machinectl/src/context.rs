//! The commands about contexts: names for the agents of other hosts, with their tokens.

mod file;

use std::path::PathBuf;

use clap::Subcommand;
use client::HostAddress;
use config::ContextName;
use serde_json::json;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, Table, fields, or_empty};
use crate::token_file::{STDIN, read_secret, read_token};

pub(crate) use file::{Context, Contexts};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a context: a name for the agent of a host
    ///
    /// The global options --token-file, --ca-file and --socket are stored with the context. A token
    /// from standard input (`--token-file -`) is stored in a file that only its owner can read.
    Add {
        /// The name of the context
        name: ContextName,
        /// The host of the agent: `https://HOST:PORT`, `ssh:[USER@]HOST` or `local`; or a farm:
        /// `farm:https://HOST:PORT`
        address: HostAddress,
        /// The program to run on a host behind ssh, if `buildhost` is not in its PATH
        #[arg(long, value_name = "PATH")]
        program: Option<String>,
        /// Use the context from now on
        #[arg(long = "use")]
        is_used: bool,
        /// Replace a context of the same name
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List the contexts
    List,
    /// Show a context
    Show {
        /// The context; by default the one in use
        name: Option<ContextName>,
    },
    /// Use a context in commands without --host
    Use {
        /// The context, or `local` for the agent of this host
        name: ContextName,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Remove a context, and its token if it was stored with it
    Remove {
        /// The context
        name: ContextName,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        Command::Add {
            name,
            address,
            program,
            is_used,
            replace,
            dry_run,
        } => {
            let context = Context {
                program: program.clone(),
                ..described(address, options)?
            };
            let add = Add {
                name,
                context,
                is_used: *is_used,
                replace: *replace,
            };
            add.run(*dry_run, output)
        }
        Command::List => list(&Contexts::read()?, output),
        Command::Show { name } => show(&Contexts::read()?, name.as_ref(), output),
        Command::Use { name, dry_run } => use_from_now_on(name, *dry_run, output),
        Command::Remove { name, dry_run } => remove(name, *dry_run, output),
    }
}

/// Returns the context that the options describe.
fn described(address: &HostAddress, options: &GlobalOptions) -> Result<Context, Failure> {
    let absolute = |path: &Option<PathBuf>| match path {
        Some(path) if path.as_os_str() != STDIN => std::path::absolute(path)
            .map(Some)
            .map_err(|error| Failure::new(ExitStatus::Failure, error)),
        path => Ok(path.clone()),
    };
    Ok(Context {
        token_file: absolute(&options.token_file)?,
        ca_file: absolute(&options.ca_file)?,
        socket: options.socket.clone(),
        ..Context::of(address.clone())
    })
}

/// A context to add.
struct Add<'a> {
    name: &'a ContextName,
    context: Context,
    is_used: bool,
    replace: bool,
}

impl Add<'_> {
    fn run(mut self, dry_run: DryRun, output: &Output) -> Result<(), Failure> {
        let (name, host) = (self.name, self.context.host.clone());
        self.check()?;
        self.add_to(&mut Contexts::read()?)?;
        if dry_run.enabled {
            return output.plan(format_args!("add context {name} for {host}"));
        }
        match self.context.token_file.clone() {
            Some(path) if path.as_os_str() == STDIN => {
                let secret = read_secret(&path)?;
                self.context.token_file = Some(file::store_token(name, &secret)?);
            }
            Some(path) => drop(read_token(&path)?),
            None => {}
        }
        Contexts::change(|contexts| self.add_to(contexts))?;
        output.status(format_args!("added context {name} for {host}"));
        if self.is_used {
            output.status(format_args!("commands without --host use it"));
        }
        Ok(())
    }

    /// Fails if the options do not belong to the kind of host.
    fn check(&self) -> Result<(), Failure> {
        let Context {
            host,
            token_file,
            ca_file,
            program,
            ..
        } = &self.context;
        let (is_network, is_ssh) = match host {
            HostAddress::Network(_) | HostAddress::Farm(_) => (true, false),
            HostAddress::Ssh(_) => (false, true),
            HostAddress::Local => (false, false),
        };
        let wrong = [
            ("--token-file", token_file.is_some() && !is_network),
            ("--ca-file", ca_file.is_some() && !is_network),
            ("--program", program.is_some() && !is_ssh),
        ];
        match wrong.iter().find(|(_, is_wrong)| *is_wrong) {
            None => Ok(()),
            Some((option, _)) => {
                let text = format!("{option} has no meaning for {host}");
                Err(Failure::new(ExitStatus::Usage, text))
            }
        }
    }

    fn add_to(&self, contexts: &mut Contexts) -> Result<(), Failure> {
        let name = self.name;
        if name.as_str() == HostAddress::LOCAL {
            let text = format!("`{name}` is the name of this host");
            return Err(Failure::new(ExitStatus::Refused, text));
        }
        if contexts.contexts.contains_key(name) && !self.replace {
            let text = format!("context {name} exists already; --replace replaces it");
            return Err(Failure::new(ExitStatus::Exists, text));
        }
        let context = self.context.clone();
        contexts.contexts.insert(name.clone(), context);
        if self.is_used {
            contexts.current = Some(name.clone());
        }
        Ok(())
    }
}

fn use_from_now_on(name: &ContextName, dry_run: DryRun, output: &Output) -> Result<(), Failure> {
    let is_local = name.as_str() == HostAddress::LOCAL;
    let choose = |contexts: &mut Contexts| {
        if !is_local {
            contexts.get(name)?;
        }
        contexts.current = (!is_local).then(|| name.clone());
        Ok(())
    };
    if dry_run.enabled {
        choose(&mut Contexts::read()?)?;
        return output.plan(format_args!(
            "use context {name} in commands without --host"
        ));
    }
    Contexts::change(choose)?;
    output.status(format_args!("commands without --host use {name}"));
    Ok(())
}

fn remove(name: &ContextName, dry_run: DryRun, output: &Output) -> Result<(), Failure> {
    let take = |contexts: &mut Contexts| {
        contexts.get(name)?;
        contexts.contexts.remove(name);
        if contexts.current.as_ref() == Some(name) {
            contexts.current = None;
        }
        Ok(())
    };
    if dry_run.enabled {
        take(&mut Contexts::read()?)?;
        return output.plan(format_args!("remove context {name}"));
    }
    Contexts::change(take)?;
    file::delete_token(name)?;
    output.status(format_args!("removed context {name}"));
    Ok(())
}

fn json(name: &ContextName, context: &Context, contexts: &Contexts) -> serde_json::Value {
    json!({
        "name": name,
        "host": context.host,
        "token_file": context.token_file,
        "ca_file": context.ca_file,
        "program": context.program,
        "socket": context.socket,
        "current": contexts.current.as_ref() == Some(name),
    })
}

fn list(contexts: &Contexts, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        let all = contexts.contexts.iter();
        let all: Vec<_> = all
            .map(|(name, context)| json(name, context, contexts))
            .collect();
        return output.print_json(&all);
    }
    let mut table = Table::new(["CONTEXT", "HOST", "TOKEN", "IN USE"]);
    for (name, context) in &contexts.contexts {
        let is_current = contexts.current.as_ref() == Some(name);
        table.add([
            name.to_string(),
            context.host.to_string(),
            or_empty(context.token_file.as_ref().map(|path| path.display())),
            if is_current { "yes" } else { "" }.to_owned(),
        ]);
    }
    output.print_table(&table)
}

fn show(contexts: &Contexts, name: Option<&ContextName>, output: &Output) -> Result<(), Failure> {
    let Some(name) = name.or(contexts.current.as_ref()) else {
        let text = "no context is in use: commands without --host use the agent of this host";
        return Err(Failure::new(ExitStatus::NotFound, text));
    };
    let context = contexts.get(name)?;
    if output.is_json() {
        return output.print_json(&json(name, context, contexts));
    }
    let path = |path: &Option<PathBuf>| or_empty(path.as_ref().map(|path| path.display()));
    output.print(&fields(&[
        ("context", name.to_string()),
        ("host", context.host.to_string()),
        ("token file", path(&context.token_file)),
        ("CA file", path(&context.ca_file)),
        ("program", or_empty(context.program.as_ref())),
        ("socket", path(&context.socket)),
    ]))
}
