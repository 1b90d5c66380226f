//! `ponos topology permissions`.

use ponos::Secret;
use ponos::core::name::AppName;
use ponos::rabbitmq::permissions::Permissions;
use serde::Serialize;

use super::{PermissionsArgs, manifests, options, url_or_default};
use crate::error::{CliError, Exit};
use crate::json;
use crate::output::{Output, Tone};

#[derive(Serialize)]
struct Document {
    version: u32,
    vhost: String,
    permissions: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    app: AppName,
    user: String,
    configure: String,
    write: String,
    read: String,
    command: String,
}

/// Prints what each application's user must be allowed to do. The virtual host is that of the broker's URL, if that is
/// RabbitMQ's, else `/`; nothing is connected.
///
/// # Errors
///
/// When a manifest cannot be read, or one user is named for several applications.
pub(super) fn run(args: &PermissionsArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let applications = manifests::read(&args.common.manifests)?;
    if args.user.is_some() && applications.len() > 1 {
        return Err(CliError::usage(
            "one user for several applications would be allowed what each of them is",
            "ask for one application at a time, or leave --user out",
        ));
    }
    let vhost = if url_or_default(url).expose().starts_with("amqp") {
        options(url)?.virtual_host().to_owned()
    } else {
        "/".to_owned()
    };
    let rows = applications.iter().map(|one| {
        let permissions = Permissions::of(&one.app, &one.topology, &one.emitted);
        let user = args.user.clone().unwrap_or_else(|| one.app.to_string());
        let command = permissions.command(&vhost, &user);
        let Permissions { configure, write, read } = permissions;
        Row { app: one.app.clone(), user, configure, write, read, command }
    });
    let rows: Vec<Row> = rows.collect();
    if args.common.json {
        json::print(&Document { version: json::VERSION, vhost, permissions: rows }, out);
        return Ok(Exit::Ok);
    }
    for row in &rows {
        let head = out.paint(Tone::Strong, row.app.as_str());
        out.line(&head);
        out.line(&format!("  configure  {}", row.configure));
        out.line(&format!("  write      {}", row.write));
        out.line(&format!("  read       {}", row.read));
        out.line(&format!("  {}", row.command));
    }
    let hint = "events are declared by `ponos topology apply`: these users may not";
    let hint = out.paint(Tone::Faint, hint);
    out.line(&hint);
    Ok(Exit::Ok)
}
