//! Agents as data: what cellblock knows of each (`agents/*.yaml`), and what the person's configuration says otherwise.
//!
//! An agent is known by its name (`claude-code`) and by its program's (`claude`). Any other word is taken for a program of that name, which
//! then is an agent without anything special about it.

mod inside;
mod program;

use crate::args::values::nearest;
use crate::config::{AgentSettings, AgentSpec, Config, ConfigError, Settings, StatePath, parse_agent};
use crate::resolve::{HostFacts, HostFiles, ImageFacts, Steady};
pub(crate) use inside::missing;
pub(crate) use program::{Found, Search};

/// What is shipped.
const SHIPPED: &[(&str, &str)] = &[
    ("aider", include_str!("../../../agents/aider.yaml")),
    ("amp", include_str!("../../../agents/amp.yaml")),
    ("claude-code", include_str!("../../../agents/claude-code.yaml")),
    ("codex", include_str!("../../../agents/codex.yaml")),
    ("copilot", include_str!("../../../agents/copilot.yaml")),
    ("crush", include_str!("../../../agents/crush.yaml")),
    ("cursor-agent", include_str!("../../../agents/cursor-agent.yaml")),
    ("gemini", include_str!("../../../agents/gemini.yaml")),
    ("goose", include_str!("../../../agents/goose.yaml")),
    ("opencode", include_str!("../../../agents/opencode.yaml")),
    ("pi", include_str!("../../../agents/pi.yaml")),
    ("qwen", include_str!("../../../agents/qwen.yaml")),
];

/// An agent, as it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Its name.
    pub(crate) name: String,
    /// What it is, with the configuration's word over what is shipped.
    pub(crate) spec: AgentSpec,
    /// What is shipped with it for its cells: environment and allowed names. Weaker than everything a person says.
    pub(crate) shipped: Option<Settings>,
    /// What the configuration says for its cells.
    pub(crate) own: Option<Settings>,
}

impl Agent {
    /// The programs it may be, the best first; at least one.
    pub(crate) fn programs(&self) -> Vec<&str> {
        match &self.spec.programs {
            Some(programs) if !programs.is_empty() => programs.iter().map(|program| program.value.as_str()).collect(),
            _ => vec![&self.name],
        }
    }

    /// Its name for people.
    pub(crate) fn title(&self) -> &str {
        self.spec.title.as_ref().map_or(&self.name, |title| &title.value)
    }

    /// The flags that are put before its arguments, which may have some already, or begin with a command that takes none of them.
    pub(crate) fn unattended<'a>(&'a self, args: &'a [String]) -> impl Iterator<Item = &'a str> {
        let command = args
            .first()
            .is_some_and(|first| self.spec.subcommands.iter().flatten().any(|subcommand| subcommand.value == *first));
        let flags = self.spec.unattended.iter().flatten().map(|flag| flag.value.as_str());
        flags.filter(move |flag| !command && setting(flag).is_none() && !args.iter().any(|arg| arg == flag))
    }

    /// The variables among what makes it act without asking.
    pub(crate) fn unattended_variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spec.unattended.iter().flatten().filter_map(|said| setting(&said.value))
    }

    /// How it gets into an image, a line each, for a hint.
    pub(crate) fn install_hints(&self, image: &str) -> Vec<String> {
        let said = |key: &str| self.spec.install.get(key).map(|said| said.value.as_str());
        let npm = said("npm").map(|package| format!("npm install -g {package}"));
        let pip = said("pip").map(|package| format!("pipx install {package}"));
        if image == "host" {
            let nix = said("nix").map(|package| format!("nix profile install nixpkgs#{package}"));
            let ways: Vec<String> = [npm, pip, said("host").map(str::to_owned), nix].into_iter().flatten().collect();
            return if ways.is_empty() { Vec::new() } else { vec![format!("on this host: {}", ways.join("   or: "))] };
        }
        let inside = npm
            .map(|install| format!("apk add bash nodejs npm git && {install}"))
            .or(pip.map(|install| format!("apk add pipx git && PIPX_BIN_DIR=/usr/local/bin {install}")));
        let mut hints = vec![format!("`--image host` takes this host's own {}", self.programs()[0])];
        if let Some(inside) = inside {
            hints.push(format!(
                "in a cell that is kept: cellblock run --name {0} --image {image} -u root -- sh -c '{inside}', and then cellblock run --name {0} --image {image} {0}",
                self.name
            ));
        }
        hints
    }
}

