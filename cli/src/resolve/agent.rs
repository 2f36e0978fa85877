//! What an agent adds to its cell: its program and the flags that make it act without asking.

use super::*;
use crate::agents::Search;

impl Inputs<'_> {
    /// The agent's program. On the `host` image it has to be there; what an image of its own holds is not known yet.
    pub(super) fn program(self, image: &ImageFacts) -> Result<Option<Found>, ResolveError> {
        let Some(agent) = self.agent.filter(|_| self.typed.cell.entrypoint.is_none()) else { return Ok(None) };
        let programs = agent.programs();
        if image.visible.is_none() {
            return Ok(Some(Found { program: programs[0].to_owned(), mounts: Vec::new(), path: Vec::new() }));
        }
        let steady = Steady { files: self.files, host: self.host, project: self.project };
        let search = Search::on(image, steady);
        let found = search.find(&programs);
        found.map(Some).ok_or_else(|| ResolveError::NoAgent(Box::new(AgentMissing::new(agent, &image.name))))
    }

    /// Whether the agent is to ask before it acts, and who says so.
    pub(super) fn asks(self, agent: &Agent) -> (bool, Origin) {
        match &agent.spec.asks {
            _ if self.typed.cell.ask => (true, Origin::Flag("--ask")),
            Some(said) => {
                let (of, file) = (format!("agent {}", agent.name), self.config.file.clone());
                (said.value, Origin::Section { of, file, line: said.at.line })
            }
            None => (false, Origin::Default),
        }
    }

    /// The program, the flags that make it act without asking, and its own arguments.
    pub(super) fn agents_command(self, args: &[String], found: Option<&Found>, explain: &mut Explain) -> Vec<String> {
        let Some((agent, found)) = self.agent.zip(found) else { return args.to_vec() };
        let (asks, origin) = self.asks(agent);
        explain.add("agent", &format!("{} ({})", agent.name, agent.title()), &Origin::Words);
        explain.add("asks", &asks.to_string(), &origin);
        let flags = agent.unattended(args).filter(|_| !asks).map(str::to_owned);
        std::iter::once(found.program.clone()).chain(flags).chain(args.iter().cloned()).collect()
    }
}

/// An agent whose program is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentMissing {
    /// Its name for people.
    pub(crate) title: String,
    /// Its program.
    pub(crate) program: String,
    /// The image.
    pub(crate) image: String,
    /// What mends it, a line each.
    pub(crate) hints: Vec<String>,
}

impl AgentMissing {
    pub(crate) fn new(agent: &Agent, image: &str) -> Self {
        Self {
            title: agent.title().to_owned(),
            program: agent.programs().join("` or `"),
            image: image.to_owned(),
            hints: agent.install_hints(image),
        }
    }
}

impl std::fmt::Display for AgentMissing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { title, program, image, .. } = self;
        match image.as_str() {
            "host" => write!(f, "{title} is not installed: there is no `{program}` in this host's PATH"),
            _ => write!(f, "{title} is not in the image {image}: there is no `{program}` in its PATH"),
        }
    }
}
