//! Whether repositories that a policy names can be written by others, as the token service of their registry tells it.
//!
//! A policy pins digests, so that who overwrites a tag changes no running policy; but the next policy is made of what is there then.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use oci::Reference;
use policy_tools::Config;
use registry_rules::{MinimumLevel, PathPattern, RepositoryName};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Variable with a personal token that may use the API.
const TOKEN: &str = "CASEMATE_REGISTRY_TOKEN";
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Largest page of rules.
const MAX_PAGE_BYTES: u64 = 4 << 20;
/// Most rules that are asked for at once, and most pages of one project.
const PER_PAGE: usize = 100;
const MAX_PAGES: usize = 200;

/// Which services are asked.
#[derive(Args)]
pub struct Protection {
    /// Ask this token service whether others may push to repositories of REGISTRY that the policy names, and warn. A personal token with
    /// the API's scope is taken from CASEMATE_REGISTRY_TOKEN
    #[arg(long = "protection", value_name = "REGISTRY=URL")]
    services: Vec<Service>,
    /// Warn unless pushing needs at least this: maintainer, owner, admin or no_one
    #[arg(long = "protection-level", value_name = "LEVEL", default_value = "maintainer")]
    level: MinimumLevel,
    /// Trust only the authorities of this PEM file for these services
    #[arg(long = "protection-ca", value_name = "FILE")]
    authorities: Option<PathBuf>,
}

/// A registry's token service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    registry: String,
    url: String,
}

impl FromStr for Service {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "not REGISTRY=URL, such as registry.corp=https://registry.corp:5001".to_owned();
        let (registry, url) = text.split_once('=').ok_or_else(wrong)?;
        if registry.is_empty() || !(url.starts_with("https://") || url.starts_with("http://")) {
            return Err(wrong());
        }
        Ok(Self {
            registry: registry.to_owned(),
            url: url.trim_end_matches('/').to_owned(),
        })
    }
}

/// A rule as the REST API gives it.
#[derive(Deserialize)]
struct Rule {
    repository_path_pattern: String,
    minimum_access_level_for_push: Option<String>,
}

impl Protection {
    /// A sentence for each repository of the policy that too many may write, or of which nobody can say it. Nothing is an error.
    pub fn warnings(&self, config: &Config) -> Vec<String> {
        let references = references(config);
        let agent = match self.agent() {
            Ok(agent) => agent,
            Err(error) => return vec![format!("no repository's protection is known: {error:#}")],
        };
        let about = |(service, repository): (&Service, RepositoryName)| {
            let name = format!("{}/{repository}", service.registry);
            match strictest(&agent, &service.url, &repository) {
                Ok(Some(level)) if level >= self.level => None,
                Ok(level) => Some(format!("{name} can be overwritten by {}: {}", writers(level), because(level))),
                Err(error) => Some(format!("who may overwrite {name} is not known: {error:#}")),
            }
        };
        let of = |service| {
            of_registry(&references, service)
                .into_iter()
                .map(move |repository| (service, repository))
        };
        self.services.iter().flat_map(of).filter_map(about).collect()
    }

    fn agent(&self) -> Result<Agent> {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            // A token goes to nobody else.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("casemate/", env!("CARGO_PKG_VERSION")));
        let Some(path) = &self.authorities else {
            return Ok(config.build().into());
        };
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let certificates: Vec<_> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        ensure!(!certificates.is_empty(), "{} has no certificate", path.display());
        let tls = TlsConfig::builder().root_certs(RootCerts::from(certificates.into_iter()));
        Ok(config.tls_config(tls.build()).build().into())
    }
}

/// Everything in a configuration that names a repository: images, images that a guest may pull, feeds of fragments.
fn references(config: &Config) -> Vec<Reference> {
    let images = config.container.iter().filter_map(|container| container.image_name.as_deref());
    let pulls = config.pull.iter().map(|rule| rule.rule.as_str());
    let feeds = config.fragment.iter().map(|fragment| fragment.feed.as_str());
    images.chain(pulls).chain(feeds).filter_map(|text| text.parse().ok()).collect()
}

fn of_registry(references: &[Reference], service: &Service) -> BTreeSet<RepositoryName> {
    let of_it = references.iter().filter(|reference| reference.registry() == service.registry);
    of_it.filter_map(|reference| reference.repository().parse().ok()).collect()
}

/// The strictest level for pushing that the rules of the repository's project ask for.
fn strictest(agent: &Agent, service: &str, repository: &RepositoryName) -> Result<Option<MinimumLevel>> {
    for path in repository.ancestors() {
        if let Some(rules) = rules(agent, service, path)? {
            return level(&rules, repository);
        }
    }
    bail!("{service} knows no project of it, or none that the token may see")
}