/// `NAME=VALUE`, which is a variable; `--name=value` is a flag.
fn setting(said: &str) -> Option<(&str, &str)> {
    said.split_once('=').filter(|(name, _)| !name.starts_with('-'))
}

/// Which of the agent's programs this host has.
pub(crate) fn installed<'a>(agent: &'a Agent, host: &HostFacts) -> Option<&'a str> {
    let nothing = ImageFacts { name: String::new(), visible: None };
    let search = Search::on(&nothing, Steady { files: &HostFiles, host, project: None });
    agent.programs().into_iter().find(|program| search.find(&[program]).is_some())
}

/// All agents that are shipped or configured, sorted by name.
pub(crate) fn all(config: &Config) -> Result<Vec<Agent>, ConfigError> {
    let shipped = SHIPPED.iter().map(|(name, _)| *name);
    let configured = config.agents.keys().map(String::as_str).filter(|name| !shipped.clone().any(|s| s == *name));
    let mut names: Vec<&str> = shipped.clone().chain(configured).collect();
    names.sort_unstable();
    names.into_iter().map(|name| Ok(named(name, config)?.unwrap_or_default())).collect()
}

/// The shipped agent whose name is nearly this.
pub(crate) fn nearest_name(word: &str) -> Option<String> {
    nearest(word, SHIPPED.iter().map(|(name, _)| *name)).filter(|near| near != word)
}

/// The agent that a word means: one of that name, or the one whose program it is.
pub(crate) fn find(word: &str, config: &Config) -> Result<Option<Agent>, ConfigError> {
    if let Some(agent) = named(word, config)? {
        return Ok(Some(agent));
    }
    Ok(all(config)?.into_iter().find(|agent| agent.programs().contains(&word)))
}

/// The agent of this name.
fn named(name: &str, config: &Config) -> Result<Option<Agent>, ConfigError> {
    let text = SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    let shipped = text.map(|text| parse_agent(name, text)).transpose()?;
    let configured = config.agents.get(name);
    if shipped.is_none() && configured.is_none() {
        return Ok(None);
    }
    let AgentSettings { spec, settings, .. } = shipped.clone().unwrap_or_default();
    Ok(Some(Agent {
        name: name.to_owned(),
        spec: match configured {
            Some(configured) => over(spec, &configured.spec),
            None => spec,
        },
        shipped: shipped.map(|_| settings),
        own: configured.map(|configured| configured.settings.clone()),
    }))
}

/// `own` over `spec`: what is said replaces what is shipped; files, folders and ways to install one by one.
fn over(spec: AgentSpec, own: &AgentSpec) -> AgentSpec {
    let own = own.clone();
    let mut install = spec.install;
    install.extend(own.install);
    AgentSpec {
        title: own.title.or(spec.title),
        programs: own.programs.or(spec.programs),
        unattended: own.unattended.or(spec.unattended),
        subcommands: own.subcommands.or(spec.subcommands),
        asks: own.asks.or(spec.asks),
        pass_env: own.pass_env.or(spec.pass_env),
        state: by_path(spec.state, own.state),
        login: by_path(spec.login, own.login),
        instructions: own.instructions.or(spec.instructions),
        imports: own.imports.or(spec.imports),
        seeds: own.seeds.or(spec.seeds),
        install,
    }
}

