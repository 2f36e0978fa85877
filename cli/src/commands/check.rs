//! `run --check`: whether it could start.

use serde::Serialize;

use crate::args::values::word;
use crate::commands::start::Ready;
use crate::output::{data, json, plain, table};
use crate::report::CliError;
use crate::resolve::typed_path;

/// One thing that was looked at.
#[derive(Serialize)]
struct Row {
    what: &'static str,
    found: String,
}

/// Looks at what a start needs, and says what was found; what is missing for a start is an error.
pub(crate) fn run(ready: &Ready) -> Result<i32, CliError> {
    let cell = &ready.resolved.cell;
    let (root, _) = ready.image.prepare(cell, &ready.host)?;
    ready.check_agent(&root)?;
    let mut rows = vec![
        Row { what: "cell", found: cell.name.clone() },
        Row { what: "image", found: cell.image.clone() },
        Row { what: "program", found: cell.command.first().cloned().unwrap_or_default() },
        Row { what: "network", found: word(cell.network).to_owned() },
    ];
    if let Some(agent) = &ready.agent {
        rows.insert(0, Row { what: "agent", found: format!("{} ({})", agent.name, agent.title()) });
        for login in &agent.spec.login {
            let path = typed_path(&login.path.value, &ready.host).unwrap_or_default();
            let there = std::fs::metadata(&path).is_ok();
            let found = if there {
                login.path.value.clone()
            } else {
                format!("{} is not there: log in first, on the host or inside", login.path.value)
            };
            rows.push(Row { what: "login", found });
        }
    }
    if ready.resolved.start.json {
        json(&rows)?;
    } else {
        data(&table(
            &["WHAT", "FOUND"],
            rows.iter().map(|row| vec![row.what.to_owned(), plain(&row.found)]).collect(),
        ))?;
    }
    Ok(0)
}