fn level(rules: &[Rule], repository: &RepositoryName) -> Result<Option<MinimumLevel>> {
    let matching = rules
        .iter()
        .filter(|rule| PathPattern::new(&rule.repository_path_pattern).matches(repository.as_str()));
    let levels = matching.filter_map(|rule| rule.minimum_access_level_for_push.as_deref());
    let levels: Result<Vec<MinimumLevel>, _> = levels.map(str::parse).collect();
    Ok(levels
        .context("the service answers with a level that is not known")?
        .into_iter()
        .max())
}

/// The rules of a project; `None` if there is no such project.
fn rules(agent: &Agent, service: &str, project: &str) -> Result<Option<Vec<Rule>>> {
    let mut all = Vec::new();
    // What is not a letter, a digit or one of `._-` in a path is `/`.
    let id = project.replace('/', "%2F");
    for page in 1..=MAX_PAGES {
        let url = format!("{service}/api/v4/projects/{id}/registry/protection/repository/rules?per_page={PER_PAGE}&page={page}");
        let mut request = agent.get(&url);
        if let Ok(token) = std::env::var(TOKEN) {
            request = request.header("PRIVATE-TOKEN", token);
        }
        let mut response = request.call().with_context(|| format!("{service} does not answer"))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED => bail!("{service} wants a personal token for its API in {TOKEN}"),
            StatusCode::FORBIDDEN => bail!("{service} shows the rules of {project} to its maintainers only"),
            status => bail!("{service} answers {status}"),
        }
        let body = response.body_mut().with_config().limit(MAX_PAGE_BYTES).read_to_vec()?;
        let rules: Vec<Rule> = serde_json::from_slice(&body).with_context(|| format!("{service} does not answer with rules"))?;
        let last = rules.len() < PER_PAGE;
        all.extend(rules);
        if last {
            return Ok(Some(all));
        }
    }
    bail!("{project} has more than {} rules", PER_PAGE * MAX_PAGES)
}

/// Who passes a level.
fn writers(level: Option<MinimumLevel>) -> &'static str {
    match level {
        None => "every developer of its project",
        Some(MinimumLevel::Maintainer) => "every maintainer of its project",
        Some(MinimumLevel::Owner) => "every owner of its project",
        Some(MinimumLevel::Admin) => "administrators",
        Some(MinimumLevel::NoOne) => "nobody",
    }
}

fn because(level: Option<MinimumLevel>) -> String {
    match level {
        None => "no rule protects it".to_owned(),
        Some(level) => format!("its rules ask for {level}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_a_registry_and_a_url() {
        let service: Service = "r.corp:5000=https://r.corp:5001/".parse().unwrap();
        assert_eq!(
            (service.registry.as_str(), service.url.as_str()),
            ("r.corp:5000", "https://r.corp:5001")
        );
        for bad in ["", "r.corp", "=https://x", "r.corp=ftp://x", "r.corp="] {
            assert!(bad.parse::<Service>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_kind_of_name_counts_once() {
        let text = "[[container]]\nimage_name = 'r.corp/team/app:1'\n[[container]]\nimage_name = 'r.corp/team/app:2'\n\
                    [[container]]\nimage_name = 'nginx'\n[[fragment]]\nfeed = 'r.corp/team/fragments'\n[[fragment]]\nfeed = 'Not A Name'\n";
        let config = Config::from_bytes(text.as_bytes().to_vec(), std::path::Path::new("x.toml")).unwrap();
        let service: Service = "r.corp=https://r.corp".parse().unwrap();
        let names: Vec<String> = of_registry(&references(&config), &service)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["team/app", "team/fragments"]);
    }

    #[test]
    fn the_strictest_rule_that_matches_counts() {
        let rules = r#"[{"repository_path_pattern":"g/a*","minimum_access_level_for_push":"maintainer","id":1},
            {"repository_path_pattern":"g/app","minimum_access_level_for_push":"admin"},
            {"repository_path_pattern":"g/b","minimum_access_level_for_push":null}]"#;
        let rules: Vec<Rule> = serde_json::from_str(rules).unwrap();
        let of = |name: &str| level(&rules, &name.parse().unwrap()).unwrap();
        assert_eq!(of("g/app"), Some(MinimumLevel::Admin));
        assert_eq!(of("g/a"), Some(MinimumLevel::Maintainer));
        assert_eq!(of("g/b"), None);
    }
}