fn by_path(mut known: Vec<StatePath>, own: Vec<StatePath>) -> Vec<StatePath> {
    for new in own {
        match known.iter_mut().find(|old| old.path.value == new.path.value) {
            Some(old) => {
                old.mode = new.mode.or(old.mode.take());
                if !new.history.is_empty() {
                    old.history = new.history;
                }
                if !new.locks.is_empty() {
                    old.locks = new.locks;
                }
                (old.inside, old.inside_env) =
                    (new.inside.or(old.inside.take()), new.inside_env.or(old.inside_env.take()));
                old.home_env = new.home_env.or(old.home_env.take());
            }
            None => known.push(new),
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::args::values::StateMode;
    use crate::config::parse;

    fn config(text: &str) -> Config {
        parse(Path::new("c.yaml"), text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn every_shipped_agent_is_complete() {
        assert!(SHIPPED.is_sorted());
        for (name, text) in SHIPPED {
            assert!(text.starts_with("# "), "{name} says what it is");
            let agent = named(name, &Config::default()).unwrap_or_else(|e| panic!("{e}")).expect("there");
            assert!(agent.spec.title.is_some() && !agent.spec.install.is_empty(), "{name}");
            let settings = agent.shipped.expect("shipped");
            let allowed: Vec<String> = settings.allow.iter().flatten().map(|rule| rule.value.to_string()).collect();
            assert_eq!(allowed, [format!("@{name}")]);
            assert!(cellblock_egress::policy::sets::rules(name).is_some(), "{name} has a set");
            assert!(agent.spec.state.iter().chain(&agent.spec.login).all(|one| one.mode.is_some()), "{name}");
            let told = agent.spec.instructions.iter().map(|path| &path.value);
            for file in told.chain(agent.spec.seeds.iter().flatten().map(|seed| &seed.path.value)) {
                let below =
                    |one: &StatePath| *file == one.path.value || file.starts_with(&format!("{}/", one.path.value));
                assert!(agent.spec.state.iter().any(below), "{name}: {file} is nobody's");
                assert!(!agent.spec.login.iter().any(|login| login.path.value == *file), "{name}: {file} is a login");
            }
            for login in &agent.spec.login {
                assert!(!agent.spec.state.iter().any(|one| one.path.value == login.path.value), "{name}");
            }
        }
    }

    #[test]
    fn they_are_found_by_name_and_by_program() {
        let none = Config::default();
        assert_eq!(find("claude-code", &none).unwrap().unwrap().programs(), ["claude"]);
        assert_eq!(find("claude", &none).unwrap().unwrap().name, "claude-code");
        assert_eq!(find("vim", &none).unwrap(), None);
        let own = config("agents: {mine: {programs: [my-agent, claude]}, other: {}}");
        assert_eq!(find("my-agent", &own).unwrap().unwrap().name, "mine");
        assert_eq!(find("other", &own).unwrap().unwrap().programs(), ["other"]);
        assert_eq!(all(&own).unwrap().len(), SHIPPED.len() + 2);
    }

    #[test]
    fn the_configuration_says_otherwise() {
        let own = config(
            "agents:\n  codex:\n    unattended: []\n    login: [{path: ~/.codex/auth.json, mode: copy}]\n    state: [{path: ~/x}]\n    memory: 2g\n",
        );
        let codex = find("codex", &own).unwrap().unwrap();
        assert_eq!(codex.unattended(&[]).count(), 0);
        assert_eq!(codex.programs(), ["codex"]);
        assert_eq!(codex.spec.login.len(), 1);
        assert_eq!(codex.spec.login[0].mode.as_ref().unwrap().value, StateMode::Copy);
        assert!(codex.spec.login[0].file);
        assert_eq!(codex.spec.state.iter().map(|s| s.path.value.as_str()).collect::<Vec<_>>(), ["~/.codex", "~/x"]);
        assert!(codex.own.as_ref().unwrap().memory.is_some());
        assert_eq!(codex.title(), "Codex");
    }

    #[test]
    fn what_is_wrong_is_told_at_its_line() {
        let told = |text: &str| parse(Path::new("c.yaml"), text).unwrap_err().to_string();
        let cases = [
            ("agents: {My Agent: {}}", "is not a name for an agent"),
            ("agents: {a: {program: x}}", "did you mean `programs`?"),
            ("agents: {a: {programs: [/bin/x]}}", "without `/`"),
            ("agents: {a: {state: [{path: ../x}]}}", "begins with `~/` or `/`"),
            ("agents: {a: {state: [{mode: share}]}}", "has no `path`"),
            ("agents: {a: {state: [{path: ~/x, mode: steal}]}}", "invalid value"),
            ("agents: {a: {state: [{path: ~/x, history: [../y]}]}}", "a path below the folder"),
            ("agents: {a: {login: [{pth: ~/x}]}}", "did you mean `path`?"),
            ("agents: {a: {pass_env: [A=1]}}", "is not a name for a variable"),
            ("agents: {a: {imports: yes}}", "must be true or false"),
            ("agents: {a: {seeds: [{path: ~/x}]}}", "has a `path` and `keys`"),
            ("agents: {a: {seeds: [{path: x, keys: {}}]}}", "begins with `~/` or `/`"),
            ("agents: {a: {seeds: [{path: ~/x, key: {}}]}}", "did you mean `keys`?"),
            ("agents: {a: {seeds: [{path: ~/x, keys: [a]}]}}", "must be a map, not a list"),
            ("agents: {a: {seeds: [{path: ~/x, keys: {a: b}, form: ini}]}}", "invalid value"),
        ];
        for (text, want) in cases {
            assert!(told(text).contains(want), "{text}: {}", told(text));
        }
    }

    #[test]
    fn seeds_are_replaced_as_a_whole_and_keep_their_kinds() {
        let claude = find("claude", &Config::default()).unwrap().unwrap().spec;
        let trust = &claude.seeds.unwrap()[1];
        assert_eq!(trust.keys["projects"]["{workdir}"]["hasTrustDialogAccepted"], true);
        assert!(trust.unattended && trust.over_false && claude.imports.unwrap().value);
        let own = config("agents: {claude-code: {seeds: [{path: ~/x, keys: {a: 1, b: '1', c: [true, ~], d: 0x1}}]}}");
        let seeds = find("claude", &own).unwrap().unwrap().spec.seeds.unwrap();
        assert_eq!(seeds.len(), 1);
        assert_eq!(seeds[0].keys, serde_json::json!({"a": 1, "b": "1", "c": [true, null], "d": "0x1"}));
    }

    #[test]
    fn flags_are_not_doubled() {
        let agent = find("claude", &Config::default()).unwrap().unwrap();
        let flag = "--dangerously-skip-permissions";
        assert_eq!(agent.unattended(&["--continue".into()]).collect::<Vec<_>>(), [flag]);
        assert_eq!(agent.unattended(&[flag.into()]).count(), 0);
    }

    #[test]
    fn variables_are_no_flags_and_commands_take_none() {
        let own = config("agents: {mine: {unattended: [MODE=auto, --level=high, --yes], subcommands: [login]}}");
        let agent = find("mine", &own).unwrap().unwrap();
        assert_eq!(agent.unattended(&["go".into()]).collect::<Vec<_>>(), ["--level=high", "--yes"]);
        assert_eq!(agent.unattended(&["login".into(), "x".into()]).count(), 0);
        assert_eq!(agent.unattended(&["x".into(), "login".into()]).count(), 2);
        assert_eq!(agent.unattended_variables().collect::<Vec<_>>(), [("MODE", "auto")]);
    }

    #[test]
    fn a_folders_variable_can_be_said_of_a_known_one() {
        let own = config("agents: {codex: {state: [{path: ~/.codex, home_env: MY_CODEX}]}}");
        let codex = find("codex", &own).unwrap().unwrap();
        assert_eq!(codex.spec.state[0].home_env.as_deref(), Some("MY_CODEX"));
        assert!(!codex.spec.state[0].history.is_empty(), "what is not said stays");
    }

    #[test]
    fn hints_fit_the_image() {
        let agent = find("codex", &Config::default()).unwrap().unwrap();
        assert_eq!(
            agent.install_hints("host"),
            ["on this host: npm install -g @openai/codex   or: nix profile install nixpkgs#codex"]
        );
        let hints = agent.install_hints("alpine");
        assert!(hints[0].contains("--image host") && hints[1].contains("npm install -g @openai/codex"), "{hints:?}");
    }
}
