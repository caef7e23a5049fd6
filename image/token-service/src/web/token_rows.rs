//! What pages show of tokens: deploy tokens of a project, and a visitor's own.

use super::day;
use super::visitor::Visitor;
use registry_pages::TokenRow;
use registry_rules::ProjectId;
use registry_store::{TokenKind, TokenRecord};

fn row(visitor: &Visitor, token: &TokenRecord, login: &str, scopes: &[(&str, bool)]) -> TokenRow {
    let words: Vec<&str> = scopes.iter().filter(|(_, may)| *may).map(|(word, _)| *word).collect();
    TokenRow {
        id: token.id,
        name: token.name.clone(),
        login: login.to_owned(),
        scopes: words.join(", "),
        // The end is the first second after the last day.
        expires: token.expires.map_or("never".to_owned(), |end| day::of(end - 1)),
        ended: !token.is_valid_at(visitor.now.seconds()),
    }
}

/// The deploy tokens of a project, by name.
pub(super) fn deploy_rows(visitor: &Visitor, of: ProjectId) -> Vec<TokenRow> {
    let tokens = visitor.snapshot.tokens().filter_map(|token| match &token.kind {
        TokenKind::Deploy {
            project,
            login,
            read,
            write,
        } if *project == of => Some(row(visitor, token, login, &[("pull", *read), ("push", *write)])),
        _ => None,
    });
    sorted(tokens.collect())
}

/// The visitor's own tokens, by name.
pub(super) fn own_rows(visitor: &Visitor) -> Vec<TokenRow> {
    let tokens = visitor.snapshot.tokens().filter_map(|token| match &token.kind {
        TokenKind::Personal { user, read, write, api } if *user == visitor.user() => {
            let scopes = [("pull", *read), ("push and delete", *write), ("REST interface", *api)];
            Some(row(visitor, token, &visitor.caller.name, &scopes))
        }
        _ => None,
    });
    sorted(tokens.collect())
}

fn sorted(mut rows: Vec<TokenRow>) -> Vec<TokenRow> {
    rows.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
    rows
}
