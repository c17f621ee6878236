//! Reads a dump as psql would, for a client that speaks neither psql's commands nor COPY.

/// Rows of one INSERT.
const ROWS: usize = 500;

/// What to run, one text after the other: the dump without psql's commands and without what concerns whole
/// databases, its COPY data as INSERTs.
pub fn statements(dump: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut script = String::new();
    let mut lines = dump.lines();
    while let Some(line) = lines.next() {
        let of_database = ["DROP DATABASE", "CREATE DATABASE"].iter().any(|word| line.starts_with(word));
        if let Some(head) = line.strip_prefix("COPY ").and_then(|rest| rest.strip_suffix(" FROM stdin;")) {
            found.push(std::mem::take(&mut script));
            let data: Vec<&str> = lines.by_ref().take_while(|line| *line != "\\.").collect();
            found.extend(data.chunks(ROWS).map(|rows| insert(head, rows)));
        } else if !of_database && !line.starts_with('\\') {
            script.push_str(line);
            script.push('\n');
        }
    }
    found.push(script);
    found
}

fn insert(head: &str, rows: &[&str]) -> String {
    let rows: Vec<String> =
        rows.iter().map(|row| format!("({})", row.split('\t').map(literal).collect::<Vec<_>>().join(", "))).collect();
    format!("insert into {head} values {}", rows.join(", "))
}

/// A field as a literal; the escapes of COPY are those of `E'…'`.
fn literal(field: &str) -> String {
    match field {
        "\\N" => "null".to_owned(),
        _ => format!("E'{}'", field.replace('\'', "''")),
    }
}
