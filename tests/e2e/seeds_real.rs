//! The real Claude Code and Codex at a first start: they ask nothing, and have read of their cell. `ci/agents` gets them.

use cellblock_tests::World;

use crate::agents_real::{Model, at_home, with_path};
use crate::terminal::Tmux;

/// A line for a terminal, with the agents in the PATH and variables for the model.
fn line(world: &World, model: &Model, flags: &str, agent: &str) -> String {
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", world.path("home/npm/bin").display());
    let words = format!(
        "run --yes --image host --allow host:{0} -e ANTHROPIC_BASE_URL=http://host.docker.internal:{0} -e ANTHROPIC_AUTH_TOKEN=of-the-test {flags} {agent}",
        model.port()
    );
    let env: String = world.environment().iter().map(|(name, value)| format!("{name}={value} ")).collect();
    format!(
        "cd {} && env -i {env} PATH={path} {} {words}",
        world.project().display(),
        cellblock_tests::cellblock().display()
    )
}

#[test]
fn claude_code_asks_nothing_at_its_first_start() {
    let Some(world) = at_home("claude_code_asks_nothing_at_its_first_start") else { return };
    let model = Model::new(&world, &world.project(), "true");
    let tmux = Tmux::new(&world);
    tmux.line(&line(&world, &model, "--name first", "claude-code"));
    // Its prompt, without anybody having pressed a key.
    tmux.see("bypass permissions on");
    tmux.tmux(&["kill-server"]);
    world.wait("the cell's end", || !world.cellblock("ps").ok().contains("first"));
    // The probe works: it asks when it is to.
    world.cellblock("agent reset claude-code").ok();
    let tmux = Tmux::new(&world);
    tmux.line(&line(&world, &model, "--name second --onboarding", "claude-code"));
    tmux.see("Choose the text style");
}

#[test]
fn codex_asks_nothing_at_its_first_start() {
    let Some(world) = at_home("codex_asks_nothing_at_its_first_start") else { return };
    world.write("home/.codex/auth.json", "{\"auth_mode\":\"apikey\",\"OPENAI_API_KEY\":\"of-the-test\"}");
    world.write("home/.codex/config.toml", "# mine\nproject_doc_max_bytes = 1000 # stays\n");
    let model = Model::new(&world, &world.project(), "true");
    let tmux = Tmux::new(&world);
    tmux.line(&line(&world, &model, "--name first", "codex"));
    tmux.see("Ask Codex to do anything");
    tmux.tmux(&["kill-server"]);
    world.wait("the cell's end", || !world.cellblock("ps").ok().contains("first"));
    let config = world.path("home/.codex/config.toml");
    assert_eq!(std::fs::read_to_string(config).expect("there"), "# mine\nproject_doc_max_bytes = 1000 # stays\n");
    world.cellblock("agent reset codex").ok();
    let tmux = Tmux::new(&world);
    tmux.line(&line(&world, &model, "--name second --onboarding", "codex"));
    tmux.see("Trust this folder?");
}

/// What the model is told at the beginning of a session.
#[test]
fn they_have_read_of_their_cell() {
    for (agent, words) in [("claude-code", "# You are in a cell"), ("codex", "/etc/cellblock/SANDBOX.md says")] {
        for off in [false, true] {
            let Some(world) = at_home("they_have_read_of_their_cell") else { return };
            let model = Model::new(&world, &world.project(), "true");
            let flags = if off { "--no-sandbox-md" } else { "" };
            let line = format!("run {flags} --image host --allow host:{} {}", model.port(), model.session(agent));
            let done = model.env(with_path(&world, world.cellblock(&line))).run();
            assert_eq!(done.code(), Some(0), "{done}\n{}", model.log());
            assert_eq!(model.log().contains(&format!("\"found\": [\"{words}\"")), !off, "{agent}\n{}", model.log());
        }
    }
}
