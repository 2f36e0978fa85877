//! `~`, `$NAME` and `${NAME}` in paths.
//!
//! In the configuration all of them are expanded, once; `$$` is a dollar sign. On the command line only a leading `~` is, because
//! the shell has expanded the rest already and a folder may have a `$` in its name.

use super::host::HostFacts;

/// Why a path cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    /// A variable the host does not have.
    #[error("${0} is not set")]
    Unset(String),
    /// `~name`.
    #[error("`~` stands for your own home directory only; write another one's in full")]
    OtherHome,
    /// Something else after the dollar sign.
    #[error("after `$` comes a name or {{NAME}}; a dollar sign itself is written `$$`")]
    Dollar,
    /// A path that cannot stand in an OCI bundle.
    #[error("your home directory is not UTF-8, which an OCI bundle cannot express")]
    Home,
}

/// Expands a path of the configuration.
pub(crate) fn config_path(text: &str, host: &HostFacts) -> Result<String, ExpandError> {
    let (mut out, mut rest) = tilde(text, host)?;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or(ExpandError::Dollar)?,
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        let named = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !named {
            return Err(ExpandError::Dollar);
        }
        out.push_str(host.env.get(name).ok_or_else(|| ExpandError::Unset(name.to_owned()))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Expands a path of the command line.
pub(crate) fn typed_path(text: &str, host: &HostFacts) -> Result<String, ExpandError> {
    tilde(text, host).map(|(home, rest)| home + rest)
}

fn tilde<'t>(text: &'t str, host: &HostFacts) -> Result<(String, &'t str), ExpandError> {
    match text.strip_prefix('~') {
        None => Ok((String::new(), text)),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            Ok((host.home.to_str().ok_or(ExpandError::Home)?.to_owned(), rest))
        }
        Some(_) => Err(ExpandError::OtherHome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_expanded_once() {
        let env = [("X", "/x"), ("SELF", "$X"), ("EMPTY", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let host = HostFacts { home: "/home/ada".into(), env: env.into(), ..HostFacts::default() };
        let unset = Err(ExpandError::Unset("GONE".into()));
        let cases = [
            ("/a/b", Ok("/a/b"), "/a/b"),
            ("~", Ok("/home/ada"), "/home/ada"),
            ("~/w", Ok("/home/ada/w"), "/home/ada/w"),
            ("/a/~", Ok("/a/~"), "/a/~"),
            ("$X/y", Ok("/x/y"), "$X/y"),
            ("${X}y", Ok("/xy"), "${X}y"),
            ("/a$EMPTY", Ok("/a"), "/a$EMPTY"),
            ("$SELF", Ok("$X"), "$SELF"),
            ("/a$$b", Ok("/a$b"), "/a$$b"),
            ("/$GONE", unset, "/$GONE"),
            ("/a$", Err(ExpandError::Dollar), "/a$"),
            ("/${X", Err(ExpandError::Dollar), "/${X"),
            ("/${X:-y}", Err(ExpandError::Dollar), "/${X:-y}"),
            ("/$1", Err(ExpandError::Dollar), "/$1"),
            ("/$(id)", Err(ExpandError::Dollar), "/$(id)"),
        ];
        for (text, config, typed) in cases {
            assert_eq!(config_path(text, &host), config.map(str::to_owned), "{text}");
            assert_eq!(typed_path(text, &host).as_deref(), Ok(typed), "{text}");
        }
        assert_eq!(config_path("~eve/x", &host), Err(ExpandError::OtherHome));
        assert_eq!(typed_path("~eve/x", &host), Err(ExpandError::OtherHome));
    }
}
