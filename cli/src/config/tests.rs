//! Files as people write them, and the exact words they get back.

use super::*;
use crate::args::values::{
    Bridge, Cpus, EnvEntry, Given, LimitMode, MountSpec, Opened, Pids, Protection, Size, UserSpec, Userns,
};
use cellblock_bundle::cell::{Network, Profile};

fn good(text: &str) -> Config {
    parse(Path::new("c.yaml"), text).unwrap_or_else(|e| panic!("{e}"))
}

fn told(text: &str) -> String {
    parse(Path::new("c.yaml"), text).expect_err(text).to_string()
}

const FULL: &str = "\
defaults:
  image: alpine:3.20.3
  profile: strict
  network: host
  env: [MIX_ENV=dev, DATABASE_URL]
  mounts: [~/work/shared-libs:/shared-libs:ro]
  protect: on
  protect_except: [.vscode]
  guard: false
  memory: 2g
  cpus: 1.50
  pids: 300
  limits: best-effort
  labels: {team: core}
  read_only: true
  user: 1000:100
  shell: /bin/zsh
  workdir: /src
  hostname: box
  init: false
  userns: keep-id
  alpine_mirror: https://mirror.example/alpine/
  allow: ['@dev', 'example.com:22']
  allow_file: ~/allowed
  deny: ['*.example.net']
  publish: ['8080:80']
  mask: [.env, config/*.key]
  secret_paths: [~/keys]
  secret_paths_except: [~/.npmrc]
  secrets: ['TOKEN@api.example.com=env:TOKEN']
  ssh_agent: true
  ssh_agent_keys: [ada@home, '~/.ssh/work.pub']
  commit_signing: true
  git_credentials: true
  bridges: [clipboard-image, open-url]
  claude_config: sync
  share: [~/.cargo, ~/.rustup]
  home: ~/cells/home
  project_path: /work
  log_dir: ~/logs
  overlay: ~/overlay
  sandbox_md: false
  onboarding: true
projects:
  web:
    path: ~/work/web
    network: none
    mounts:
      - ./cache:/cache
profiles:
  rust: {mounts: [~/.cargo], memory: 8g}
agents:
  codex:
    title: Mine
    programs: [codex, codex2]
    install: {npm: \"@me/codex\"}
    unattended: []
    asks: true
    pass_env: [A_KEY]
    state: [{path: ~/.codex, mode: private, home_env: CODEX_HOME, history: [sessions, \"*\"]}, {path: ~/.x.json, file: true, inside: ~/.codex/x.json, inside_env: X_HOME=~/.codex}]
    login: [{path: ~/.codex/auth.json, mode: copy, locks: [.lock]}]
    instructions: ~/.codex/AGENTS.md
    imports: false
    seeds: [{path: ~/.codex/config.toml, form: toml, keys: {a: {b: true}}, over_false: true, unattended: true, variable: A_KEY}]
    memory: 4g
";

#[test]
fn every_key_is_read() {
    let config = good(FULL);
    let d = &config.defaults;
    assert_eq!(d.image.as_ref().unwrap().value, "alpine:3.20.3");
    assert_eq!(d.image.as_ref().unwrap().at, Place { line: 2, column: 10 });
    assert_eq!(d.profile.as_ref().unwrap().value.security(), Some(Profile::Strict));
    assert_eq!(d.network.as_ref().unwrap().value, Network::Host);
    assert_eq!(d.env[0].value, EnvEntry { name: "MIX_ENV".into(), value: Given::Value("dev".into()) });
    assert_eq!(d.env[1].value, EnvEntry { name: "DATABASE_URL".into(), value: Given::Host });
    let libs = MountSpec { source: "~/work/shared-libs".into(), target: Some("/shared-libs".into()), writable: false };
    assert_eq!(d.mounts[0].value, libs);
    assert_eq!(d.memory.as_ref().unwrap().value, Size(2 << 30));
    assert_eq!(d.cpus.as_ref().unwrap().value, Cpus(1500));
    assert_eq!(d.pids.as_ref().unwrap().value, Pids(300));
    assert_eq!(d.limits.as_ref().unwrap().value, LimitMode::BestEffort);
    assert_eq!(d.labels["team"].value, "core");
    assert!(d.read_only.as_ref().unwrap().value);
    let allow: Vec<String> = d.allow.iter().flatten().map(|rule| rule.value.to_string()).collect();
    assert_eq!(allow, ["@dev", "example.com:22"]);
    assert_eq!(d.allow_file.as_ref().unwrap().value, "~/allowed");
    assert_eq!(d.deny[0].value.to_string(), "*.example.net");
    assert_eq!(d.secrets[0].value.to_string(), "TOKEN@api.example.com=env:TOKEN");
    let mask: Vec<String> = d.mask.iter().map(|said| said.value.to_string()).collect();
    assert_eq!(mask, [".env", "config/*.key"]);
    assert_eq!((&*d.secret_paths[0].value, &*d.secret_paths_except[0].value), ("~/keys", "~/.npmrc"));
    for truth in [&d.ssh_agent, &d.commit_signing, &d.git_credentials] {
        assert!(truth.as_ref().unwrap().value);
    }
    assert_eq!(d.ssh_agent_keys[1].value, "~/.ssh/work.pub");
    let bridges: Vec<Bridge> = d.bridges.iter().map(|bridge| bridge.value).collect();
    assert_eq!(bridges, [Bridge::ClipboardImage, Bridge::OpenUrl]);
    assert_eq!(d.publish[0].value.0.to_string(), "127.0.0.1:8080:80");
    assert_eq!(d.protect.as_ref().unwrap().value, Protection::On);
    assert_eq!(d.protect_except[0].value, Opened(".vscode".into()));
    assert!(!d.guard.as_ref().unwrap().value);
    assert!(!d.sandbox_md.as_ref().unwrap().value && d.onboarding.as_ref().unwrap().value);
    assert_eq!(d.user.as_ref().unwrap().value, UserSpec::Ids { uid: 1000, gid: Some(100) });
    assert_eq!(d.shell.as_ref().unwrap().value, Path::new("/bin/zsh"));
    assert_eq!(d.workdir.as_ref().unwrap().value, Path::new("/src"));
    assert_eq!(d.hostname.as_ref().unwrap().value, "box");
    assert!(!d.init.as_ref().unwrap().value);
    assert_eq!(d.userns.as_ref().unwrap().value, Userns::KeepId);
    assert_eq!(d.alpine_mirror.as_ref().unwrap().value, "https://mirror.example/alpine");
    let web = &config.projects["web"];
    assert_eq!(web.path.value, "~/work/web");
    assert_eq!(web.at.line, 45);
    assert_eq!(d.claude_config.as_ref().unwrap().value, crate::args::values::StateMode::Sync);
    assert!(!d.guard.as_ref().unwrap().value);
    assert_eq!(web.settings.network.as_ref().unwrap().value, Network::None);
    assert_eq!(web.settings.mounts[0].value.target.as_deref(), Some(Path::new("/cache")));
}

#[test]
fn what_was_understood_can_be_shown_and_read_again() {
    let shown = serde_json::to_value(good(FULL)).unwrap();
    assert_eq!(shown["defaults"]["mounts"], serde_json::json!(["~/work/shared-libs:/shared-libs:ro"]));
    assert_eq!(shown["defaults"]["cpus"], "1.5");
    assert_eq!(shown["projects"]["web"]["mounts"], serde_json::json!(["./cache:/cache:rw"]));
    let codex = &shown["agents"]["codex"];
    assert_eq!(
        codex["login"][0],
        serde_json::json!({"path": "~/.codex/auth.json", "mode": "copy", "file": true, "locks": [".lock"]})
    );
    assert_eq!(codex["state"][1]["inside"], "~/.codex/x.json");
    // JSON is YAML.
    let again = serde_json::to_value(good(&shown.to_string())).unwrap();
    assert_eq!(again, shown);
    assert_eq!(
        serde_json::to_value(Config::default()).unwrap(),
        serde_json::json!({ "agents": {}, "defaults": {}, "profiles": {}, "projects": {} })
    );
}

#[test]
fn an_empty_file_is_an_empty_configuration() {
    for text in [
        "",
        "\n",
        "# only a comment\n",
        "---\n",
        "{}",
        "defaults:\n",
        "defaults:\n  # nothing\nprojects: {}\n",
        "defaults: {env: }",
    ] {
        assert_eq!(good(text), Config { file: "c.yaml".into(), ..Config::default() }, "{text:?}");
    }
}

#[test]
fn mistakes_are_told_with_their_line() {
    let cases: &[(&str, &str)] = &[
        ("defaults:\n  imgae: host\n", "c.yaml:2:3: unknown key `imgae`\n  hint: did you mean `image`?"),
        ("default:\n  image: host\n", "c.yaml:1:1: unknown key `default`\n  hint: did you mean `defaults`?"),
        ("image: host\n", "c.yaml:1:1: unknown key `image`\n  hint: put `image` under `defaults:` or under a project"),
        (
            "profiles: {strict: {}, A: {}, b: {profile: strict}}\n",
            "c.yaml:1:12: `strict` is a profile of cellblock's own\n  hint: give this one another name; `--profile` takes several, with commas between them\nc.yaml:1:24: \"A\" is not a name for a profile\n  hint: lower-case letters, digits and . _ -\nc.yaml:1:44: a profile names no other profiles",
        ),
        ("zzz: 1\n", "c.yaml:1:1: unknown key `zzz`\n  hint: the keys here are agents, defaults, profiles, projects"),
        (
            "defaults:\n  nix_provider: true\n",
            "c.yaml:2:3: this version of cellblock has no support for `nix_provider`: the cell gets no nix store\n  hint: take the line out",
        ),
        (
            "defaults:\n  nix_provider: volume\n",
            "c.yaml:2:3: this version of cellblock has no support for `nix_provider`: the cell gets no nix store\n  hint: take the line out",
        ),
        (
            "defaults: {nix_provider: copy}\n",
            "c.yaml:1:12: this version of cellblock has no support for `nix_provider`: the cell gets no nix store\n  hint: take the line out",
        ),
        (
            "defaults:\n  network: hots\n",
            "c.yaml:2:12: invalid value \"hots\" for `network`: it is one of names, none, bridge, host; did you mean \"host\"?",
        ),
        (
            "defaults:\n  memory: 2x\n",
            "c.yaml:2:11: invalid value \"2x\" for `memory`: a size is a whole number of bytes, or one with a suffix: b, k, m, g, t (powers of 1024)",
        ),
        ("defaults:\n  init: yes\n", "c.yaml:2:9: `init` must be true or false"),
        ("defaults:\n  init: 'true'\n", "c.yaml:2:9: `init` must be true or false"),
        (
            "defaults:\n  image:\n",
            "c.yaml:2:8: `image` has no value\n  hint: write one, or take the line out; a lone ~ means nothing in YAML unless it is quoted",
        ),
        ("defaults:\n  image: ''\n", "c.yaml:2:10: `image` is empty"),
        (
            "defaults:\n  env: MIX_ENV=dev\n",
            "c.yaml:2:8: `env` must be a list, not a single value\n  hint: write env: [ITEM, ITEM], or an item a line after a dash",
        ),
        ("defaults:\n  env: [{MIX_ENV: dev}]\n", "c.yaml:2:9: `env` must be a single value, not a map"),
        ("defaults: [a]\n", "c.yaml:1:11: defaults must be a map, not a list"),
        ("defaults:\n  path: /x\n", "c.yaml:2:3: `path` belongs to a project, not to the defaults"),
        (
            "projects:\n  web:\n    image: host\n",
            "c.yaml:2:3: the project `web` has no `path`\n  hint: add path: and the project's folder",
        ),
        ("projects:\n  web: {paht: /x, path: /y}\n", "c.yaml:2:9: unknown key `paht`\n  hint: did you mean `path`?"),
        ("defaults:\n  image: a\n  image: b\n", "c.yaml:3:3: `image` stands in line 2 already"),
        ("defaults:\n  image: a: b\n", "c.yaml:2:11: not valid YAML: mapping values are not allowed in this context"),
        (
            "defaults: &d {image: a}\n",
            "c.yaml:1:14: YAML anchors and aliases are not supported\n  hint: write the value again, or put it under `defaults:`",
        ),
        ("defaults: {image: !!str a}\n", "c.yaml:1:25: YAML tags (`!…`) are not supported"),
        ("defaults:\n---\ndefaults:\n", "c.yaml:2:1: a second document begins here; the file is one document"),
        ("[a]: b\n", "c.yaml:1:1: a key must be a word, not a list"),
        (
            "defaults:\n  labels: {cellblock.project: x}\n",
            "c.yaml:2:12: invalid label \"cellblock.project\": labels that begin with `cellblock.` are cellblock's own",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(told(text), *want, "{text}");
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = "defaults:\n  imgae: x\n  pids: many\n  env: [1A=b, GOOD=1, A-B]\nprojects:\n  web:\n    nettwork: none\nmore: 1\n";
    let Err(ConfigError::Problems { problems, .. }) = parse(Path::new("c.yaml"), text) else { panic!("accepted") };
    let lines: Vec<usize> = problems.iter().map(|p| p.at.line).collect();
    assert_eq!(lines, [2, 3, 4, 4, 6, 7, 8]);
}

#[test]
fn values_stay_text_until_somebody_reads_them() {
    let config = good("defaults: {image: 3.20, hostname: 007, user: 1000, memory: 1024, env: [A=no, B=1.50]}");
    assert_eq!(config.defaults.image.unwrap().value, "3.20");
    assert_eq!(config.defaults.hostname.unwrap().value, "007");
    assert_eq!(config.defaults.env[0].value.value, Given::Value("no".into()));
    assert_eq!(config.defaults.env[1].value.value, Given::Value("1.50".into()));
}

#[test]
fn nesting_has_an_end() {
    let text = format!("defaults: {}{}", "[".repeat(200), "]".repeat(200));
    assert!(told(&text).ends_with("nested too deeply"));
}

#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let schema = schema();
    let keys = |pointer: &str| -> Vec<String> {
        let object =
            schema.pointer(pointer).and_then(|v| v.as_object()).unwrap_or_else(|| panic!("{pointer} in {schema:#}"));
        let mut keys: Vec<String> = object.keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys("/properties"), ["agents", "defaults", "profiles", "projects"]);
    let mut known: Vec<String> = read::KEYS.iter().map(|k| (*k).to_owned()).collect();
    known.sort();
    assert_eq!(keys("/$defs/Settings/properties"), known);
    let mut of_agents: Vec<String> =
        known.iter().cloned().chain(agent::AGENT_KEYS.iter().map(|k| (*k).to_owned())).collect();
    of_agents.sort();
    assert_eq!(keys("/$defs/AgentSettings/properties"), of_agents);
    known.push("path".into());
    known.sort();
    assert_eq!(keys("/$defs/ProjectSettings/properties"), known);
    assert_eq!(schema.pointer("/$defs/ProjectSettings/required"), Some(&serde_json::json!(["path"])));
    assert_eq!(schema.pointer("/$defs/Settings/additionalProperties"), Some(&false.into()));
    // The reader takes each of them: `[]` is a wrong value or an empty list, but never an unknown key.
    for key in read::KEYS {
        let text = format!("defaults: {{{key}: []}}");
        if let Err(error) = parse(Path::new("c.yaml"), &text) {
            assert!(!error.to_string().contains("unknown key"), "{key}: {error}");
        }
    }
    // And this file, which has them all, is read in `every_key_is_read`.
    for key in read::KEYS {
        assert!(FULL.contains(&format!("  {key}: ")), "{key} is missing in FULL");
    }
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    assert_eq!(load(&path).unwrap(), Config { file: path.clone(), ..Config::default() });
    std::fs::write(&path, "defaults: {image: host}").unwrap();
    assert_eq!(load(&path).unwrap().defaults.image.unwrap().value, "host");
    std::fs::write(&path, b"# a\n\xff\n").unwrap();
    assert!(load(&path).unwrap_err().to_string().ends_with("config.yaml:2: not UTF-8"));
    std::fs::write(&path, vec![b'#'; LARGEST as usize + 1]).unwrap();
    assert!(matches!(load(&path), Err(ConfigError::TooLarge { .. })));
    assert!(matches!(load(dir.path()), Err(ConfigError::Read { .. })));
}
