//! `:name` parameters: found in PostgreSQL's own tokens, so that strings, comments and dollar quotes
//! are safe, replaced by `$n` before parsing and by `cast($n as type)` after.

use pg_query::NodeEnum;
use pg_query::protobuf::{ScanToken, Token};
use pgmend_core::refusal::{Code, Refusal};

use crate::fragment;
use crate::statement::ParamDecl;
use crate::walk::{Visitor, Walk};

/// A text whose `:name`s are `$n`s, and the way back to the user's own positions.
pub(crate) struct Numbered {
    /// The text to parse.
    pub(crate) text: String,
    /// Where a replacement ended: in the new text and in the user's.
    ends: Vec<(usize, usize)>,
}

impl Numbered {
    /// The position in the user's text.
    pub(crate) fn origin(&self, position: usize) -> usize {
        let last = self.ends.iter().rev().find(|(new, _)| *new <= position);
        last.map_or(position, |(new, old)| position - new + old)
    }
}

/// Replaces each declared `:name`. Refuses what is undeclared, never used, or a bare `$n`.
pub(crate) fn number(text: &str, tokens: &[ScanToken], params: &[ParamDecl]) -> Result<Numbered, Refusal> {
    let mut numbered = Numbered { text: String::with_capacity(text.len()), ends: Vec::new() };
    let mut used = vec![false; params.len()];
    let mut copied = 0;
    let mut brackets = 0usize;
    let mut parens = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the grammar's tokens, of which four matter")]
        match token.token() {
            Token::Ascii91 => brackets += 1,
            Token::Ascii93 => brackets = brackets.saturating_sub(1),
            Token::Ascii40 => parens.push(i.checked_sub(1).is_some_and(|p| takes_pairs(&tokens[p]))),
            Token::Ascii41 => drop(parens.pop()),
            Token::Param => return Err(bare(slice(text, token)).at(start(token))),
            Token::Ascii58 => {
                let Some(name) = tokens.get(i + 1).filter(|next| next.start == token.end).filter(|n| is_name(text, n))
                else {
                    continue;
                };
                let word = slice(text, name);
                let previous = i.checked_sub(1).map(|p| &tokens[p]);
                let in_slice = brackets > 0 && previous.is_none_or(ends_a_value);
                if parens.last() == Some(&true) && previous.is_some_and(ends_a_value) {
                    continue;
                }
                match params.iter().position(|param| param.name == word) {
                    Some(_) if in_slice => {}
                    Some(index) => {
                        used[index] = true;
                        numbered.text.push_str(&text[copied..start(token)]);
                        numbered.text.push_str(&format!("${}", index + 1));
                        copied = end(name);
                        numbered.ends.push((numbered.text.len(), copied));
                    }
                    None if brackets > 0 => {}
                    None => return Err(undeclared(word, params).at(start(token))),
                }
            }
            _ => {}
        }
    }
    numbered.text.push_str(&text[copied..]);
    match used.iter().position(|used| !used) {
        Some(index) => Err(unused(&params[index].name)),
        None => Ok(numbered),
    }
}

fn start(token: &ScanToken) -> usize {
    usize::try_from(token.start).unwrap_or(0)
}

fn end(token: &ScanToken) -> usize {
    usize::try_from(token.end).unwrap_or(0)
}

fn slice<'t>(text: &'t str, token: &ScanToken) -> &'t str {
    text.get(start(token)..end(token)).unwrap_or_default()
}

fn is_name(text: &str, token: &ScanToken) -> bool {
    let first = slice(text, token).chars().next();
    first.is_some_and(|c| c.is_alphabetic() || c == '_') && (token.token() == Token::Ident || token.keyword_kind != 0)
}

/// Whether the parenthesis after this token holds pairs: `json_object('a': b)`.
fn takes_pairs(token: &ScanToken) -> bool {
    matches!(token.token(), Token::JsonObject | Token::JsonObjectagg)
}

/// Whether a colon after this token, inside brackets, parts a slice: `a[lo:hi]`.
fn ends_a_value(token: &ScanToken) -> bool {
    matches!(
        token.token(),
        Token::Ident | Token::Iconst | Token::Fconst | Token::Sconst | Token::Param | Token::Ascii41 | Token::Ascii93
    ) || token.keyword_kind == pg_query::protobuf::KeywordKind::UnreservedKeyword as i32
}

fn bare(written: &str) -> Refusal {
    Refusal::new(
        Code::BareParameter,
        format!("the statement holds the bare parameter {written}"),
        "name it, for example `:since`, and declare it under [params]",
    )
}

fn undeclared(name: &str, params: &[ParamDecl]) -> Refusal {
    let known: Vec<&str> = params.iter().map(|param| param.name.as_str()).collect();
    let known = if known.is_empty() { String::new() } else { format!("; declared are {}", known.join(", ")) };
    Refusal::new(
        Code::Parameter,
        format!("parameter :{name} is not declared{known}"),
        format!("declare it under [params] or pass --param {name}=value"),
    )
}

fn unused(name: &str) -> Refusal {
    Refusal::new(
        Code::Parameter,
        format!("parameter {name} is declared but the statement never uses it"),
        format!("write :{name} where it belongs, or remove it from [params]"),
    )
}

/// Wraps every `$n` in a cast to its declared type.
pub(crate) fn cast_all(tree: &mut NodeEnum, params: &[ParamDecl]) -> Result<(), Refusal> {
    let mut types = Vec::with_capacity(params.len());
    for param in params {
        types.push(fragment::type_name(&param.type_sql).map_err(|_| {
            Refusal::new(
                Code::Parameter,
                format!("parameter {} has the type `{}`, which is not a type", param.name, param.type_sql),
                "write a type as in a cast, for example int, text or timestamptz",
            )
        })?);
    }
    tree.walk(&mut Casts { types });
    Ok(())
}

struct Casts {
    types: Vec<pg_query::protobuf::TypeName>,
}

impl Visitor for Casts {
    fn leave(&mut self, node: &mut NodeEnum) {
        if let NodeEnum::ParamRef(param) = node {
            let index = usize::try_from(param.number - 1).unwrap_or(usize::MAX);
            let cast = self.types.get(index).and_then(|t| fragment::cast(fragment::node(node.clone()), t.clone()).node);
            if let Some(cast) = cast {
                *node = cast;
            }
        }
    }
}
