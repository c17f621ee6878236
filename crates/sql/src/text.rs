//! From the user's text to the tree of its one statement, or the refusal that names what it is.

use pg_query::NodeEnum;
use pg_query::protobuf::{ScanToken, Token};
use pgmend_core::refusal::{Code, Refusal};

use crate::depth;
use crate::params::{self, Numbered};
use crate::statement::{ParamDecl, Tree};

/// Parses the text, `:name`s replaced by `$n`, and refuses all but one UPDATE, DELETE or INSERT.
pub(crate) fn single(text: &str, declared: &[ParamDecl]) -> Result<NodeEnum, Refusal> {
    if let Some(zero) = text.find('\0') {
        return Err(syntax("the text holds a zero byte".to_owned()).at(zero));
    }
    let tokens = scan(text)?;
    if tokens.iter().all(|token| token.token() == Token::Ascii59) {
        return Err(Refusal::new(Code::Empty, "the text holds no statement", "write one UPDATE, DELETE or INSERT"));
    }
    depth::check_tokens(&tokens)?;
    let numbered = params::number(text, &tokens, declared);
    // Another kind of statement is named as such even if its parameters are wrong.
    let parsed_text = numbered.as_ref().map_or(text, |numbered| numbered.text.as_str());
    let parsed = match (pg_query::parse(parsed_text, 0), &numbered) {
        (Ok(parsed), _) => parsed.protobuf,
        (Err(_), Err(refusal)) => return Err(refusal.clone()),
        (Err(error), Ok(numbered)) => return Err(unparsable(text, numbered, &error)),
    };
    let mut statements: Vec<NodeEnum> =
        parsed.stmts.into_iter().filter_map(|raw| raw.stmt).filter_map(|node| node.node).collect();
    if statements.len() > 1 {
        return Err(Refusal::new(
            Code::SeveralStatements,
            format!("the text holds {} statements", statements.len()),
            "make one job for each statement",
        ));
    }
    if let Some(statement) = statements.last_mut() {
        depth::check_tree(statement)?;
    }
    match statements.pop() {
        Some(statement) if Tree::of(statement.clone()).is_some() => numbered.map(|_| statement),
        Some(statement) => Err(not_a_change(&statement, text, &tokens)),
        None => Err(Refusal::new(Code::Empty, "the text holds no statement", "write one UPDATE, DELETE or INSERT")),
    }
}

/// The tokens without comments.
fn scan(text: &str) -> Result<Vec<ScanToken>, Refusal> {
    let scanned = pg_query::scan(text).map_err(|error| syntax(message(&error)))?;
    let comment = |token: &ScanToken| matches!(token.token(), Token::SqlComment | Token::CComment);
    Ok(scanned.tokens.into_iter().filter(|token| !comment(token)).collect())
}

fn message(error: &pg_query::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("Invalid statement: ")
        .or_else(|| text.strip_prefix("Error scanning: "))
        .unwrap_or(&text)
        .to_owned()
}

fn syntax(message: String) -> Refusal {
    Refusal::new(Code::Syntax, message, "correct the statement; it is read with the grammar of PostgreSQL 18")
}

/// The parser's refusal with its position, which the parser's interface does not give: the first
/// place whose text is the one complained of and up to which the text fails in the same way.
fn unparsable(text: &str, numbered: &Numbered, error: &pg_query::Error) -> Refusal {
    let message = message(error);
    if message.contains("nested too deeply") || message.contains("stack depth limit") {
        return depth::too_deep();
    }
    let refusal = syntax(message.clone());
    if message.ends_with("at end of input") {
        return refusal.at(text.trim_end().len());
    }
    let Some((_, near)) = message.split_once("at or near \"") else { return refusal };
    let near = near.strip_suffix('"').unwrap_or(near);
    let source = &numbered.text;
    // Bounded, for a text may hold the complained token very many times.
    for (start, _) in source.match_indices(near).take(200) {
        let prefix = &source[..start + near.len()];
        if pg_query::parse(prefix, 0).is_err_and(|again| self::message(&again) == message) {
            return refusal.at(numbered.origin(start));
        }
    }
    refusal
}

fn not_a_change(statement: &NodeEnum, text: &str, tokens: &[ScanToken]) -> Refusal {
    let word = |index: usize| {
        let token: Option<&ScanToken> = tokens.get(index);
        token
            .and_then(|t| text.get(usize::try_from(t.start).ok()?..usize::try_from(t.end).ok()?))
            .unwrap_or_default()
            .to_ascii_uppercase()
    };
    let first = word(0);
    let name = match first.as_str() {
        _ if matches!(statement, NodeEnum::SelectStmt(_)) => "SELECT".to_owned(),
        _ if matches!(statement, NodeEnum::MergeStmt(_)) => "MERGE".to_owned(),
        "CREATE" | "ALTER" | "DROP" | "REFRESH" | "COMMENT" | "LOCK" => format!("{first} {}", word(1)),
        _ => first,
    };
    let help = match name.as_str() {
        "SELECT" => "write the UPDATE, DELETE or INSERT that uses it",
        "MERGE" => "write one job for each of its WHEN branches, or an INSERT … ON CONFLICT",
        "TRUNCATE" => "write `delete from table`, or truncate by hand: it is instant and cannot be batched",
        "COPY" => "load the file into a table of its own, then write an INSERT … SELECT from it",
        "DO" => "write the change itself as one UPDATE, DELETE or INSERT",
        "CALL" => "write the change that the procedure makes as one UPDATE, DELETE or INSERT",
        "EXPLAIN" => "give the statement itself; planning shows its plan",
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "END" => {
            "give the statement alone; each batch has its own transaction"
        }
        "SET" | "RESET" => "give settings in the job file, not in the statement",
        _ if name.starts_with("CREATE") || name.starts_with("ALTER") || name.starts_with("DROP") => {
            "schema changes belong in a migration; pgmend changes rows"
        }
        _ => "write one UPDATE, DELETE or INSERT",
    };
    Refusal::new(Code::NotAChange, format!("this is {name}, not an UPDATE, DELETE or INSERT"), help)
}
