//! What a trigger does, as far as its source tells: what a BEFORE trigger assigns to the new row, which tables its
//! source reads or writes.

use std::collections::BTreeSet;

/// Stands for every column.
pub const ANY: &str = "*";

/// Words after which a statement of PL/pgSQL begins.
const BEFORE_STATEMENTS: [&str; 5] = ["begin", "then", "else", "loop", ";"];

/// The columns of NEW that the source assigns, in lower case; [`ANY`] if it assigns the whole row. The name of a
/// C function tells nothing, so that it counts as any.
pub fn assigned(source: &str) -> BTreeSet<String> {
    let tokens = tokens(&source.to_lowercase());
    let is = |i: usize, word: &str| tokens.get(i).is_some_and(|t| t == word);
    let mut found = BTreeSet::new();
    if tokens.len() == 1 && !is(0, "suppress_redundant_updates_trigger") {
        found.insert(ANY.to_owned());
    }
    for i in (0..tokens.len()).filter(|&i| is(i, "new")) {
        let begins = i == 0 || BEFORE_STATEMENTS.contains(&tokens[i - 1].as_str());
        let into = i > 0 && (is(i - 1, "into") || is(i - 1, ","));
        let column = if is(i + 1, ".") { tokens.get(i + 2).cloned() } else { None };
        let next = if column.is_some() { i + 3 } else { i + 1 };
        let written =
            is(next, ":=") || (begins && (is(next, "=") || is(next, "["))) || (into && i > 0 && filled(&tokens, i));
        if written {
            found.insert(column.unwrap_or_else(|| ANY.to_owned()));
        }
    }
    found
}

/// Words of which one is in every query.
const QUERIES: [&str; 8] = ["select", "insert", "update", "delete", "perform", "execute", "merge", "from"];
/// What the table that fired a trigger is called in its function.
const FIRED_BY: [&str; 4] = ["tg_relid", "tg_table_name", "tg_relname", "tg_argv"];

/// Whether the source queries a table of that name, or writes it.
pub fn touches(source: &str, table: &str) -> bool {
    let words = words(source);
    words.contains(&table.to_lowercase()) && QUERIES.iter().any(|q| words.contains(*q))
}

/// Whether the source writes a table of that name. Text of a dynamic statement that names it counts.
pub fn writes(source: &str, table: &str) -> bool {
    let (table, tokens) = (table.to_lowercase(), tokens(&source.to_lowercase()));
    let is = |i: usize, words: &[&str]| tokens.get(i).is_some_and(|t| words.contains(&t.as_str()));
    let named = |mut at: usize| {
        while is(at, &["only", "into", "from", "table"]) || is(at + 1, &["."]) {
            at += if is(at + 1, &["."]) { 2 } else { 1 };
        }
        is(at, &[&table])
    };
    let verbs = ["insert", "update", "delete", "merge", "copy", "truncate"];
    (0..tokens.len()).any(|i| is(i, &verbs) && named(i + 1))
        || (tokens.iter().any(|t| t == "execute") && words(source).contains(&table))
}

/// Whether the source updates or deletes rows of a table whose name it puts together, which may be the one that
/// fired the trigger.
pub fn changes_any_table(source: &str) -> bool {
    let source = source.to_lowercase();
    let words = words(&source);
    let changes = |text: &str| {
        // `'update '` goes on with a name; `'update'` is what TG_OP is compared with.
        let goes_on = text.ends_with(char::is_whitespace);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        ["update", "update only", "delete from", "delete from only", "merge into"]
            .iter()
            .any(|verb| (goes_on && text.ends_with(verb)) || text.contains(&format!("{verb} %")))
    };
    // Every second part lies between quotes.
    words.contains("execute")
        && FIRED_BY.iter().any(|name| words.contains(*name))
        && source.split('\'').skip(1).step_by(2).any(changes)
}

fn words(source: &str) -> BTreeSet<String> {
    source.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_lowercase).collect()
}

/// Whether the token is one of the targets of a SELECT INTO.
fn filled(tokens: &[String], at: usize) -> bool {
    let before = tokens[..at].iter().rev();
    before
        .take_while(|t| *t != ";")
        .find(|t| ["into", "from", "values", "select"].contains(&t.as_str()))
        .is_some_and(|t| t == "into")
        && !tokens[..at].iter().rev().take_while(|t| *t != ";").any(|t| t == "insert")
}

/// Words and marks, without comments and strings.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let length = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '\'' => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
            '"' => {
                let end = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
                tokens.push(rest[..end].trim_matches('"').to_owned());
                end
            }
            ':' if rest.starts_with(":=") => {
                tokens.push(":=".to_owned());
                2
            }
            c if c.is_whitespace() => c.len_utf8(),
            _ if word > 0 => {
                tokens.push(rest[..word].to_owned());
                word
            }
            c => {
                tokens.push(c.to_string());
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::{assigned, changes_any_table, touches, writes};

    fn found(source: &str) -> Vec<String> {
        assigned(source).into_iter().collect()
    }

    #[test]
    fn tables_that_are_written_are_told_from_tables_that_are_read() {
        for writing in [
            "begin update Prices set x = 1; end",
            "insert into public.prices (a) values (1)",
            "delete from only \"prices\" where true",
            "merge into prices p using x on true when matched then delete",
            "begin execute 'update prices set x = 1'; end",
        ] {
            assert!(writes(writing, "prices"), "{writing}");
            assert!(touches(writing, "prices"), "{writing}");
        }
        let reading = "begin select p.x into new.x from prices p where p.id = new.id for update; return new; end";
        assert!(!writes(reading, "prices"));
        assert!(touches(reading, "prices"));
        assert!(!touches("begin new.prices := 1; return new; end", "prices"));
    }

    #[test]
    fn a_dynamic_change_of_the_table_that_fired_is_told_from_an_audit() {
        for changing in [
            "begin execute 'update ' || TG_RELID::regclass || ' set x = 1'; end",
            "begin execute format('delete from %I where id = $1', tg_argv[0]) using new.id; end",
        ] {
            assert!(changes_any_table(changing), "{changing}");
        }
        let audit = "begin if TG_OP = 'UPDATE' then execute format('insert into audit.%I select ($1).*', TG_TABLE_NAME) using old; end if; return null; end";
        assert!(!changes_any_table(audit));
    }

    #[test]
    fn assignments_are_told_from_comparisons() {
        assert_eq!(
            found("begin new.Updated_At := now(); if new.x = 3 then new.\"Y\" = 4; end if; return new; end"),
            ["updated_at", "y"]
        );
        assert_eq!(found("begin select a, b into new.a, new.b from t; return new; end"), ["a", "b"]);
        assert_eq!(found("begin new := old; return new; end"), ["*"]);
        assert_eq!(found("moddatetime"), ["*"]);
        for quiet in
            ["begin insert into log values (new.id, new.v); return new; end", "begin -- new.x := 1\n return new; end"]
        {
            assert!(found(quiet).is_empty(), "{quiet}");
        }
    }
}
